"""A token-classification data set of `datasets` -> a corpus."""

from collections import Counter

from datasets import DatasetDict, load_dataset

from glode.corpora.reading import as_row
from glode.corpora.schema import CORPUS
from glode.corpora.schemes import decode_tags, detect_scheme
from glode.errors import InputError


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
        raise InputError(
            f"data set {name!r} has the columns {sorted(columns)}; expected `tokens` and `ner_tags`. Give files instead: "
            "--source_train."
        )
    feature = columns["ner_tags"].feature
    names = feature.names if hasattr(feature, "names") else None
    if names is None and feature.dtype != "string":
        raise InputError(f"data set {name!r}: `ner_tags` are numbers without names. Give files instead: --source_train.")
    tags = names or {tag for part in raw.values() for tags in part["ner_tags"] for tag in tags}
    scheme = detect_scheme(tags, f"data set {name!r}")

    def convert(row: dict) -> dict:
        tags = [names[i] for i in row["ner_tags"]] if names else row["ner_tags"]
        return as_row(row["tokens"], decode_tags(tags, scheme), f"Hub, {scheme}", Counter())

    return raw.map(convert, remove_columns=list(columns), features=CORPUS, desc="Reading labels").filter(
        lambda row: len(row["words"]) > 0
    )
