"""A token-classification data set of `datasets`, on the Hub or on disk -> a corpus."""

import logging
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.fingerprint import Hasher

from glode.corpora.options import ReadingOptions
from glode.corpora.reading import VERSION, build, label
from glode.corpora.records import TAG_KEYS, TOKEN_KEYS, keys
from glode.corpora.schema import Raw
from glode.corpora.tables import read_rows
from glode.errors import InputError

logger = logging.getLogger(__name__)


def load_hub_corpus(name: str, language: str, options: ReadingOptions | None = None) -> DatasetDict:
    """Load a token-classification data set, one configuration a language, from the Hub or from a directory: as the Hub has it, or
    with what `save_to_disk` wrote in a directory a language. Its rows are read by the rules of files, see `read_record`.

    Returns:
        Its parts as corpora. `train` may be without labels (for a target language); other parts without any are left out.
    Raises:
        InputError: the Hub, the data set or the language is not there, or its rows are something else.
    """
    options = options or ReadingOptions()
    raw = _load(name, language)
    parts = {}
    for part, rows in raw.items():
        source = f"data set {name!r} ({language}, {part})"
        _check_columns(rows, source, options)
        is_labelled = any(_has_labels(row) for row in read_rows(rows, rows.features, source, options))
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
    try:
        if any((saved / file).exists() for file in ("dataset_dict.json", "state.json")):
            found = load_from_disk(str(saved))
            return DatasetDict({"train": found}) if isinstance(found, Dataset) else found
        return load_dataset(name, language)
    except Exception as error:  # the Hub client raises a dozen unrelated classes here, each a reason the user must see
        raise InputError(
            f"data set {name!r} ({language}) cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}. "
            "Check the name, the language and the connection to the Hub (HF_ENDPOINT, HF_TOKEN), or give files: "
            "--source_train, --target_unlabeled."
        ) from error


def _check_columns(rows: Dataset, source: str, options: ReadingOptions) -> None:
    """The columns of words and tags are there, and the tags have names.

    Raises:
        InputError: they are not.
    """
    features = rows.features
    words = [key for key in keys(options.token_column, TOKEN_KEYS) if key in features]
    tags = [key for key in keys(options.tag_column, TAG_KEYS) if key in features]
    if not words or not tags:
        raise InputError(
            f"{source} has the columns {sorted(features)}; expected `tokens` and `ner_tags`. Name them by --token_column and "
            "--tag_column, or give files: --source_train."
        )
    item = getattr(features[tags[0]], "feature", None)
    if item is None:
        raise InputError(f"{source}: `{tags[0]}` has one tag for a sentence, expected a tag a word. Give files: --source_train.")
    if not hasattr(item, "names") and getattr(item, "dtype", "string") not in ("string", "large_string"):
        raise InputError(f"{source}: `{tags[0]}` are numbers without names. Give files instead: --source_train.")


def _has_labels(raw: Raw) -> bool:
    return bool(raw.words) and (raw.entities is not None or any(tag is not None for tag in raw.tags or ()))


def _generate(rows: Dataset, source: str, labelled: bool, options: ReadingOptions) -> Iterator[dict]:
    return label(lambda: read_rows(rows, rows.features, source, options), source, "row", ("Hub", ""), labelled, options)
