"""What a user's mistake is, and the one place where a command ends on it. Imports no torch."""

import os
import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
    """Something in the user's input is wrong; the message says what, where and how to mend it."""


class NothingSaved(KeyboardInterrupt):
    """Ctrl-C before there was anything to go on with."""


def run_command(main: Callable[[Sequence[str]], None], argv: Sequence[str], resume: str) -> int:
    """Run a command and turn what ends it into a line on standard error and an exit code.

    Args:
        main: the command.
        argv: its arguments.
        resume: the option with which the same command goes on, for messages; empty where there is none.
    Returns:
        0; 2 for a mistake in the input, a full disk or a full GPU; 130 for Ctrl-C; 1 where nobody reads the output any more.
    """
    from safetensors import SafetensorError

    go_on = f"go on with {resume}" if resume else "start again"
    try:
        main(argv)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt as stopped:
        if isinstance(stopped, NothingSaved):
            print("stopped. Nothing was saved yet: the same command begins anew.", file=sys.stderr)
        elif resume:
            print(f"stopped. The same command with {resume} goes on.", file=sys.stderr)
        else:
            print("stopped by the keyboard.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, SafetensorError) as error:  # a full disk, a file that vanished while the command was at work
        print(f"error: {error}. Mend it and {go_on}.", file=sys.stderr)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        print(f"error: the GPU's memory is full. Give a smaller batch and {go_on}.", file=sys.stderr)
    else:
        return 0
    return 2
