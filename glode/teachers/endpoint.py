"""An endpoint that speaks the chat completions protocol of OpenAI: requests, retries, a cache on disk. Imports no torch."""

import hashlib
import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from glode.errors import InputError

KEY = "OPENAI_API_KEY"  # the environment's name for the key
TRIES, BROKEN_TRIES = 6, 3  # of a request, and of those how many answers may be broken
LONGEST_WAIT = 60.0  # seconds between two tries
TIMEOUT = 120.0  # seconds
_PASSING = {408, 409, 425, 429}  # statuses that pass; so do those from 500 on


class Answer(NamedTuple):
    """What a model has written, None where that was none of what it was asked for; and how many tokens it has read and written
    for it, broken answers among them."""

    text: str | None
    read: int = 0
    written: int = 0
    cached: bool = False


class BrokenAnswer(ValueError):
    """An answer that is not what was asked for."""


class _Again(Exception):
    """A request failed in a way that passes; `wait` is the seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def is_endpoint(name: str) -> bool:
    """Whether a teacher's name is an address."""
    return name.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Endpoint:
    """A chat model: `model` at `address`, such as https://api.openai.com/v1.

    Args:
        requests: at the same time.
        backoff: seconds before a request is tried again; twice as many each time.
    """

    address: str
    model: str
    requests: int = 8
    backoff: float = 1.0

    @classmethod
    def named(cls, name: str, requests: int, backoff: float) -> "Endpoint":
        """The endpoint of a name of the form ADDRESS#MODEL.

        Raises:
            InputError: it has another form, or a key in it, which would be written to reports.
        """
        address, _, model = name.partition("#")
        if not model:
            raise InputError(
                f"--teachers {name}: which model? Give ADDRESS#MODEL, such as https://api.openai.com/v1#gpt-4o-mini."
            )
        if "@" in address or "?" in address:
            raise InputError(
                f"--teachers: an address with a user, a password or a query. Give the key by {KEY}, where it is kept."
            )
        return cls(address.rstrip("/"), model, requests, backoff)

    def answers(self, prompts: Sequence[str], cache: "AnswerCache", check: Callable[[str], Any]) -> Iterator[tuple[int, Answer]]:
        """The answer to each prompt with its number, as they come.

        Args:
            check: raises BrokenAnswer where an answer is not what was asked for; it is asked again then.
        Raises:
            InputError: the endpoint refuses, or fails again and again. What was answered before is in the cache.
        """
        pending: dict[str, list[int]] = {}  # a sentence that stands in a text again is asked about once
        for number, prompt in enumerate(prompts):
            if (text := cache.get(self, prompt)) is None:
                pending.setdefault(prompt, []).append(number)
            else:
                yield number, Answer(text, cached=True)
        executor, stopped = ThreadPoolExecutor(self.requests), Event()
        futures = {executor.submit(self.ask, prompt, check, stopped): prompt for prompt in pending}
        kept: set[str] = set()
        try:
            for future in as_completed(futures):
                prompt, answer = futures[future], future.result()
                cache.put(self, prompt, answer)
                kept.add(prompt)
                for place, number in enumerate(pending[prompt]):
                    yield number, Answer(answer.text, cached=True) if place else answer
        finally:
            stopped.set()
            executor.shutdown(wait=True, cancel_futures=True)
            for future, prompt in futures.items():
                if prompt not in kept and not future.cancelled() and not future.exception():
                    cache.put(self, prompt, future.result())

    def ask(self, prompt: str, check: Callable[[str], Any], stopped: Event) -> Answer:
        """One answer, see `answers`. The model is asked at temperature 0, after a broken answer at 0.5.

        Args:
            stopped: set where nobody waits for the answer any more.
        """
        read = written = broken = 0
        failure = None
        for attempt in range(TRIES):
            try:
                answer = self._request(prompt, 0.5 if broken else 0.0)
            except _Again as again:
                failure = again
                wait = self.backoff * 2**attempt if again.wait is None else again.wait
                if attempt + 1 < TRIES and stopped.wait(min(wait, LONGEST_WAIT)):
                    return Answer(None, read, written)
                continue
            read, written = read + answer.read, written + answer.written
            try:
                check(answer.text or "")
                return Answer(answer.text, read, written)
            except BrokenAnswer:
                broken += 1
                if broken == BROKEN_TRIES:
                    return Answer(None, read, written)
        raise InputError(
            f"--teachers {self.address}#{self.model} has failed {TRIES} times: {failure}. What it has answered is kept: try "
            "again later, or with fewer --teacher_requests."
        )

    def _request(self, prompt: str, temperature: float | None) -> Answer:
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        body |= {} if temperature is None else {"temperature": temperature}
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY, "").strip()) else {}
        request = urllib.request.Request(f"{self.address}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            told = _told_by(error)
            if error.code == 400 and temperature is not None and "temperature" in told:
                return self._request(prompt, None)  # of models that have one temperature alone
            raise self._meaning(error, told) from error
        except urllib.error.URLError as error:
            raise _Again(f"it cannot be reached ({error.reason})") from error
        except (ValueError, InvalidURL):  # what they say may have the key in it
            raise InputError(
                f"--teachers {self.address}: the address, or the key in {KEY}, has characters that no request can have. Copy it "
                "anew."
            ) from None
        except (OSError, HTTPException) as error:
            raise _Again(f"the connection broke ({' '.join(str(error).split()) or type(error).__name__})") from error
        return _read_answer(content)

    def _meaning(self, error: urllib.error.HTTPError, told: str) -> Exception:
        """What an error of the endpoint means: it passes, or the input is wrong."""
        if error.code in _PASSING or error.code >= 500:
            asked = error.headers.get("Retry-After", "")
            return _Again(f"status {error.code}, {told}", float(asked) if asked.isdecimal() else None)
        return InputError(
            f"--teachers {self.address}#{self.model} refuses with status {error.code}: {told}. Check address and model, and "
            f"the key in {KEY}."
        )


def _told_by(error: urllib.error.HTTPError) -> str:
    """What an endpoint says of an error, in a line."""
    with error:
        return " ".join(error.read(2000).decode(errors="replace").split())[:200]


def _read_answer(content: bytes) -> Answer:
    """The answer in a response.

    Raises:
        _Again: it is no response of a chat model.
    """
    try:
        response = json.loads(content)
        text, usage = response["choices"][0]["message"]["content"] or "", response.get("usage") or {}
        text = text.encode(errors="replace").decode()  # half a character can be no name, nor be kept
        return Answer(text, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Again(f"no answer of a chat model: {content[:80]!r}") from error


class AnswerCache:
    """Answers on disk, by endpoint, model and prompt. Of the thread that makes it alone."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with self._usable():
            self.connection = sqlite3.connect(path, timeout=60)
            self.connection.execute("CREATE TABLE IF NOT EXISTS answers (prompt TEXT PRIMARY KEY, text TEXT)")

    def get(self, endpoint: Endpoint, prompt: str) -> str | None:
        with self._usable():
            row = (_key(endpoint, prompt),)
            found = self.connection.execute("SELECT text FROM answers WHERE prompt = ?", row).fetchone()
        return found[0] if found else None

    def put(self, endpoint: Endpoint, prompt: str, answer: Answer) -> None:
        """Keep an answer, unless it is none."""
        if answer.text is not None:
            with self._usable(), self.connection:
                row = (_key(endpoint, prompt), answer.text)
                self.connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path} cannot keep the answers ({error}). Take it away, or give another directory by --model_cache."
            ) from error


def _key(endpoint: Endpoint, prompt: str) -> str:
    return hashlib.sha256(json.dumps([endpoint.address, endpoint.model, prompt]).encode()).hexdigest()
