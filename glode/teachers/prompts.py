"""What chat models are told and what types are called, in the language of the text."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

from glode.publishing.token_classifier import running_text
from glode.teachers.teacher import Example

FILE = Path(__file__).with_name("prompts.yaml")
LONGEST_EXAMPLE = 40  # words


@cache
def prompts() -> dict[str, dict]:
    """Language -> `instructions`, `example`, `text`, `answer` and `types`, see prompts.yaml."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def prompt_language(language: str) -> str:
    """The language of the prompt for a text: its own, else English."""
    code = language.replace("_", "-").split("-")[0].lower()
    return code if code in prompts() else "en"


def type_names(asked: Mapping[str, str], language: str) -> dict[str, str]:
    """What a model is asked for, in a language -> the name that it was asked for by.

    Args:
        asked: see `TeacherSettings`.
    """
    usual = prompts()[prompt_language(language)]["types"]
    return {usual.get(name.upper(), name.lower()) if name == ours else name: name for name, ours in asked.items()}


def choose_examples(sentences: Sequence[Example], most: int = 4) -> list[Example]:
    """A few labelled sentences of moderate length: first those that have types that none before has, then others with names; the
    last one, where there is one, without any."""
    usable = [example for example in sentences if 4 <= len(example.words) <= LONGEST_EXAMPLE]
    chosen: list[Example] = []
    shown: set[str] = set()
    for example in usable:
        if new := {name for _, _, name in example.entities} - shown:
            chosen.append(example)
            shown |= new
    chosen = chosen[: most - 1]
    named = (example for example in usable if example.entities and example not in chosen)
    chosen += [example for example, _ in zip(named, range(most - 1 - len(chosen)), strict=False)]
    return chosen + [example for example in usable if not example.entities][:1]


def make_prompt(words: Sequence[str], asked: Mapping[str, str], examples: Sequence[Example], language: str) -> str:
    """What a chat model is asked about a sentence, in the language of the text, with labelled examples in that of the source.

    Args:
        asked: see `type_names`, which it is the result of.
        examples: with the types that are asked for by.
    """
    told = prompts()[prompt_language(language)]
    names = {name: shown for shown, name in asked.items()}
    lines = [told["instructions"].format(types=", ".join(asked)), told["answer"], ""]
    for example in examples:
        lines += [f"{told['text']}: {running_text(example.words)[0]}", f"{told['result']}: {_answer(example, names)}", ""]
    return "\n".join([*lines, f"{told['text']}: {running_text(words)[0]}", f"{told['result']}:"])


def _answer(example: Example, names: Mapping[str, str]) -> str:
    text, offsets = running_text(example.words)
    entities = [
        {"text": text[offsets[begin][0] : offsets[begin + length - 1][1]], "type": names[name]}
        for begin, length, name in sorted(example.entities)
        if name in names
    ]
    return json.dumps({"entities": entities}, ensure_ascii=False)
