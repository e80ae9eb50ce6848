"""Protects the recipes for Presidio: an analyzer finds what the token classifier and the span model find."""

from pathlib import Path

import pytest
import torch
from support.recipes import recipe
from support.world import tiny_encoder_config
from transformers import AutoModelForTokenClassification, pipeline

from glode.publishing.token_classifier import tag_names

NAMES = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION"}
TEXT = "Anna Berg lives in New York ."
LONG = f"{'nothing happened today . ' * 30}{TEXT}"


@pytest.fixture(scope="module")
def published(tokenizer, tmp_path_factory) -> Path:
    """A token classifier with random weights, as a run exports it."""
    tags, directory = tag_names(["O", "PER", "LOC"]), tmp_path_factory.mktemp("presidio") / "token_classifier"
    names = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
    torch.manual_seed(1)
    model = AutoModelForTokenClassification.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer), **names))
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def places(results: list) -> set[tuple[str, int, int, float]]:
    """Of Presidio's results, or of a pipeline's entities that it takes."""
    if results and isinstance(results[0], dict):
        found = ((NAMES[e["entity_group"]], e["start"], e["end"], float(e["score"])) for e in results)
    else:
        found = ((r.entity_type, r.start, r.end, r.score) for r in results)
    return {(name, start, end, round(score, 4)) for name, start, end, score in found if score >= 0.3}


def test_an_analyzer_finds_what_the_models_find(published, directory, ner):
    names: dict = {}
    exec(recipe("serving.md", "AnalyzerEngine(").replace("glode-demo/token_classifier", str(published)), names)
    alone = pipeline("token-classification", model=str(published), aggregation_strategy="simple")
    found, wanted = places(names["analyzer"].analyze(TEXT, language="de")), places(alone(TEXT))
    assert found <= wanted and len({name for name, *_ in found}) == 2
    for name, start, end, score in wanted - found:  # Presidio drops what lies within another one of its type
        assert any(name == other and a <= start and end <= b and score <= more for other, a, b, more in found)

    exec(recipe("serving.md", "class GlodeRecognizer").replace("glode-demo", str(directory)), names)
    names["analyzer"].registry.recognizers = [names["recognizer"]]
    for text in (TEXT, LONG):
        assert places(names["analyzer"].analyze(text, language="de")) == places(ner(text)) != set()
    places_alone = names["analyzer"].analyze(TEXT, language="de", entities=["LOCATION"])
    assert places(places_alone) == {place for place in places(ner(TEXT)) if place[0] == "LOCATION"} != set()
