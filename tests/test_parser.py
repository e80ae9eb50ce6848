"""Protects the parser of commands: what kinds of arguments there are, how their help reads, and what it refuses."""

from dataclasses import dataclass, field

import pytest

from glode.parser import parse


@dataclass
class Told:
    """What a command is told."""

    some_names: list[str] = field(metadata={"help": "Names."})
    number: int = field(default=3, metadata={"help": "A number."})
    share: float = field(default=0.5, metadata={"help": "A share, 50 %% or so."})
    kind: str | None = field(default=None, metadata={"help": "A kind.", "choices": ["a", "b"]})
    more: list[str] | None = field(default=None, metadata={"help": "More names."})
    quick: bool = field(default=False, metadata={"help": "Be quick."})


def told(line: str) -> Told:
    return parse(Told, line.split(), prog="told", description="Tells.")


def test_arguments_of_each_kind():
    assert told("--some_names x y") == Told(["x", "y"])
    assert told("--some-names x --number 4 --share 1 --kind b --quick") == Told(["x"], 4, 1.0, "b", None, True)
    assert told("--some_names x --more a b").more == ["a", "b"]
    assert all(told(f"--some_names x --quick {value}").quick for value in ("true", "Yes", "1"))
    assert not any(told(f"--some_names x --quick {value}").quick for value in ("false", "No", "0"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: --some_names"),
        ("--some_names x --num 4", "unrecognized arguments: --num 4"),
        ("--some_names x --kind c", "argument --kind: invalid choice: 'c'"),
        ("--some_names x --quick maybe", " is neither true nor false"),
    ],
)
def test_what_is_refused(line: str, message: str, capsys):
    with pytest.raises(SystemExit) as stopped:
        told(line)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_help_tells_defaults(capsys):
    with pytest.raises(SystemExit):
        told("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "A number. Default: 3." in shown and "A share, 50 % or so. Default: 0.5." in shown
    assert "None" not in shown and "false]" in shown and "Be quick. Default" not in shown
