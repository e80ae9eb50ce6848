"""What the parts of a run are called in its output directory."""

import re


def numbered(name: str, number: int) -> str:
    """How the parts of several teachers and rounds are called: source_model, source_model_2, and so on."""
    return name if number == 1 else f"{name}_{number}"


def is_numbered(name: str, part: str) -> bool:
    """Whether a part is called so, see `numbered`."""
    return re.fullmatch(rf"{name}(_\d+)?", part) is not None


def checkpoints(stage: str, number: int) -> str:
    """The directory of a stage's checkpoints: source_checkpoints, source_2_checkpoints, and so on."""
    return f"{numbered(stage, number)}_checkpoints"


def teacher_labels(number: int) -> str:
    """The file of what a teacher that is no model of ours says: teacher_labels.jsonl, teacher_labels_2.jsonl, and so on."""
    return f"{numbered('teacher_labels', number)}.jsonl"
