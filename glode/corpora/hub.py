"""A token-classification data set of `datasets`, on the Hub or on disk -> a corpus."""

import logging
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.fingerprint import Hasher

from glode.corpora.keys import SPAN_KEYS, TAG_KEYS, TOKEN_KEYS, keys
from glode.corpora.options import ReadingOptions
from glode.corpora.reading import VERSION, build, label
from glode.corpora.schema import Raw
from glode.corpora.tables import read_rows
from glode.errors import InputError

logger = logging.getLogger(__name__)

PARTS = {"train": ("training",), "validation": ("valid", "val", "dev"), "test": ("testing", "eval", "evaluation")}

_DATA_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json")


def load_hub_corpus(name: str, language: str, options: ReadingOptions | None = None, labelled: bool = False) -> DatasetDict:
    """Load a token-classification data set, one configuration a language, from the Hub or from a directory: as the Hub has it, or
    with a directory a language, of files (parquet, JSON lines) or of what `save_to_disk` wrote. Its rows are read by the rules of
    files, see `read_record`.

    Args:
        labelled: `train` must have labels; without, it may be text (of a target language).
    Returns:
        Its parts `train`, `validation` and `test`, as far as there are, as corpora. The last two are left out without labels.
    Raises:
        InputError: the Hub, the data set or the language is not there, or its rows are something else.
    """
    options = options or ReadingOptions()
    parts = {}
    for part, rows in _parts(_load(name, language), f"data set {name!r} ({language})").items():
        source = f"data set {name!r} ({language}, {part})"
        _check_columns(rows, source, options, labelled and part == "train")
        is_labelled = (labelled and part == "train") or any(
            _has_labels(row) for row in read_rows(rows, rows.features, source, options)
        )
        if is_labelled or part == "train":
            key = Hasher.hash([VERSION, rows._fingerprint, source, is_labelled, astuple(options)])
            arguments = {"rows": rows, "source": source, "labelled": is_labelled, "options": options}
            parts[part] = build(_generate, arguments, fingerprint=key)
        else:
            logger.warning(f"{source}: no word of it is labelled, it is left out.")
    return DatasetDict(parts)


def _load(name: str, language: str) -> DatasetDict:
    """The parts of a data set as they are."""
    saved = Path(name, language)
    if Path(name, "dataset_dict.json").exists() or Path(name, "state.json").exists():
        raise InputError(
            f"--dataset_name {name} was saved from one language. Save each into a directory of its own, {saved}, or give the "
            f"parts as files: --source_train {Path(name, 'train')}."
        )
    if Path(name).is_dir() and not saved.is_dir() and not Path(name, "README.md").exists():
        there = ", ".join(sorted(path.name for path in Path(name).iterdir() if path.is_dir()))
        raise InputError(f"--dataset_name {name} has no directory of the language {language!r}, only {there or 'files'}.")
    if saved.is_dir() and not Path(name, "README.md").exists() and not any(f.suffix in _DATA_SUFFIXES for f in saved.rglob("*")):
        files = ", ".join(sorted(path.name for path in saved.iterdir())[:3]) or "nothing"
        raise InputError(
            f"--dataset_name {name}: the directory {saved} has {files}, and no parquet or JSON lines. Give other files by "
            "--source_train and --target_unlabeled."
        )
    try:
        if any((saved / file).exists() for file in ("dataset_dict.json", "state.json")):
            found = load_from_disk(str(saved))
            return DatasetDict({"train": found}) if isinstance(found, Dataset) else found
        if saved.is_dir() and not Path(name, "README.md").exists():  # which may say what its configurations are
            return load_dataset(str(saved))
        return load_dataset(name, language)
    except Exception as error:  # the Hub client raises a dozen unrelated classes here, each a reason the user must see
        raise InputError(
            f"data set {name!r} ({language}) cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}. "
            "Check the name, the language and the connection to the Hub (HF_ENDPOINT, HF_TOKEN), or give files: "
            "--source_train, --target_unlabeled."
        ) from error


def _parts(found: DatasetDict, source: str) -> dict[str, Dataset]:
    """The parts under the names that `datasets` gives them; others are said, also a second one of the same meaning."""
    others = {other: name for name, names in PARTS.items() for other in names}
    named = dict(found)
    for part, rows in found.items():
        if (name := others.get(part, part)) not in named:
            named[name] = rows
            del named[part]
    if left := sorted(set(named) - set(PARTS)):
        logger.warning(f"{source}: the parts {', '.join(left)} are not read, only {', '.join(PARTS)}.")
    return {part: named[part] for part in named if part in PARTS}


def _check_columns(rows: Dataset, source: str, options: ReadingOptions, labelled: bool) -> None:
    """There are the columns of words, or of texts, and, where there must be labels, of tags or spans; and the tags have names.

    Raises:
        InputError: they are not.
    """
    features = rows.features
    words = [key for key in keys(options.token_column, TOKEN_KEYS) if key in features]
    tags = [key for key in keys(options.tag_column, TAG_KEYS) if key in features]
    spans = [key for key in keys(options.tag_column, SPAN_KEYS) if key in features]
    has_text = (options.text_field or "text") in features
    if not (words and (tags or not labelled)) and not (has_text and (spans or not labelled)):
        raise InputError(
            f"{source} has the columns {sorted(features)}; expected `tokens` and `ner_tags`. Name them by --token_column and "
            "--tag_column, or give files: --source_train."
        )
    if not (words and tags):
        return
    item = getattr(features[tags[0]], "feature", None)
    if item is None:
        raise InputError(
            f"{source}: `{tags[0]}` has one value a row, expected a list with a tag a word. Give files: --source_train."
        )
    if not hasattr(item, "names") and getattr(item, "dtype", "string") not in ("string", "large_string"):
        raise InputError(f"{source}: `{tags[0]}` are numbers without names. Give files instead: --source_train.")


def _has_labels(raw: Raw) -> bool:
    return bool(raw.words) and (raw.entities is not None or any(tag is not None for tag in raw.tags or ()))


def _generate(rows: Dataset, source: str, labelled: bool, options: ReadingOptions) -> Iterator[dict]:
    empty = True
    for sentence in label(lambda: read_rows(rows, rows.features, source, options), source, "row", ("Hub", ""), labelled, options):
        empty = False
        yield sentence
    if empty:
        raise InputError(f"{source}: no row of it has words. Leave it out, or give files: --source_train.")
