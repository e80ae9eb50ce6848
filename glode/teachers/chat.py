"""A chat model as a teacher: it is asked for the names of a sentence, and says them as JSON (after the paper's Appendix C)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from glode.errors import InputError
from glode.publishing.token_classifier import running_text
from glode.teachers.endpoint import Answer, AnswerCache, BrokenAnswer, Endpoint
from glode.teachers.prompts import make_prompt, type_names
from glode.teachers.teacher import SoftSpan, TeacherSettings, to_words

MOST_BROKEN = 0.1  # the share of sentences without an answer at which it is no teacher

Name = tuple[str, str]  # as it is written, type


class ChatTeacher:
    """A chat model behind an endpoint.

    It is asked in the language of the text, with a few labelled sentences of the source. The names that it says are found again
    in the text; their score is 1, as it says none.

    Args:
        name: ADDRESS#MODEL, such as https://api.openai.com/v1#gpt-4o-mini. The key is in OPENAI_API_KEY.
    Raises:
        InputError: the name is none of an endpoint.
    """

    kind = "chat model"

    def __init__(self, name: str, settings: TeacherSettings):
        self.endpoint, self.settings = Endpoint.named(name, settings.requests, settings.backoff), settings
        self.cache = AnswerCache(settings.cache)
        self.types = list(settings.asked)
        self.counts: Counter[str] = Counter()

    def __call__(self, sentences: Sequence[Sequence[str]], language: str) -> list[list[SoftSpan]]:
        """The spans of each sentence that are names, see `Teacher`.

        Raises:
            InputError: the endpoint fails, or more than a tenth of its answers are no JSON of names.
        """
        asked = type_names(self.settings.asked, language)
        prompts = [make_prompt(words, asked, self.settings.examples, language) for words in sentences]
        found: list[list[SoftSpan]] = [[] for _ in sentences]
        broken = done = 0
        before = self._price() or 0.0
        with tqdm(total=len(prompts), desc=self.endpoint.model, unit=" sentences", disable=self.settings.quiet or None) as bar:
            for number, answer in self.endpoint.answers(prompts, self.cache, parse_answer):
                self._count(answer)
                done += 1
                if answer.text is None:
                    broken += 1
                    if broken > max(1, MOST_BROKEN * len(prompts)):
                        raise InputError(
                            f"--teachers {self.endpoint.address}#{self.endpoint.model}: {broken} answers of {done} are no "
                            "JSON of names. Choose a model that follows instructions."
                        )
                else:
                    found[number] = self._spans(parse_answer(answer.text), sentences[number], asked)
                bar.update()
                bar.set_postfix_str(self._spent(done / len(prompts), before))
        self.counts["no_answer"] += broken
        return found

    def facts(self) -> dict[str, Any]:
        """What was asked, what it cost, and what the answers were good for."""
        names = ("asked", "from_cache", "tokens_read", "tokens_written", "no_answer", "not_in_text", "of_no_type")
        facts: dict[str, Any] = {name: self.counts[name] for name in names}
        return facts if (price := self._price()) is None else facts | {"price": round(price, 4)}

    def _count(self, answer: Answer) -> None:
        self.counts["from_cache" if answer.cached else "asked"] += 1
        self.counts["tokens_read"] += answer.read
        self.counts["tokens_written"] += answer.written

    def _price(self) -> float | None:
        if self.settings.price is None:
            return None
        return (
            self.settings.price[0] * self.counts["tokens_read"] + self.settings.price[1] * self.counts["tokens_written"]
        ) / 1e6

    def _spent(self, share: float, before: float) -> str:
        """What was spent, and about what it will be when all of a text is labelled, of which a share is; `before` is what was
        spent on others."""
        price = self._price()
        if price is None:
            return f"{self.counts['tokens_read'] + self.counts['tokens_written']} tokens"
        return f"{price:.2f} of about {before + (price - before) / share:.2f}"

    def _spans(self, names: Sequence[Name], words: Sequence[str], asked: Mapping[str, str]) -> list[SoftSpan]:
        """The spans of a sentence that an answer names."""
        types = {shown.casefold(): name for shown, name in asked.items()} | {name.casefold(): name for name in asked.values()}
        known = [(text, types[kind.casefold()]) for text, kind in names if kind.casefold() in types]
        self.counts["of_no_type"] += len(names) - len(known)
        text, offsets = running_text(words)
        spans, lost = find_names(known, text, offsets)
        self.counts["not_in_text"] += lost
        return spans


def parse_answer(text: str) -> list[Name]:
    """The names that an answer says. What a model has thought before it, and a fence around it, are left out.

    Raises:
        BrokenAnswer: it is no {"entities": [{"text": ..., "type": ...}]}.
    """
    text = text.rpartition("</think>")[2].strip()  # some begin to think in the prompt
    if fenced := re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, flags=re.DOTALL):
        text = fenced[1]
    try:
        entities = json.loads(text)["entities"]
        names = [(entity["text"], entity["type"]) for entity in entities]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BrokenAnswer(text[:80]) from error
    if not all(isinstance(part, str) and part.strip() for name in names for part in name):
        raise BrokenAnswer(text[:80])
    return names


def find_names(names: Sequence[Name], text: str, offsets: Sequence[tuple[int, int]]) -> tuple[list[SoftSpan], int]:
    """Where names stand in a text, and how many of them do not.

    The longest are looked for first, and no word belongs to two names. A name that is said with one type stands wherever it
    occurs; one that is said with several has them in the order of the text. Capitals and white space count where a name is
    found so, and do not where it is not.

    Args:
        offsets: each word's characters (start, end).
    """
    said: dict[str, list[str]] = {}
    for name, kind in names:
        said.setdefault(name.strip(), []).append(kind)
    taken: set[int] = set()
    found, lost = [], 0
    for name, kinds in sorted(said.items(), key=lambda entry: (-len(entry[0]), entry[0])):
        free = [place for place in _places(name, text, offsets) if taken.isdisjoint(range(place[0], sum(place)))]
        ordered = kinds if len(set(kinds)) > 1 else kinds[:1] * len(free)
        lost += len(kinds) if not free else max(0, len(ordered) - len(free))
        for place, kind in zip(free, ordered, strict=False):
            found.append(SoftSpan(*place, kind, 1.0))
            taken.update(range(place[0], sum(place)))
    return sorted(found), lost


def _places(name: str, text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where a name stands, in words: (first word, length), in order, without overlap."""
    pattern = r"\s*".join(re.escape(part) for part in re.split(r"\s+", name))
    exact, loose = (list(_whole(re.finditer(pattern, text, flags), offsets)) for flags in (0, re.IGNORECASE))
    return exact or loose


def _whole(matches: Iterable[re.Match], offsets: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for match in matches:
        if place := to_words(match.start(), match.end(), offsets):
            yield place
