"""A command's arguments from a dataclass, as HfArgumentParser has them, which takes a second to load."""

import argparse
import dataclasses
from collections.abc import Sequence
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], argv: Sequence[str], prog: str, description: str) -> Arguments:
    """The arguments of a command.

    Args:
        kind: a dataclass. Its fields are texts, numbers, switches that are off, or lists; their metadata have `help` and, where
            they are limited, `choices`. A field without a default is needed.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    hints = get_type_hints(kind)
    for field in dataclasses.fields(cast(Any, kind)):
        names = dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}"])
        parser.add_argument(*names, **field.metadata | _how_to_read(hints[field.name], field.default))
    for action in parser._actions:
        if action.default not in (None, False, argparse.SUPPRESS) and "Default:" not in str(action.help):
            action.help = f"{action.help} Default: %(default)s."
    return kind(**vars(parser.parse_args(argv)))


def _how_to_read(hint: Any, default: Any) -> dict[str, Any]:
    """What argparse has to know of a field."""
    if hint is bool:
        return {"type": _switch, "default": default, "nargs": "?", "const": True, "metavar": "true|false"}
    usual = {"required": True} if default is dataclasses.MISSING else {"default": default}
    if get_origin(hint) is UnionType:  # the first of `str | None`
        hint = get_args(hint)[0]
    if get_origin(hint) is list:
        return usual | {"type": get_args(hint)[0], "nargs": "+"}
    return usual | {"type": hint}


def _switch(text: str) -> bool:
    """true or false, yes or no, 1 or 0."""
    if (value := text.lower()) in ("true", "yes", "t", "y", "1"):
        return True
    if value in ("false", "no", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
