"""Protects `glode evaluate`: it says what the model finds in the words of the file, in the one definition of the scores; models
stand side by side; a mistake ends in one message."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from support.gliner import Gliner, use

from glode.corpora.schemes import encode_tags
from glode.errors import InputError
from glode.evaluation.evaluate import Corpus, evaluate, main, run
from glode.features.reach import gold_entities
from glode.metrics import entity_scores
from modeling_glode import GlodeModel

PAIRS = [[(0, 2, "PER"), (4, 1, "LOC")], [(1, 1, "LOC")], []]
WORDS = [["Anna", "Berg", "lives", "in", "Rome"], ["in", "Oslo"], ["nothing", "happened"]]
GOLD = Corpus(WORDS, PAIRS)
TYPES = ("PER", "LOC")


def write_conll(path: Path, corpus: Dataset) -> Path:
    """The sentences as columns."""
    rows = zip(corpus["words"], gold_entities(corpus), strict=True)
    blocks = (zip(words, encode_tags(len(words), entities), strict=True) for words, entities in rows)
    path.write_text("\n".join("".join(f"{word}\t{tag}\n" for word, tag in block) for block in blocks), encoding="utf-8")
    return path


@pytest.fixture
def gold(corpus: Dataset, tmp_path: Path, datasets_cache) -> Path:
    return write_conll(tmp_path / "gold.conll", corpus)


def test_the_command_says_what_the_model_finds(directory, tokenizer, corpus, gold, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("glode.evaluation.evaluate.BUFFER", 7)
    output, train = tmp_path / "judged", write_conll(tmp_path / "train.conll", corpus.select(range(5)))
    model = GlodeModel.from_pretrained(directory)
    first = next(iter(list(model.config.id2label.values())[1:]))  # the model's types are none of the corpus'
    arguments = ["--model", str(directory), "--gold", str(gold), "--train", str(train), "--output", str(output), "--worst", "3"]
    assert run([*arguments, "--label_map", f"{first}=PER,LOC=O", "--device", "cpu"]) == 0
    report = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    found = model.predict(corpus["words"], tokenizer)
    found = [[(e["start"], e["end"] - e["start"], "PER") for e in row if e["entity_group"] == first] for row in found]
    wanted = [[entity for entity in row if entity[2] == "PER"] for row in gold_entities(corpus)]
    scores = report["models"][str(directory)]
    assert report["types"] == ["PER"] and report["entities"] == sum(map(len, wanted))
    assert scores["strict"] == entity_scores(wanted, found)
    assert scores["strict"]["predicted"] > 0
    low, high = scores["interval"]
    assert 0 <= low <= scores["strict"]["f1"] <= high <= 100
    assert scores["partial"]["strict"] == pytest.approx(scores["strict"]["f1"])
    for parts in (scores["per_length"], scores["per_novelty"], scores["strict"]["per_type"]):
        for key in ("gold", "predicted", "correct"):
            assert sum(part[key] for part in parts.values()) == scores["strict"][key]
    assert (output / "errors.html").read_text(encoding="utf-8").count("<article>") == 3
    printed = capsys.readouterr()
    assert "name in --train" in printed.out and f"{scores['strict']['precision']:.1f}" in printed.out
    assert f"written: {output}/evaluation.json, {output}/errors.html" in printed.err


def test_the_command_asks_a_gliner_model(gliner_directory, gold, tmp_path, capsys, monkeypatch):
    use(monkeypatch, Gliner(Ida=[("person", 0.9)], Rome=[("city", 0.8)], ew=[("city", 0.8)]))
    command = [
        "--model",
        str(gliner_directory),
        "--gold",
        str(gold),
        "--label_map",
        "city=LOC",
        "--output",
        str(tmp_path / "out"),
    ]
    main([*command, "--device", "cpu"])
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    (scores,) = report["models"].values()
    assert report["types"] == ["LOC", "PER"] and scores["strict"]["predicted"] == scores["strict"]["correct"] > 0
    assert {name: part["correct"] > 0 for name, part in scores["strict"]["per_type"].items()} == {"LOC": True, "PER": True}
    assert report["notes"] == [f"{gliner_directory}: 6 entities with a border within a word are left out"]
    assert report["notes"][0] in capsys.readouterr().out


def test_two_models_stand_side_by_side():
    found = {"good": PAIRS, "bad": [[(0, 1, "PER"), (4, 1, "LOC")], [], [(0, 1, "LOC")]]}
    report, rows = evaluate(GOLD, found, dict.fromkeys(found, TYPES))
    (test,) = report["tests"]
    assert (test["first"], test["second"], test["difference"]) == ("good", "bad", pytest.approx(100 - 100 / 3))
    assert test["interval"][0] <= test["difference"] <= test["interval"][1] and 0 < test["p"] <= 1
    assert [outcome.kind for outcome in rows["bad"][0]] == ["wrong borders", "correct"]
    assert report["models"]["good"]["strict"]["f1"] == 100 and "per_novelty" not in report["models"]["good"]
    assert report == evaluate(GOLD, found, dict.fromkeys(found, TYPES))[0]


def test_names_that_training_has_seen():
    train = Corpus([["Anna", "Berg", "and", "Rome"]], [[(0, 2, "PER"), (3, 1, "GPE")]])
    report, _ = evaluate(GOLD, {"m": [[(0, 2, "PER"), (4, 1, "PER")], [], []]}, {"m": ["PER", "LOC"]}, train)
    scores = report["models"]["m"]["per_novelty"]
    numbers = {name: [part[key] for key in ("gold", "predicted", "correct")] for name, part in scores.items()}
    assert numbers == {"seen": [2, 2, 1], "unseen": [1, 0, 0]}


def test_types_of_one_side_are_said_and_mapped():
    found, types = {"m": [[(0, 2, "person"), (4, 1, "DATE")], [(1, 1, "LOC")], []]}, {"m": ["person", "LOC", "DATE"]}
    report, _ = evaluate(GOLD, found, types)
    assert report["notes"] == [
        "types that m lacks: PER",
        "types of m that the gold file lacks: DATE, person",
        "scores are on LOC",
    ]
    assert report["types"] == ["LOC"] and report["entities"] == 2
    both, _ = evaluate(GOLD, found | {"n": PAIRS}, types | {"n": ["PER", "LOC"]})
    assert both["notes"] == report["notes"]  # of what n has and m lacks nothing else is said
    report, _ = evaluate(GOLD, found, types, mapping={"person": "PER", "DATE": "O"})
    assert not report["notes"] and report["models"]["m"]["strict"]["f1"] == pytest.approx(80)


def test_types_that_do_not_fit():
    found = {"m": PAIRS, "n": PAIRS}
    with pytest.raises(InputError, match="they share none") as error:
        evaluate(GOLD, found, {"m": ["X"], "n": ["PER"]})
    assert str(error.value).startswith("the gold file has the types LOC, PER, m has X: ")
    with pytest.raises(InputError, match="there is no type that the gold file and all models have"):
        evaluate(GOLD, found, {"m": ["LOC"], "n": ["PER"]})
    with pytest.raises(InputError, match="--label_map: neither file nor model has the type ") as error:
        evaluate(GOLD, found, {"m": ["PER"], "n": ["PER"]}, mapping={"X": "PER"})
    assert "'X'. There are LOC, PER." in str(error.value)


def test_mistakes(directory, gold, tmp_path):
    empty = tmp_path / "empty.conll"
    empty.write_text("Oslo\tO\nis\tO\n\nRome\tO\n", encoding="utf-8")
    usual = ["--model", str(directory), "--gold", str(gold)]
    for arguments, message in [
        (["--model", "a", "a", "--gold", "x"], "--model names the same model twice"),
        ([*usual, "--batch_size", "0"], "--batch_size has to be 1 or more"),
        ([*usual, "--threshold", "50"], " says nothing of scores, which go from"),
        ([*usual, "--output", str(gold)], "is a file. Name a directory, which evaluation.json"),
        ([*usual, "--label_map", "PER"], "--label_map PER: expected OLD=NEW"),
        (["--model", str(directory), "--gold", str(empty), "--scheme", "IOB2"], " has no entity to judge by"),
        ([*usual, "--device", "nonsense"], "--device nonsense cannot be used"),
    ]:
        with pytest.raises(InputError) as error:
            main(arguments)
        assert message in str(error.value)
