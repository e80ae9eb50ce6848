"""A token classifier as a teacher: soft labels of spans out of the probabilities of its tags."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from glode.corpora.schemes import PREFIXED
from glode.errors import InputError
from glode.publishing.token_classifier import running_text
from glode.teachers.teacher import LEAST, SoftSpan, TeacherSettings

LONGEST_WINDOW = 256  # tokens; a token classifier that takes fewer gets as many as it takes
BEGINS = "BSU"  # the prefixes of a name's first word; those of others, and no prefix at all, go on with one


class TokenTeacher:
    """A token classifier of any label scheme.

    It reads running text. A word has the probabilities of the first token that overlaps it, from the window in which that is
    farthest from a border. Of word i let B_i(c) be the probability that a name of type c begins there (tags B, S, U), I_i(c) that
    it goes on (I, E, L, M, or a tag without prefix), and M_i(c) = B_i(c) + I_i(c). As an I after another type begins a name too,

        S_i(c) = B_i(c) + min(I_i(c), 1 - M_{i-1}(c)).

    The score of the span from word b to word e is the least probability that one of its words plays its part, and that the
    word after it does not go on with it:

        p(b, e, c) = min(S_b(c), I_{b+1}(c), ..., I_e(c), 1 - I_{e+1}(c)).

    This is the upper bound of their joint probability, which they reach where they rise and fall together, as the words of a name
    do; the product would take most long names for "O". The scores of a span are 1 in sum at most.

    Args:
        name: a directory, or a repository on the Hub.
    Raises:
        InputError: it does not load.
    """

    kind = "token classifier"

    def __init__(self, name: str, settings: TeacherSettings):
        self.model, self.tokenizer = load_token_classifier(name, "float32", "--teachers")
        self.model.to(settings.device)
        self.max_tokens = takes_tokens(self.model, self.tokenizer)
        self.batch_size = settings.batch_size
        self.types, self.parts = tag_parts(self.model.config.id2label)

    def __call__(self, sentences: Sequence[Sequence[str]], language: str) -> list[list[SoftSpan]]:
        """The spans of each sentence that are names, see `Teacher`."""
        texts, offsets = zip(*(running_text(words) for words in sentences), strict=True)
        words = [np.array(places, dtype=np.int64).reshape(-1, 2) for places in offsets]
        parts = [np.zeros((len(places), *self.parts.shape[1:])) for places in words]  # [words, 2, types]
        margins = [np.full(len(places), -1) for places in words]
        for sentence, tokens, probabilities in self._windows(texts):
            token, margin = first_tokens(words[sentence], tokens)
            better = (token >= 0) & (margin > margins[sentence])
            both = np.einsum("wl,lpc->wpc", probabilities[token[better]], self.parts)
            shared = tokens[token[better], 0] < _ends_before(words[sentence])[better]  # the token began in the word before
            both[shared, 1] += both[shared, 0]
            both[shared, 0] = 0
            parts[sentence][better], margins[sentence][better] = both, margin[better]
        return [span_scores(each[:, 0], each[:, 1], self.types) for each in parts]

    def facts(self) -> dict[str, Any]:
        """Nothing: it costs nothing, and says of every span what it thinks."""
        return {}

    def _windows(self, texts: Sequence[str]) -> Iterator[tuple[int, NDArray, NDArray]]:
        """Of each window, the longest first, the text that it is of, its tokens' characters [tokens, 2] (none of those that are
        no text), and the probabilities of their tags [tokens, tags]."""
        encoded = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            stride=self.max_tokens // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        sentence_of, places = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        order = sorted(range(len(places)), key=lambda window: -len(places[window]))
        for at in range(0, len(order), self.batch_size):
            rows = order[at : at + self.batch_size]
            batch = self.tokenizer.pad(
                {name: [values[row] for row in rows] for name, values in encoded.items()}, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits
            for row, probabilities in zip(rows, logits.float().softmax(-1).cpu().numpy(), strict=True):
                yield sentence_of[row], np.array(places[row]), _unpadded(probabilities, batch, rows.index(row), len(places[row]))


def _unpadded(probabilities: NDArray, batch: Mapping[str, torch.Tensor], row: int, tokens: int) -> NDArray:
    """The tokens of one row of a batch, whichever side is padded."""
    first = int(batch["attention_mask"][row].argmax())
    return probabilities[first : first + tokens]


def _ends_before(words: NDArray) -> NDArray:
    """Where the word before each one ends, 0 before the first: [words]."""
    return np.concatenate([[0], words[:-1, 1]]) if len(words) else np.zeros(0, np.int64)


def first_tokens(words: NDArray, tokens: NDArray) -> tuple[NDArray, NDArray]:
    """The first token of a window that overlaps each word [words], -1 where none does; and how many tokens of text stand between
    it and the nearer border of the window.

    Args:
        words, tokens: characters (start, end): [words, 2], [tokens, 2]; those of tokens that are no text are empty.
    """
    text = np.flatnonzero(tokens[:, 1] > tokens[:, 0])
    if not len(text):
        return np.full(len(words), -1), np.zeros(len(words), np.int64)
    place = np.searchsorted(tokens[text, 1], words[:, 0], side="right")
    there = place.clip(max=len(text) - 1)
    overlaps = (place < len(text)) & (tokens[text[there], 0] < words[:, 1])
    return np.where(overlaps, text[there], -1), np.minimum(there, len(text) - 1 - there)


def tag_parts(id2label: Mapping[int, str]) -> tuple[list[str], NDArray]:
    """The types of a classifier's tags, and which of them each tag begins (0) or goes on with (1): [tags, 2, types]."""
    matches = [(label, PREFIXED.match(label)) for _, label in sorted(id2label.items())]
    named = [(match[2], match[1] not in BEGINS) if match else (label, True) for label, match in matches]
    types = sorted({name for name, _ in named} - {"O"})
    parts = np.zeros((len(named), 2, len(types)))
    for tag, (name, goes_on) in enumerate(named):
        if name != "O":
            parts[tag, int(goes_on), types.index(name)] = 1
    return types, parts


def span_scores(begins: NDArray, goes_on: NDArray, types: Sequence[str]) -> list[SoftSpan]:
    """The scores of a sentence's spans, see `TokenTeacher`, which calls the two B and I: [words, types]."""
    before = np.concatenate([np.zeros_like(begins[:1]), (begins + goes_on)[:-1]])
    inside = begins + np.minimum(goes_on, 1 - before).clip(min=0)  # of the spans of so many words so far, by their first one
    after = np.concatenate([1 - goes_on[1:], np.ones_like(begins[:1])]).clip(min=0)
    found, length = [], 1
    while len(inside) and inside.max(initial=0) >= LEAST:
        scores = np.minimum(inside, after[length - 1 :])
        for begin, kind in zip(*np.nonzero(scores >= LEAST), strict=True):
            found.append(SoftSpan(int(begin), length, types[kind], float(scores[begin, kind])))
        inside, length = np.minimum(inside[:-1], goes_on[length:]), length + 1
    return found


def takes_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a window of a token classifier has."""
    positions = getattr(model.config, "max_position_embeddings", 0) or 0
    return min(LONGEST_WINDOW, tokenizer.model_max_length, *([positions - 2] if positions > 2 else []))


def load_token_classifier(name: str, dtype: str, option: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A built-in token classifier and its tokenizer.

    Args:
        option: that has named it, for messages.
    Raises:
        InputError: it is another kind of model, cannot be loaded, or its tokenizer does not say where a token stands in the text.
    """
    kinds = PretrainedConfig.get_config_dict(name)[0].get("architectures") or []
    if not any(kind.endswith("ForTokenClassification") for kind in kinds):
        raise InputError(
            f"{option} {name} is neither a model of ours nor a token classifier, but {', '.join(kinds) or 'of no kind'}. Give "
            "one that finds entities."
        )
    try:
        model = AutoModelForTokenClassification.from_pretrained(name, dtype=getattr(torch, dtype)).eval()
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{option} {name} does not load as a token classifier: {reason}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{option} {name}: its tokenizer does not tell where a token stands in the text. Save a fast one.")
    return model, tokenizer
