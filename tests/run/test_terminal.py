"""Protects the libraries' own words: silent by default, there with --log_level."""

import datasets
import huggingface_hub.utils
import pytest
from transformers.utils import logging

from glode.run.terminal import quieten


@pytest.fixture(autouse=True)
def as_before():
    level = logging.get_verbosity()
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()
    datasets.enable_progress_bars()


def test_libraries_are_silent_and_downloads_are_seen():
    quieten("passive")
    assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
    assert datasets.are_progress_bars_disabled() and not huggingface_hub.utils.are_progress_bars_disabled()


@pytest.mark.parametrize(("level", "expected"), [("info", logging.INFO), ("warning", logging.WARNING)])
def test_a_log_level_shows_them(level: str, expected: int):
    quieten(level)
    assert logging.get_verbosity() == expected and logging.is_progress_bar_enabled()
