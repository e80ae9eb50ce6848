"""Protects the path from labelled words to a batch: every entity arrives in the cell of the grid where it belongs, and target
labels arrive nowhere."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from glode.corpora.schema import SENTENCE
from glode.errors import InputError
from glode.features import windows as windows_module
from glode.features.collator import GlodeCollator
from glode.features.columns import span_counts, token_set
from glode.features.predictions import merge_windows
from glode.features.reach import choose_span_length, gold_entities, unreachable_share
from glode.features.streams import TwoStreams, TwoStreamSampler
from glode.features.windows import build_features
from modeling_glode import collate_windows, span_grid

pytestmark = pytest.mark.usefixtures("datasets_cache")

TYPES = ["PER", "LOC", "ORG"]
LABELS = ["O", "LOC", "ORG", "PER"]


def random_entities(rng: random.Random, number: int, apart: bool = False) -> list[tuple[int, int, str]]:
    """Flat entities; they often touch, also those of the same type, unless they shall be `apart`."""
    entities, at = [], 0
    while at < number:
        length = min(rng.choice([1, 1, 2, 3]), number - at)
        if rng.random() < 0.6:
            entities.append((at, length, rng.choice(TYPES)))
            length += apart
        at += length
    return entities


def sentence(words: list[str], entities: list[tuple[int, int, str]]) -> dict:
    begins, lengths, types = ([entity[i] for entity in entities] for i in range(3))
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def make_corpus(*rows: dict) -> Dataset:
    return Dataset.from_list(list(rows), features=SENTENCE)


# ----------------------------------------------------------------------------------------------------------- summaries


def test_label_names(corpus: Dataset):
    assert label_names(corpus) == ["O", "LOC", "PER"]
    other = make_corpus(sentence(["x"], [(0, 1, "ART")]))
    assert label_names(corpus, other) == ["O", "ART", "LOC", "PER"]
    with pytest.raises(InputError, match="the source corpus has no entity"):
        label_names(make_corpus(sentence(["x"], [])))


def test_choose_span_length_is_the_smallest_that_covers():
    rng = random.Random(3)
    for number in [1, 2, 199, 200, 201, 399, 400, *(rng.randint(1, 3000) for _ in range(60))]:
        lengths = [min(int(rng.expovariate(0.7)) + 1, 15) for _ in range(number)]
        data = make_corpus({"words": [], "begins": [0] * number, "lengths": lengths, "types": ["PER"] * number})
        smallest = next(n for n in range(1, 16) if 1000 * sum(x <= n for x in lengths) >= 995 * number)
        assert choose_span_length(data) == smallest, number


def test_unreachable_share(tokenizer):
    data = make_corpus(sentence(["w"] * 9, [(0, 1, "PER"), (1, 4, "PER")]), sentence(["w"] * 9, [(0, 5, "PER"), (5, 2, "LOC")]))
    for length, share in enumerate([0.75, 0.5, 0.5, 0.25, 0.0], 1):
        assert unreachable_share(data, build_features(data, tokenizer, 128, length), length) == share
    empty = make_corpus(sentence(["w"], []))
    assert unreachable_share(empty, build_features(empty, tokenizer, 128, 4), 4) == 0.0


# ------------------------------------------------------------------------------------------------------------ features


@pytest.fixture(scope="module")
def long_corpus(corpus: Dataset) -> Dataset:
    """12 random sentences, most of them longer than a window of 30 tokens."""
    rng = random.Random(5)
    vocabulary = sorted({word for words in corpus["words"] for word in words})
    rows = []
    for number in [3, 8, *(rng.randint(20, 90) for _ in range(10))]:
        rows.append(sentence([rng.choice(vocabulary) for _ in range(number)], random_entities(rng, number)))
    return make_corpus(*rows)


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


def test_span_counts_are_the_sums_of_the_grid(long_corpus: Dataset, tokenizer):
    for max_tokens, length in ((30, 1), (30, 3), (100, 7)):
        features = build_features(long_corpus, tokenizer, max_tokens, length)
        assert len(features) > len(long_corpus)
        batch = collate_windows(features.to_list(), tokenizer.pad_token_id)
        own = [batch[name] for name in ("number_of_words", "own_start", "own_end")]
        grid = span_grid(*own, batch["first_token"].shape[1], length)
        assert span_counts(features, length).tolist() == grid.sum((1, 2)).tolist()
        whole = sum(max(len(words) - k, 0) for words in long_corpus["words"] for k in range(length))
        assert span_counts(features, length).sum() == whole  # every span of the corpus is in exactly one window


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


def test_merge_windows_joins_offsets_and_overlaps():
    windows = Dataset.from_dict({"sentence": [0, 0, 2], "borders": [list(range(20)), list(range(4, 24)), list(range(20))]})
    predictions = np.zeros((3, 8, 3), dtype=np.float32)
    predictions[..., 0] = -1
    predictions[0, 1] = (1, 2, 0.7)
    predictions[0, 5] = (1, 2, 0.6)  # words 5 and 6; the next window is surer of word 6
    predictions[1, 2] = (2, 1, 0.9)
    predictions[1, 3] = (2, 3, 0.5)  # words 7 to 9, which touch but do not overlap
    predictions[2, 0] = (0, 1, 0.99)  # "O" is no entity
    predictions[2, 4] = (2, 2, 0.4)
    assert merge_windows([predictions[:1], predictions[1:]], windows, 4, {0: "O", 1: "PER", 2: "LOC"}) == [
        [(1, 2, "PER"), (6, 1, "LOC"), (7, 3, "LOC")],
        [],
        [(4, 2, "LOC")],
        [],
    ]


def test_merge_windows_gives_back_what_the_windows_hold(long_corpus: Dataset, tokenizer):
    features = build_features(long_corpus, tokenizer, 30, 3, LABELS)
    predictions = np.zeros((len(features), max(map(len, features["first_token"])), 3))
    for i, row in enumerate(features):
        for begin, length, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            predictions[i, begin] = (label, length, 0.5)
    blocks = predictions[:1], predictions[1:]
    assert merge_windows(blocks, features, len(long_corpus), dict(enumerate(LABELS))) == gold_entities(long_corpus)


# ------------------------------------------------------------------------------------------------------------- sampler


def lengths_of(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 200, number)


@pytest.mark.parametrize(("source", "target"), [(103, 40), (40, 103), (50, 50), (7, 1), (1, 7)])
@pytest.mark.parametrize(("source_batch", "target_batch"), [(4, 4), (3, 5), (8, 1)])
def test_sampler_batches(source: int, target: int, source_batch: int, target_batch: int):
    sampler = TwoStreamSampler(lengths_of(source, 0), lengths_of(target, 1), source_batch, target_batch, seed=3)
    steps = max(-(-source // source_batch), -(-target // target_batch))
    indices = list(sampler)
    assert len(indices) == len(sampler) == steps * (source_batch + target_batch)
    batches = np.array(indices).reshape(steps, -1)
    assert (batches[:, :source_batch] < source).all() and (batches[:, source_batch:] >= source).all()
    drawn = Counter(indices)
    assert set(drawn) == set(range(source + target))  # the shorter stream is covered all the more
    for part in (range(source), range(source, source + target)):
        assert max(drawn[i] for i in part) - min(drawn[i] for i in part) <= 1


def test_sampler_is_a_function_of_seed_and_epoch():
    def draw(seed: int, epoch: int) -> list[int]:
        sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    np.random.seed(0)
    torch.manual_seed(0)
    first = draw(1, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert draw(1, 0) == first
    orders = [draw(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    sampler = TwoStreamSampler(lengths_of(60, 0), lengths_of(90, 1), 4, 4, 1)
    sampler.set_epoch(2)
    assert list(sampler) == orders[2] == list(sampler)
    assert {index // 150 for index in orders[2]} == {2}  # an index tells the epoch
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(processes: int):
    lengths = (lengths_of(50, 0), lengths_of(70, 1))
    one = np.array(list(TwoStreamSampler(*lengths, 2 * processes, 3 * processes, 1))).reshape(-1, 5 * processes)
    several = np.array(list(TwoStreamSampler(*lengths, 2, 3, 1, processes))).reshape(-1, processes, 5)
    assert len(one) == len(several)
    border = 2 * processes
    assert np.array_equal(one[:, :border].reshape(-1, processes, 2), several[..., :2])
    assert np.array_equal(one[:, border:].reshape(-1, processes, 3), several[..., 2:])


def test_sampler_of_the_source_alone():
    sampler = TwoStreamSampler(lengths_of(21, 0), lengths_of(500, 1), 4, 0, seed=0)
    assert len(sampler) == 24 and set(sampler) == set(range(21))


def test_similar_lengths_share_a_batch():
    lengths = [lengths_of(640, 0), lengths_of(640, 1)]
    batches = np.array(list(TwoStreamSampler(*lengths, 8, 8, seed=0))).reshape(-1, 16)
    together = np.concatenate(lengths)[batches]
    random_batches = np.random.default_rng(0).permutation(640).reshape(-1, 8)
    usual = np.ptp(lengths[0][random_batches], axis=1).mean()
    assert np.ptp(together[:, :8], axis=1).mean() < usual / 4
    assert np.ptp(together[:, 8:], axis=1).mean() < usual / 4
    assert np.ptp(together, axis=1).mean() < usual / 3  # both streams: they are padded to one width
    order = np.diff(together.mean(1)) > 0
    assert 0.25 < order.mean() < 0.75  # but the batches do not come in the order of their lengths


# ------------------------------------------------------------------------------------------------------------ collator


@pytest.fixture(scope="module")
def streams(corpus: Dataset, tokenizer) -> TwoStreams:
    source = build_features(corpus, tokenizer, 64, 2, ["O", "LOC", "PER"])
    return TwoStreams(source, build_features(corpus.select(range(5, 20)), tokenizer, 64, 2))


def test_two_streams(streams: TwoStreams):
    assert len(streams) == 35
    rows = streams.__getitems__([3, 20, 34])
    assert [row["index"] for row in rows] == [3, 20, 34] and [row["window"] for row in rows] == [-17, 0, 14]
    later = streams.__getitems__([3 + 35, 20 + 70])
    assert [row["window"] for row in later] == [-17, 0] and [row["input_ids"] for row in later] == [
        r["input_ids"] for r in rows[:2]
    ]
    assert rows[1]["input_ids"] == streams.target[0]["input_ids"] and rows[0]["input_ids"] == streams.source[3]["input_ids"]
    assert "types" in rows[0] and "types" not in rows[1]
    assert streams[34] == rows[2]
    assert len(TwoStreams(streams.source, None)) == 20


def test_collated_shapes(streams: TwoStreams, tokenizer):
    """The example of the class' docstring: 2 source windows, 1 target window and its masked copy, L = 2."""
    rows = streams.__getitems__([0, 4, 23])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(rows)
    tokens, words = max(len(row["input_ids"]) for row in rows), max(len(row["first_token"]) for row in rows)
    shapes = dict.fromkeys(("input_ids", "attention_mask", "mlm_labels"), (4, tokens))
    shapes |= dict.fromkeys(("first_token", "last_token", "word_shapes"), (3, words))
    shapes |= {"span_mask": (3, words, 2), "labels": (3, words, 2), "window": (3,), "own_start": (3,)}
    assert {name: tuple(value.shape) for name, value in batch.items()} == shapes
    assert batch["window"].tolist()[2] == 3 and (batch["window"][:2] < 0).all()
    for i, row in enumerate([*rows, rows[2]]):
        number = len(row["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * number + [0] * (tokens - number)
        assert (batch["input_ids"][i, number:] == tokenizer.pad_token_id).all()
        if i < 3:
            assert batch["input_ids"][i, :number].tolist() == row["input_ids"]
            for name in ("first_token", "last_token", "word_shapes"):
                assert batch[name][i].tolist() == row[name] + [0] * (words - len(row[name]))


def test_labels_are_in_their_cells_and_never_the_targets(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([*range(20), 20, 21, 34])
    labels = GlodeCollator(tokenizer, 2)(rows)["labels"]
    assert (labels[20:] == -100).all()
    positive = 0
    for i, row in enumerate(rows[:20]):
        gold = {(b, n): t for b, n, t in zip(row["begins"], row["lengths"], row["types"], strict=True)}
        for begin in range(labels.shape[1]):
            for length in (1, 2):
                inside = begin + length <= len(row["first_token"])
                assert labels[i, begin, length - 1] == (gold.get((begin, length), 0) if inside else -100)
        positive += len(gold)
    assert (labels > 0).sum() == positive > 20


def test_a_targets_own_labels_are_not_used(corpus: Dataset, tokenizer):
    """Unlabelled windows stay unlabelled beside labelled ones, and a batch of them alone has no labels at all."""
    target = build_features(corpus, tokenizer, 64, 2)
    assert "labels" not in GlodeCollator(tokenizer, 2)([target[i] for i in range(3)])


@pytest.mark.parametrize("keep_target", [True, False])
def test_only_copies_of_the_target_are_masked(streams: TwoStreams, tokenizer, keep_target: bool):
    rows = streams.__getitems__([0, 1, 2, 22, 27])
    batch = GlodeCollator(tokenizer, 2, mlm_probability=1.0, keep_target=keep_target)(rows)
    scored = 5 if keep_target else 3
    inputs = batch["input_ids"]
    assert len(inputs) == scored + 2
    assert batch["first_token"].shape[0] == batch["span_mask"].shape[0] == batch["labels"].shape[0] == scored
    assert len(batch["window"]) == len(batch["own_start"]) == scored
    assert (batch["mlm_labels"][:scored] == -100).all()
    assert all((tokens != tokenizer.mask_token_id).all() for tokens in inputs[:scored])
    special = set(tokenizer.all_special_ids)
    for i, row in enumerate(rows[3:], scored):
        number = len(row["input_ids"])
        wanted = [t if t in special else tokenizer.mask_token_id for t in row["input_ids"]]
        assert inputs[i][:number].tolist() == wanted
        assert batch["mlm_labels"][i, :number].tolist() == [-100 if t in special else t for t in row["input_ids"]]
        assert (batch["mlm_labels"][i, number:] == -100).all()


def test_masks_depend_on_seed_and_batch_alone(streams: TwoStreams, tokenizer):
    rows = streams.__getitems__([0, 1, *range(20, 35)])

    def masks(seed: int, probability: float = 0.3, rows: list[dict] = rows) -> torch.Tensor:
        return GlodeCollator(tokenizer, 2, mlm_probability=probability, seed=seed)(rows)["mlm_labels"] != -100

    first = masks(0)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(first, masks(0)) and not torch.equal(first, masks(1))
    assert not torch.equal(first, masks(0, rows=[row | {"index": row["index"] + 1} for row in rows]))  # the same texts
    ordinary = masks(0, 1.0).sum()
    assert 0.2 < first.sum() / ordinary < 0.4
    assert "mlm_labels" not in GlodeCollator(tokenizer, 2)(rows)


def test_token_set_of_some_windows():
    windows = Dataset.from_dict({"input_ids": [[7, 2], [2, 9, 7], [3]]})
    assert token_set(windows).tolist() == [2, 3, 7, 9]
    assert token_set(windows.select([2, 0])).tolist() == [2, 3, 7]
