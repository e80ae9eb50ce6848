"""A command line of run_crossner.py that works, for tests that break or change something in it."""

from pathlib import Path

import pytest

import run_crossner
from glode.errors import InputError

SOURCE = "Anna\tB-PER\nsings\tO\nin\tO\nOslo\tB-LOC\n\nIda\tB-PER\nmet\tO\nLea\tB-PER\n\nRome\tB-LOC\nsleeps\tO\n"


class Command:
    """A run that would work, until a test breaks something."""

    def __init__(self, directory: Path, backbone: Path):
        self.directory = directory
        self.file("en.iob2", SOURCE)
        self.file("de.txt", "Otto wohnt in Kiel .\nEs regnet .\n")
        self.options = {
            "target_lang": "de",
            "source_train": self.directory / "en.iob2",
            "source_dev": self.directory / "en.iob2",
            "target_unlabeled": self.directory / "de.txt",
            "model_name_or_path": backbone,
            "model_cache": self.directory / "cache",
            "output_dir": self.directory / "output",
            "report_to": "none",
            "bf16": "false",
        }

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def arguments(self, **changes) -> list[str]:
        """The command line; None takes an option away."""
        options = {name: value for name, value in {**self.options, **changes}.items() if value is not None}
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def error(self, *more: str, **changes) -> str:
        """The message of the InputError in which the run ends."""
        with pytest.raises(InputError) as raised:
            run_crossner.main([*self.arguments(**changes), *more])
        assert "\n" not in str(raised.value)  # it is printed as one line
        return str(raised.value)
