"""Which of --teachers are no models of ours, and which types they have."""

from collections.abc import Mapping
from pathlib import Path

from glode.errors import InputError
from glode.run.arguments import RunArguments
from glode.run.given_labels import are_records, types_in_records
from glode.run.parts import teacher_labels
from glode.teachers.loading import kind_of, own_types

LABELS = "labels"  # the kind of a file of them


def kinds_of(run: RunArguments, output: Path) -> dict[str, str | None]:
    """The kind of each of --teachers: see `kind_of`, `LABELS` of a file of them, None of a model of ours.

    Args:
        output: the run's directory, where it writes what other teachers say.
    Raises:
        InputError: it cannot do what the run asks for, or the run would write over it.
    """
    if files := [name for name in run.teachers or () if Path(name).is_file() and not are_records(Path(name))]:
        raise InputError(
            f"--teachers {files[0]} is a file, but no .jsonl of labels. Give a model's directory; a pseudo_labels.safetensors "
            "belongs to --pseudo_labels."
        )
    kinds = {name: LABELS if are_records(Path(name)) else kind_of(name) for name in run.teachers or ()}
    others = [name for name, kind in kinds.items() if kind]
    if others and run.stage == "source":
        raise InputError(
            f"--stage source is about source models, and --teachers {others[0]} is none. Score it by glode evaluate, or give "
            "--stage target."
        )
    if others and run.pseudo_labels:
        raise InputError(
            f"--pseudo_labels stand in the place of what --teachers {others[0]} would say of the target text. Leave one of them "
            "out."
        )
    if others and run.calibrate == "dev":
        raise InputError(
            f"--calibrate dev is for models of ours, and --teachers {others[0]} is none. Leave it out, or give "
            "--calibrate teachers."
        )
    if files := [name for name, kind in kinds.items() if kind == LABELS and not Path(name).is_file()]:
        raise InputError(f"--teachers {files[0]} is no file that is there. Check the path.")
    written = [output / teacher_labels(number) for number, kind in enumerate(kinds.values(), 1) if kind not in (None, LABELS)]
    if files := [name for name, kind in kinds.items() if kind == LABELS and Path(name).resolve() in map(Path.resolve, written)]:
        raise InputError(
            f"--teachers {files[0]}: the run would write another teacher's labels there. Move the file, or give "
            "another --output_dir."
        )
    return kinds


def types_of_teachers(kinds: Mapping[str, str | None]) -> set[str] | None:
    """The types that teachers have, which --label_map may rename; None where one of them can be asked for any."""
    found: set[str] = set()
    for name, kind in kinds.items():
        types = types_in_records(Path(name)) if kind == LABELS else own_types(name) if kind else set()
        if types is None:
            return None
        found |= types
    return found
