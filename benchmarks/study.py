"""The paper's study: a grid of language pairs, seeds and variants (benchmarks/suites.yaml).

    python benchmarks/study.py --suite cpu --corpora DIR --jobs 2
    python benchmarks/study.py --suite cpu --corpora DIR --only 'conll-*/0/glode-*'     # PAIR/SEED/VARIANT, * for anything

reads DIR/CORPUS/LANGUAGE/{train,dev,test}.iob2.gz. A cell is a run of run_crossner.py in a process of its own. As soon as it
is finished its row stands in benchmarks/results/study.csv, and the paired tests against no denoising in study-tests.csv; a
cell with a row is not run again, and one that was killed goes on from its checkpoint. Cells of one pair and seed share their
source models. What the tests need, counts of every sentence, stays in --work, as the models do. Arguments that are not the
study's own go to every cell. RESULTS.md and its pictures: python benchmarks/report.py.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from common import RESULTS, ROOT, Row, machine, options_of, read_rows, sample, write_rows
from transformers import AutoTokenizer

from glode.corpora.reading import load_corpus
from glode.evaluation.statistics import f1_of, randomisation_test, sentence_counts
from glode.features.reach import gold_entities
from glode.metrics import entities_of
from modeling_glode import GlodeModel

SUITES = yaml.safe_load((Path(__file__).parent / "suites.yaml").read_text(encoding="utf-8"))
NO_ARGUMENTS = {"title", "teacher", "teacher_seeds", "gold", "few"}  # of a variant
Launch = Callable[[list[str], Path, int], int]  # a script of the project with its arguments, log, threads -> exit code


class Cell(NamedTuple):
    """One run."""

    pair: str
    seed: int
    variant: str

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Suite:
    """One suite of benchmarks/suites.yaml, with the variants of all."""

    def __init__(self, name: str):
        content = SUITES["suites"][name]
        self.name, self.title, self.baseline = name, content["title"], content["baseline"]
        self.corpora, self.sizes, self.arguments = content.get("corpora"), content["sizes"], content["arguments"]
        self.pairs, self.seeds, self.variants = content["pairs"], content["seeds"], SUITES["variants"]
        self.tables = [{"pairs": list(self.pairs)} | table for table in content["tables"]]

    def cells(self) -> list[Cell]:
        """All cells: table by table, seed by seed, a source model before the variants that start from it."""
        found: dict[Cell, None] = {}
        for table in self.tables:
            for seed, pair, variant in product(self.seeds, table["pairs"], table["variants"]):
                cell = Cell(pair, seed, variant)
                found |= dict.fromkeys([*self.teachers(cell), cell])
        return list(found)

    def teachers(self, cell: Cell) -> list[Cell]:
        """The cells whose source models give a cell its pseudo labels: that of its own seed, or those of all. Of a source
        model none."""
        variant = self.variants[cell.variant]
        seeds = self.seeds if variant.get("teacher_seeds") == "all" else [cell.seed]
        return [Cell(cell.pair, seed, variant["teacher"]) for seed in seeds] if "teacher" in variant else []

    def settings(self, cell: Cell) -> dict:
        """The arguments that are a cell's own, without those that name its files."""
        variant = {k: v for k, v in self.variants[cell.variant].items() if k not in NO_ARGUMENTS}
        return self.arguments | variant | self.pairs[cell.pair].get("arguments", {}) | {"seed": cell.seed}


@dataclass
class Study:
    """Runs the cells of a suite."""

    suite: Suite
    corpora: Path  # directory of CORPUS/LANGUAGE/SPLIT.iob2.gz
    work: Path  # where samples, models and counts stay
    results: Path  # directory of study.csv and study-tests.csv
    extra: Sequence[str]  # arguments for every cell
    launch: Launch  # starts a script of the project
    bf16: bool = False  # whether cells run in mixed precision, which their rows say
    jobs: int = 1  # how many cells run at a time

    def __post_init__(self):
        self.work = self.work.resolve()
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // self.jobs))
        self.rows = read_rows("study", self.results)
        self.failed: list[Cell] = []

    def run(self, *only: str) -> int:
        """Run what has no row yet, and say how it goes.

        Args:
            only: patterns of the cells that are asked for; without one, all are.
        Returns:
            How many cells failed.
        """
        asked = [cell for cell in self.suite.cells() if any(fnmatch(str(cell), pattern) for pattern in only or ["*"])]
        missing = [cell for cell in asked if not self.row(cell)]
        print(f"suite {self.suite.name}: {len(asked) - len(missing)} of {len(asked)} cells are there", flush=True)
        open_cells = list(dict.fromkeys(each for cell in missing for each in (*self.lost_teachers(cell), cell)))
        running: dict[Future, Cell] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            while open_cells or running:
                ready = [cell for cell in open_cells if not {*self.suite.teachers(cell)} & {*open_cells, *running.values()}]
                for cell in ready[: self.jobs - len(running)]:
                    open_cells.remove(cell)
                    running[pool.submit(self.run_cell, cell)] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future)
                    stale = self.finish(cell, future.result())
                    open_cells += [cell for cell in stale if cell in asked]
        return len(self.failed)

    def lost_teachers(self, cell: Cell) -> list[Cell]:
        """The cells whose source models a cell starts from, and which --work does not have, or no more."""
        return [teacher for teacher in self.suite.teachers(cell) if not self.model(teacher).exists()]

    def row(self, cell: Cell) -> Row | None:
        """A cell's row; None where it has none with the settings of today."""
        return next((row for row in self.rows if self.is_of(row, cell) and row["settings"] == self.fingerprint(cell)), None)

    def is_of(self, row: Row, cell: Cell) -> bool:
        return (row["suite"], row["pair"], row["seed"], row["variant"]) == (self.suite.name, *str(cell).split("/"))

    def fingerprint(self, cell: Cell) -> str:
        """A digest of all arguments and sizes that a cell's result depends on, those of its source model too."""
        teachers = [self.fingerprint(teacher) for teacher in self.suite.teachers(cell)]
        content = [self.suite.settings(cell), self.suite.sizes, self.suite.pairs[cell.pair], self.extra, *(teachers or [None])]
        content += [few] if (few := self.suite.variants[cell.variant].get("few")) else []
        return digest(json.dumps(content, sort_keys=True).encode())

    def directory(self, cell: Cell) -> Path:
        return self.work / self.suite.name / str(cell)

    def model(self, cell: Cell) -> Path:
        """The directory of a cell's model."""
        run = self.directory(cell) / "run"
        return run if self.suite.teachers(cell) else run / "source_model"

    def run_cell(self, cell: Cell) -> Row | str:
        """Train and count a cell: its row, or what went wrong."""
        directory = self.directory(cell)
        if lost := self.lost_teachers(cell):
            return f"{lost[0]} left no model"
        arguments = self.command(cell)
        note, content = directory / "arguments.json", json.dumps(arguments)
        if note.exists() and note.read_text(encoding="utf-8") == content:
            arguments += ["--resume_from_checkpoint", "auto"]
        else:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            note.write_text(content, encoding="utf-8")
        start, log = time.perf_counter(), directory / "log.txt"
        if self.launch(["run_crossner.py", *arguments], log, self.threads):
            return f"see {log}"
        minutes = (time.perf_counter() - start) / 60
        counts, test = directory / "counts.npy", self.files(cell)["target_test"]
        if self.launch(["benchmarks/study.py", "--count", str(self.model(cell)), test, str(counts)], log, self.threads):
            return f"counting failed, see {log}"
        metrics = json.loads((directory / "run" / "metrics.json").read_text(encoding="utf-8"))
        return self.as_row(cell, metrics, np.load(counts), minutes)

    def command(self, cell: Cell) -> list[str]:
        """The arguments of run_crossner.py."""
        values = self.suite.settings(cell) | self.files(cell) | {"output_dir": self.directory(cell) / "run"}
        if "config" in values:
            values["config"] = ROOT / values["config"]
        if teachers := self.suite.teachers(cell):
            values["teachers"] = [self.model(teacher) for teacher in teachers]
        values |= {"disable_tqdm": True, "report_to": "none"}
        values["bf16"] = self.bf16
        if self.bf16:  # on a CPU the Trainer wants to be told that it is one
            values["use_cpu"] = not torch.cuda.is_available()
        arguments = []
        for name, value in values.items():
            parts = value if isinstance(value, list) else [value]
            arguments += [f"--{name}", *(str(part).lower() if isinstance(part, bool) else str(part) for part in parts)]
        return [*arguments, *self.extra]

    def files(self, cell: Cell) -> dict[str, str]:
        """The arguments that name a cell's corpora."""
        pair, sizes = self.suite.pairs[cell.pair], self.suite.sizes
        source, target = pair["source"], pair["target"]
        supervised = self.suite.variants[cell.variant].get("gold") == "target"

        def part(name: str, size: str, skip: int = 0) -> str:
            return str(sample(self.corpora, name, sizes[size], self.work / self.suite.name / "samples", skip))

        text = f"{target}/{pair.get('target_split', 'train')}"
        files = {"source_lang": source.split("/")[-1], "target_lang": target.split("/")[-1]}
        files |= {"target_unlabeled": part(text, "target"), "target_test": part(f"{target}/test", "test")}
        if few := self.suite.variants[cell.variant].get("few"):  # the first of the target text, from which the run takes them out
            files["target_train"] = str(sample(self.corpora, text, few, self.work / self.suite.name / "samples"))
        if not supervised:
            return files | {"source_train": part(f"{source}/train", "source"), "source_dev": part(f"{source}/dev", "dev")}
        files["source_train"] = files["target_unlabeled"]
        # Not every target has a development set: the training sentences after those that are used, or a tenth of these.
        rest = sizes["target"] and part(text, "dev", skip=sizes["target"])
        return files | ({"source_dev": rest} if rest and Path(rest).stat().st_size > 1 else {})

    def as_row(self, cell: Cell, metrics: dict, counts: np.ndarray, minutes: float) -> Row | str:
        """What a cell's row holds, or why it holds nothing."""
        teachers = self.suite.teachers(cell)
        scores = metrics["target_model" if teachers else "source_model"]
        f1 = scores["test"]["strict"]["f1"]
        if abs(f1 - f1_of(counts.sum(0))) > 0.5:  # half precision moves an entity here and there
            return f"the run reports F1 {f1:.2f}, and its model gives {f1_of(counts.sum(0)):.2f}"
        labels = [entry["f1"] for entry in metrics.get("pseudo_labels", []) if "f1" in entry]
        values = {
            "suite": self.suite.name,
            **cell._asdict(),
            "f1": f"{f1:.2f}",
            "paper_f1": f"{scores['test']['paper']['f1']:.2f}",
            "dev_f1": f"{scores['dev']['strict']['f1']:.2f}",
            "label_f1": " ".join(f"{value:.2f}" for value in labels),
            "minutes": f"{minutes:.1f}",
            "precision": "bf16" if self.bf16 else "fp32",
            "settings": self.fingerprint(cell),
            "teacher": " ".join(weights(self.model(teacher)) for teacher in teachers),
            "weights": weights(self.model(cell)),
        }
        return {name: str(value) for name, value in (values | machine()).items()}

    def finish(self, cell: Cell, row: Row | str) -> list[Cell]:
        """Write down how a cell ended; gives the cells that have to be run anew because of it."""
        if isinstance(row, str):
            self.failed.append(cell)
            print(f"FAILED: {cell}, {row}", flush=True)
            return []
        run = self.directory(cell) / "run"
        for rest in (*run.glob("*_checkpoints"), *([run] if self.suite.teachers(cell) else [])):
            shutil.rmtree(rest)
        students = [other for other in self.suite.cells() if cell in self.suite.teachers(other)]
        stale = [other for other in students if (old := self.row(other)) and row["weights"] not in old["teacher"].split()]
        self.rows = [old for old in self.rows if not any(self.is_of(old, other) for other in (cell, *stale))] + [row]
        write_rows("study", self.rows, self.results)
        self.update_tests(cell)
        again = f"; another model than before: {len(stale)} cells that started from it are void" if stale else ""
        print(f"{cell}: F1 {row['f1']}, {row['minutes']} min{again}", flush=True)
        return stale

    # ------------------------------------------------------------------------------------------------------ paired tests

    def update_tests(self, cell: Cell) -> None:
        """Paired tests that a cell changes: its variant against the baseline, or all where it is the baseline, on its pair and
        over all pairs. What --work has no counts of stays as it is."""
        tests = {tuple(row.values())[:3]: row for row in read_rows("study-tests", self.results)}
        compared = [name for name in self.suite.tables[0]["variants"] if name != self.suite.baseline]
        for variant in compared if cell.variant == self.suite.baseline else {cell.variant}.intersection(compared):
            found = {pair: counts for pair in self.suite.pairs if (counts := self.paired_counts(pair, variant))}
            scopes = {pair: [counts] for pair, counts in found.items() if pair == cell.pair}
            if len(found) == len(self.suite.pairs):
                scopes["all"] = list(found.values())
            for pair, parts in scopes.items():
                seeds = " ".join(sorted({str(seed) for counts in parts for seed in counts}))
                difference, p = randomisation_test(*np.concatenate([sum(counts.values()) for counts in parts], axis=1))
                row = {"suite": self.suite.name, "pair": pair, "variant": variant}
                tests[tuple(row.values())] = row | {"seeds": seeds, "difference": f"{difference:.2f}", "p": f"{p:.4f}"}
        if tests:
            write_rows("study-tests", [tests[key] for key in sorted(tests)], self.results)

    def paired_counts(self, pair: str, variant: str) -> dict[int, np.ndarray]:
        """The counts [2, sentences, 3] of a variant and of the baseline, by seed, where both are there."""
        found = {}
        for seed in self.suite.seeds:
            cells = [Cell(pair, seed, name) for name in (variant, self.suite.baseline)]
            paths = [self.directory(cell) / "counts.npy" for cell in cells]
            if all(self.row(cell) for cell in cells) and all(path.exists() for path in paths):
                found[seed] = np.stack([np.load(path).astype(np.int64) for path in paths])
        return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def weights(model: Path) -> str:
    """A digest of a model's weights."""
    return digest((model / "model.safetensors").read_bytes())


def count(model: Path, test: str) -> np.ndarray:
    """Gold, predicted and correct entities of each sentence of a test set. int16 [sentences, 3]"""
    corpus, tagger = load_corpus(test, labelled=True), GlodeModel.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model, config=tagger.config)
    known = set(tagger.config.id2label.values())
    gold = [[entity for entity in entities if entity[2] in known] for entities in gold_entities(corpus)]
    found = entities_of(tagger.predict(corpus["words"], tokenizer))
    return sentence_counts(gold, found).astype(np.int16)


def faster_in_bf16(tokens: int = 1000) -> bool:
    """Whether a feed-forward layer learns faster in mixed precision here; takes about a second."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    layer = torch.nn.Sequential(torch.nn.Linear(384, 1536), torch.nn.GELU(), torch.nn.Linear(1536, 384))
    rows, seconds = torch.randn(tokens, 384), {False: [], True: []}
    for mixed in (False, True) * 6:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = layer(rows).float().sum()
        loss.backward()
        seconds[mixed].append(time.perf_counter() - start)
    return min(seconds[True]) < 0.9 * min(seconds[False])


def launch_process(command: list[str], log: Path, threads: int) -> int:
    """Run a script of the project in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(log, "a", encoding="utf-8") as file:
        whole = [sys.executable, str(ROOT / command[0]), *command[1:]]
        return subprocess.run(whole, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def main(argv: list[str], launch: Launch = launch_process, results: Path = RESULTS) -> int:
    """The command line; gives the exit code."""
    parser = options_of(__doc__)
    parser.add_argument("--suite", choices=sorted(SUITES["suites"]))
    parser.add_argument("--corpora", type=Path, help="directory of CORPUS/LANGUAGE/SPLIT.iob2.gz")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time; they share the cores, or have OMP_NUM_THREADS each")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PAIR/SEED/VARIANT", help="these cells; * is anything")
    parser.add_argument("--work", type=Path, default=ROOT / "glode-study", help="where samples, models and counts stay")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 where it is faster")
    parser.add_argument("--count", nargs=3, metavar=("MODEL", "TEST", "RESULT"), help="count a model's entities on a test set")
    options, extra = parser.parse_known_args(argv)
    if options.count:
        np.save(options.count[2], count(Path(options.count[0]), options.count[1]))
        return 0
    if not options.suite:
        parser.error("give --suite")
    suite = Suite(options.suite)
    for pattern in options.only:
        if not any(fnmatch(str(cell), pattern) for cell in suite.cells()):
            parser.error(f"--only {pattern}: no such cell. A cell is PAIR/SEED/VARIANT, such as {suite.cells()[0]}")
    if not options.corpora and not suite.corpora:
        parser.error("give the directory of the corpora with --corpora")
    bf16 = options.precision == "bf16" or (options.precision == "auto" and faster_in_bf16())
    study = Study(suite, options.corpora or ROOT / suite.corpora, options.work, results, extra, launch, bf16, options.jobs)
    try:
        return 1 if study.run(*options.only) else 0
    except FileNotFoundError as error:
        parser.error(f"{error.filename}: no such file. Give the directory of the corpora with --corpora.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
