"""What the benchmarks share: results as one table each, samples of corpora, tables and bars.

A benchmark's results are rows of `benchmarks/results/NAME.csv`; RESULTS.md is written from these files by benchmarks/report.py.
Whoever imports this can import the project's modules.
"""

import argparse
import csv
import gzip
import platform
import random
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "faiss-cpu")
Row = dict[str, str]


def options_of(text: str | None) -> argparse.ArgumentParser:
    """The command line of a program, with its docstring as the help."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)


def read_rows(name: str, directory: Path | None = None) -> list[Row]:
    """The rows of a results file, all values as text; none where nothing is measured."""
    path = (directory or RESULTS) / f"{name}.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(name: str, rows: Sequence[dict], directory: Path | None = None) -> None:
    """Write a results file, whole or not at all; what a row lacks, or is None, stays empty."""
    path = (directory or RESULTS) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def machine() -> Row:
    """Where and with what a figure was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return {"cpu": cpu, "versions": ", ".join(versions)}


def resident(kind: str) -> float:
    """MB of RssAnon (now) or VmHWM (at most so far) of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(lines[kind].split()[0]) / 1024 if kind in lines else 0.0


def sample(corpora: Path, name: str, number: int | None, target: Path, skip: int = 0) -> Path:
    """`number` sentences (None: all; all there are where fewer) of a shuffled column file, NAME.iob2.gz or NAME.iob2, after those
    that are skipped; written to the directory `target`.

    Raises:
        FileNotFoundError: there is no such corpus.
    """
    end = None if number is None else skip + number
    path = target / f"{name.replace('/', '.')}.{skip}-{'end' if end is None else end}.iob2"
    if not path.exists():
        packed = corpora / f"{name}.iob2.gz"
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else (corpora / f"{name}.iob2").read_bytes()
        sentences = [block.strip("\n") for block in data.decode().split("\n\n") if block.strip()]
        random.Random(1).shuffle(sentences)
        target.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{threading.get_ident()}")  # cells that run side by side read the same samples
        partial.write_text("\n\n".join(sentences[skip:end]) + "\n", encoding="utf-8")
        partial.replace(path)
    return path


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows)) + "\n"


def is_met(figure: float, relation: str, bar: float) -> bool:
    """Whether a figure is at most ("<=") or at least (">=") what is asked for."""
    return figure <= bar if relation == "<=" else figure >= bar


def print_bars(bars: Iterable[tuple[str, float, str, float]]) -> bool:
    """Say of each (name, figure, relation, bar) whether it is met; gives whether all are."""
    met = []
    for name, figure, relation, bar in bars:
        met.append(is_met(figure, relation, bar))
        print(f"{'met   ' if met[-1] else 'MISSED'} {name}: {figure:.3g} ({relation} {bar:g})")
    return all(met)
