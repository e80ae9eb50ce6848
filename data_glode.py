"""Corpora -> labelled words -> word-aligned features -> batches.

A sentence is {"words": [...], "begins": [...], "lengths": [...], "types": [...]}: its words and its entities, in words.
Features are the windows of `encode_words`; a batch is a dictionary of named tensors.
"""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Sequence as SequenceFeature
from datasets.exceptions import DatasetGenerationError
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from modeling_glode import InputError, collate_windows, encode_words, in_words, iter_words, resolve, span_grid
from random_glode import uniform
from sentences_glode import split_sentences

logger = logging.get_logger(__name__)

SENTENCE = Features(
    {
        "words": SequenceFeature(Value("string")),
        "begins": SequenceFeature(Value("int32")),
        "lengths": SequenceFeature(Value("int32")),
        "types": SequenceFeature(Value("string")),
    }
)

# ------------------------------------------------------------------------------------------------------------- schemes

_VERSION = 3  # of corpora and features in the cache of `datasets`, which does not notice when the code here changes
_PREFIXED = re.compile(r"^([BIESLUM])-(.+)$")


def detect_scheme(tags: Iterable[str]) -> str:
    """Name the label scheme of a set of tags: "IO" (bare types), "IOB" (1 or 2; decoding is the same), "BIOES" or "BILOU".

    Raises:
        InputError: the tags mix schemes or have a prefix that no scheme has.
    """
    names = sorted(set(tags) - {"O"})
    prefixes = {match[1] for match in map(_PREFIXED.match, names) if match}
    bare = [name for name in names if not _PREFIXED.match(name)]
    strange = [name for name in bare if re.match(r"^[A-Z]-", name) or name in {"B", "I", "E", "S", "L", "U", "M", "_", "-"}]
    if strange or (bare and prefixes):
        example = (strange or bare)[0]
        raise InputError(
            f"tag {example!r} fits no label scheme together with {(sorted(set(names) - {example}) or ['O'])[:4]}. "
            "Known are IOB1, IOB2, BIOES, BILOU (as in B-PER) and bare types (PER); use one of them in the whole file."
        )
    if not prefixes:
        return "IO"
    if prefixes <= {"B", "I"}:
        return "IOB"
    if prefixes <= {"B", "I", "E", "S"} or prefixes <= {"B", "M", "E", "S"}:
        return "BIOES"
    if prefixes <= {"B", "I", "L", "U"}:
        return "BILOU"
    raise InputError(f"prefixes {sorted(prefixes)} fit no label scheme. Known are IOB1, IOB2, BIOES and BILOU.")


def decode_tags(tags: Sequence[str], scheme: str) -> list[tuple[int, int, str]]:
    """Entities (begin, length, type) of a tag sequence. An inside tag without a beginning starts an entity (IOB1, and the
    usual reading of broken sequences)."""
    entities, open_type, begin = [], None, 0
    for position, tag in enumerate([*tags, "O"]):
        prefix, name = ("I", tag) if scheme == "IO" else (tag[0], tag[2:])
        if tag == "O":
            name = None
        starts = name is not None and (prefix in "BSU" or name != open_type)
        if open_type is not None and (name is None or starts):
            entities.append((begin, position - begin, open_type))
            open_type = None
        if starts:
            begin, open_type = position, name
        if name is not None and prefix in "ESLU" and scheme != "IO":
            entities.append((begin, position + 1 - begin, open_type))
            open_type = None
    return entities


def encode_tags(number: int, entities: Iterable[tuple[int, int, str]], scheme: str = "IOB2") -> list[str]:
    """The tags of `number` words, in "IOB1", "IOB2", "BIOES" or "IO"."""
    tags, after = ["O"] * number, {}
    for begin, length, name in sorted(entities):
        last = begin + length - 1
        if scheme == "IO":
            tags[begin : last + 1] = [name] * length
            continue
        first_prefix = "I" if scheme == "IOB1" and after.get(begin) != name else "B"
        tags[begin : last + 1] = [f"{first_prefix}-{name}", *[f"I-{name}"] * (length - 1)]
        if scheme == "BIOES":
            tags[last] = f"{'S' if length == 1 else 'E'}-{name}"
        after[last + 1] = name
    return tags


# ------------------------------------------------------------------------------------------------------------- readers


def _open(path: Path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their line end; every failure to read names the file."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error


def _sentence(words: list[str], entities: Iterable[tuple[int, int, str]]) -> dict:
    begins, lengths, types = map(list, zip(*entities, strict=True)) if entities else ([], [], [])
    return {"words": words, "begins": begins, "lengths": lengths, "types": types}


def read_columns(path: Path) -> Iterator[dict]:
    """One word a line, its tag in the last column, a blank line between sentences; `-DOCSTART-` lines are left out."""
    tags = {}
    for number, line in _lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        if columns and line.strip() and columns[0] != "-DOCSTART-":
            if len(columns) < 2 or not columns[-1].strip():
                raise InputError(
                    f"{path}, line {number}: {line.strip()[:60]!r} has no tag. Each line is a word, white space and its tag."
                )
            tags.setdefault(columns[-1].strip(), number)
    scheme = _scheme_of(path, tags)
    words, names = [], []
    for _, line in _lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or columns[0] == "-DOCSTART-":
            if words:
                yield _sentence(words, decode_tags(names, scheme))
            words, names = [], []
            continue
        words.append(columns[0].strip() or "\ufffd")
        names.append(columns[-1].strip())
    if words:
        yield _sentence(words, decode_tags(names, scheme))


def _scheme_of(path: Path, tags: dict[str, int]) -> str:
    """The scheme of the tags, given with the line where each occurs first; the error names the first line that does not fit."""
    seen, scheme = [], "IO"
    for tag, number in tags.items():
        seen.append(tag)
        try:
            scheme = detect_scheme(seen)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return scheme


def read_json_lines(path: Path) -> Iterator[dict]:
    """One JSON object a line: "tokens" (or "words") and "tags" (or "ner_tags", "labels"), which are names."""
    records, tags = [], {}
    for number, line in _lines(path):
        if not line.strip():
            continue
        record = _json(path, number, line)
        words = next((record[k] for k in ("tokens", "words") if k in record), None) if isinstance(record, dict) else None
        names = next((record[k] for k in ("tags", "ner_tags", "labels") if k in record), None) if words is not None else None
        if not _is_strings(words) or (names is not None and not (_is_strings(names) and len(names) == len(words))):
            raise InputError(
                f'{path}, line {number}: expected {{"tokens": [words], "tags": [one tag a word, such as "B-PER"]}} '
                "with lists of equal length."
            )
        if words:
            records.append((words, names))
            for tag in names or ():
                tags.setdefault(tag, number)
    scheme = _scheme_of(path, tags)
    for words, names in records:
        yield _sentence(words, decode_tags(names or ["O"] * len(words), scheme))


def read_spanner(path: Path) -> Iterator[dict]:
    """The authors' format: a JSON list of {"context": "words joined by spaces", "span_posLabel": {"first;last": type}}."""
    text = "\n".join(line for _, line in _lines(path))
    records = _json(path, 1, text)
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        try:
            words = record["context"].split()
            spans = [(*map(int, key.split(";")), name) for key, name in record.get("span_posLabel", {}).items()]
            entities = sorted((first, last - first + 1, str(name)) for first, last, name in spans)
            valid = all(begin >= 0 and length > 0 and begin + length <= len(words) for begin, length, _ in entities)
        except (TypeError, KeyError, ValueError, AttributeError):
            valid = False
        if not valid:
            raise InputError(
                f'{path}, record {number}: expected {{"context": "words", "span_posLabel": {{"first;last": "TYPE"}}}} '
                "with positions inside the text."
            )
        if words:
            yield _sentence(words, entities)


def _is_strings(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _json(path: Path, number: int, text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg}, column {error.colno}).") from None


def read_plain(path: Path) -> Iterator[dict]:
    """Plain text, a sentence or a paragraph a line, split by the rules that inference uses."""
    for _, line in _lines(path):
        for start, end in split_sentences(line):
            if words := list(iter_words(line[start:end])):
                yield _sentence(words, [])


def read_corpus(path: str, labelled: bool) -> Iterator[dict]:
    """Read a corpus file; the format follows from its name: .jsonl, .json (spanner), .txt (plain text where `labelled` is
    False), anything else columns. Each may be gzipped."""
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    readers = {".jsonl": read_json_lines, ".json": read_spanner}
    if not labelled:
        readers[".txt"] = read_plain
    yield from readers.get(suffix, read_columns)(path)


def load_corpus(path: str, labelled: bool) -> Dataset:
    """Read a corpus file into an Arrow-backed data set of sentences, cached by `datasets` under the file's content.

    Raises:
        InputError: the file is missing, empty or broken; the message names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path}: no such file. Check the path.")
    stamp = (str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size, _VERSION)
    try:
        return Dataset.from_generator(
            _generate, features=SENTENCE, gen_kwargs={"path": str(path), "labelled": labelled, "stamp": stamp}
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def _generate(path: str, labelled: bool, stamp: tuple) -> Iterator[dict]:
    """`stamp` makes a changed file another entry of the cache."""
    empty = True
    for sentence in read_corpus(path, labelled):
        empty = False
        yield sentence
    if empty:
        raise InputError(f"{path}: no sentence in it. Expected one word and tag a line, or one sentence a line in a .txt file.")


def load_hub_corpus(name: str, language: str) -> DatasetDict:
    """Load a token-classification data set from the Hub (columns `tokens` and `ner_tags`), one configuration a language.

    Raises:
        InputError: the Hub, the data set or the language is not there, or the columns are others.
    """
    try:
        raw = load_dataset(name, language)
    except Exception as error:  # the Hub client raises a dozen unrelated classes here, each a reason the user must see
        raise InputError(
            f"data set {name!r} ({language}) cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}. "
            "Check the name, the language and the connection to the Hub (HF_ENDPOINT, HF_TOKEN), or give files: "
            "--source_train, --target_unlabeled."
        ) from error
    columns = next(iter(raw.values())).features
    if "tokens" not in columns or "ner_tags" not in columns:
        raise InputError(f"data set {name!r} has the columns {sorted(columns)}; expected `tokens` and `ner_tags`.")
    feature = columns["ner_tags"].feature
    names = feature.names if hasattr(feature, "names") else None
    if names is None and feature.dtype != "string":
        raise InputError(f"data set {name!r}: `ner_tags` are numbers without names. Give files instead: --source_train.")
    scheme = detect_scheme(names or {tag for part in raw.values() for tags in part["ner_tags"] for tag in tags})

    def convert(row: dict) -> dict:
        tags = [names[i] for i in row["ner_tags"]] if names else row["ner_tags"]
        return _sentence(row["tokens"], decode_tags(tags, scheme))

    return raw.map(convert, remove_columns=list(columns), features=SENTENCE, desc="Reading labels").filter(
        lambda row: len(row["words"]) > 0
    )


# ------------------------------------------------------------------------------------------------------------ features


def label_names(*corpora: Dataset) -> list[str]:
    """ "O" and the entity types of the corpora, sorted.

    Raises:
        InputError: there is no entity at all.
    """
    types = sorted({name for corpus in corpora for names in corpus["types"] for name in names})
    if not types:
        raise InputError("the source corpus has no entity: every tag is O. Give a labelled corpus with --source_train.")
    return ["O", *types]


def choose_span_length(corpus: Dataset, cover: float = 0.995) -> int:
    """The smallest L, in words, that covers the share `cover` of the corpus' entities."""
    lengths = np.sort([n for row in corpus["lengths"] for n in row])
    return int(lengths[int(np.ceil(cover * len(lengths))) - 1])


def unreachable_share(corpus: Dataset, windows: Dataset, max_span_length: int) -> float:
    """The share of the corpus' entities that the grid cannot hold: longer than L, or with a border within a unit."""
    total = sum(map(len, corpus["types"]))
    return 1 - sum(map(len, reachable_entities(corpus, windows, max_span_length))) / total if total else 0.0


def build_features(
    corpus: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    max_span_length: int,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Tokenise a corpus into windows, see `encode_words`. Batched, and cached by `datasets`.

    Args:
        labels: the types, "O" first; None leaves the corpus' entities unread.
    Returns:
        One row a window: `encode_words`' columns (`sentence` is the row in `corpus`) and, with `labels`, the entities of at
        most L units that the window owns: `begins` (in the window), `lengths` and `types` (indices into `labels`).
    """
    if labels is None:
        corpus = corpus.select_columns(["words"])
    options = {"tokenizer": tokenizer, "max_tokens": max_tokens, "max_span_length": max_span_length, "version": _VERSION}
    options["label_ids"] = {name: i for i, name in enumerate(labels)} if labels is not None else None
    return corpus.map(
        _features, batched=True, with_indices=True, remove_columns=corpus.column_names, fn_kwargs=options, desc="Tokenising"
    )


def _features(
    batch: dict, indices: list[int], tokenizer, max_tokens: int, max_span_length: int, label_ids: dict | None, version: int
) -> dict:
    columns = encode_words(batch["words"], tokenizer, max_tokens, max_span_length)
    if label_ids is not None:
        columns |= {"begins": [], "lengths": [], "types": []}
        for sentence, *window in zip(*(columns[name] for name in ("sentence", "borders", "own_start", "own_end")), strict=True):
            entities = zip(*(batch[name][sentence] for name in ("begins", "lengths", "types")), strict=True)
            mine = [(begin, n, label_ids[name]) for begin, n, name in in_units(entities, *window, max_span_length)]
            for name, values in zip(
                ("begins", "lengths", "types"), zip(*mine, strict=True) if mine else ([], [], []), strict=True
            ):
                columns[name].append(list(values))
    columns["sentence"] = [indices[i] for i in columns["sentence"]]
    return columns


def in_units(
    entities: Iterable[tuple[int, int, str]], borders: Sequence[int], own_start: int, own_end: int, max_span_length: int
) -> list[tuple[int, int, str]]:
    """The entities (first word, length in words, type) that a window's grid holds, as (first unit, length in units, type): they
    begin at an owned unit, end where a unit ends, and have at most L units."""
    unit = {word: i for i, word in enumerate(borders)}
    found = []
    for begin, length, name in entities:
        first, end = unit.get(begin, -1), unit.get(begin + length, -1)
        if own_start <= first < own_end and 0 < end - first <= max_span_length:
            found.append((first, end - first, name))
    return found


def reachable_entities(corpus: Dataset, windows: Dataset, max_span_length: int) -> list[list[tuple[int, int, str]]]:
    """The gold entities of each sentence that its windows' grids hold; the others cannot be found, whatever the model."""
    gold = gold_entities(corpus)
    reachable = [[] for _ in gold]
    columns = (windows[name] for name in ("sentence", "borders", "own_start", "own_end"))
    for sentence, borders, *own in zip(*columns, strict=True):
        reachable[sentence] += [in_words(e, borders) for e in in_units(gold[sentence], borders, *own, max_span_length)]
    return reachable


def span_counts(features: Dataset, max_span_length: int) -> np.ndarray:
    """How many cells of its grid each window has. [windows]"""
    words = np.array([len(x) for x in features["first_token"]])
    start, end = np.array(features["own_start"]), np.array(features["own_end"])
    lengths = np.arange(1, max_span_length + 1)
    return np.maximum(np.minimum(end[:, None], words[:, None] - lengths + 1) - start[:, None], 0).sum(1)


def merge_windows(
    predictions: np.ndarray, windows: Dataset, sentences: int, names: dict[int, str]
) -> list[list[tuple[int, int, str]]]:
    """Join the entities of each sentence's windows; where those of two windows overlap, the more probable one stays.

    Args:
        predictions: [windows, units, (type, length, probability)], at most one entity a first unit; type <= 0 is none.
        sentences: how many sentences the corpus has.
        names: id2label.
    Returns:
        (first word, length, type) of each sentence's entities, in text order.
    """
    found = [[] for _ in range(sentences)]
    sentence, borders = windows["sentence"], windows["borders"]
    row, begin = np.nonzero(predictions[..., 0] > 0)
    for window, unit, (label, length, score) in zip(row.tolist(), begin.tolist(), predictions[row, begin].tolist(), strict=True):
        found[sentence[window]].append(in_words((unit, int(length), names[int(label)], score), borders[window]))
    return [[entity[:3] for entity in resolve(entities)] for entities in found]


def gold_entities(corpus: Dataset) -> list[list[tuple[int, int, str]]]:
    """(first word, length, type) of each sentence's gold entities."""
    return [list(zip(*row, strict=True)) for row in zip(corpus["begins"], corpus["lengths"], corpus["types"], strict=True)]


# ------------------------------------------------------------------------------------------------------------- batches


class TwoStreams(torch.utils.data.Dataset):
    """Source windows, then target windows, as one map-style data set. An index beyond its end starts again: epoch after epoch."""

    def __init__(self, source: Dataset, target: Dataset | None):
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source) + (len(self.target) if self.target is not None else 0)

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        border, total = len(self.source), len(self)
        places = [index % total for index in indices]
        rows = [self.source[i] if i < border else self.target[i - border] for i in places]
        return [row | {"index": n, "window": i - border} for row, n, i in zip(rows, indices, places, strict=True)]

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]


class TwoStreamSampler(Sampler[int]):
    """Draws `source_batch` source and `target_batch` target windows, over and over: together one micro-batch.

    The order is a pure function of (seed, epoch). An epoch is one pass over the longer stream, the shorter one starts
    anew. Windows of similar length share a batch: within each run of batches both streams are sorted by length, and
    the batches are shuffled afterwards. Several processes, of which each takes every n-th micro-batch, get together what
    one process with n times the batch gets.

    Args:
        source_lengths, target_lengths: tokens of each window.
        source_batch, target_batch: windows of each stream a micro-batch; `target_batch` 0 leaves the target out.
        processes: how many processes share an epoch.
    """

    run = 16

    def __init__(
        self,
        source_lengths: Sequence[int],
        target_lengths: Sequence[int],
        source_batch: int,
        target_batch: int,
        seed: int,
        processes: int = 1,
    ):
        self.streams = [(np.asarray(source_lengths), source_batch, 0)]
        if target_batch:
            self.streams.append((np.asarray(target_lengths), target_batch, len(source_lengths)))
        self.steps = max(-(-len(lengths) // (batch * processes)) for lengths, batch, _ in self.streams)
        self.seed, self.epoch, self.processes = seed, 0, processes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.processes * sum(batch for _, batch, _ in self.streams)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn = [self._draw(generator, *stream) for stream in self.streams]
        batches = np.concatenate([stream.reshape(self.steps, self.processes, -1) for stream in drawn], axis=2)
        total = sum(len(lengths) for lengths, *_ in self.streams)  # an index tells the epoch as well, see TwoStreams
        yield from (batches[generator.permutation(self.steps)].ravel() + self.epoch * total).tolist()

    def _draw(self, generator: np.random.Generator, lengths: np.ndarray, batch: int, shift: int) -> np.ndarray:
        """[steps, batch of all processes] indices, sorted by length inside each run of batches."""
        batch *= self.processes
        wanted = self.steps * batch
        passes = [generator.permutation(len(lengths)) for _ in range(-(-wanted // len(lengths)))]
        order = np.concatenate(passes)[:wanted]
        runs = [order[at : at + self.run * batch] for at in range(0, wanted, self.run * batch)]
        return np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs]).reshape(self.steps, batch) + shift


@dataclass
class GlodeCollator:
    """Makes a batch of windows, for training (both streams) and for evaluation (one stream).

    Returns a dictionary of tensors, for 2 source windows, 1 target window and its masked copy, with L = 2:

        input_ids       [4, tokens]     source, target, masked copies of the target; without `keep_target` the copies alone
        attention_mask  [4, tokens]
        first_token     [3, words]      only windows that are scored; last_token and word_shapes likewise
        span_mask       [3, words, 2]   which cells of the grid are spans
        labels          [3, words, 2]   gold types of source spans; -100 for target spans and where there is no span
        window          [3]             the window in the target's pseudo labels; below 0 for source windows
        own_start       [3]             its first owned word
        mlm_labels      [4, tokens]     the masked tokens; -100 elsewhere

    What is masked is a pure function of the seed, the epoch and the window.
    """

    tokenizer: PreTrainedTokenizerBase
    max_span_length: int
    mlm_probability: float = 0.0
    keep_target: bool = True
    seed: int = 0

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        target = [row for row in rows if row.get("window", -1) >= 0]
        masked = target if self.mlm_probability > 0 else []
        scored = rows if self.keep_target else [row for row in rows if row.get("window", -1) < 0]
        batch = collate_windows([*scored, *masked], self.tokenizer.pad_token_id)
        if masked:
            self._mask(batch, len(scored), [row["index"] for row in masked])
        words = max(len(row["first_token"]) for row in scored)
        for name in ("first_token", "last_token", "word_shapes"):
            batch[name] = batch[name][: len(scored), :words]
        own = [batch.pop(name)[: len(scored)] for name in ("number_of_words", "own_start", "own_end")]
        batch["span_mask"] = span_grid(*own, words, self.max_span_length)
        batch["window"] = torch.tensor([row.get("window", row.get("index", 0)) for row in scored])
        batch["own_start"] = own[1]
        if "types" in scored[0]:
            batch["labels"] = self._labels(scored, batch["span_mask"])
        return batch

    def _mask(self, batch: dict[str, Tensor], first: int, indices: Sequence[int]) -> None:
        """Replace each ordinary token of the rows from `first` on by the mask token, with the given probability (eq. 2)."""
        tokens = batch["input_ids"]
        chosen = batch["attention_mask"].bool() & ~torch.isin(tokens, torch.tensor(self.tokenizer.all_special_ids))
        chosen[:first] = False
        keys = torch.tensor(indices)[:, None] * 2**20 + torch.arange(tokens.shape[1])
        chosen[first:] &= uniform(keys, self.seed) < self.mlm_probability
        batch["mlm_labels"] = tokens.masked_fill(~chosen, -100)
        batch["input_ids"] = tokens.masked_fill(chosen, self.tokenizer.mask_token_id)

    @staticmethod
    def _labels(rows: Sequence[dict], span_mask: Tensor) -> Tensor:
        is_source = torch.tensor(["types" in row for row in rows])
        labels = torch.zeros(span_mask.shape, dtype=torch.long)
        cells = [
            (i, begin, length - 1, label)
            for i, row in enumerate(rows)
            for begin, length, label in zip(row.get("begins", ()), row.get("lengths", ()), row.get("types", ()), strict=True)
        ]
        if cells:
            row, begin, length, label = torch.tensor(cells).T
            labels[row, begin, length] = label
        return labels.masked_fill(~span_mask | ~is_source[:, None, None], -100)


def entity_counts(corpus: Dataset) -> dict[str, int]:
    """How many entities of each type the corpus has."""
    return dict(sorted(Counter(name for names in corpus["types"] for name in names).items()))
