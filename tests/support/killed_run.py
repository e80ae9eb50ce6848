"""Runs run_crossner.py and kills it inside a function:

    python tests/support/killed_run.py MODULE.CLASS.FUNCTION NUMBER ARGUMENT...

SIGKILL strikes at the function's NUMBER-th call. Used by test_resume.py.
"""

import importlib
import os
import runpy
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]


def kill_inside(place: str, number: int) -> None:
    """Let the `number`-th call of a function kill the process."""
    module, owner, name = place.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), owner)
    function, calls = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    kill_inside(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["run_crossner.py", *sys.argv[3:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
