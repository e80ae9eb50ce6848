"""GLoDe for the Hub: words -> windows -> span grid -> model -> entities.

One self-contained file (torch + transformers only), because that is the layout which loads everywhere:
`python run_crossner.py`, pytest, and `AutoModel.from_pretrained(repo, trust_remote_code=True)`.

A span is (first word b, length l in words), 1 <= l <= L = `config.max_span_length`. All spans of n words form the grid
[n, L]; cell [b, l - 1] is the span of words b .. b + l - 1, and cells that reach beyond the text are invalid. Type 0 is "O".
"""

import copy
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, count, islice, pairwise
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
    TokenClassificationPipeline,
)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import ModelOutput
from transformers.utils import cached_file, logging

logger = logging.get_logger(__name__)

# --------------------------------------------------------------------------------------------------------------- words

# Scripts written without spaces: one word a character (Thai, Lao, Myanmar, Khmer, kana, Han), each with its combining marks.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_INVISIBLE = "\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_WITHIN = "\u00ad\u200c\u200d"  # soft hyphen, non-joiner and joiner belong to the word around them
_EMOJI_PARTS = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # skin tones, and the letters of the flags of regions


def _combining_marks() -> str:
    """The ranges of all combining marks, for a regular expression's character class (`\\w` leaves them out)."""
    points = [c for c in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)) if unicodedata.category(chr(c))[0] == "M"]
    starts = [c for c, before in zip(points, [-1, *points], strict=False) if c != before + 1]
    ends = [c for c, after in zip(points, [*points[1:], -1], strict=True) if c != after - 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


_MARKS = _combining_marks()
_STARTS_UNSPACED = re.compile(f"[{_UNSPACED}]")
UNSPACED_CHARACTER = f"[{_UNSPACED}][{_MARKS}]*"  # one word of such a script, as a regular expression
_ENDS_UNSPACED = re.compile(f"{UNSPACED_CHARACTER}$")
_CHARACTERS = re.compile(f"{UNSPACED_CHARACTER}|[^{_UNSPACED}]+")
_LETTERS = f"[^\\W{_UNSPACED}](?:[^\\W{_UNSPACED}]|[{_MARKS}{_WITHIN}]){{0,1000}}"
_WORD = re.compile(  # with limits, as no word is longer and a repeat without end takes memory
    f"{UNSPACED_CHARACTER}"
    f"|{_LETTERS}(?:[-\u2010\u2011]{_LETTERS}){{0,100}}"
    "|[\U0001f1e6-\U0001f1ff]{2}"  # the flag of a country
    f"|[^\\s{_INVISIBLE}](?:[{_MARKS}{_EMOJI_PARTS}]|\u200d[^\\s{_INVISIBLE}]){{0,1000}}"
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as broken JSON brings it; tokenizers refuse it


def split_words(text: str) -> list[tuple[int, int]]:
    """Split raw text into words: letters and digits run together, also across a hyphen (as labelled corpora have it), other
    punctuation stands alone, and scripts without spaces (Han, kana, Thai, Lao, Myanmar, Khmer) give one word a character. An
    emoji or a flag is one word, with all that joins it. A thousand letters without a break end a word.

    Returns:
        The character offsets (start, end) of each word in `text`.
    """
    return [match.span() for match in _WORD.finditer(text)]


def iter_words(text: str) -> Iterator[str]:
    """The words of [`split_words`], one after the other."""
    return map(re.Match.group, _WORD.finditer(text))


WORD_SHAPES = ("padding", "upper", "lower", "title", "digit", "other")


def word_shape(word: str) -> int:
    """The shape of a word, an index into `WORD_SHAPES`. Scripts without case and mixed case are "other"."""
    if word.isdigit():
        return 4
    if word.isupper():
        return 1
    if word.islower():
        return 2
    if word.istitle():
        return 3
    return 5


# ------------------------------------------------------------------------------------------------------------- windows


def encoder_capacity(tokenizer, config: PretrainedConfig, limit: int = 512) -> int:
    """How many tokens, special ones included, the encoder takes at once (RoBERTa-like encoders reserve two positions)."""
    return min(limit, tokenizer.model_max_length, getattr(config, "max_position_embeddings", limit + 2) - 2)


UNITS = ("piece", "character")  # how scripts without spaces are cut, see `iter_windows`
WINDOW_COLUMNS = ("sentence", "input_ids", "first_token", "last_token", "word_shapes", "borders", "own_start", "own_end")
_BLOCK = 2**15  # characters tokenised at a time
_LONGEST = 2**12  # characters of a word, or of a run of a script without spaces, that are tokenised together


def encode_words(
    sentences: Sequence[Sequence[str]], tokenizer, max_tokens: int, max_span_length: int, units: str = "piece"
) -> dict[str, list]:
    """All windows of [`iter_windows`] as columns of equal length, named `WINDOW_COLUMNS`."""
    rows = list(iter_windows(sentences, tokenizer, max_tokens, max_span_length, units))
    return {name: [row[name] for row in rows] for name in WINDOW_COLUMNS}


def iter_windows(
    sentences: Iterable[Iterable[str]], tokenizer, max_tokens: int, max_span_length: int, units: str = "piece"
) -> Iterator[dict]:
    """Turn word lists into encoder inputs; a sentence beyond `max_tokens` tokens becomes several windows. Sentences may be
    iterators of any length: they are read as the windows are asked for, and only a block of words is held.

    Words are tokenised as running text has them, with the space before each but the first where the tokenizer marks it.
    Scripts without spaces are cut as `units` says, whatever the words are:

    - "piece": as running text, as the encoder has been trained: "上海" is one piece, whose characters alone say little. Where a
      piece covers several words, these are one word for the grid, a unit; elsewhere each word is its own unit. An entity that
      begins or ends within a unit cannot be expressed.
    - "character": each character is tokenised as a word by itself, with the mark or the space that the tokenizer puts before
      words ("▁", "上", "▁", "海" with XLM-R's). Every word is its own unit, so that every entity can be expressed.

    Every unit is owned by exactly one window: the one that scores the spans which start there. Windows overlap by at least
    `max_span_length - 1` units on the right, so that every span fits into the window which owns its first unit, and by
    an eighth of the window on either side for context. A word without any token (the tokenizer drops it) becomes the
    unknown token; a unit longer than a whole window keeps the tokens that fit. Lone surrogates are read as U+FFFD.

    Args:
        sentences: the words of each sentence.
        tokenizer: a fast tokenizer.
        max_tokens: tokens a window, special tokens included.
        max_span_length: L, in units.
        units: one of `UNITS`.
    Yields:
        A row for each window: `sentence` (index into `sentences`), `input_ids`, `first_token` and `last_token` (of each unit,
        positions in `input_ids`), `word_shapes`, `borders` (for n units the n + 1 words of the sentence before which they
        begin and the last ends), `own_start` and `own_end` (the owned units).
    Raises:
        ValueError: the tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, and word alignment needs one. Use a backbone whose "
            "directory holds a tokenizer.json."
        )
    prefix, suffix, space = _outline(tokenizer)
    if space and getattr(tokenizer, "add_prefix_space", None) is False:
        tokenizer = copy.copy(tokenizer)  # transformers 4 refuses words, but for this attribute, which does nothing else
        tokenizer.add_prefix_space = True
    room = max_tokens - len(prefix) - len(suffix)
    for block in _tokenize(sentences, tokenizer, room, space, units):
        if block.is_first:
            tokens, starts, borders, shapes = [], np.zeros(1, dtype=np.int64), [0], []
            begin = own_start = 0
        tokens += block.tokens
        starts = np.concatenate([starts, starts[-1] + block.starts[1:]])
        borders += [borders[-1] + border for border in block.borders[1:]]
        shapes += [word_shape("".join(block.words[a:b])) for a, b in pairwise(block.borders)]
        for window in _windows(starts, room, max_span_length, begin, own_start):
            begin, end, own_start, own_end = window
            if not block.is_last and end + max_span_length >= len(shapes):
                break  # the next block may change this window
            first, last = int(starts[begin]), int(starts[end])
            shift = len(prefix) - first
            yield {
                "sentence": block.sentence,
                "input_ids": prefix + tokens[first:last] + suffix,
                "first_token": (starts[begin:end] + shift).tolist(),
                "last_token": (starts[begin + 1 : end + 1] - 1 + shift).tolist(),
                "word_shapes": shapes[begin:end],
                "borders": borders[begin : end + 1],
                "own_start": own_start - begin,
                "own_end": own_end - begin,
            }
        tokens, starts = tokens[starts[begin] :], starts[begin:] - starts[begin]
        borders, shapes, begin, own_start = borders[begin:], shapes[begin:], 0, own_start - begin


def _outline(tokenizer) -> tuple[list[int], list[int], str]:
    """What the tokenizer puts before and after a text, and what a word needs before it to be read as in running text: a space
    where the tokenizer marks one (byte-level BPE) and does not put it there itself (`add_prefix_space`)."""
    encoded = tokenizer(["a", " a", "a a"], return_special_tokens_mask=True)
    special = encoded["special_tokens_mask"][0]
    before = special.index(0)
    after = special[::-1].index(0)
    ids = encoded["input_ids"][0]
    alone, spaced, running = (row[before : len(row) - after] for row in encoded["input_ids"])
    space = " " if running == alone + spaced != alone + alone else ""
    return ids[:before], ids[len(ids) - after :], space


@dataclass
class _Block:
    """A part of a sentence, with n units: its token ids, and the n + 1 borders of its units in tokens and in words."""

    sentence: int
    is_first: bool
    is_last: bool
    words: list[str]
    runs: list[str]
    borders: list[int]
    tokens: list[int] | None = None
    starts: np.ndarray | None = None


def _blocks(sentence: int, words: Iterable[str], units: str) -> Iterator[_Block]:
    """Cut a sentence between runs into blocks of about `_BLOCK` characters, with the runs' borders; an empty one is one block."""
    cut = join_unspaced if units == "piece" else _split_unspaced
    held, size, is_first = [], 0, True
    for word in words:
        held.append(_SURROGATE.sub("\ufffd", word[:_LONGEST]))
        size += len(held[-1])
        if size >= _BLOCK:
            runs, borders = cut(held)
            end = borders[-2]
            at = borders.index(end)
            yield _Block(sentence, is_first, False, held[:end], runs[:at], borders[: at + 1])
            held, size, is_first = held[end:], sum(map(len, runs[at:])), False  # the last run may go on
    yield _Block(sentence, is_first, True, held, *cut(held))


def _tokenize(sentences: Iterable[Iterable[str]], tokenizer, room: int, space: str, units: str) -> Iterator[_Block]:
    """The blocks of all sentences, tokenised many at a time."""
    batch, size = [], 0
    for block in chain.from_iterable(_blocks(number, words, units) for number, words in enumerate(sentences)):
        batch.append(block)
        size += sum(map(len, block.words))
        if size >= _BLOCK // 2:
            yield from _tokenize_batch(batch, tokenizer, room, space)
            batch, size = [], 0
    yield from _tokenize_batch(batch, tokenizer, room, space)


def _tokenize_batch(blocks: Sequence[_Block], tokenizer, room: int, space: str) -> Iterator[_Block]:
    options = {"is_split_into_words": True, "add_special_tokens": False, "verbose": False}
    texts = [_spaced(block, space) for block in blocks]
    encoded = tokenizer(texts, **options) if blocks else None
    for index, block in enumerate(blocks):
        encoding, runs = encoded.encodings[index], texts[index]
        starts = _borders(encoding.word_ids, len(runs))
        if (np.diff(starts) == 0).any():
            runs = [run if n else tokenizer.unk_token for run, n in zip(runs, np.diff(starts), strict=True)]
            encoding = tokenizer([runs], **options).encodings[0]
            starts = _borders(encoding.word_ids, len(runs))
        tokens = encoding.ids
        if len(runs) < len(block.words):
            gaps = [0 if block.is_first and run == 0 else len(space) for run in encoding.word_ids]
            offsets = [(begin - gap, end - gap) for gap, (begin, end) in zip(gaps, encoding.offsets, strict=True)]
            starts, block.borders = _units(block.words, block.borders, starts, offsets)
        elif len(runs) > len(block.words):
            starts = starts[_borders(block.borders, len(block.words))]
            block.borders = list(range(len(block.words) + 1))
        lengths = np.diff(starts)
        if (lengths > room).any():
            kept = np.minimum(lengths, room)
            tokens = [t for start, n in zip(starts, kept, strict=False) for t in tokens[start : start + n]]
            starts = np.concatenate([[0], np.cumsum(kept)])
        block.tokens, block.starts = tokens, starts
        yield block


def _spaced(block: _Block, space: str) -> list[str]:
    """The runs as running text has them: with a space before each but the first of a sentence."""
    return [run and (run if at == 0 and block.is_first else space + run) for at, run in enumerate(block.runs)]


def join_unspaced(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Join neighbours between which a script without spaces runs on; the n runs, and the n + 1 borders between them in words."""
    runs, borders = [], []
    for at, word in enumerate(words):
        joins = at and _STARTS_UNSPACED.match(word) and _ENDS_UNSPACED.search(words[at - 1])
        if joins and len(runs[-1]) < _LONGEST:
            runs[-1] += word
        else:
            runs.append(word)
            borders.append(at)
    return runs, [*borders, len(words)]


def _split_unspaced(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Cut words around each character of a script without spaces; the n runs, and the n + 1 words that hold their beginnings."""
    runs, borders = [], []
    for at, word in enumerate(words):
        parts = _CHARACTERS.findall(word) or [word]
        runs += parts
        borders += [at] * len(parts)
    return runs, [*borders, len(words)]


def _units(
    words: Sequence[str], run_borders: list[int], starts: np.ndarray, offsets: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, list[int]]:
    """Split runs of several words where a token and a word begin at the same character.

    Args:
        run_borders, starts: the borders of the runs, in words and in tokens.
        offsets: each token's characters in its run.
    Returns:
        The borders of the units, in tokens and in words.
    """
    token_borders, word_borders = [], []
    for (first, last), (begin, end) in zip(pairwise(run_borders), pairwise(starts.tolist()), strict=True):
        token_borders.append(begin)
        word_borders.append(first)
        if last - first > 1:
            word_at = dict(zip(accumulate(map(len, words[first : last - 1])), range(first + 1, last), strict=True))
            reached = 0
            for token in range(begin, end):
                if token > begin and offsets[token][0] >= reached and offsets[token][0] in word_at:
                    token_borders.append(token)
                    word_borders.append(word_at[offsets[token][0]])
                reached = max(reached, offsets[token][1])
    return np.array([*token_borders, starts[-1]]), [*word_borders, run_borders[-1]]


def in_words(entity: tuple, borders: Sequence[int]) -> tuple:
    """(first unit, length in units, ...) of a window -> (first word, length in words, ...) of the sentence."""
    begin, length, *rest = entity
    return (borders[begin], borders[begin + length] - borders[begin], *rest)


def _borders(word_ids: Sequence[int], number: int) -> np.ndarray:
    return np.searchsorted(np.asarray(word_ids, dtype=np.int64), np.arange(number + 1))


def _windows(
    starts: np.ndarray, room: int, max_span_length: int, begin: int = 0, own_start: int = 0
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (begin, end, own_start, own_end) in units, such that each window has at most `room` tokens. The first window has the
    given `begin` and `own_start`."""
    number = len(starts) - 1
    while own_start < number:
        end = int(np.searchsorted(starts, starts[begin] + room, side="right")) - 1
        if end == number:
            yield begin, end, own_start, end
            return
        context = (end - begin) // 8
        own_end = max(end - max(max_span_length - 1, context), own_start + 1)
        yield begin, end, own_start, own_end
        # The next window must reach beyond its first own word, whatever context it can afford before it.
        least = int(np.searchsorted(starts, starts[min(own_end + max_span_length, number)] - room, side="left"))
        begin = min(max(own_end - context, least, begin + 1), own_end)
        own_start = own_end


# ---------------------------------------------------------------------------------------------------------------- grid


def span_grid(number_of_words: Tensor, own_start: Tensor, own_end: Tensor, words: int, max_span_length: int) -> Tensor:
    """Which cells of the grid are spans: they start at an owned word and end within the text.

    Args:
        number_of_words, own_start, own_end: [batch].
        words: n, the padded number of words.
        max_span_length: L.
    Returns:
        bool [batch, words, length].
    """
    begin = torch.arange(words, device=own_start.device)[None, :, None]
    end = begin + torch.arange(1, max_span_length + 1, device=own_start.device)
    own_start, own_end, number_of_words = (x[:, None, None] for x in (own_start, own_end, number_of_words))
    return (begin >= own_start) & (begin < own_end) & (end <= number_of_words)


def shifted(values: Tensor, length: int) -> Tensor:
    """View [batch, words, size] as [batch, words, length, size] with result[:, b, k] = values[:, b + k], zero beyond the end."""
    return F.pad(values, (0, 0, 0, length - 1)).unfold(1, length, 1).transpose(2, 3)


class _BlockLinear(nn.Linear):
    """Weights that are read by blocks and never applied as a whole; `quantize_dynamic` and the like swap `nn.Linear` alone."""


class SpanLinear(nn.Module):
    """A linear map of z = [h_first ; h_last ; length embedding ; summed shape embeddings] for every span of the grid.

    W z + c splits by blocks into start(b) + end(b + l - 1) + length(l) + a sum over the words' shapes, and that sum is a
    difference of prefix sums; so two [batch, words, out] products and one shifted addition replace the concatenated
    [batch, words, length, 2 hidden + sizes] tensor. The result equals the concatenated form.
    """

    def __init__(self, hidden_size: int, length_size: int, shape_size: int, out_features: int):
        super().__init__()
        self.blocks = (hidden_size, hidden_size, length_size, shape_size)
        self.linear = _BlockLinear(sum(self.blocks), out_features)

    def forward(self, first: Tensor, last: Tensor, length: Tensor, shape: Tensor, word_shapes: Tensor) -> Tensor:
        """
        Args:
            first, last: [batch, words, hidden], each word's first and last sub-token.
            length: [length, length_size], the length embeddings.
            shape: [shapes, shape_size], the shape embeddings.
            word_shapes: [batch, words].
        Returns:
            [batch, words, length, out].
        """
        to_first, to_last, to_length, to_shape = self.linear.weight.split(self.blocks, dim=1)
        exact = torch.promote_types(shape.dtype, torch.float32)  # a sum over a whole text, of which only differences count
        shapes = F.embedding(word_shapes, F.linear(shape, to_shape)).cumsum(1, dtype=exact)
        start = F.linear(first, to_first, self.linear.bias) - F.pad(shapes, (0, 0, 1, -1))
        end = F.linear(last, to_last) + shapes
        return start[:, :, None] + shifted(end, length.shape[0]) + F.linear(length, to_length)


# --------------------------------------------------------------------------------------------------------------- model


# Every saved configuration says which pipeline serves the model.
_CUSTOM_PIPELINES = {"token-classification": {"impl": "modeling_glode.GlodePipeline", "pt": ["AutoModel"], "type": "text"}}


class _Tasks(dict):
    """Pipelines by task, with "ner" as another name of "token-classification". As a second key it would keep `pipeline()` from
    telling the task by itself where only a model is given."""

    def __contains__(self, task: object) -> bool:
        return super().__contains__("token-classification" if task == "ner" else task)

    def __missing__(self, task: str) -> dict:
        if task != "ner":
            raise KeyError(task)
        return self["token-classification"]


class GlodeConfig(PretrainedConfig):
    """Configuration of a [`GlodeModel`].

    Args:
        encoder_config: configuration of the encoder, or its dictionary; any that `AutoModel` knows.
        max_span_length: L, the longest span in words.
        max_tokens: tokens a window, special tokens included.
        length_embedding_size, shape_embedding_size: sizes of the two span features.
        projection_size: size of the vectors that the denoiser compares.
        head_dropout: dropout on the encoder's output.
        initializer_range: standard deviation of the head's weights at the start, and of the length and shape embeddings. Larger
            features would shout down the encoder: case and length do not carry over to every script.
        id2label: entity types; 0 is "O".
        mlm_head: shape of the language-model head that came with the encoder, see [`MaskedLanguageHead`]; None where the head
            is a fresh one.
        units: how scripts without spaces are cut, one of `UNITS`; see [`iter_windows`].
    Raises:
        ValueError: there are no such units.
    """

    model_type = "glode"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 (the form that PretrainedConfig reads)

    def __init__(
        self,
        encoder_config: PretrainedConfig | dict | None = None,
        max_span_length: int = 4,
        max_tokens: int = 512,
        length_embedding_size: int = 150,
        shape_embedding_size: int = 100,
        projection_size: int = 128,
        head_dropout: float = 0.2,
        initializer_range: float = 0.02,
        id2label: dict[int, str] | None = None,
        mlm_head: dict | None = None,
        units: str = "piece",
        **kwargs,
    ):
        if units not in UNITS:
            raise ValueError(f"units must be {' or '.join(UNITS)}, not {units!r}.")
        if isinstance(encoder_config, dict):
            encoder_config = AutoConfig.for_model(**encoder_config)
        self.encoder_config = encoder_config if encoder_config is not None else AutoConfig.for_model("xlm-roberta")
        self.max_span_length = max_span_length
        self.max_tokens = max_tokens
        self.units = units
        self.length_embedding_size = length_embedding_size
        self.shape_embedding_size = shape_embedding_size
        self.projection_size = projection_size
        self.head_dropout = head_dropout
        self.initializer_range = initializer_range
        self.mlm_head = mlm_head
        id2label = {int(i): name for i, name in (id2label or {0: "O", 1: "PER", 2: "LOC", 3: "ORG"}).items()}
        kwargs["label2id"] = {name: i for i, name in id2label.items()}
        kwargs["custom_pipelines"] = _Tasks(kwargs.get("custom_pipelines", _CUSTOM_PIPELINES))
        super().__init__(id2label=id2label, **kwargs)


@dataclass
class GlodeOutput(ModelOutput):
    """
    Args:
        loss: mean cross-entropy over the labelled spans (eq. 1), where `labels` were given.
        logits: [batch, words, length, types].
        projection: [batch, words, length, projection_size], unit vectors, where asked for.
        states: [2, batch, words, hidden], layer-normed, of each word's first and last sub-token, where asked for.
        mlm_loss: mean cross-entropy over the masked tokens (eq. 3), where `mlm_labels` were given.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    projection: Tensor | None = None
    states: Tensor | None = None
    mlm_loss: Tensor | None = None


class MaskedLanguageHead(nn.Module):
    """Predicts masked tokens: a dense layer, an activation, a norm, and a product with the output matrix [vocabulary, width].

    The first `tied` columns of that matrix are the encoder's input embedding, as a constant; what is beyond them is the head's
    own (MobileBERT, and all of RemBERT's). This form holds every head that `PRETRAINED_HEADS` knows.

    Args:
        hidden_size: of the encoder's output.
        vocabulary: number of tokens.
        width: columns of the output matrix.
        tied: how many of them are those of the input embedding.
        activation: name of the activation; None for a head that is the product alone (XLM).
        norm_eps: of the norm.
    """

    def __init__(
        self, hidden_size: int, vocabulary: int, width: int, tied: int, activation: str | None = "gelu", norm_eps: float = 1e-5
    ):
        super().__init__()
        self.tied = tied
        self.dense = nn.Linear(hidden_size, width) if activation else nn.Identity()
        self.activation = ACT2FN[activation or "linear"]
        self.norm = nn.LayerNorm(width, eps=norm_eps) if activation else nn.Identity()
        self.output = nn.Parameter(torch.zeros(vocabulary, width - tied)) if width > tied else None
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, embeddings: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[masked, hidden], [vocabulary, embedding] -> [masked, vocabulary], or [masked, candidates] for some `tokens` only."""
        bias, output = self.bias, self.output
        if tokens is not None:
            embeddings, bias = embeddings[tokens], bias[tokens]
            output = output[tokens] if output is not None else None
        features = self.norm(self.activation(self.dense(hidden)))
        if output is None:
            return F.linear(features, embeddings, bias)
        own = F.linear(features[:, self.tied :], output, bias)
        return own + F.linear(features[:, : self.tied], embeddings) if self.tied else own


@dataclass(frozen=True)
class HeadLayout:
    """Where a family of language models keeps the parts of its head.

    Args:
        dense, norm, decoder: modules' names; no dense layer and no norm where the decoder is all.
        more_columns: the module that holds the columns of the output matrix beyond the decoder's, transposed.
        activation_setting: the encoder's setting that names the activation; gelu without it.
    """

    dense: str
    norm: str
    decoder: str
    more_columns: str = ""
    activation_setting: str = ""

    @property
    def modules(self) -> list[str]:
        return [name for name in (self.dense, self.norm, self.decoder, self.more_columns) if name]

    def lacks(self, missing: Iterable[str]) -> bool:
        """Whether a checkpoint without the weights `missing` lacks a part of the head."""
        bias = self.decoder.rpartition(".")[0] + ".bias"
        return any(key == bias or key.startswith(tuple(f"{name}." for name in self.modules)) for key in missing)


_BERT = "cls.predictions.transform"
PRETRAINED_HEADS = (
    HeadLayout("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"),  # RoBERTa, XLM-R, CamemBERT, MPNet, LUKE, Longformer
    # MobileBERT; BERT, DeBERTa, BigBird and others; NomicBERT
    HeadLayout(f"{_BERT}.dense", f"{_BERT}.LayerNorm", "cls.predictions.decoder", "cls.predictions.dense", "hidden_act"),
    HeadLayout(f"{_BERT}.dense", f"{_BERT}.LayerNorm", "cls.predictions.decoder", "", "hidden_act"),
    HeadLayout(f"{_BERT}.dense", f"{_BERT}.layer_norm", "cls.predictions.decoder", "", "hidden_act"),
    HeadLayout("cls.predictions.dense", "cls.predictions.LayerNorm", "cls.predictions.decoder", "", "hidden_act"),  # RemBERT
    # DeBERTa as its authors save it
    HeadLayout("lm_predictions.lm_head.dense", "lm_predictions.lm_head.LayerNorm", "lm_predictions.lm_head", "", "hidden_act"),
    HeadLayout("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "", "hidden_act"),  # ALBERT
    HeadLayout("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),  # ELECTRA, ConvBERT
    HeadLayout("vocab_transform", "vocab_layer_norm", "vocab_projector", "", "activation"),  # DistilBERT
    HeadLayout("head.dense", "head.norm", "decoder", "", "classifier_activation"),  # ModernBERT
    HeadLayout("", "", "pred_layer.proj"),  # XLM, FlauBERT
    HeadLayout("", "", "lm_head"),  # EuroBERT
)


def _load_encoder(
    name_or_path: str, config: PretrainedConfig, kind: type, **kwargs
) -> tuple[PreTrainedModel, tuple[dict, MaskedLanguageHead] | None]:
    """The encoder of a checkpoint, of the class `kind`, and its [`_pretrained_head`]."""
    with _quiet():  # what is missing is said below, in words of our own
        if is_language_model(config):
            model, head = load_language_model(name_or_path, config, **kwargs)
            if type(model.base_model) is kind:
                return _bare(model.base_model), head
        return _bare(_load_checked(AutoModel, name_or_path, config, kwargs)[0]), None


def is_language_model(config: PretrainedConfig) -> bool:
    """Whether transformers has a masked language model for an encoder of this configuration."""
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder


def load_language_model(
    name_or_path: str, config: PretrainedConfig, **kwargs
) -> tuple[PreTrainedModel, tuple[dict, MaskedLanguageHead] | None]:
    """The masked language model of a checkpoint, and its [`_pretrained_head`]; a model without one has a fresh head."""
    with _quiet():
        model, missing = _load_checked(AutoModelForMaskedLM, name_or_path, config, kwargs)
        return model, _pretrained_head(model, missing)


def _load_checked(auto: type, name_or_path: str, config: PretrainedConfig, kwargs: dict) -> tuple[PreTrainedModel, set[str]]:
    """A model in evaluation mode, and the names of its weights that the checkpoint lacks."""
    model, info = auto.from_pretrained(name_or_path, config=config, output_loading_info=True, **kwargs)
    if getattr(config, "legacy", False) and any(key.startswith("lm_predictions.") for key in info["unexpected_keys"]):
        config.legacy = False  # DeBERTa as its authors save it, which transformers reads if it is told
        model, info = auto.from_pretrained(name_or_path, config=config, output_loading_info=True, **kwargs)
    missing, inside = set(info["missing_keys"]), {name for name, _ in model.base_model.named_parameters()}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    lost = sorted(name for name in inside if prefix + name in missing and "pooler" not in name)
    if lost:
        logger.warning(
            f"{name_or_path}: {len(lost)} of the encoder's {len(inside)} weights are not in the checkpoint and start at random "
            f"({', '.join(lost[:3])} ...). Is this the encoder that its config.json describes?"
        )
    return model, missing


@torch.no_grad()
def _pretrained_head(model: PreTrainedModel, missing: set[str]) -> tuple[dict, MaskedLanguageHead] | None:
    """The head of a language model as a [`MaskedLanguageHead`], and its shape; None where the checkpoint lacks a part of it, or
    where it is another kind of head."""
    modules = dict(model.named_modules())
    layout = next((known for known in PRETRAINED_HEADS if all(name in modules for name in known.modules)), None)
    if layout is None:
        return None
    decoder, embeddings = modules[layout.decoder], model.get_input_embeddings().weight
    if not layout.dense and not isinstance(decoder, nn.Linear):
        return None
    matrix = getattr(decoder, "weight", embeddings)
    if layout.dense and f"{layout.decoder}.weight" in missing and matrix.shape == embeddings.shape:
        decoder.weight = matrix = embeddings  # LUKE, saved as tied and read as untied
        name = next(name for name, parameter in model.named_parameters() if parameter is embeddings)
        if hasattr(model, "all_tied_weights_keys"):  # of transformers 5, which else could not save the model again
            ties = {f"{layout.decoder}.weight": name}
            model._tied_weights_keys = {**(model._tied_weights_keys or {}), **ties}
            model.all_tied_weights_keys = {**model.all_tied_weights_keys, **ties}
        missing = missing - {f"{layout.decoder}.weight"}
    if layout.lacks(missing) or len(matrix) != len(embeddings):
        return None
    tied = matrix.shape[1] if matrix.shape == embeddings.shape and torch.equal(matrix, embeddings) else 0
    more = [modules[layout.more_columns].weight.T] if layout.more_columns else []
    own = torch.cat([matrix[:, tied:], *more], dim=1)
    shape = {"width": tied + own.shape[1], "tied": tied, "activation": None}
    weights = {"bias": getattr(decoder, "bias", None)}
    if own.shape[1]:
        weights["output"] = own
    if layout.dense:
        dense, norm = modules[layout.dense], modules[layout.norm]
        shape["activation"] = getattr(model.config, layout.activation_setting) if layout.activation_setting else "gelu"
        shape["norm_eps"] = getattr(norm, "eps", None) or norm.variance_epsilon
        weights |= {"dense.weight": dense.weight, "dense.bias": dense.bias, "norm.weight": norm.weight, "norm.bias": norm.bias}
    head = MaskedLanguageHead(model.config.hidden_size, len(embeddings), **shape)
    weights = {name: torch.zeros_like(head.state_dict()[name]) if value is None else value for name, value in weights.items()}
    head.load_state_dict(weights)
    return (shape, head) if _predicts_alike(model, head) else None


def _predicts_alike(model: PreTrainedModel, head: MaskedLanguageHead) -> bool:
    """Whether a head on the encoder of a language model gives that model's scores."""
    tokens = torch.arange(min(8, len(head.bias)))[None]
    expected = model(input_ids=tokens).logits[0]
    actual = head(model.base_model(input_ids=tokens).last_hidden_state[0], model.get_input_embeddings().weight)
    tolerance = 1e-3 * float(expected.abs().max())
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=0, atol=tolerance)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of transformers."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _build_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """An encoder with random weights, with an attention of its own choice where it does not know the one that is asked for."""
    wanted = config._attn_implementation
    try:
        return AutoModel.from_config(config)
    except ValueError:
        if wanted in (None, "eager"):
            raise
        config._attn_implementation = None
        encoder = AutoModel.from_config(config)
    logger.warning_once(
        f"{type(encoder).__name__} does not know {wanted} attention; it computes {encoder.config._attn_implementation}."
    )
    return encoder


def _bare(encoder: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder; without the pooler's weights, which are never used and would stay without a gradient."""
    if encoder.config.is_encoder_decoder:
        encoder = encoder.get_encoder()
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = nn.Identity()
    return encoder


class GlodeModel(PreTrainedModel):
    """A span classifier over any encoder, with the projection that global-local denoising compares and an MLM head."""

    config_class = GlodeConfig
    base_model_prefix = "glode"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"\.lora_[AB]\."
    ]  # of a checkpoint, whose other weights have them added
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True

    def __init__(self, config: GlodeConfig):
        super().__init__(config)
        self.encoder = _bare(_build_encoder(config.encoder_config))
        hidden = config.encoder_config.hidden_size
        self.length_embedding = nn.Embedding(config.max_span_length, config.length_embedding_size)
        self.shape_embedding = nn.Embedding(len(WORD_SHAPES), config.shape_embedding_size, padding_idx=0)
        blocks = (hidden, config.length_embedding_size, config.shape_embedding_size)
        self.classifier = SpanLinear(*blocks, config.num_labels)
        self.projector = SpanLinear(*blocks, config.projection_size)
        vocabulary, width = self.encoder.get_input_embeddings().weight.shape
        self.mlm_head = MaskedLanguageHead(hidden, vocabulary, **(config.mlm_head or {"width": width, "tied": width}))
        self.dropout = nn.Dropout(config.head_dropout)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
            if getattr(module, "padding_idx", None) is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()

    @classmethod
    def from_encoder(cls, name_or_path: str, config: GlodeConfig, **kwargs) -> "GlodeModel":
        """A fresh span classifier on a pretrained encoder, with the checkpoint's own language-model head where it has one.

        Weights are fp32 whatever those of the checkpoint are; an attention that the encoder does not know becomes eager.

        Args:
            name_or_path: a checkpoint on the Hub or in a directory.
            config: of the model; it is copied.
            kwargs: go to `from_pretrained`.
        """
        config = copy.deepcopy(config)
        config.mlm_head = None
        encoder = config.encoder_config
        encoder.dtype = kwargs.setdefault("dtype", torch.float32)
        if "attn_implementation" in kwargs:
            encoder._attn_implementation = kwargs.pop("attn_implementation")
        model = cls(config)
        model.encoder, head = _load_encoder(name_or_path, encoder, type(model.encoder), **kwargs)
        if head is not None:
            config.mlm_head, model.mlm_head = head
        logger.info(
            f"{name_or_path}: the language model predicts with the checkpoint's own head."
            if head is not None
            else f"{name_or_path}: the checkpoint has no head of a language model, so that a fresh one has to be learnt."
        )
        return model

    @property
    def has_pretrained_mlm_head(self) -> bool:
        """Whether the language-model head came with the encoder; a fresh one has to be learnt before its gradient is of use."""
        return self.config.mlm_head is not None

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        first_token: Tensor | None = None,
        last_token: Tensor | None = None,
        word_shapes: Tensor | None = None,
        labels: Tensor | None = None,
        mlm_labels: Tensor | None = None,
        mlm_tokens: Tensor | None = None,
        mlm_places: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_places: Tensor | None = None,
        read_tokens: Tensor | None = None,
        return_projection: bool = False,
        return_states: bool = False,
        return_dict: bool = True,
        token_type_ids: Tensor | None = None,
    ) -> GlodeOutput:
        """
        Args:
            input_ids, attention_mask: [rows, tokens]. The first `batch` rows are scored as spans; rows after them (the
                masked copies) only serve the language model.
            first_token, last_token: [batch, words], positions of each word's first and last sub-token.
            word_shapes: [batch, words], see [`word_shape`]; 0 is padding.
            labels: [batch, words, length], types; -100 where there is no span.
            mlm_labels: [rows, tokens], the tokens to predict; -100 elsewhere.
            mlm_tokens: [candidates], in rising order, the tokens among which they are predicted; all without it.
            mlm_places: [masked], where in `mlm_labels`, flat, the tokens to predict are; found here without it, for which a GPU
                has to be waited.
            position_ids, token_places, read_tokens: [1, tokens], [tokens] and [read], of a batch whose rows are packed into one,
                as training has them: then `input_ids` and `mlm_labels` are [1, tokens], `attention_mask` is bool
                [rows, 1, 1, width], and `first_token` and `last_token` are positions in that row.
            return_projection: compute the denoiser's vectors.
            return_states: give the words' states, from which spans are scored.
            token_type_ids: what a built-in pipeline may bring; not read.
        Raises:
            ValueError: there is nothing to score, as where a built-in pipeline got the model.
        """
        if first_token is None and mlm_labels is None:
            raise ValueError(
                "GlodeModel scores spans of words, not tokens. For the entities of texts: model.predict(texts, tokenizer), "
                "GlodePipeline(model=model, tokenizer=tokenizer), or, with the name of a directory or repository, "
                'pipeline("ner", model=name, trust_remote_code=True).'
            )
        packed = {"position_ids": position_ids, "token_places": token_places, "read_tokens": read_tokens}
        packed = {name: value for name, value in packed.items() if value is not None}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **packed).last_hidden_state
        output = GlodeOutput()
        if mlm_labels is not None:
            if mlm_places is None:
                mlm_places = (mlm_labels != -100).flatten().nonzero().squeeze(1)
            wanted, masked = mlm_labels.flatten()[mlm_places], hidden.flatten(0, 1).index_select(0, mlm_places)
            # Tied, but learnt through the input alone: through the output every row of the vocabulary gets a tiny gradient at
            # every step, which Adam scales up to a full step and so moves all words, most of them never seen.
            scores = self.mlm_head(masked, self.get_input_embeddings().weight.detach(), mlm_tokens)
            wanted = wanted if mlm_tokens is None else torch.searchsorted(mlm_tokens, wanted)
            output["mlm_loss"] = F.cross_entropy(scores.float(), wanted, reduction="sum") / max(1, len(wanted))
        if first_token is not None:
            asked = (return_projection, return_states)
            for name, scores in self.score_spans(hidden, first_token, last_token, word_shapes, *asked).items():
                output[name] = scores
        if labels is not None:
            output["loss"] = F.cross_entropy(output.logits.flatten(0, 2), labels.flatten())
        return output if return_dict else output.to_tuple()

    def score_spans(
        self,
        hidden: Tensor,
        first_token: Tensor,
        last_token: Tensor,
        word_shapes: Tensor,
        return_projection: bool = False,
        return_states: bool = False,
    ) -> dict[str, Tensor]:
        """The head on the encoder's output [rows, tokens, hidden], or [1, tokens, hidden] of a packed batch: `logits`, and
        `projection` and `states` where asked for, see [`GlodeOutput`]; the other arguments are those of `forward`."""
        rows = torch.arange(first_token.shape[0], device=hidden.device)[:, None].clamp(max=hidden.shape[0] - 1)
        # Encoders differ in the scale of their output (multilingual-e5-small: 0.25), and with it in how fast the head learns.
        hidden = self.dropout(F.layer_norm(hidden[: first_token.shape[0]], hidden.shape[-1:]))
        features = (
            hidden[rows, first_token],
            hidden[rows, last_token],
            self.length_embedding.weight,
            self.shape_embedding.weight,
        )
        scores = {"logits": self.classifier(*features, word_shapes).float()}
        if return_projection:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.projector.linear.weight.requires_grad):
                scores["projection"] = F.normalize(self.projector(*features, word_shapes).float(), dim=-1)
        if return_states:
            scores["states"] = torch.stack(features[:2]).float()
        return scores

    @torch.no_grad()
    def find_candidates(self, batch: dict[str, Tensor], threshold: float = 0.0) -> list[list[tuple]]:
        """The candidates (first unit, length, type, score) of each window of a batch of [`collate_windows`]; units count from the
        window's first. They may overlap: [`resolve`] chooses among those of all windows of a text, so that it does not matter
        where the windows fall."""
        own = [batch[name] for name in ("number_of_words", "own_start", "own_end")]
        logits = self(**{name: value for name, value in batch.items() if name in _MODEL_INPUTS}).logits
        found = [[] for _ in logits]
        grid = span_grid(*own, *logits.shape[1:3])
        for row, *entity in zip(*(x.tolist() for x in decode(logits, grid, threshold, nested=True)), strict=True):
            found[row].append(tuple(entity))
        return found

    def predict(
        self,
        inputs: str | Sequence[str] | Sequence[Sequence[str]],
        tokenizer,
        batch_size: int = 32,
        threshold: float = 0.0,
        nested: bool = False,
    ) -> list[dict] | list[list[dict]]:
        """Find the entities of raw texts or of sentences that are already split into words, in memory that grows with the
        entities and not with the length of the texts.

        Args:
            inputs: a text, a list of texts, or a list of word lists.
            tokenizer: the model's tokenizer.
            batch_size: windows at a time.
            threshold: the least score of an entity.
            nested: also return entities within entities; without it no word has two.
        Returns:
            One list of entities a text (the list itself for a single text): `entity_group`, `score`, `word`, `start`
            and `end`, which are characters for texts and words for word lists.
        Raises:
            ValueError: `batch_size` or `threshold` is no such number.
        """
        _check_numbers(batch_size, threshold)
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        words = (iter_words(text) if isinstance(text, str) else text for text in texts)
        windows = iter_windows(words, tokenizer, self.config.max_tokens, self.config.max_span_length, self.config.units)
        found = [[] for _ in texts]
        was_training = self.training
        if was_training:  # each switch visits every module: for one short text that is time to be seen
            self.eval()
        while block := list(islice(windows, _SORTED_TOGETHER * batch_size)):
            for rows in batches_by_length(block, batch_size):
                batch = {name: value.to(self.device) for name, value in collate_windows(rows, tokenizer.pad_token_id).items()}
                for row, entities in zip(rows, self.find_candidates(batch, threshold), strict=True):
                    found[row["sentence"]] += [in_words(entity, row["borders"]) for entity in entities]
        if was_training:
            self.train()
        results = []
        for text, candidates in zip(texts, found, strict=True):
            entities = resolve(candidates, nested)
            if isinstance(text, str):
                results.append(self.name_entities(entities, text))
            else:
                results.append([self._named(e, " ".join(text[e[0] : e[0] + e[1]]), e[0], e[0] + e[1]) for e in entities])
        return results[0] if isinstance(inputs, str) else results

    def name_entities(self, entities: Sequence[tuple], text: str, offsets: Sequence[tuple[int, int]] | None = None) -> list[dict]:
        """(first word, length, type, score) -> what pipelines return, for a text and the character offsets of its words; without
        these, its words are those of [`split_words`]."""
        borders = {word for begin, length, *_ in entities for word in (begin, begin + length - 1)}
        spans = map(re.Match.span, _WORD.finditer(text)) if offsets is None else offsets
        known = {word: span for word, span in enumerate(spans) if word in borders}
        named = []
        for entity in entities:
            start, end = known[entity[0]][0], known[entity[0] + entity[1] - 1][1]
            named.append(self._named(entity, text[start:end], start, end))
        return named

    def _named(self, entity: tuple, word: str, start: int, end: int) -> dict:
        return {"entity_group": self.config.id2label[entity[2]], "score": entity[3], "word": word, "start": start, "end": end}


ONNX_FILE = "model.onnx"


class GlodeOnnxModel(GlodeModel):
    """A span classifier as `glode export` writes it: ONNX Runtime scores the spans, on the CPU and in inference alone; windows,
    decoding, `predict` and the pipeline are those of [`GlodeModel`]. It takes as many threads as torch does.

    Args:
        config: of the model.
        path: of model.onnx.
    Raises:
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, config: GlodeConfig, path: str):
        PreTrainedModel.__init__(self, config)  # without GlodeModel's modules, whose weights are in the file
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("an exported model runs on ONNX Runtime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # warnings are on what it does to the graph
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.eval()

    @classmethod
    def from_pretrained(cls, name_or_path: str, *args, config: GlodeConfig | None = None, **kwargs) -> "GlodeOnnxModel":
        """A model of a directory or repository; of the options, those that say where on the Hub it is are read."""
        where = _of_the_hub(kwargs)
        if config is None:
            config = GlodeConfig.from_pretrained(name_or_path, **where)
        cached_file(name_or_path, f"{ONNX_FILE}.data", **where, _raise_exceptions_for_missing_entries=False)  # of large models
        return cls(config, cached_file(name_or_path, ONNX_FILE, **where))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, first_token: Tensor, last_token: Tensor, word_shapes: Tensor
    ) -> GlodeOutput:
        """The `logits` of [`GlodeModel.forward`]."""
        inputs = zip(_MODEL_INPUTS, (input_ids, attention_mask, first_token, last_token, word_shapes), strict=True)
        (logits,) = self.session.run(["logits"], {name: value.cpu().numpy() for name, value in inputs})
        return GlodeOutput(logits=torch.from_numpy(logits).to(input_ids.device))


def _of_the_hub(options: dict) -> dict:
    """Those of the options of `from_pretrained` that say where on the Hub a model is."""
    names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
    return {name: options[name] for name in names if options.get(name) is not None}


def load_glode(name_or_path: str, **kwargs) -> GlodeModel:
    """A model that training has saved, or one that `glode export` has written, in evaluation mode; `kwargs` go to its
    `from_pretrained`."""
    config = GlodeConfig.from_pretrained(name_or_path, **_of_the_hub(kwargs))
    exported = config.architectures == [GlodeOnnxModel.__name__]
    return (GlodeOnnxModel if exported else GlodeModel).from_pretrained(name_or_path, **kwargs).eval()


def _check_numbers(batch_size: int, threshold: float | None) -> None:
    """With either of these wrong no entity would be found, in silence."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}.")
    if threshold is not None and (not isinstance(threshold, Real) or threshold != threshold):
        raise ValueError(f"threshold must be a number, the least score of an entity, not {threshold!r}.")


_MODEL_INPUTS = ("input_ids", "attention_mask", "first_token", "last_token", "word_shapes")


_SORTED_TOGETHER = 32  # batches


def batches_by_length(windows: Iterable[dict], batch_size: int) -> Iterator[list[dict]]:
    """Batches of windows of [`iter_windows`] that are of similar length, in tokens; those of the longest come first."""
    by_length = iter(sorted(windows, key=lambda window: -len(window["input_ids"])))
    while batch := list(islice(by_length, batch_size)):
        yield batch


def collate_windows(rows: Sequence[dict], pad_token_id: int) -> dict[str, Tensor]:
    """Pad the windows of [`encode_words`] to one batch.

    Returns:
        `input_ids`, `attention_mask` [batch, tokens]; `first_token`, `last_token`, `word_shapes` [batch, words];
        `number_of_words`, `own_start`, `own_end` [batch].
    """

    def pad(name: str, value: int = 0) -> Tensor:
        width = max(len(row[name]) for row in rows)
        return torch.tensor([list(row[name]) + [value] * (width - len(row[name])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    input_ids = pad("input_ids", pad_token_id)
    return {
        "input_ids": input_ids,
        "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
        "first_token": pad("first_token"),
        "last_token": pad("last_token"),
        "word_shapes": pad("word_shapes"),
        "number_of_words": torch.tensor([len(row["first_token"]) for row in rows]),
        "own_start": torch.tensor([row["own_start"] for row in rows]),
        "own_end": torch.tensor([row["own_end"] for row in rows]),
    }


# ------------------------------------------------------------------------------------------------------------ decoding


def select_spans(scores: Tensor, candidates: Tensor) -> Tensor:
    """Greedy choice of non-overlapping spans: the best candidate, then the best that does not overlap it, and so on.

    Works on all sentences at once. A candidate that no overlapping candidate beats is taken and what it overlaps drops
    out; this repeats until no candidate is left, and ends with exactly the sequential greedy choice. Equal scores: the
    earlier start wins, then the shorter span.

    Args:
        scores: [batch, words, length].
        candidates: bool [batch, words, length].
    Returns:
        bool [batch, words, length].
    """
    batch, words, length = scores.shape
    order = scores.masked_fill(~candidates, -torch.inf).flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(words * length, 0, -1, device=order.device).expand_as(order))
    rank = rank.view(batch, words, length).masked_fill(~candidates, 0)
    chosen = torch.zeros_like(candidates)
    every = 1 if rank.device.type == "cpu" else 8  # rounds: to hear from a GPU whether any is left, the host has to wait for it
    for number in count(1):
        if number % every == 0 and not rank.any():
            break
        winners = (rank > 0) & (rank == _best_overlapping(rank))
        chosen |= winners
        rank = rank.masked_fill(_best_overlapping(winners.long()) > 0, 0)
    return chosen


def _best_overlapping(values: Tensor) -> Tensor:
    """For each span, the largest value (>= 0) of any span that shares a word with it. [batch, words, length] both ways."""
    length = values.shape[2]
    covering = values.flip(2).cummax(2).values.flip(2)  # [b, k]: over the spans from b that hold word b + k
    word = covering[:, :, 0].clone()
    for k in range(1, min(length, values.shape[1])):
        word[:, k:] = torch.maximum(word[:, k:], covering[:, :-k, k])
    return shifted(word[:, :, None], length)[..., 0].cummax(2).values


def decode(
    logits: Tensor, grid: Tensor, threshold: float = 0.0, nested: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Entities by greedy highest probability, without overlap.

    Args:
        logits: [batch, words, length, types].
        grid: bool [batch, words, length], see [`span_grid`].
        threshold: the least probability.
        nested: return every entity, overlapping or not; [`resolve`] takes care of those that cross.
    Returns:
        Five tensors [entities]: row of the batch, first word, length in words, type, probability.
    """
    score, label = logits.softmax(-1).max(-1)
    entities = grid & (label != 0) & (score >= threshold)
    row, begin, length = (entities if nested else select_spans(score, entities)).nonzero(as_tuple=True)
    return row, begin, length + 1, label[row, begin, length], score[row, begin, length]


def resolve(entities: Sequence[tuple[int, int, int, float]], nested: bool = False) -> list[tuple[int, int, int, float]]:
    """Merge the (begin, length, type, score) entities of a text's windows: the best first, in text order.

    Without `nested` no word belongs to two entities; with it, entities may hold others but not cross them.
    """
    chosen, covering = [], defaultdict(list)  # word -> the chosen (begin, end) that hold it
    for entity in sorted(entities, key=lambda e: (-e[3], e[0], e[1])):
        begin, end = entity[0], entity[0] + entity[1]
        words = (begin, end - 1) if nested else range(begin, end)
        rivals = [span for word in words for span in covering.get(word, ())]
        if nested:  # what crosses holds either the first or the last word, but not both
            rivals = [(a, b) for a, b in rivals if not (a <= begin and end <= b) and not (begin <= a and b <= end)]
        if not rivals:
            chosen.append(entity)
            for word in range(begin, end):
                covering[word].append((begin, end))
    return sorted(chosen)


# ------------------------------------------------------------------------------------------------------------ pipeline


class GlodePipeline(TokenClassificationPipeline):
    """`pipeline("token-classification", model=repo, trust_remote_code=True)`.

    Returns `entity_group`, `score`, `word` (the verbatim slice), `start` and `end`, as the built-in pipeline does with an
    aggregation strategy. Long texts are windowed; nothing is lost at the seams.

    Call with `threshold` (the least score), `nested=True` (entities within entities), `ignore_labels`, or
    `is_split_into_words=True` for lists of words, whose offsets point into the words joined by `delimiter` (" ").

    What callers of the built-in pipeline give besides is met or refused: every aggregation strategy but "none" asks for whole
    entities, as they are found here, and `stride` for windows that overlap, as they always do.
    """

    def check_model_type(self, supported_models) -> None:
        """Spans, not tokens, are classified: the list of token classifiers does not apply."""

    def _sanitize_parameters(
        self,
        threshold=None,
        nested=None,
        ignore_labels=None,
        is_split_into_words=False,
        delimiter=None,
        aggregation_strategy=None,
        stride=None,
        offset_mapping=None,
        grouped_entities=None,
        **unknown,
    ):
        if unknown:
            raise TypeError(f"GlodePipeline takes no argument {', '.join(unknown)}; its docstring names those it takes.")
        self._check_aggregation(aggregation_strategy, grouped_entities)
        if stride is not None and not (isinstance(stride, Integral) and 0 <= stride < self.model.config.max_tokens):
            raise ValueError(f"stride must be an integer from 0 to {self.model.config.max_tokens - 1}, not {stride!r}.")
        if offset_mapping is not None:
            raise ValueError("offset_mapping is of tokens, spans have none. For words of your own give is_split_into_words=True.")
        if isinstance(ignore_labels, str):
            raise ValueError(f"ignore_labels must be a list of types: [{ignore_labels!r}].")
        _check_numbers(1, threshold)
        preprocess = {"delimiter": " " if delimiter is None else delimiter} if is_split_into_words else {}
        forward = {} if threshold is None else {"threshold": threshold}
        postprocess = {name: value for name, value in (("nested", nested), ("ignore_labels", ignore_labels)) if value is not None}
        return preprocess, forward, postprocess

    @staticmethod
    def _check_aggregation(strategy, grouped_entities: bool | None) -> None:
        """`strategy` is a string or transformers' AggregationStrategy; `grouped_entities` said the same in transformers 4."""
        name = str(getattr(strategy, "value", "simple" if strategy is None else strategy)).lower()
        if name not in ("none", "simple", "first", "average", "max"):
            raise ValueError(
                f"there is no aggregation_strategy {strategy!r}: give simple, first, average or max, here all the same."
            )
        if name == "none" or grouped_entities is False:
            raise ValueError(
                'aggregation_strategy "none" (grouped_entities=False) asks for labels of tokens, and this model labels spans. '
                'Leave it out, or give "simple"; a token classifier comes from run_crossner.py --export_token_classifier.'
            )

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params: dict, forward_params: dict, postprocess_params: dict
    ) -> Iterator[list[dict]]:
        """The entities of each input, in their order.

        Of a list or a dataset the windows of many batches are read from the longest to the shortest, as [`GlodeModel.predict`]
        does: batches in the order of the texts have two to three times the tokens, most of them padding. A generator, which
        may wait for answers, is asked for a batch at a time. There are no worker processes.
        """
        _check_numbers(batch_size, None)
        ahead = _SORTED_TOGETHER * batch_size if isinstance(inputs, Sized) else batch_size
        windows = chain.from_iterable(self.preprocess(text, **preprocess_params) for text in inputs)
        return self._find(windows, ahead, batch_size, forward_params, postprocess_params)

    def _find(
        self, windows: Iterator[dict], ahead: int, batch_size: int, forward_params: dict, postprocess_params: dict
    ) -> Iterator[list[dict]]:
        """`ahead` windows are held at a time."""
        outputs = []  # of the windows of a text
        while block := list(islice(windows, ahead)):
            for rows in batches_by_length(block, batch_size):
                batch = collate_windows(rows, self.tokenizer.pad_token_id)
                for row, found in zip(rows, self.forward(batch, **forward_params), strict=True):
                    row["candidates"] = [in_words(entity, row["borders"]) for entity in found]
            for window in block:
                outputs.append({name: window[name] for name in ("candidates", "text", "offsets")})
                if window["is_last"]:
                    yield self.postprocess(outputs, **postprocess_params)
                    outputs = []

    def preprocess(self, sentence: str | Sequence[str], delimiter: str | None = None) -> Iterator[dict]:
        if delimiter is not None:
            if isinstance(sentence, str) or not all(isinstance(word, str) for word in sentence):
                raise ValueError("is_split_into_words=True expects a list of words, or a list of such lists.")
            text, words = delimiter.join(sentence), sentence
            ends = np.cumsum([len(word) + len(delimiter) for word in words]) - len(delimiter)
            offsets = [(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)]
        else:
            if not isinstance(sentence, str):
                raise ValueError(
                    f"expected a string, not {type(sentence).__name__}; for lists of words give is_split_into_words=True."
                )
            text, words, offsets = sentence, iter_words(sentence), None
        config = self.model.config
        windows = iter_windows([words], self.tokenizer, config.max_tokens, config.max_span_length, config.units)
        row = next(windows, _EMPTY_WINDOW | {"input_ids": [self.tokenizer.unk_token_id]})
        for following in chain(windows, [None]):
            yield row | {"text": text, "offsets": offsets, "is_last": following is None}
            row = following

    def _forward(self, model_inputs: dict[str, Tensor], threshold: float = 0.0) -> list[list[tuple]]:
        return self.model.find_candidates(model_inputs, threshold)

    def postprocess(self, all_outputs: list[dict], nested: bool = False, ignore_labels: Sequence[str] = ()) -> list[dict]:
        entities = resolve([entity for window in all_outputs for entity in window["candidates"]], nested)
        named = self.model.name_entities(entities, all_outputs[0]["text"], all_outputs[0]["offsets"])
        return [entity for entity in named if entity["entity_group"] not in ignore_labels]


# A text without a word is one token without a span.
_EMPTY_WINDOW = {"first_token": [0], "last_token": [0], "word_shapes": [0], "borders": [0, 0], "own_start": 0, "own_end": 0}


GlodeConfig.register_for_auto_class()
GlodeModel.register_for_auto_class("AutoModel")
GlodeOnnxModel.register_for_auto_class("AutoModel")
