"""Protects the training from several source languages: each has the same share of the batches and centers of its own, all have
the same types, and each has its scores; what does not fit together is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support.command import SOURCE, Command
from support.world import FRAMES, PEOPLE, PLACES, make_sentence

import run_crossner
from glode import train
from glode.corpora.memory import from_memory
from glode.corpora.schemes import encode_tags
from glode.errors import InputError
from glode.run.arguments import DataArguments
from glode.run.corpora import Corpora, load_corpora
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")

SPANISH = "Pilar\tB-PER\nvive\tO\nen\tO\nLima\tB-LOC\n\nPaco\tB-PER\nduerme\tO\n"


class EnoughSeen(Exception):
    """What a run has come to."""


def corpora_of(command: Command, *source_train: str | Path, **options) -> Corpora:
    """The corpora of a run with source text in en and es."""
    options = {"source_lang": "en,es", "target_unlabeled": [str(command.directory / "de.txt")]} | options
    return load_corpora(DataArguments("de", source_train=list(map(str, source_train)), **options))


@pytest.fixture
def both(command: Command) -> tuple[str, str]:
    """A corpus of each language, as arguments."""
    return f"es={command.file('es.iob2', SPANISH)}", f"en={command.directory / 'en.iob2'}"


# ------------------------------------------------------------------------------------------------------------------ reading


def test_each_language_has_its_sentences(command: Command, both, caplog):
    more = command.file("more.iob2", "Kim\tB-PER\nsits\tO\n")
    corpora = corpora_of(command, *both, f"en={more}", source_dev=[both[0], both[1]], source_test=[both[0]])
    assert corpora.rows["source"] == {"en": range(4), "es": range(4, 6)}
    assert [words[0] for words in corpora.source["words"]] == ["Anna", "Ida", "Rome", "Kim", "Pilar", "Paco"]
    assert corpora.by_language("dev") == {"en": range(3), "es": range(3, 5)}
    assert corpora.by_language("source_test") == {"es": range(2)} and corpora.by_language("target") == {}
    assert "set aside" not in caplog.text


def test_files_of_one_language_are_joined(command: Command):
    corpora = corpora_of(command, command.directory / "en.iob2", command.file("more.iob2", "Kim\tB-PER\n"), source_lang="en")
    assert sum(len(part) for part in (corpora.source, corpora.dev)) == 4 and corpora.by_language("source") == {}


def test_a_language_without_a_development_set_gives_a_tenth(command: Command, both, caplog):
    corpora = corpora_of(command, *both, source_dev=[both[1]])
    assert corpora.by_language("dev") == {"en": range(3), "es": range(3, 4)} and len(corpora.source) == 3 + 1
    assert "No --source_dev es=FILE: 1 source sentences are set aside" in caplog.text
    message = command.error(source_train=None, source_dev=both[1], source_lang="en,es", target_unlabeled=None)
    assert message.startswith("--source_dev is given without a corpus")
    one = f"es={command.file('one.iob2', SPANISH.split(chr(10) * 2)[0])}"
    with pytest.raises(InputError, match=" is missing and the source corpus is too small") as raised:
        corpora_of(command, both[1], one)
    assert str(raised.value).startswith("--source_dev es=FILE is missing")


def test_amounts_are_of_each_language(command: Command, both):
    corpora = corpora_of(command, *both, source_dev=[*both], max_source_samples=1)
    assert corpora.rows["source"] == {"en": range(1), "es": range(1, 2)}


def test_configurations_on_the_hub(command: Command, monkeypatch):
    def load(name: str, language: str, options, labelled: bool) -> DatasetDict:
        assert labelled == (language in ("en", "es"))
        rows = {
            part: from_memory([{"tokens": [language, part], "ner_tags": ["B-X", "O"]}], True) for part in ("train", "validation")
        }
        return DatasetDict(**rows)

    monkeypatch.setattr("glode.run.corpora.load_hub_corpus", load)
    corpora = load_corpora(DataArguments("de", source_lang="en,es", dataset_name="some/set"))
    assert list(corpora.source["words"]) == [["en", "train"], ["es", "train"]]
    assert list(corpora.dev["words"]) == [["en", "validation"], ["es", "validation"]] and corpora.source_test is None
    assert list(corpora.target["words"]) == [["de", "train"]] and corpora.target_test is None


def test_from_python_each_language_has_its_corpus(command: Command, monkeypatch):
    def carry_out(data, model, training, options, memory):
        raise EnoughSeen(data, memory)

    monkeypatch.setattr("glode.api.carry_out", carry_out)
    rows = {name: [{"tokens": [name, "rain"], "ner_tags": ["B-PER", "O"]}] * 2 for name in ("en", "es")}
    whole = {name: DatasetDict(train=from_memory(part, True), test=from_memory(part, True)) for name, part in rows.items()}
    for source in (rows, whole):
        with pytest.raises(EnoughSeen) as reached:
            train(target_lang="de", source_lang=["en", "es"], source_train=source, target_unlabeled=["Es regnet."])
        corpora = load_corpora(*reached.value.args)
        assert [words[0] for words in corpora.source["words"]] == ["en", "es"]
        assert corpora.by_language("source_test") == ({} if source is rows else {"en": range(2), "es": range(2, 4)})


# ------------------------------------------------------------------------------------------------------------- what is refused


def test_other_types_are_refused(command: Command):
    english, spanish = f"en={command.directory / 'en.iob2'}", f"es={command.file('es.iob2', SPANISH.replace('LOC', 'SITE'))}"
    with pytest.raises(InputError) as raised:
        corpora_of(command, english, spanish)
    assert str(raised.value) == (
        "the source languages have different types: en has LOC, PER; es has PER, SITE. Entities that a corpus does not label "
        "would be learnt as O. Rename types by --label_map, or drop them: --label_map MISC=O."
    )
    assert set().union(*corpora_of(command, english, spanish, label_map="SITE=LOC").source["types"]) == {"LOC", "PER"}
    assert set().union(*corpora_of(command, english, spanish, label_map="SITE=O,LOC=O").source["types"]) == {"PER"}


def test_a_type_of_the_development_set_alone_is_one_of_the_language(command: Command, both):
    """A corpus that labels a type may have none of it among its training sentences."""
    spanish = f"es={command.file('few.iob2', SPANISH.replace('B-LOC', 'O'))}"
    assert corpora_of(command, both[1], spanish, source_dev=[*both]).rows["source"] == {"en": range(3), "es": range(3, 5)}
    with pytest.raises(InputError, match="the source languages have different types: ") as raised:
        corpora_of(command, both[1], spanish)
    assert "en has LOC, PER; es has PER." in str(raised.value)


def test_whose_files_they_are_must_be_said(command: Command, both):
    with pytest.raises(InputError, match="in which of en, es"):
        corpora_of(command, command.directory / "en.iob2")
    with pytest.raises(InputError, match=r"--source_train names no file in 'es'\. Give --source_train es=FILE too\."):
        corpora_of(command, both[1])
    with pytest.raises(InputError) as raised:
        corpora_of(command, *both, source_lang="en")
    assert str(raised.value) == f"--source_train {both[0]}: es is no language of --source_lang en. Give --source_lang en,es."
    assert " is no language of " in str(raised.value)
    with pytest.raises(InputError, match="expected a language with labels, such as en"):
        corpora_of(command, *both, source_lang=" , ")


def test_the_demo_is_labelled_in_english(command: Command):
    message = command.error(source_train=None, source_dev=None, target_unlabeled=None, source_lang="en,es")
    assert "the demo corpus has labels in English alone, and --source_lang is " in message


def test_a_resumed_run_knows_whose_sentences_they_are(command: Command):
    """The same sentences, cut into languages elsewhere: their shares are other ones."""
    english, spanish, last = command.file("a", ""), command.file("b", ""), SOURCE.split("\n\n")[-1]

    def arguments(to_spanish: bool) -> list[str]:
        english.with_suffix(".iob2").write_text(SOURCE.replace(last, "") if to_spanish else SOURCE)
        spanish.with_suffix(".iob2").write_text(f"{last}\n{SPANISH}" if to_spanish else SPANISH)
        return ["--source_train", f"en={english.with_suffix('.iob2')}", f"es={spanish.with_suffix('.iob2')}"]

    options = {"source_train": None, "source_dev": None, "source_lang": "en,es"}
    dev = ["--source_dev", *(f"{language}={command.directory / 'en.iob2'}" for language in ("en", "es"))]
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main([*command.arguments(**options), *arguments(False), *dev])
    (command.directory / "output" / "source_checkpoints" / "checkpoint-3").mkdir()
    more = [*arguments(True), *dev, "--resume_from_checkpoint", "auto"]
    assert 'source languages {"en": 3, "es": 2}, now {"en": 2, "es": 3}' in command.error(*more, **options)


def test_a_resumed_run_knows_in_which_target_languages_its_text_is(command: Command):
    """The same text in one language: its labels have the thresholds of all of it."""
    parts = [command.file(name, f"{line}\n") for name, line in (("a.txt", "Otto wohnt in Kiel ."), ("b.txt", "Es regnet ."))]
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments())
    (command.directory / "output" / "source_checkpoints" / "checkpoint-3").mkdir()
    options = {"target_unlabeled": None, "target_lang": "de,nl", "resume_from_checkpoint": "auto"}
    more = ["--target_unlabeled", f"de={parts[0]}", f"nl={parts[1]}"]
    assert 'target languages null, now {"de": 1, "nl": 1}' in command.error(*more, **options)


# ------------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def trainer_of(command: Command, both, monkeypatch):
    """Runs a command with two sources up to a stage, and gives its trainer."""

    def reached_by(stage: str, *more: str, **changes) -> GlodeTrainer:
        def stop(trainer, *_, **__):
            if stage == "source" or trainer.denoiser is not None:
                raise EnoughSeen(trainer)
            trainer.args.load_best_model_at_end = False
            trainer.state.epoch = 0.0

        monkeypatch.setattr("trainer_glode.GlodeTrainer.train", stop)
        options = {"source_train": None, "source_dev": None, "source_lang": "en,es", "overwrite": "true"} | changes
        with pytest.raises(EnoughSeen) as reached:
            run_crossner.main([*command.arguments(**options), "--source_train", *both, "--source_dev", *both, *more])
        return reached.value.args[0]

    return reached_by


def test_both_stages_have_shares_by_language(command: Command, trainer_of, capsys):
    gold = command.file("gold.iob2", "Otto\tB-PER\nwohnt\tO\nin\tO\nKiel\tB-LOC\n.\tO\n")
    source = trainer_of("source")
    assert [windows.tolist() for windows, _ in source.sampler.groups] == [[0, 1, 2], [3, 4]]
    assert source.source_weights.tolist() == [1] * 5 and source.denoiser is None
    assert "en and es have equal shares of the labelled windows in an epoch" in " ".join(capsys.readouterr().out.split())
    target = trainer_of("target", target_train=gold, target_train_weight=4, center_vectors=True)
    assert target.denoiser.source_languages.tolist() == [0, 0, 0, 2, 2, 1]
    assert [windows.tolist() for windows, _ in target.sampler.groups] == [[0, 1, 2], [3, 4], [5]]
    assert target.source_weights.tolist() == [1, 1, 1, 1, 1, 4]
    assert len(target.denoiser.centers.sums) == 3 and len(target.denoiser.thresholds["global"].values) == 1
    window, is_target = torch.tensor([2, 4, 5, 0]), torch.tensor([False, False, False, True])
    assert target.denoiser.language_of(window, is_target).tolist() == [0, 2, 1, 1]
    assert trainer_of("target").denoiser.source_languages.tolist() == [0, 0, 0, 2, 2]


def small_world(path: Path, numbers: range) -> Path:
    """Sentences that a tiny model learns, with their labels."""
    made = (make_sentence(FRAMES[n % 5], PEOPLE[(n // 5 + n) % 5], PLACES[(n // 5 + 2 * n) % 5]) for n in numbers)
    sentences = [(row["words"], zip(row["begins"], row["lengths"], row["types"], strict=True)) for row in made]
    tagged = [zip(words, encode_tags(len(words), list(entities)), strict=True) for words, entities in sentences]
    path.write_text("\n".join("".join(f"{word}\t{tag}\n" for word, tag in rows) for rows in tagged), encoding="utf-8")
    return path


@pytest.fixture
def whole_run(backbone: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run of some seconds, with two languages on each side."""
    parts = {"en": range(30), "es": range(30, 40), "en_dev": range(40, 45), "es_dev": range(40, 50)}
    parts |= {"de": range(50, 58), "zh": range(56, 64), "de_test": range(60, 70)}
    paths = {name: small_world(tmp_path / f"{name}.iob2", numbers) for name, numbers in parts.items()}
    argv = "--config demo --source_lang en,es --target_lang de,zh --use_cpu true --report_to none --disable_tqdm true "
    argv += f"--source_train en={paths['en']} es={paths['es']} --source_dev en={paths['en_dev']} es={paths['es_dev']} "
    argv += f"--source_test es={paths['es']} --target_unlabeled de={paths['de']} zh={paths['zh']} "
    argv += f"--target_test de={paths['de_test']} --model_name_or_path {backbone} --num_train_epochs 3 --learning_rate 3e-3 "
    argv += "--source_num_train_epochs 15 --per_device_train_batch_size 8 --max_span_length 4 --refine_start 0 "
    argv += "--center_vectors true --keep_checkpoints --denoising both --refine step --self_direction false"
    return lambda name, *more: [*argv.split(), "--output_dir", str(tmp_path / name), *more]


def test_one_model_of_two_sources_and_two_targets(whole_run, tmp_path, monkeypatch, capsys):
    run_crossner.main(whole_run("whole"))
    table = " ".join(capsys.readouterr().out.split()).replace("│", "")
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    scores = {name: part["strict"] for name, part in metrics["source_model"].items()}
    assert scores.keys() == {"dev", "dev_en", "dev_es", "source_test", "source_test_es", "test", "test_de"}
    for count in ("gold", "predicted", "correct"):
        assert scores["dev"][count] == scores["dev_en"][count] + scores["dev_es"][count]
    assert scores["dev_es"]["correct"] > 0 and metrics["target_model"].keys() == scores.keys()
    assert metrics["corpora"]["source en"]["sentences"] == 30 and metrics["corpora"]["source_test es"]["repeated"] == 10
    for name in ("en + es dev", " en dev", " es dev", "entity scores, en, es -> de,zh"):
        assert name in table
    card = ModelCard.load(tmp_path / "whole" / "README.md")
    assert card.data.language == ["de", "zh", "en", "es"] and "labelled en, es text" in card.text
    assert "en.iob2, es.iob2, 40 en, es sentences" in card.text and "| es dev |" in card.text
    state = load_file(next((tmp_path / "whole").glob("target_checkpoints/*/denoising_state.safetensors")))
    assert state["thresholds.global.values"].shape[0] == 2 and state["centers.sums"].shape[0] == 4
    assert (state["centers.sums"].abs().sum((1, 2)) > 0).all()

    target_stage = ["--stage", "target", "--teachers", str(tmp_path / "whole" / "source_model")]
    losses, calls = GlodeTrainer.compute_loss, []

    def stop_in_the_target_stage(trainer, *arguments, **options):
        calls.append(trainer.denoiser)
        if len(calls) == 9:
            raise EnoughSeen
        return losses(trainer, *arguments, **options)

    monkeypatch.setattr(GlodeTrainer, "compute_loss", stop_in_the_target_stage)
    with pytest.raises(EnoughSeen):
        run_crossner.main(whole_run("parts", *target_stage))
    monkeypatch.undo()
    run_crossner.main(whole_run("parts", *target_stage, "--resume_from_checkpoint", "auto"))
    assert "goes on from" in capsys.readouterr().out
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    again = json.loads((tmp_path / "parts" / "metrics.json").read_text())
    assert again["pseudo_labels"] == metrics["pseudo_labels"] and again["target_model"] == metrics["target_model"]
