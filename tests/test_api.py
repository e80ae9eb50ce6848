"""Protects training from Python: what is given in memory scores as the same corpus in files does on the command line; a mistake
is one exception that says what to do."""

import json
from collections.abc import Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, are_progress_bars_disabled, enable_progress_bars
from datasets import Sequence as SequenceFeature
from support.world import FRAMES, PEOPLE, PLACES, make_sentence
from transformers.utils import logging

import run_crossner
from glode import InputError, train
from glode.api import SOURCE, TrainResult, _names, _parse, _spread
from glode.corpora.schema import SENTENCE
from glode.run.corpora import load_corpora

pytestmark = pytest.mark.usefixtures("one_thread")

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
TEXTS = [
    "Lea Stein wohnt in Kiel.",
    "Es regnet. Ida traf Karl Moor.",
    "Otto von Hagen flog nach Oslo!",
    "Nichts geschah heute.",
] * 3


def tagged(number: int) -> dict[str, list[str]]:
    """A labelled sentence of the small world."""
    made = make_sentence(FRAMES[number % 5], PEOPLE[(number // 5 + number) % 5], PLACES[(number // 5 + 2 * number) % 5])
    tags = ["O"] * len(made["words"])
    for begin, length, name in zip(made["begins"], made["lengths"], made["types"], strict=True):
        tags[begin : begin + length] = [f"B-{name}", *[f"I-{name}"] * (length - 1)]
    return {"tokens": made["words"], "ner_tags": tags}


TRAIN, DEV, TEST = ([tagged(number) for number in numbers] for numbers in (range(40), range(40, 50), range(50, 60)))


def dataset(sentences: Sequence[dict]) -> Dataset:
    """As the Hub has them: tags are classes."""
    features = Features({"tokens": SequenceFeature(Value("string")), "ner_tags": SequenceFeature(ClassLabel(names=TAGS))})
    rows = [{"tokens": row["tokens"], "ner_tags": [TAGS.index(tag) for tag in row["ner_tags"]]} for row in sentences]
    return Dataset.from_list(rows, features=features)


@pytest.fixture
def options(backbone: Path, tmp_path: Path) -> dict[str, Any]:
    """Of a run of a few seconds in which labels are refined."""
    return {
        "target_lang": "de",
        "model_name_or_path": str(backbone),
        "output_dir": tmp_path / "python",
        "num_train_epochs": 3,
        "source_num_train_epochs": 15,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 8,
        "max_span_length": 4,
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
    }


def write(path: Path, sentences: Sequence[dict]) -> Path:
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)) for row in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    text = tmp_path / "de.txt"
    text.write_text("".join(f"{line}\n" for line in TEXTS), encoding="utf-8")
    parts = {"source_train": TRAIN, "source_dev": DEV, "target_test": TEST}
    return {name: write(tmp_path / f"{name}.iob2", rows) for name, rows in parts.items()} | {"target_unlabeled": text}


def scores(metrics: dict) -> dict:
    """What a run found, to the last digit."""
    return {name: metrics[name] for name in ("source_model", "target_model", "pseudo_labels", "labels", "max_span_length")}


def test_the_same_scores_as_the_command_line(options: dict, files: dict, tmp_path: Path, capsys):
    argv = [
        part
        for name, value in {**options, **files, "output_dir": tmp_path / "command"}.items()
        for part in (f"--{name}", str(value))
    ]
    run_crossner.main(argv)
    expected = json.loads((tmp_path / "command" / "metrics.json").read_text(encoding="utf-8"))
    assert expected["source_model"]["dev"]["strict"]["f1"] > 0  # else all could be nothing alike

    given = {"source_train": TRAIN, "source_dev": DEV, "target_unlabeled": TEXTS, "target_test": TEST}
    lists = train(**options, **given)
    assert isinstance(lists, TrainResult) and lists.output_dir == tmp_path / "python"
    assert scores(lists.metrics) == scores(expected)
    assert json.loads((lists.output_dir / "metrics.json").read_text(encoding="utf-8")) == json.loads(json.dumps(lists.metrics))

    again = train(**options, **given, resume_from_checkpoint="auto")
    assert scores(again.metrics) == scores(expected) and again.metrics["cost"] == lists.metrics["cost"]  # nothing was trained

    text = TEXTS[0]
    found = lists.model.predict(text, lists.tokenizer)
    assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in found)
    card = (lists.output_dir / "README.md").read_text(encoding="utf-8")
    assert r"source\_train in memory" in card and r"target\_unlabeled in memory" in card


@pytest.mark.parametrize(
    "given",
    [
        {"source_train": DatasetDict(train=dataset(TRAIN), validation=dataset(DEV)), "target_test": dataset(TEST)},
        {"source_train": [(row["tokens"], row["ner_tags"]) for row in TRAIN], "source_dev": DEV, "target_test": TEST},
        {"source_train": Dataset.from_list(TRAIN), "source_dev": tuple(DEV), "target_test": iter(TEST)},
    ],
)
def test_every_form_is_the_same_corpus(given: dict, files: dict):
    """A `DatasetDict` with classes, pairs, a `Dataset` with names, and files."""
    memory: dict[str, Any] = {}
    corpora = _spread(dict.fromkeys(SOURCE) | given, SOURCE) | {"target_unlabeled": TEXTS, "target_test": given["target_test"]}
    named = {option: list(_names(option, data, memory)) for option, data in corpora.items()}
    found = load_corpora(_parse({"target_lang": "de", **named})[0], memory).present()
    expected = load_corpora(_parse({"target_lang": "de", **files})[0]).present()
    assert found.keys() == expected.keys()
    for name, corpus in found.items():
        assert [corpus[column] for column in SENTENCE] == [expected[name][column] for column in SENTENCE]


def test_several_languages(options: dict, tmp_path: Path):
    """Each has its text, in memory or in a file, and its scores."""
    path = tmp_path / "es.txt"
    path.write_text("Ida vive en Bern.\nLea Stein voló a Kiel.\n", encoding="utf-8")
    options |= {"target_lang": ["de", "es"], "stage": "source", "source_num_train_epochs": 1}
    target = {"de": DatasetDict(train=dataset(TEST), test=dataset(DEV)), "es": path}
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    enable_progress_bars()
    result = train(**options, source_train=TRAIN, target_unlabeled=target)
    assert logging.get_verbosity() == WARNING  # libraries speak as before
    assert logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    assert result.output_dir == tmp_path / "python" / "source_model"
    assert {"dev", "test"} <= result.metrics["source_model"].keys()
    assert {name for name in result.metrics["corpora"] if name.startswith("target")} == {
        "target de",
        "target es",
        "target_test de",
    }


# ------------------------------------------------------------------------------------------------- what stands for what


def names(option: str, data: Any) -> tuple[list[str], dict]:
    memory: dict[str, Any] = {}
    return list(_names(option, data, memory)), memory


def test_paths_go_to_the_command_line_as_they_are():
    assert names("source_train", "en.iob2") == (["en.iob2"], {})
    assert names("source_train", Path("a") / "en.iob2") == (["a/en.iob2"], {})
    assert names("target_unlabeled", [Path("one.txt"), Path("two.txt")]) == (["one.txt", "two.txt"], {})
    assert names("target_unlabeled", {"de": "d.txt", "es": [Path("e.txt")]}) == (["de=d.txt", "es=e.txt"], {})
    assert names("source_test", None) == ([], {})


def test_what_is_in_memory_gets_a_name():
    assert names("target_unlabeled", TEXTS) == (["target_unlabeled in memory"], {"target_unlabeled in memory": TEXTS})
    found, memory = names("target_unlabeled", {"de": TEXTS, "es": "es.txt"})
    assert found == ["de=target_unlabeled de in memory", "es=es.txt"] and list(memory.values()) == [TEXTS]
    found, memory = names("source_train", {"en": TRAIN, "es": [Path("a.iob2"), Path("b.iob2")]})
    assert found == ["en=source_train en in memory", "es=a.iob2", "es=b.iob2"] and list(memory.values()) == [TRAIN]


def test_a_dataset_dict_gives_its_parts():
    whole = DatasetDict(train=dataset(TRAIN), test=dataset(TEST))
    given = {"source_train": whole, "source_dev": None, "source_test": None}
    assert _spread(given, SOURCE) == {"source_train": whole["train"], "source_dev": None, "source_test": whole["test"]}
    assert _spread({**given, "source_test": "test.iob2"}, SOURCE)["source_test"] == "test.iob2"
    with pytest.raises(InputError, match="the DatasetDict has no part") as raised:
        _spread({**given, "source_train": DatasetDict(dev=dataset(DEV))}, SOURCE)
    assert str(raised.value) == "source_train: the DatasetDict has no part `train`, only dev. Rename one."


def test_options_are_what_the_command_line_says(tmp_path: Path):
    corpora = {"source_train": ["x"], "target_unlabeled": ["y"]}
    data, model, training, run = _parse(
        {
            "target_lang": "de",
            **corpora,
            "output_dir": tmp_path,
            "learning_rate": 1 / 3,
            "lr_scheduler_kwargs": {"num_cycles": 2},
            "export_token_classifier": True,
            "widget_examples": ["Ein Satz.", "Noch einer."],
            "max_span_length": None,
        }
    )
    assert (data.source_train, data.target_unlabeled) == (["x"], ["y"]) and model.max_span_length is None
    assert training.learning_rate == 1 / 3 and training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert run.export_token_classifier and run.widget_examples == ["Ein Satz.", "Noch einer."]


# --------------------------------------------------------------------------------------------------------------- mistakes


def test_an_option_that_is_not_there():
    with pytest.raises(TypeError, match="has no argument") as raised:
        train(target_lang="de", num_train_epoch=3)
    assert str(raised.value) == "train() has no argument 'num_train_epoch'. Did you mean 'num_train_epochs'?"


def test_a_value_that_cannot_be(capsys):
    with pytest.raises(InputError, match="has a value that it cannot have") as raised:
        train(target_lang="de", stage="third")
    assert "argument --stage: invalid choice: 'third'" in str(raised.value)
    assert not capsys.readouterr().err


def test_a_list_of_file_names_is_no_text():
    with pytest.raises(InputError, match="is the name of a file, and a list of strings is text") as raised:
        train(target_lang="de", source_train="en.iob2", target_unlabeled=["de.txt", "more/de.txt.gz"])
    assert str(raised.value).startswith("target_unlabeled: 'de.txt'")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source_train": []}, "source_train in memory: there is no sentence in it"),
        ({"source_train": [{"tokens": ["Anna"], "ner_tags": ["B-PER", "O"]}]}, "source_train in memory, row 1"),
        ({"source_train": "missing.iob2"}, "missing.iob2: no such file"),
        ({"target_unlabeled": None}, "--target_unlabeled is missing"),
    ],
)
def test_a_corpus_that_cannot_be_read(given: dict, message: str, options: dict):
    with pytest.raises(InputError, match=message):
        train(**{**options, "source_train": TRAIN, "target_unlabeled": TEXTS, **given})
