"""Protects what finds entities in a gold file's words: a token classifier gives what its pipeline gives for running text, of any
label scheme, in words; a GLiNER model, with a stand-in of its package, is asked for the types of the gold file; and what cannot
find entities is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.gliner import Gliner, use
from support.world import tiny_encoder_config
from transformers import AutoModel, AutoModelForTokenClassification, TokenClassificationPipeline

from glode.errors import InputError
from glode.evaluation.finders import FinderSettings, GlinerFinder, SpanFinder, TokenFinder, load_finder, types_to_ask_for
from glode.publishing.token_classifier import find_entities, running_text

SENTENCES = [["Anna", "Berg", "(", "42", ")", "lives", "in", "Rome", "."], ["Oslo", ",", "Kiel"] * 60]
LABELS = ["O", "B-PER", "E-PER", "S-PER", "S-LOC"]


@pytest.fixture(scope="module")
def classifier(tokenizer, tmp_path_factory) -> Path:
    """A token classifier with random weights and BIOES labels."""
    path, names = tmp_path_factory.mktemp("tokens"), dict(enumerate(LABELS))
    config = tiny_encoder_config("xlm-roberta", len(tokenizer), id2label=names, label2id={v: k for k, v in names.items()})
    torch.manual_seed(2)
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


class Pipeline:
    """A pipeline that finds given characters."""

    class tokenizer:
        model_max_length = 64

    def __init__(self, *found: tuple[int, int, str, float]):
        self.found = [dict(zip(("start", "end", "entity_group", "score"), entity, strict=True)) for entity in found]

    def __call__(self, texts: list[str], batch_size: int, stride: int):
        assert stride == 16
        return [self.found for _ in texts]


def test_characters_become_words():
    text, _ = running_text(SENTENCES[0])
    assert text == "Anna Berg (42) lives in Rome."
    ner = Pipeline((0, 9, "PER", 0.9), (9, 13, "X", 0.9), (11, 12, "Y", 0.9), (23, 28, "LOC", 0.5), (23, 24, "Z", 0.9))
    (found,) = find_entities(ner, SENTENCES[:1])
    assert found == [(0, 2, "PER"), (2, 2, "X"), (3, -1, "Y"), (7, 1, "LOC")]  # white space alone is nothing
    assert find_entities(ner, SENTENCES[:1], threshold=0.6) == [found[:3]]


def test_a_token_classifier_of_any_scheme(classifier):
    finder = load_finder(str(classifier), FinderSettings(device="cpu", batch_size=2))
    assert isinstance(finder, TokenFinder) and finder.types == ["LOC", "PER"]
    assert list(finder.ner.model.config.id2label.values()) == ["O", "B-PER", "I-PER", "B-PER", "B-LOC"]
    assert finder.ner.tokenizer.model_max_length == 128
    found = finder(SENTENCES)
    assert all(found) and {entity[2] for row in found for entity in row} <= {"LOC", "PER"}
    assert max(begin for begin, _, _ in found[1]) > 100  # windows: nothing is cut off
    ner = TokenClassificationPipeline(model=finder.ner.model, tokenizer=finder.ner.tokenizer, aggregation_strategy="simple")
    text, offsets = running_text(SENTENCES[0])
    theirs = [text[e["start"] : e["end"]].strip() for e in ner(text)]
    ours = [text[offsets[b][0] : offsets[b + abs(n) - 1][1]] for b, n, _ in found[0]]
    assert len(ours) == len(theirs) and all(part in whole for part, whole in zip(theirs, ours, strict=True))


def test_a_model_of_ours(directory):
    finder = load_finder(str(directory), FinderSettings(device="cpu", nested=True))
    assert isinstance(finder, SpanFinder)
    found = finder(SENTENCES)
    assert any(found) and {entity[2] for row in found for entity in row} <= set(finder.types)


def test_what_finds_no_entities(classifier, tokenizer, tmp_path, monkeypatch):
    def message(name: Path, **settings) -> str:
        with pytest.raises(InputError) as error:
            load_finder(str(name), FinderSettings(device="cpu", **settings))
        return str(error.value)

    assert "is a token classifier, which finds no entities within entities" in message(classifier, nested=True)
    for name in (tmp_path, tmp_path / "none"):
        assert " has no config.json that can be read: " in message(name)
    (tmp_path / "list.json").write_text("[]")
    assert " is a file. Give the directory of a model." in message(tmp_path / "list.json")
    AutoModel.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer))).save_pretrained(tmp_path)
    assert "is neither a model of ours nor a token classifier, but " in (error := message(tmp_path))
    assert "but XLMRobertaModel. Give one that finds entities." in error
    config = json.loads((classifier / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    assert " does not load as a token classifier: " in message(tmp_path)
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", False)
    assert "its tokenizer does not tell where a token stands in the text" in message(classifier)


def test_a_gliner_model_is_asked_for_the_types_of_the_gold_file(gliner_directory, monkeypatch):
    """Its likeliest types, of spans that are likelier names than not, without overlap unless that is asked for."""
    scores = {"Anna Berg": [("person", 0.9)], "Berg": [("location", 0.8)], "Rome": [("location", 0.4)], "Oslo": [("person", 0.6)]}
    model = use(monkeypatch, Gliner(**scores, Kiel=[("person", 0.7), ("location", 0.8)], iel=[("person", 0.9)]))
    asked = types_to_ask_for(["PER", "LOC"], {})
    finder = load_finder(str(gliner_directory), FinderSettings(device="cpu", batch_size=7), asked)
    assert isinstance(finder, GlinerFinder) and finder.types == ["LOC", "PER"] and not finder.notes
    sentences = [SENTENCES[0], ["Oslo", ",", "Kiel"]]
    assert finder(sentences) == [[(0, 2, "PER")], [(0, 1, "PER"), (2, 1, "LOC")]]
    _, names, options = model.asked[0]
    assert names == ["location", "person"] and options["batch_size"] == 7
    assert finder.notes == [f"{gliner_directory}: 1 entities with a border within a word are left out"]
    assert "entities with a border within a word are left" in finder.notes[0]
    nested = load_finder(str(gliner_directory), FinderSettings(device="cpu", nested=True, threshold=0.7), asked)
    assert nested(sentences)[0] == [(0, 2, "PER"), (1, 1, "LOC")] and nested(sentences)[1] == []


def test_what_is_asked_for():
    assert types_to_ask_for(["PER", "LOC"], {}) == {"LOC": "LOC", "PER": "PER"}
    assert types_to_ask_for(["PER", "GPE", "X"], {"GPE": "LOC", "X": "O"}) == {"LOC": "LOC", "PER": "PER"}
    assert types_to_ask_for(["PER", "LOC"], {"city": "LOC", "river": "LOC", "date": "O"}) == {
        "city": "LOC",
        "river": "LOC",
        "PER": "PER",
    }


def test_a_gliner_model_that_cannot_be_read(gliner_directory, monkeypatch):
    use(monkeypatch, Gliner())
    with pytest.raises(InputError, match="is a GLiNER model, which is read in float32") as error:
        load_finder(str(gliner_directory), FinderSettings(device="cpu", dtype="bfloat16"), {"PER": "PER"})
    assert str(error.value).startswith(f"--dtype bfloat16: --model {gliner_directory}")
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(InputError) as error:
        load_finder(str(gliner_directory), FinderSettings(device="cpu"), {"PER": "PER"})
    assert str(error.value).startswith(f"--model {gliner_directory} is a GLiNER model, and the package gliner")
