"""Protects what is told of a corpus."""

from pathlib import Path

import pytest
from support.corpora import COLUMNS

from glode.corpora.labels import count_repeated, map_types, summarize
from glode.corpora.reading import load_corpus
from glode.features.reach import gold_entities

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_a_summary(tmp_path: Path):
    path = tmp_path / "corpus.conll"
    path.write_text(COLUMNS["tabs"])
    corpus = load_corpus(str(path), True)
    assert summarize(corpus) == {
        "format": "columns, IOB2",
        "sentences": 2,
        "words": 4,
        "entities": {"LOC": 1, "PER": 1},
        "longest_sentence": 3,
        "longest_entity": 2,
        "notes": {},
    }
    assert count_repeated(corpus, corpus.select([1])) == 1
    mapped = map_types(corpus, {"PER": "O", "LOC": "PLACE"})
    assert gold_entities(mapped) == [[], [(0, 1, "PLACE")]] and summarize(mapped)["entities"] == {"PLACE": 1}
