"""Labelled words -> windows: word-aligned features."""

from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from glode.features.reach import in_units
from modeling_glode import encode_words

_VERSION = 5  # of the features in the cache of `datasets`, which does not notice when the code here changes


def build_features(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    max_span_length: int,
    labels: Sequence[str] | None = None,
    cut_sentences: bool = False,
    units: str = "piece",
) -> Dataset:
    """Tokenise a corpus into windows, see `encode_words`. Batched, and cached by `datasets`.

    Args:
        labels: the types, "O" first; None leaves the corpus' entities unread.
        cut_sentences: keep the first window of each sentence alone; what is beyond it is lost.
        units: how scripts without spaces are cut, as the model's configuration has it.
    Returns:
        One row a window: `encode_words`' columns (`sentence` is the row in `corpus`) and, with `labels`, the entities of at
        most L units that the window owns: `begins` (in the window), `lengths` and `types` (indices into `labels`).
    """
    if labels is None:
        corpus = corpus.select_columns(["words"])
    options = {"tokenizer": tokenizer, "max_tokens": max_tokens, "max_span_length": max_span_length, "version": _VERSION}
    options |= {"cut_sentences": cut_sentences, "units": units}
    options["label_ids"] = {name: i for i, name in enumerate(labels)} if labels is not None else None
    return corpus.map(
        _features, batched=True, with_indices=True, remove_columns=corpus.column_names, fn_kwargs=options, desc="Tokenising"
    )


def _features(
    batch: dict,
    indices: list[int],
    tokenizer,
    max_tokens: int,
    max_span_length: int,
    label_ids: dict | None,
    cut_sentences: bool,
    units: str,
    version: int,
) -> dict:
    columns = encode_words(batch["words"], tokenizer, max_tokens, max_span_length, units)
    if cut_sentences:
        columns = _first_windows(columns)
    if label_ids is not None:
        columns |= _entities_of_windows(batch, columns, max_span_length, label_ids)
    columns["sentence"] = [indices[i] for i in columns["sentence"]]
    return columns


def _first_windows(columns: dict[str, list]) -> dict[str, list]:
    """The first window of each sentence, which then owns all of its units."""
    sentences = columns["sentence"]
    first = [i for i, sentence in enumerate(sentences) if i == 0 or sentences[i - 1] != sentence]
    kept = {name: [column[i] for i in first] for name, column in columns.items()}
    return kept | {"own_end": [len(units) for units in kept["first_token"]]}


def _entities_of_windows(
    batch: dict, columns: dict[str, list], max_span_length: int, label_ids: dict[str, int]
) -> dict[str, list]:
    """The entities of a batch of sentences as those of its windows: `begins`, `lengths` and `types`, a list for each window."""
    found: dict[str, list] = {"begins": [], "lengths": [], "types": []}
    windows = zip(*(columns[name] for name in ("sentence", "borders", "own_start", "own_end")), strict=True)
    for sentence, borders, own_start, own_end in windows:
        entities = zip(*(batch[name][sentence] for name in found), strict=True)
        mine = in_units(entities, borders, own_start, own_end, max_span_length)
        found["begins"].append([begin for begin, _, _ in mine])
        found["lengths"].append([length for _, length, _ in mine])
        found["types"].append([label_ids[name] for _, _, name in mine])
    return found
