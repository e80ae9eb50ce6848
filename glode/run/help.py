"""`--help`: the arguments by groups, with their defaults."""

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from enum import Enum

WIDTH = 120


class ShowHelp(argparse.Action):
    """Prints the arguments of `groups` (heading -> names) and ends the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, groups: Mapping[str, Sequence[str]], help: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.groups = groups

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        print(help_text(parser, self.groups))
        parser.exit()


def help_text(parser: argparse.ArgumentParser, groups: Mapping[str, Sequence[str]]) -> str:
    """The help on the arguments of `groups`, heading -> names."""
    actions = {action.dest: action for action in reversed(parser._actions)}  # --fp16 after --no_fp16, which it stands for
    lines = [f"usage: {(parser.usage or '') % {'prog': parser.prog}}", "", textwrap.fill(parser.description or "", WIDTH)]
    for title, names in groups.items():
        formatter = HelpFormatter(parser.prog, max_help_position=30, width=WIDTH)
        formatter.start_section(title)
        formatter.add_arguments([actions[name] for name in names])
        formatter.end_section()
        lines += ["", formatter.format_help().rstrip()]
    helps = [action for action in parser._actions if isinstance(action, ShowHelp)]
    return "\n".join([*lines, "", *(f"{', '.join(action.option_strings)}: {action.help}" for action in helps)])


class HelpFormatter(argparse.HelpFormatter):
    """One spelling an option, the kind of its value, and its default, where that is not told in words."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        option = next(name for name in action.option_strings if name.startswith("--"))
        return f"{option} {kind_of_value(action)}"

    def _get_help_string(self, action: argparse.Action) -> str:
        # In TrainingArguments, and in ours, a percent sign is one, and no place of argparse's.
        text = " ".join(re.sub(r"%%|%(?!\()", "%%", action.help or "").split())
        if _many(action):
            text += f" One of {', '.join(map(str, action.choices or ()))}."
        if action.required:
            return f"{text} Needed."
        default = action.default.value if isinstance(action.default, Enum) else action.default
        if default in (None, "", argparse.SUPPRESS) or "Default:" in text:
            return text
        shown = str(default).lower() if isinstance(default, bool) else str(default).replace("%", "%%")
        return f"{text} Default: {shown}."


def _many(action: argparse.Action) -> bool:
    """Whether the choices are too many for the place of the value."""
    return len("|".join(map(str, action.choices or ()))) > WIDTH - 30


def kind_of_value(action: argparse.Action) -> str:
    """What the help shows in a value's place."""
    if action.choices and not _many(action):
        return "|".join(map(str, action.choices))
    names = {"int": "NUMBER", "float": "NUMBER", "string_to_bool": "true|false"}
    name = names.get(getattr(action.type, "__name__", ""), "TEXT")
    return f"{name} ..." if action.nargs == "+" else name
