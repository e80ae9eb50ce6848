"""Protects messages: each one of the code is asserted by a test, with words that are in no other message."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support import ROOT

VARIES = "<>"  # stands for whatever an f-string fills in


def text_of(node: ast.AST | None) -> str | None:
    """A string of the source, with `VARIES` for what is filled in; None where it is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or VARIES for part in node.values)
    return None


def name_of(node: ast.AST) -> str:
    """`error` of parser.error, `InputError` of InputError."""
    return getattr(node, "attr", getattr(node, "id", ""))


def messages_in(tree: ast.AST) -> Iterator[tuple[int, str | None]]:
    """(line, message) of every InputError, of every other exception and warning that brings a text, of what goes to standard
    error, and of every note on a corpus; None where an InputError has no text of its own."""
    raised = {node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            text, name = text_of(node.args[0]), name_of(node.func)
            if name == "InputError" or (text and (node in raised or name in ("error", "warning"))):
                yield node.lineno, f"error: {text}" if name == "error" else text  # argparse puts it before
            elif name == "print" and any(name_of(keyword.value) == "stderr" for keyword in node.keywords):
                if (text := text.removeprefix("error: ")) != VARIES:  # else it prints a message that stands elsewhere
                    yield node.lineno, text
            elif name == "Counter" and isinstance(node.args[0], ast.Dict | ast.List):
                notes = node.args[0].keys if isinstance(node.args[0], ast.Dict) else node.args[0].elts
                yield from ((node.lineno, f"{VARIES} {text}") for text in map(text_of, notes) if text)
        elif isinstance(node, ast.Subscript) and name_of(node.value) == "notes" and (text := text_of(node.slice)):
            yield node.lineno, f"{VARIES} {text}"


@cache
def messages() -> dict[str, str]:
    """Every message of the code, and where it stands."""
    found = {}
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("glode/**/*.py")]):
        for line, text in messages_in(ast.parse(path.read_text(encoding="utf-8"))):
            assert text and re.search(r"\w+\W+\w+", text.replace(VARIES, "")), (
                f"{path.name}, line {line}: a message without words"
            )
            found.setdefault(" ".join(text.split()), f"{path.name}, line {line}")
    return found


@cache
def asserted_strings() -> set[str]:
    """What the other tests assert, match or have in a row of parameters: their strings of at least three words."""
    found = set()
    for path in Path(__file__).parent.rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path != Path(__file__) else ()
        for node in nodes:
            if isinstance(node, ast.Assert | ast.Tuple) or (isinstance(node, ast.Call) and name_of(node.func) == "raises"):
                found.update(map(text_of, ast.walk(node)))
    return {text for text in found - {None} if len(text.split()) > 2}


def test_every_message_is_asserted():
    """A string of a test stands in it and in no other message."""
    asserted = set()
    for string in asserted_strings():
        holders = [text for text in messages() if string in text]
        asserted |= set(holders if len(holders) == 1 else ())
    assert not {text: place for text, place in messages().items() if text not in asserted}
