"""A GLiNER model as a teacher: it is asked for types by their names (Zaratiana et al., 2024)."""

import importlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from glode.errors import InputError
from glode.publishing.token_classifier import running_text
from glode.teachers.prompts import type_names
from glode.teachers.teacher import LEAST, SoftSpan, TeacherSettings, to_words

FILE = "gliner_config.json"  # what a GLiNER model is known by
LEAST_SCORE = 0.05  # that the model is asked for
FEWEST_WORDS = 16  # of a part of a sentence


class GlinerTeacher:
    """A GLiNER model.

    It is asked for types by their English names. Its score of a span for a type is a probability of its own, so that those of all
    types may make more than 1 together; then each is divided by their sum. Sentences of more words than it reads are given in
    parts.

    Args:
        name: a directory, or a repository on the Hub.
        option: by which a command names it.
    Raises:
        InputError: the package is missing, or it does not load.
    """

    kind = "GLiNER"

    def __init__(self, name: str, settings: TeacherSettings, option: str = "--teachers"):
        try:
            package = importlib.import_module("gliner")
        except ImportError as error:
            raise InputError(
                f"{option} {name} is a GLiNER model, and the package gliner cannot be imported ({error}). Install it by "
                "pip install --no-deps gliner sentencepiece."  # its own bounds forbid the transformers that we need
            ) from error
        try:
            self.model = package.GLiNER.from_pretrained(name).to(settings.device).eval()
        except Exception as error:  # of any kind: what it raises is not documented
            raise InputError(f"{option} {name} does not load as a GLiNER model: {' '.join(str(error).split())[:200]}") from error
        self.batch_size = settings.batch_size
        self.names = type_names(settings.asked, "en")  # what it is asked for -> the name that --label_map knows
        self.types = list(self.names.values())
        self.within_words = 0
        self.most_words = max(FEWEST_WORDS, int(getattr(self.model.config, "max_len", None) or 384) // 2)

    def __call__(self, sentences: Sequence[Sequence[str]], language: str) -> list[list[SoftSpan]]:
        """The spans of each sentence that are names, see `Teacher`."""
        parts = [(row, at, words[at : at + self.most_words]) for row, words in enumerate(sentences) for at in self._starts(words)]
        texts, offsets = zip(*(running_text(words) for _, _, words in parts), strict=True)
        options = {"threshold": LEAST_SCORE, "batch_size": self.batch_size, "flat_ner": False, "multi_label": True}
        answers = self.model.inference(list(texts), list(self.names), **options)
        found: list[list[SoftSpan]] = [[] for _ in sentences]
        for (row, at, _), places, entities in zip(parts, offsets, answers, strict=True):
            found[row] += self._spans(entities, places, at)
        return [share_out(spans) for spans in found]

    def facts(self) -> dict[str, Any]:
        """How many entities have a border within a word of ours, and are left out."""
        return {"within_words": self.within_words}

    def _starts(self, words: Sequence[str]) -> range:
        return range(0, len(words), self.most_words)

    def _spans(self, entities: Sequence[dict], offsets: Sequence[tuple[int, int]], at: int) -> Iterator[SoftSpan]:
        for entity in entities:
            place = to_words(entity["start"], entity["end"], offsets)
            if place is None:
                self.within_words += 1
            else:
                yield SoftSpan(at + place[0], place[1], self.names[entity["label"]], float(entity["score"]))


def share_out(spans: Sequence[SoftSpan]) -> list[SoftSpan]:
    """Spans whose scores of all types make more than 1, divided by their sum."""
    shared = []
    for _, cell in groupby(sorted(spans), key=lambda span: span[:2]):
        best = {span.type: span for span in sorted(cell, key=lambda span: span.score)}  # of one type the highest
        total = max(1.0, sum(span.score for span in best.values()))
        shared += [span._replace(score=span.score / total) for span in best.values() if span.score / total >= LEAST]
    return shared
