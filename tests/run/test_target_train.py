"""Protects `--target_train`: what the user has labelled in the target language is learnt with its labels as they are and with its
weight, counts for its language, is in the unlabelled text no more, and is told; what cannot be learnt is refused."""

import json
from pathlib import Path

import pytest
import torch
from support.command import Command

import run_crossner
from glode import train
from glode.run.corpora import load_corpora
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")

GOLD = "Otto\tB-PER\nwohnt\tO\nin\tO\nKiel\tB-LOC\n.\tO\n\nLea\tB-PER\nsingt\tO\n"


class EnoughSeen(Exception):
    """A target stage is about to begin."""


@pytest.fixture
def target_trainer(command: Command, monkeypatch):
    """Runs a command up to the target stage, and gives its trainer."""

    def stop_before_the_target(trainer, *_, **__):
        if trainer.denoiser is not None:
            raise EnoughSeen(trainer)
        trainer.args.load_best_model_at_end = False
        trainer.state.epoch = 0.0

    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", stop_before_the_target)

    def trainer_of(*more: str, **changes) -> GlodeTrainer:
        with pytest.raises(EnoughSeen) as reached:
            run_crossner.main([*command.arguments(**changes), *more])
        return reached.value.args[0]

    return trainer_of


def gold(command: Command, text: str = GOLD, name: str = "gold.iob2") -> Path:
    return command.file(name, text)


def words_of(trainer: GlodeTrainer, row: dict) -> str:
    return trainer.processing_class.decode(row["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("refine", ["step", "epoch"])
def test_the_target_stage_learns_them_beside_the_source(command: Command, target_trainer, capsys, refine: str):
    options = {"refine": refine, "self_direction": refine == "epoch", "center_vectors": True}
    trainer = target_trainer(target_train=gold(command), target_train_weight=4, **options)
    streams = trainer.train_dataset
    assert len(streams.source) == 3 + 2 and len(streams.target) == 1  # "Otto wohnt in Kiel ." is taken out
    assert trainer.denoiser.source_languages.tolist() == [0, 0, 0, 1, 1]
    assert trainer.source_weights.tolist() == [1, 1, 1, 4, 4]
    names = trainer.model.config.id2label
    entities = [list(zip(r["begins"], r["lengths"], map(names.get, r["types"]), strict=True)) for r in list(streams.source)[3:]]
    assert entities == [[(0, 1, "PER"), (3, 1, "LOC")], [(0, 1, "PER")]]
    said = " ".join(capsys.readouterr().out.split())
    assert "2 labelled target sentences join the target stage, each with the weight 4" in said
    assert "1 sentences of the unlabelled text are the same, and are taken out there" in said


def test_their_weight_is_in_the_loss(command: Command, target_trainer):
    """A batch of one sentence counts as many times as it weighs."""
    losses = {}
    for weight in (1, 4):
        trainer = target_trainer(target_train=gold(command), target_train_weight=weight, overwrite="true")
        scores = torch.full((1, 2, 2, 3), 1 / 3).log()
        for window in (0, 4):
            spans = {"labels": torch.zeros(1, 2, 2, dtype=torch.long), "span_mask": torch.ones(1, 2, 2, dtype=torch.bool)}
            losses[weight, window] = float(trainer._source_loss(scores, spans | {"window": torch.tensor([window])}))
    assert losses[1, 0] == losses[1, 4] == losses[4, 0] > 0
    assert losses[4, 4] == pytest.approx(4 * losses[1, 4])


def test_the_source_stage_does_not_know_them(command: Command, monkeypatch):
    def first_stage(trainer, *_, **__):
        raise EnoughSeen(trainer)

    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", first_stage)
    with pytest.raises(EnoughSeen) as reached:
        run_crossner.main(command.arguments(target_train=gold(command)))
    assert len(reached.value.args[0].train_dataset.source) == 3


def test_of_several_languages_each_sentence_has_its_own(command: Command, target_trainer):
    text = command.file("nl.txt", "Otto woont in Kiel .\nHet regent .\n")
    more = ["--target_unlabeled", f"de={command.directory / 'de.txt'}", f"nl={text}"]
    one = target_trainer(*more, "--target_train", f"nl={gold(command)}", target_lang="de,nl", target_unlabeled=None)
    assert one.denoiser.source_languages.tolist() == [0, 0, 0, 2, 2]
    assert len(one.train_dataset.target) == 4  # the sentence that both have is German text, too
    both = ["--target_train", f"nl={gold(command)}", f"de={gold(command)}", "--overwrite"]
    two = target_trainer(*more, *both, target_lang="de,nl", target_unlabeled=None)
    assert two.denoiser.source_languages.tolist() == [0, 0, 0, 1, 1, 2, 2]
    window, is_target = torch.tensor([0, 3, 5, 0, 2]), torch.tensor([False, False, False, True, True])
    assert two.denoiser.language_of(window, is_target).tolist() == [0, 1, 2, 1, 2]


def test_given_pseudo_labels_keep_the_text_whole(command: Command, target_trainer, capsys):
    rows = [{"text": text, "entities": []} for text in ("Otto wohnt in Kiel .", "Es regnet .")]
    labels = command.file("labels.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    trainer = target_trainer(target_train=gold(command), pseudo_labels=labels, stage="target")
    assert len(trainer.train_dataset.target) == 2
    assert "stay there, as --pseudo_labels are of all of it" in " ".join(capsys.readouterr().out.split())
    trainer = target_trainer(target_train=gold(command), teachers=labels, stage="target", overwrite="true")
    assert len(trainer.train_dataset.target) == 2
    assert "stay there, as the labels of --teachers are of all of it" in " ".join(capsys.readouterr().out.split())


def test_any_format_and_the_label_map(command: Command, target_trainer):
    task = {
        "data": {"text": "Otto wohnt in Kiel ."},
        "annotations": [{"result": [{"type": "labels", "value": {"start": 0, "end": 4, "labels": ["NAME"]}}]}],
    }
    path = command.file("tasks.json", json.dumps([task]))
    trainer = target_trainer(target_train=path, label_map="NAME=PER")
    assert trainer.train_dataset.source[3]["lengths"] == [1]


def test_sentences_of_the_test_set_are_told(command: Command, target_trainer, caplog):
    target_trainer(target_train=gold(command), target_test=gold(command, GOLD.split("\n\n")[0] + "\n", "test.iob2"))
    assert "of the sentences of --target_test: its scores" in caplog.text and "--target_train has 1 of" in caplog.text


# ------------------------------------------------------------------------------------------------------------- what is refused


def test_types_that_the_source_lacks_are_refused(command: Command):
    message = command.error(target_train=gold(command, GOLD + "\nSonne\tB-SUN\n"))
    assert message == (
        "--target_train has the types SUN, which the source lacks; it has LOC, PER. Rename them by --label_map, or drop them: "
        "--label_map SUN=O."
    )
    assert "Rename them by --label_map, or drop" in message


def test_sentences_without_an_entity_are_refused(command: Command):
    assert "--target_train has no entity: every tag is O, or" in command.error(target_train=gold(command, "Es\tO\nregnet\tO\n"))


def test_text_without_labels_is_refused(command: Command):
    assert "de.txt" in command.error(target_train=command.directory / "de.txt")


def test_a_text_that_is_labelled_whole_is_refused(command: Command):
    message = command.error(target_train=gold(command, GOLD + "\nEs\tO\nregnet\tO\n.\tO\n"))
    assert "is labelled in --target_train: nothing is left" in message and "all of --target_unlabeled in 'de'" in message


def test_the_source_stage_alone_refuses_them(command: Command):
    message = command.error(target_train=gold(command), stage="source")
    assert "--target_train joins the target stage, which --stage source leaves out" in message


@pytest.mark.parametrize("weight", ["0", "-1", "inf"])
def test_a_weight_is_above_zero(command: Command, weight: str):
    assert "--target_train_weight" in command.error(target_train=gold(command), target_train_weight=weight)


def test_a_resumed_run_knows_them(command: Command):
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_train=gold(command)))
    (command.directory / "output" / "source_checkpoints" / "checkpoint-3").mkdir()
    more = {"resume_from_checkpoint": "auto"}
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_train=gold(command), **more))
    message = command.error(**more, target_train=gold(command, GOLD.replace("Lea", "Ida"), "other.iob2"))
    assert "is of another run (another set of labelled target sentences)" in message
    message = command.error(**more, target_train=gold(command), target_train_weight=3)
    assert "target_train_weight 10.0, now 3.0" in message


# -------------------------------------------------------------------------------------------------------------- the whole run

SMALL = (
    "--config demo --use_cpu true --disable_tqdm true --max_source_samples 30 --max_target_samples 10 --max_span_length 3 "
    "--per_device_train_batch_size 10 --learning_rate 3e-3 --num_train_epochs 2 --source_num_train_epochs 1 --refine_start 0"
)


def test_the_report_and_the_card_say_how_many(command: Command, monkeypatch, backbone: Path, tmp_path: Path):
    monkeypatch.undo()  # it is trained
    output, path = tmp_path / "model", gold(command)
    argv = [*SMALL.split(), "--target_lang", "de", "--report_to", "none", "--model_name_or_path", str(backbone)]
    run_crossner.main([*argv, "--output_dir", str(output), "--target_train", str(path), "--export_token_classifier"])
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["target_train"] == {"sentences": 2, "weight": 10.0, "taken_out": 0}
    assert metrics["corpora"]["target_train"]["entities"] == {"LOC": 1, "PER": 2}
    assert metrics["arguments"]["data"]["target_train"] == [str(path)]
    for card in (output / "README.md", output / "token_classifier" / "README.md"):
        text = " ".join(card.read_text().split())
        assert "and on 2 labelled de sentences: no other de label was used to train, and none to stop" in text
    assert "2 de sentences in the target stage, each with the weight 10." in (output / "README.md").read_text()


def test_from_python_they_are_given_in_memory(monkeypatch):
    given = []

    def carry_out(data, model, training, options, memory):
        given.append((data, memory))
        raise EnoughSeen

    monkeypatch.setattr("glode.api.carry_out", carry_out)
    rows = [{"tokens": ["Lea", "singt"], "ner_tags": ["B-PER", "O"]}]
    source = [{"tokens": ["Anna", "sings"], "ner_tags": ["B-PER", "O"]}] * 3
    for corpus in (rows, {"de": rows}):
        with pytest.raises(EnoughSeen):
            train(target_lang="de", source_train=source, target_unlabeled=["Es regnet."], target_train=corpus)
        corpora = load_corpora(*given.pop())
        assert corpora.target_train["words"][:] == [["Lea", "singt"]] and corpora.rows["target_train"] == {"de": range(1)}
