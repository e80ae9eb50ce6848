"""Protects the command `glode`: each subcommand explains itself, and every end has its exit code."""

import re
import subprocess
import sys

import pytest

import glode
from glode.command import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_subcommand(arguments: list[str], capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +{what}$", out, re.MULTILINE) for name, (_, what) in COMMANDS.items())
    assert "glode COMMAND --help explains" in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"glode {glode.__version__}\n"


def test_a_command_that_is_not_there(capsys):
    assert main(["teg", "--model", "x"]) == 2
    error = capsys.readouterr().err
    assert "error: glode has no command 'teg'. Did you mean 'tag'?" in error and "usage: glode" in error
    assert "glode has no command" in error
    assert main(["frobnicate"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


# An argument that each subcommand has, so that its own help is seen and not another's; and what it asks for at least.
ARGUMENTS = {
    "train": "target_unlabeled",
    "tag": "threshold",
    "evaluate": "gold",
    "review": "order",
    "export": "output",
    "app": "port",
}
REQUIRED = {
    "train": ["--target_lang", "de"],
    "tag": ["--model", "m"],
    "evaluate": ["--model", "m", "--gold", "g"],
    "review": ["--model", "m"],
    "export": ["--model", "m", "--output", "o"],
    "app": [],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand(name: str, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"--{ARGUMENTS[name]}" in out and out.startswith(f"usage: glode {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_argument_that_is_not_there(name: str, capsys):
    assert main([name, *REQUIRED[name], "--frobnicate"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--frobnicate" in last and last.startswith(f"glode {name}: error: ")
    assert name != "evaluate" or "error: unrecognized arguments: " in last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tag", "--model", "nowhere/at-all", "--input", "missing.txt"], "--input missing.txt is no file"),
        (["evaluate", "--model", "missing", "--gold", "missing.conll"], "missing.conll: no such file"),
        (["export", "--model", "missing", "--output", "onnx"], "missing: no token classifier"),
        (["app", "--model", "missing"], "model 'missing' cannot be loaded"),
        (["train", "--target_lang", "de", "--config", "missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_a_mistake_ends_in_one_line_and_code_2(arguments: list[str], message: str, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"train"}))
def test_help_loads_no_large_library(name: str):
    libraries = "{'torch', 'transformers', 'datasets', 'gradio'}"
    code = f"import sys; from glode.command import main; main(sys.argv[1:]); print({libraries} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code, name, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_as_a_module(tmp_path):
    done = subprocess.run([sys.executable, "-m", "glode", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"glode {glode.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "glode", "frobnicate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "'frobnicate'" in done.stderr
