"""Protects from taking up what another run has left: what differs is named, nothing is deleted unasked."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from support.command import SOURCE, Command

import run_crossner
from glode.run.fingerprint import FILE, Fingerprint, read_fingerprint
from glode.run.resuming import remove_checkpoints

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture
def interrupted(command: Command) -> Path:
    """A run that was stopped in its first stage, and left a checkpoint."""
    come_to_training(command)
    checkpoint = command.directory / "output" / "source_checkpoints" / "checkpoint-3"
    checkpoint.mkdir()
    return checkpoint


def come_to_training(command: Command, *more: str, **changes) -> None:
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main([*command.arguments(**changes), *more])


def changed(command: Command, what: str) -> tuple[dict, str]:
    """Changes of the command line, and how a message tells them."""
    other = command.file("other.iob2", SOURCE.replace("Oslo", "Kiel"))
    text = command.file("other.txt", "Otto wohnt in Bonn .\nEs regnet .\n")
    return {
        "source": ({"source_train": other}, "another source corpus"),
        "dev": ({"source_dev": other}, "another development corpus"),
        "target": ({"target_unlabeled": text}, "another target text"),
        "rate": ({"learning_rate": "0.5"}, "learning_rate "),
        "neighbours": ({"num_neighbors": "7"}, "num_neighbors 300, now 7"),
        "batch": ({"gradient_accumulation_steps": "2"}, "batch "),
        "length": ({"max_span_length": "3"}, "max_span_length 1, now 3"),
    }[what]


@pytest.mark.parametrize("what", ["source", "dev", "target", "rate", "neighbours", "batch", "length"])
def test_another_run_is_refused_and_says_what_differs(command: Command, interrupted: Path, what: str):
    changes, told = changed(command, what)
    message = command.error(**changes, resume_from_checkpoint="auto")
    assert f"--resume_from_checkpoint: {interrupted.parent} is of another run ({told}" in message
    assert "). Give the data and arguments of that run, or another" in message
    message = command.error(**changes)
    assert (
        f"has source_checkpoints of another run ({told}" in message and "). Give --overwrite to delete it, or another" in message
    )
    assert interrupted.is_dir()
    come_to_training(command, overwrite="true", **changes)
    assert not interrupted.exists()
    come_to_training(command, resume_from_checkpoint="auto", **changes)


def test_the_same_run_goes_on_or_is_refused(command: Command, interrupted: Path):
    message = command.error()
    assert "has source_checkpoints of a run with these data and arguments. Give --resume_from_checkpoint auto to go on" in message
    assert "--overwrite to delete it, or another" in message
    come_to_training(command, resume_from_checkpoint="auto", logging_steps="7", output_dir=command.directory / "output/../output")
    assert interrupted.is_dir()


@pytest.mark.parametrize(
    ("saves", "more", "told"),
    [
        (False, (), "stopped. Nothing was saved yet: the same command"),
        (True, (), "stopped. The same command with --resume_from_checkpoint auto goes on."),
        (True, ("--overwrite",), "stopped. The same command with --resume_from_checkpoint auto in place of --overwrite goes on."),
    ],
)
def test_going_on_is_advised_where_something_was_saved(
    command: Command, monkeypatch, capsys, saves: bool, more: tuple[str, ...], told: str
):
    def train(trainer, **_):
        if saves:
            (Path(trainer.args.output_dir) / "checkpoint-3").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", train)
    assert run_crossner.run([*command.arguments(), *more]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)


def test_a_part_that_does_not_say_whose_it_is(command: Command, interrupted: Path):
    (interrupted.parent / FILE).unlink()
    message = command.error(resume_from_checkpoint="auto")
    assert "there is no fingerprint.json: an older version, or a stranger, made it" in message


def test_another_version_of_the_code_is_another_run(command: Command, interrupted: Path):
    path = interrupted.parent / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"glode": "0.0.1"}))
    assert 'is of another run (glode "0.0.1", now "' in command.error(resume_from_checkpoint="auto")


def test_a_mistake_deletes_nothing(command: Command, interrupted: Path):
    command.error(overwrite="true", target_unlabeled=command.file("empty.txt", ""))
    assert interrupted.is_dir()


def test_overwriting_and_resuming_contradict_each_other(command: Command):
    message = command.error(overwrite="true", resume_from_checkpoint="auto")
    assert "--overwrite deletes what --resume_from_checkpoint goes on with. Give one" in message


def test_the_target_stage_does_not_mind_the_source_stage_of_its_directory(command: Command, interrupted: Path, source_model):
    """A part that the arguments name is no leftover."""
    come_to_training(command, stage="target", source_model=source_model(["LOC", "PER"], 1))
    assert interrupted.is_dir() and read_fingerprint(command.directory / "output")


def test_pseudo_labels_of_another_text_are_refused(command: Command, source_model):
    """Also where all sentences are as long as ours."""
    come_to_training(command, stage="target", source_model=source_model(["LOC", "PER"], 1))
    labels = command.directory / "output" / "pseudo_labels.safetensors"
    changes = {"stage": "target", "pseudo_labels": labels, "output_dir": command.directory / "second"}
    come_to_training(command, **changes)
    text = command.file("other.txt", "Otto wohnt in Bonn .\nEs regnet .\n")
    assert "was made for another target text" in command.error(**changes, target_unlabeled=text, overwrite="true")


def test_differences_are_told_in_few_words():
    ours, theirs = ({f"name{i}": [value] * 100 for i in range(9)} for value in (1, 2))
    text = Fingerprint(ours).differences(Fingerprint(theirs))
    assert text.count(";") == 5 and text.endswith("; and 4 more") and len(text) < 800
    assert Fingerprint(ours).differences(Fingerprint(ours)) == ""
    assert Fingerprint({"a": 1}).differences(Fingerprint({"b": 2})) == "a null, now 1; b 2, now null"


def test_a_finished_run_leaves_no_checkpoints(tmp_path: Path):
    for name in ("source_checkpoints/checkpoint-1/model.bin", "target_checkpoints/runs/events", "target_checkpoints/config.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_checkpoints(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "target_checkpoints/runs/events"
    ]


def test_a_token_classifier_cannot_be_added_to_a_finished_run(command: Command, source_model):
    come_to_training(command, stage="target", source_model=(model := source_model(["LOC", "PER"], 1)))
    output = command.directory / "output"
    save_file({}, output / "model.safetensors")
    (output / "metrics.json").write_text(json.dumps({"target_model": {}}))
    options = {"stage": "target", "source_model": model, "resume_from_checkpoint": "auto", "export_token_classifier": "true"}
    message = command.error(**options)
    assert "has ended without one, and the labels that it would learn are gone" in message
