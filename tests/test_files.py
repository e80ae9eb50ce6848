"""Protects from half a file: what is written whole is there whole or not at all, and nothing else is left."""

import os
from pathlib import Path

import pytest

from glode.files import write_into, write_whole


def write(partial: Path, text: str) -> None:
    partial.write_text(text)


def write_directory(partial: Path, text: str) -> None:
    partial.mkdir(exist_ok=True)
    (partial / "part").write_text(text)


def read(path: Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("make", [write, write_directory])
@pytest.mark.parametrize("options", [{}, {"first_wins": True}])
def test_it_is_there_when_the_block_ends(tmp_path: Path, make, options):
    path = tmp_path / "deeper" / "name"
    with write_whole(path, **options) as partial:
        make(partial, "first")
        assert not path.exists() and partial.parent == path.parent
    assert read(path) == "first" and list(path.parent.iterdir()) == [path]
    with write_whole(path, **options) as partial:
        make(partial, "second")
        assert read(path) == "first"
    assert read(path) == ("first" if options else "second") and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("make", [write, write_directory])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, make):
    path = tmp_path / "name"
    with write_whole(path) as partial:
        make(partial, "first")
    with pytest.raises(KeyboardInterrupt), write_whole(path) as partial:
        make(partial, "half")
        raise KeyboardInterrupt
    assert read(path) == "first" and list(tmp_path.iterdir()) == [path]


def test_only_the_owner_renames(tmp_path: Path):
    path = tmp_path / "name"
    with write_whole(path) as owners:
        with write_whole(path, owner=False) as others:
            assert others == owners
            write_directory(others, "a part")
        assert not path.exists()
    assert read(path) == "a part"


def test_another_process_may_be_first(tmp_path: Path, monkeypatch):
    path = tmp_path / "name"
    with write_whole(path, first_wins=True) as partial:
        write_directory(partial, "mine")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with write_whole(path, first_wins=True) as other:
            assert other != partial
            write_directory(other, "the other's")
    assert read(path) == "the other's" and list(tmp_path.iterdir()) == [path]


def test_another_process_may_be_first_at_the_last_moment(tmp_path: Path, monkeypatch):
    path, replace = tmp_path / "name", Path.replace

    def late(self: Path, target: Path):
        write_directory(target, "the other's")
        return replace(self, target)

    with write_whole(path, first_wins=True) as partial:
        write_directory(partial, "mine")
        monkeypatch.setattr(Path, "replace", late)
    assert read(path) == "the other's" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_gone(tmp_path: Path):
    path = tmp_path / "name"
    write_directory(tmp_path / ".name", "of a killed writer")
    with write_whole(path) as partial:
        assert not partial.exists()
        write(partial, "whole")
    assert read(path) == "whole"


def test_files_take_their_places_beside_others(tmp_path: Path):
    (tmp_path / "other").write_text("stays")
    (tmp_path / "part").write_text("old")
    with write_into(tmp_path) as partial:
        write_directory(partial, "new")
        with write_into(tmp_path, owner=False) as others:
            assert others == partial
        assert (tmp_path / "part").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"other": "stays", "part": "new"}
    with pytest.raises(OSError), write_into(tmp_path) as partial:
        write_directory(partial, "newer")
        raise OSError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"other": "stays", "part": "new"}


def test_a_directory_takes_the_place_of_a_full_one(tmp_path: Path):
    """Such as a killed writer has left beside files that were not moved yet."""
    for text in ("old", "new"):
        with write_into(tmp_path) as partial:
            partial.mkdir()
            write_directory(partial / "adapter", text)
    assert read(tmp_path / "adapter") == "new" and [path.name for path in tmp_path.iterdir()] == ["adapter"]
