"""The rule that splits raw text into words, as inference applies it.

It lives in modeling_glode.py, because it travels with the model, and is loaded with the first text that is split: labelled
corpora are read without torch.
"""

from collections.abc import Iterator


def split_words(text: str) -> list[tuple[int, int]]:
    """The character offsets (start, end) of each word of a text, see `modeling_glode.split_words`."""
    from modeling_glode import split_words

    return split_words(text)


def iter_words(text: str) -> Iterator[str]:
    """The words of a text, one after the other."""
    from modeling_glode import iter_words

    return iter_words(text)
