"""Protects how a command ends: one line on standard error, and an exit code, whatever happened to it."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from safetensors import SafetensorError
from support import ROOT
from torch import OutOfMemoryError

from glode.errors import InputError, NothingSaved, run_command

ENDS = [
    (InputError("a.iob2, line 3: no tag."), 2, "error: a.iob2, line 3: no tag."),
    (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device. Mend it and go on with --again."),
    (SafetensorError("header too small"), 2, "error: header too small. Mend it and go on with --again."),
    (OutOfMemoryError("CUDA"), 2, "error: the GPU's memory is full. Give a smaller batch and go on with --again."),
    (KeyboardInterrupt(), 130, "stopped. The same command with --again goes on."),
    (NothingSaved(), 130, "stopped. Nothing was saved yet: the same command begins anew."),
]


def raising(error: BaseException):
    def main(argv: Sequence[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(("error", "code", "line"), ENDS)
def test_what_ends_a_command(error: BaseException, code: int, line: str, capsys):
    assert run_command(raising(error), [], resume="--again") == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_where_nothing_can_go_on(capsys):
    assert run_command(raising(OSError("gone")), [], resume="") == 2
    assert run_command(raising(KeyboardInterrupt()), [], resume="") == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: gone. Mend it and start again.", "stopped by the keyboard."]
    assert ". Mend it and " in lines[0] and "stopped by the keyboard" in lines[1]


def test_the_words_of_the_messages(capsys):
    for error in (OutOfMemoryError("CUDA"), KeyboardInterrupt()):
        run_command(raising(error), [], resume="--again")
    text = capsys.readouterr().err
    assert "the GPU's memory is full" in text and "The same command with" in text


def test_all_went_well(capsys):
    said = []
    assert run_command(said.append, ["--x"], resume="") == 0
    assert said == [["--x"]] and capsys.readouterr() == ("", "")


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        run_command(raising(RuntimeError("shapes")), [], resume="")


def test_a_reader_that_leaves():
    """As in `| head -1`: no traceback, and another exit code than success."""
    code = "import sys; from glode.errors import run_command\n"
    code += "def main(argv):\n    while True: print('x' * 1000, flush=True)\nsys.exit(run_command(main, [], resume=''))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("x")
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1
