"""The command that the tests of this room run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Command
from transformers import AutoConfig, AutoTokenizer

from modeling_glode import GlodeConfig, GlodeModel


@pytest.fixture
def command(tmp_path: Path, backbone: Path, monkeypatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def train(*_, **__):
        raise AssertionError("a broken run must not come as far as training")

    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", train)
    return Command(tmp_path, backbone)


@pytest.fixture
def source_model(command: Command, backbone: Path) -> Callable[..., Path]:
    def save(types: list[str], length: int, units: str = "piece") -> Path:
        encoder, names = AutoConfig.from_pretrained(backbone), dict(enumerate(["O", *types]))
        config = GlodeConfig(encoder, max_span_length=length, id2label=names, max_tokens=64, units=units)
        directory = command.directory / "source_model"
        GlodeModel(config).save_pretrained(directory)
        AutoTokenizer.from_pretrained(backbone).save_pretrained(directory)
        return directory

    return save
