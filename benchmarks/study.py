"""The paper's study: a grid of (data, languages, variant, seed), and its report.

    python benchmarks/study.py --suite small        # two CPU cores; smoke and paper are the other suites
    python benchmarks/study.py --report             # RESULTS.md and docs/study-*.png, from the results files

A cell is a run of run_crossner.py in a process of its own. Its result, counts without a word of the corpora, goes to
benchmarks/results/study/SUITE/PAIR/VARIANT-SEED.json; a cell with a result is never run again. Variants that start from one
source model share its pseudo labels. Where these were lost, as on another machine, the source model is trained again; if other
labels come of it, its result is replaced and what was measured with the old labels is measured again. Arguments that are not the
study's own go to every cell, such as --use_cpu true.

    --only 'conll-*/glode/0'    some cells: a pattern of PAIR/VARIANT/SEED, * for anything
    --time_limit 90             stop after so many minutes, between two cells
"""

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from crossner import sample
from grid import SUITES, Cell, Suite
from report import write_report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "study"
LABELS = "pseudo_labels.safetensors"
Launch = Callable[[list[str], Path], int]


class Study:
    """Runs the cells of a suite.

    Args:
        corpora: directory of CORPUS/LANGUAGE/SPLIT.iob2.gz.
        results: where the suite's results go.
        work: where samples, logs and pseudo labels stay until the suite is done.
        extra: arguments for every cell.
        launch: runs benchmarks/cell.py with arguments, its output to a log file, and gives its exit code.
    """

    def __init__(self, suite: Suite, corpora: Path, results: Path, work: Path, extra: Sequence[str], launch: Launch):
        self.suite, self.corpora, self.results, self.work = suite, corpora, results, work
        self.extra, self.launch = list(extra), launch
        self.seconds = {cell: self.read(cell)["seconds"] for cell in suite.cells() if cell.file(results).exists()}
        self.failed: list[Cell] = []

    def run(self, only: str = "*", time_limit: float = float("inf")) -> int:
        """Run what has no result yet, for at most `time_limit` minutes, and say how it goes.

        Returns:
            How many cells failed.
        """
        started = time.monotonic()
        cells = [cell for cell in self.suite.cells() if fnmatch(str(cell), only)]
        there = sum(cell in self.seconds for cell in cells)
        print(f"suite {self.suite.name}: {there} of {len(cells)} cells are there")
        while open_cells := [cell for cell in cells if cell not in self.seconds and cell not in self.failed]:
            cell = open_cells[0]
            if (time.monotonic() - started + self.expected_seconds(cell)) / 60 > time_limit:
                print(f"the time limit is near: {len(open_cells)} cells are left for another time")
                break
            print(f"[{len(cells) - len(open_cells) + 1}/{len(cells)}] {cell}", end=" ", flush=True)
            if self.run_cell(cell):
                f1 = self.read(cell)["scores"]["test"]["strict"]["f1"]
                left = sum(self.expected_seconds(cell) for cell in open_cells[1:])
                print(f"F1 {f1:.1f}, {self.seconds[cell]:.0f} s; about {left / 60:.0f} min left", flush=True)
        if self.failed:
            print(f"{len(self.failed)} cells failed: {', '.join(map(str, self.failed))}")
        return len(self.failed)

    def read(self, cell: Cell) -> dict:
        """A cell's result."""
        return json.loads(cell.file(self.results).read_text(encoding="utf-8"))

    def directory(self, cell: Cell) -> Path:
        return self.work / cell.pair / f"{cell.variant}-{cell.seed}"

    def expected_seconds(self, cell: Cell) -> float:
        """What such cells took so far: those of its pair and variant, else of its stage, else all; 0 where none is finished."""
        stages = {name: variant["stage"] for name, variant in self.suite.variants.items()}
        same = [s for c, s in self.seconds.items() if (c.pair, c.variant) == (cell.pair, cell.variant)]
        alike = [s for c, s in self.seconds.items() if stages[c.variant] == stages[cell.variant]]
        return statistics.mean(same or alike or self.seconds.values() or [0.0])

    def run_cell(self, cell: Cell) -> bool:
        """Train and count a cell, after the source model that its pseudo labels come from, if need be. False: it failed."""
        directory = self.directory(cell)
        arguments = ["--output_dir", str(directory / "run"), "--disable_tqdm", "true", "--report_to", "none"]
        settings, digests = self.suite.settings(cell), {}
        if teacher := self.suite.teacher_of(cell.variant):
            teacher = Cell(cell.pair, teacher, cell.seed)
            labels = self.directory(teacher) / LABELS
            if not labels.exists() and (teacher in self.failed or not self.run_cell(teacher)):
                return self.fail(cell, f"{teacher} gave no pseudo labels")
            arguments += ["--pseudo_labels", str(labels)]
            digests["teacher_sha256"] = digest(labels)
        for name, value in (settings | self.files(cell)).items():
            value = str(ROOT / value) if name == "config" else value
            arguments += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "run").mkdir(parents=True)
        started, cpu = time.perf_counter(), cpu_seconds()
        if self.launch([str(directory / "result.json"), *arguments, *self.extra], directory / "log.txt") != 0:
            return self.fail(cell, f"see {directory / 'log.txt'}")
        seconds, cpu = round(time.perf_counter() - started, 1), round(cpu_seconds() - cpu, 1)
        if not teacher:
            (directory / "run" / LABELS).rename(directory / LABELS)
            digests["labels_sha256"] = digest(directory / LABELS)
        trained_again = cell in self.seconds
        if not trained_again or self.read(cell).get("labels_sha256") != digests["labels_sha256"]:
            content = {"suite": self.suite.name, "pair": cell.pair, "variant": cell.variant, "seed": cell.seed}
            content |= {"settings": settings, "extra_arguments": self.extra, "seconds": seconds, "cpu_seconds": cpu} | digests
            content |= json.loads((directory / "result.json").read_text(encoding="utf-8"))
            write_result(cell.file(self.results), content)
            self.seconds[cell] = seconds
            if trained_again:
                self.forget_students(cell)
        shutil.rmtree(directory / "run")
        return True

    def forget_students(self, teacher: Cell) -> None:
        """Take away the results of what was trained on other pseudo labels of a source model than it gives now."""
        mine = (
            Cell(teacher.pair, name, teacher.seed)
            for name in self.suite.variants
            if self.suite.teacher_of(name) == teacher.variant
        )
        stale = [cell for cell in mine if self.seconds.pop(cell, None) is not None]
        for cell in stale:
            cell.file(self.results).unlink()
        print(f"({teacher} gave other pseudo labels than before: {len(stale)} cells start from them anew)", end=" ", flush=True)

    def fail(self, cell: Cell, why: str) -> bool:
        """Note and say that a cell failed; gives False."""
        self.failed.append(cell)
        print(f"FAILED: {cell}, {why}", flush=True)
        return False

    def files(self, cell: Cell) -> dict[str, str]:
        """The arguments that name a cell's corpora."""
        pair = self.suite.pairs[cell.pair]
        supervised = self.suite.variants[cell.variant].get("gold") == "target"
        source, target = pair["target" if supervised else "source"], pair["target"]
        languages = {"source_lang": source.split("/")[-1], "target_lang": target.split("/")[-1]}
        if "dataset_name" in pair:
            return languages | {"dataset_name": pair["dataset_name"]}
        samples, sizes = self.work / cell.pair / "samples", self.suite.sizes
        samples.mkdir(parents=True, exist_ok=True)

        def part(name: str, size: str, skip: int = 0) -> str:
            return str(sample(self.corpora, name, sizes[size], samples, skip))

        text = f"{target}/{pair.get('target_split', 'train')}"
        files = {"target_unlabeled": part(text, "target"), "target_test": part(f"{target}/test", "test")}
        if supervised:  # not every target has a development set: the training sentences after those that are used
            files |= {"source_train": files["target_unlabeled"]}
            if sizes["target"] is not None:
                files["source_dev"] = part(text, "dev", skip=sizes["target"])
        else:
            files |= {"source_train": part(f"{source}/train", "source"), "source_dev": part(f"{source}/dev", "dev")}
        return languages | files


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cpu_seconds() -> float:
    """What the cells that have ended cost: their seconds on the clock also hold what else the machine did."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_result(path: Path, content: dict) -> None:
    """Write a result, whole or not at all, one line a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in content.items())
    partial = path.with_suffix(".partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    partial.replace(path)


def launch_process(arguments: list[str], log: Path) -> int:
    """Run benchmarks/cell.py in a process of its own."""
    with open(log, "w", encoding="utf-8") as file:
        command = [sys.executable, str(ROOT / "benchmarks" / "cell.py"), *arguments]
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def main(argv: list[str]) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = sorted(path.stem for path in SUITES.glob("*.yaml") if path.stem != "variants")
    parser.add_argument("--suite", choices=names)
    parser.add_argument("--report", action="store_true", help="write RESULTS.md and its pictures; run nothing")
    parser.add_argument("--corpora", type=Path, help="directory of CORPUS/LANGUAGE/SPLIT.iob2.gz. Default: the suite's")
    parser.add_argument("--work", type=Path, default=ROOT / "glode-study", help="where samples and pseudo labels stay")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="run only these cells: PAIR/VARIANT/SEED")
    parser.add_argument("--time_limit", type=float, default=float("inf"), metavar="MINUTES")
    options, extra = parser.parse_known_args(argv)
    if options.report:
        write_report([Suite("small"), Suite("paper")], RESULTS, ROOT)
        return 0
    if not options.suite:
        parser.error("give --suite or --report")
    suite = Suite(options.suite)
    if not any(fnmatch(str(cell), options.only) for cell in suite.cells()):
        parser.error(f"--only {options.only}: no such cell. A cell is PAIR/VARIANT/SEED, such as {suite.cells()[0]}")
    corpora = options.corpora or ROOT / (suite.corpora or ".")
    study = Study(suite, corpora, RESULTS / suite.name, (options.work / suite.name).resolve(), extra, launch_process)
    try:
        return 1 if study.run(options.only, options.time_limit) else 0
    except FileNotFoundError as error:
        print(f"error: {error.filename}: no such file. Give the directory of the corpora with --corpora.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
