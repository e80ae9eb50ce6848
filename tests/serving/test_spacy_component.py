"""Protects the spaCy component: docs get what the pipeline finds, in batches as well, whatever their tokens are; what a doc has
already stays; a pipeline that was saved loads again."""

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example
from support.entities import places

from glode.errors import InputError
from glode.serving import spacy_component

TEXTS = [
    "Anna Berg lives in New York .",
    "",
    "Otto von Hagen's plane flew to Oslo-Kiel, then   to Kiel!",
    "在北京\u200b",
    "Rome " * 150,
]


@pytest.fixture(scope="module")
def nlp(directory) -> spacy.Language:
    language = spacy.blank("xx")
    language.add_pipe("glode", config={"model": str(directory), "device": "cpu"})
    return language


def of_spans(spans) -> list[tuple]:
    return [(span.label_, span.text, span.start_char, span.end_char) for span in spans]


def test_docs_get_what_the_pipeline_finds(nlp, ner):
    alone = [nlp(text) for text in TEXTS]
    together = list(nlp.pipe(TEXTS, batch_size=2))
    assert [of_spans(doc.ents) for doc in together] == [of_spans(doc.ents) for doc in alone]
    widened = 0
    for doc, entities in zip(together, ner(TEXTS), strict=True):
        assert len(doc.spans["sc"]) == len(entities)
        assert doc.spans["sc"].attrs["scores"] == pytest.approx([entity["score"] for entity in entities], abs=1e-5)
        for (label, _, start, end), span in zip(places(entities), of_spans(doc.spans["sc"]), strict=True):
            assert span[0] == label and span[2] <= start and end <= span[3]
            widened += (start, end) != span[2:]
    assert 0 < widened < 10
    assert of_spans(together[0].ents) == places(ner(TEXTS[0])) != []


def test_nested_entities_are_in_the_spans_alone(nlp, directory, ner):
    language = spacy.blank("xx")
    language.add_pipe("glode", config={"model": str(directory), "nested": True, "threshold": 0.3, "device": "cpu"})
    doc = language(TEXTS[0])
    assert of_spans(doc.spans["sc"]) == places(ner(TEXTS[0], nested=True, threshold=0.3))
    assert len(doc.spans["sc"]) > len(doc.ents) > 0


def test_what_a_doc_has_already_stays(nlp):
    doc = nlp.make_doc(TEXTS[0])
    doc.ents = [Span(doc, 1, 4, label="MINE")]
    done = next(nlp.pipe([doc]))
    assert ("MINE", "Berg lives in", 5, 18) in of_spans(done.ents)
    assert len(done.ents) > 1 and len(done.spans["sc"]) >= len(done.ents) - 1


def test_a_saved_pipeline_loads_again_and_is_scored(nlp, tmp_path):
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert of_spans(again(TEXTS[2]).ents) == of_spans(nlp(TEXTS[2]).ents) != []
    gold = nlp(TEXTS[0])
    example = Example(again.make_doc(TEXTS[0]), Doc(gold.vocab).from_docs([gold]))
    assert nlp.evaluate([example])["ents_f"] == 1.0


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no such directory"):
        spacy_component.create(spacy.blank("xx"), "glode", str(tmp_path / "none"), 0.0, False, 8, None)
