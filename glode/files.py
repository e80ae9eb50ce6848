"""Files and directories that are written whole or not at all. Imports no torch."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: Path, owner: bool = True, first_wins: bool = False) -> Iterator[Path]:
    """A name to write a file or a directory under; it becomes `path` when the block ends, and vanishes where the block fails.

    Whoever finds `path` finds all of it, whatever stops the writer.

    Args:
        path: what is written; what is there already is replaced.
        owner: whether this process renames and removes. Several that write parts of one directory share the name, and one of
            them owns it: all have to have written before it leaves the block.
        first_wins: the name is this process' own, and what another one has put in place in the meantime stays.
    """
    partial = path.with_name(f".{path.name}" + (f".{os.getpid()}" if first_wins else ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    if owner:
        remove(partial)  # of a writer that was killed
    try:
        yield partial
    except BaseException:
        if owner:
            remove(partial)
        raise
    if not owner:
        return
    if first_wins and path.exists():
        remove(partial)
        return
    if path.is_dir():  # a directory takes the place of an empty one alone
        remove(path)
    try:
        partial.replace(path)
    except OSError:
        if not (first_wins and path.exists()):
            raise
        remove(partial)


@contextmanager
def write_into(directory: Path, owner: bool = True) -> Iterator[Path]:
    """A directory to write files in; when the block ends, each takes its place in `directory`, whole, beside what is there.

    Args:
        owner: see `write_whole`.
    """
    new = directory / ".new"
    try:
        with write_whole(new / "files", owner) as partial:
            yield partial
        if owner:
            for path in sorted((new / "files").iterdir()):
                if path.is_dir():  # of a writer that was killed: a directory takes the place of an empty one alone
                    remove(directory / path.name)
                path.replace(directory / path.name)
    finally:
        if owner:
            remove(new)


def remove(path: Path) -> None:
    """Delete a file, or a directory with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
