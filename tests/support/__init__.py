"""What tests share: a small world of sentences and encoders, servers, workers, fuzzers, the equations in plain Python."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
