"""Protects the path from labelled words to windows: no entity is lost, and none is read that must not be."""

from pathlib import Path

import pytest
from datasets import Dataset
from support.sentences import LABELS, make_corpus, sentence

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from glode.errors import InputError
from glode.features import windows as windows_module
from glode.features.reach import gold_entities
from glode.features.windows import build_features

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_label_names(corpus: Dataset):
    assert label_names(corpus) == ["O", "LOC", "PER"]
    other = make_corpus(sentence(["x"], [(0, 1, "ART")]))
    assert label_names(corpus, other) == ["O", "ART", "LOC", "PER"]
    with pytest.raises(InputError, match="the source corpus has no entity"):
        label_names(make_corpus(sentence(["x"], [])))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_long_sentences_lose_no_entity(long_corpus: Dataset, tokenizer, length: int):
    features = build_features(long_corpus, tokenizer, 30, length, LABELS)
    assert len(features) > 2 * len(long_corpus)
    owned = [[] for _ in long_corpus]
    for row in features:
        assert len(row["input_ids"]) <= 30
        for begin, size, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            assert row["own_start"] <= begin < row["own_end"] and begin + size <= len(row["first_token"])
            owned[row["sentence"]].append((begin + row["borders"][0], size, LABELS[label]))
    assert [sorted(x) for x in owned] == [[e for e in x if e[1] <= length] for x in gold_entities(long_corpus)]


def test_the_columns_of_a_short_sentence(corpus: Dataset, tokenizer):
    features = build_features(corpus, tokenizer, 64, 3, ["O", "LOC", "PER"])
    assert features["sentence"][:] == list(range(len(corpus)))
    for row, gold in zip(features, corpus, strict=True):
        assert row["begins"] == [b for b, n in zip(gold["begins"], gold["lengths"], strict=True) if n <= 3]
        assert [["O", "LOC", "PER"][i] for i in row["types"]] == gold["types"]
        spans = zip(row["first_token"], row["last_token"], strict=True)
        pieces = [tokenizer.convert_ids_to_tokens(row["input_ids"][a : b + 1]) for a, b in spans]
        assert ["".join(piece).replace("▁", "") for piece in pieces] == gold["words"]


def test_without_labels_the_entities_are_never_read(corpus: Dataset, tokenizer, monkeypatch):
    poison = make_corpus(*({"words": row["words"], "begins": [99], "lengths": [-1], "types": ["POISON"]} for row in corpus))
    seen, original = [], windows_module._features

    def spy(batch, *args, **options):
        seen.extend(batch.keys())
        return original(batch, *args, **options)

    monkeypatch.setattr(windows_module, "_features", spy)
    unlabelled = build_features(poison, tokenizer, 64, 3)
    assert set(seen) == {"words"}
    assert not {"begins", "lengths", "types"} & set(unlabelled.column_names)
    monkeypatch.undo()
    labelled = build_features(corpus, tokenizer, 64, 3, LABELS)
    assert unlabelled.to_list() == labelled.remove_columns(["begins", "lengths", "types"]).to_list()


def test_a_sentence_may_be_cut(long_corpus: Dataset, tokenizer):
    """Its first window is all that is left of it, and owns what it has."""
    whole, cut = (build_features(long_corpus, tokenizer, 30, 3, LABELS, cut) for cut in (False, True))
    first = [list(whole["sentence"]).index(sentence) for sentence in range(len(long_corpus))]
    assert list(cut["sentence"]) == list(range(len(long_corpus))) and len(cut) < len(whole)
    for row, before in zip(cut, whole.select(first), strict=True):
        assert row["input_ids"] == before["input_ids"] and row["own_end"] == len(row["first_token"]) >= before["own_end"]
        assert row["begins"][: len(before["begins"])] == before["begins"]
    assert sum(map(len, whole["begins"])) > sum(map(len, cut["begins"])) > sum(len(whole[i]["begins"]) for i in first)


def test_features_are_cached(tmp_path: Path, tokenizer, monkeypatch):
    path = tmp_path / "corpus.iob2"
    path.write_text("Anna\tB-PER\nBerg\tI-PER\nsings\tO\n\nOslo\tB-LOC\n")
    first = build_features(load_corpus(str(path), labelled=True), tokenizer, 64, 3, LABELS)

    def fail(*_):
        raise RuntimeError("tokenised again")

    monkeypatch.setattr(windows_module, "encode_words", fail)
    second = build_features(load_corpus(str(path), labelled=True), tokenizer, 64, 3, LABELS)
    assert second._fingerprint == first._fingerprint and second.cache_files == first.cache_files != []
    assert second.to_list() == first.to_list()
    for settings in ((64, 2, LABELS), (32, 3, LABELS), (64, 3, None), (64, 3, ["O", "PER", "LOC", "ORG"])):
        with pytest.raises(RuntimeError, match="tokenised again"):
            build_features(load_corpus(str(path), labelled=True), tokenizer, *settings)
