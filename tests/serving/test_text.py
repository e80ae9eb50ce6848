"""Protects text of any kind: whatever characters come, the splitter, the pipeline, `predict` and the handler neither fail nor
lose or shift a word; sentences are split with care."""

import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.entities import check, places

from glode.corpora.reading import read_corpus
from glode.corpora.sentences import split_sentences
from glode.serving.handler import EndpointHandler
from modeling_glode import GlodePipeline, split_words

PARTS = [
    *["Anna Berg", "New York", "Oslo", " ", "\n", "\t", "\u3000", ".", "!", "'", "-", "_", "12,5", "https://a.b/c?d=e"],
    *["在北京", "上海大学。", "東京タワー", "กรุงเทพ", "ភ្នំពេញ", "ວຽງຈັນ", "မြန်မာ", "서울", "وبالقاهرة", "ـــ", "हिन्दी", "क्\u200dष"],
    *["می\u200cخواهم", "👩🏽\u200d🚀", "🇩🇪", "❤\ufe0f", "e\u0301", "ﬁ", "Ⅳ", "ß", "İ", "\u00ad", "\u200b", "\ufeff", "\u202e"],
    *["\x00", "\x1c", "\x85", "\u2028", "\ud800", "\udfff", "\U000e0067", "\uffff", "<s>", "</s>", "[MASK]", "▁", "\u0301"],
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=6) | st.characters(categories=["Cs", "Co", "Mn", "Cf"])).map("".join)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_splitter_loses_nothing(text: str):
    spans = split_words(text)
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(i in covered or c.isspace() or unicodedata.category(c) == "Cf" for i, c in enumerate(text))
    assert not any(text[i].isspace() for i in covered)


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_sentences_hold_all_but_white_space(text: str):
    spans = split_sentences(text)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert "".join(text.split()) == "".join("".join(text[a:b].split()) for a, b in spans)


@FEW
@given(st.lists(TEXTS, max_size=3), st.booleans())
def test_pipeline_predict_and_handler_take_any_text(ner: GlodePipeline, handler: EndpointHandler, texts: list[str], nested: bool):
    found = ner(texts, nested=nested) if texts else []
    for text, entities in zip(texts, found, strict=True):
        check(text, entities, nested)
    predicted = ner.model.predict(texts, ner.tokenizer, nested=nested)
    handled = handler({"inputs": texts, "parameters": {"nested": nested}})
    assert [*map(places, predicted)] == [*map(places, handled)] == [*map(places, found)]
    json.dumps(found)


@pytest.fixture(scope="module")
def handler(directory: Path) -> EndpointHandler:
    return EndpointHandler(str(directory))


@pytest.mark.parametrize(
    "sentences",
    [
        ["Anna met Dr. Karl J. Moor in the U.S. Senate.", "He left!", "“Why?”", "Nobody knew."],
        ["Am 3. Oktober kam z. B. Otto.", "Es war 1990.", "Schluss …", "„Gut.“"],
        ["他来了。", "你呢？！", "“我写了两年。”约翰说。"],
        ["وصل القطار.", "هل وصل؟", "نعم."],
        ["यह एक वाक्य है।", "दूसरा भी।"],
        ["¿Qué pasó?", "¡Nada!", "El Sr. Pérez vive en la Av. Central."],
        ["Version 2.0 of example.org costs $3.50 and isn't out yet... or is it"],
        ["ไปกรุงเทพ เมื่อวาน"],
        ['Er sagte: " Komm mit! "'],
    ],
)
def test_sentences_are_split_with_care(sentences: list[str]):
    text = "".join(s if unicodedata.east_asian_width(s[0]) == "W" or "“我" in s else f" {s}" for s in sentences)
    assert [text[a:b] for a, b in split_sentences(text)] == sentences


def test_plain_target_text_may_hold_paragraphs(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("Anna lacht. Otto weint.\nEin Satz\n", encoding="utf-8")
    words = [sentence["words"] for sentence in read_corpus(str(path), labelled=False)]
    assert words == [["Anna", "lacht", "."], ["Otto", "weint", "."], ["Ein", "Satz"]]
