"""The command `glode`: train, tag, evaluate, review, export, app."""

import difflib
import importlib
import sys
from collections.abc import Sequence

import glode

# Subcommand -> the module with its `run`, and what it does. Modules are loaded when called: each takes seconds.
COMMANDS = {
    "train": ("run_crossner", "train a recogniser for a language without labels"),
    "tag": ("glode.serving.tag", "find the entities of a file of any size"),
    "evaluate": ("glode.evaluation.evaluate", "judge models by a labelled file of your own"),
    "review": ("glode.evaluation.review", "choose sentences for a person to correct"),
    "export": ("glode.serving.onnx", "write a model for ONNX Runtime"),
    "app": ("glode.serving.app", "a page to try a model in the browser"),
}


def usage() -> str:
    """What `glode --help` prints."""
    lines = [f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items()]
    first = ["usage: glode COMMAND ...", "       glode --version", ""]
    return "\n".join([*first, *lines, "", "glode COMMAND --help explains the arguments of each."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: its name and its arguments; None takes those of the process.
    Returns:
        Its exit code, see `glode.errors.run_command`; 2 where there is no such command.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"glode {glode.__version__}")
        return 0
    if name not in COMMANDS:
        like = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f" Did you mean {like[0]!r}?" if like else ""
        print(f"error: glode has no command {name!r}.{meant}\n{usage()}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[name][0]).run(rest)
    except SystemExit as ended:  # argparse's way, for --help and for arguments that it refuses
        return int(ended.code or 0)
