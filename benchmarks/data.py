"""What reading and evaluating cost: python benchmarks/data.py --corpus FILE --eval_corpus FILE

    read        20,000 sentences of a labelled file into Arrow, tokenised and labelled by spans, by a process that has nothing in
                its cache, and again by one that finds the first one's cache: seconds, and memory above what is loaded before
    evaluation  10,000 sentences by a trained model, and the share of the time that is decoding (the choice of entities from the
                scores of the grid, joining of windows, counting) and not the model

Without files the demo's English training set and test sets stand for them, again and again; a repeated sentence costs what a new
one does. Bars: 10 s and 300 MB, 2 s from the cache, 10 % for decoding. Exit code 1 where one is missed. Writes
benchmarks/results/data.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402
from scale import Meter  # noqa: E402

import trainer_glode  # noqa: E402
from glode.corpora.files import read_lines  # noqa: E402
from glode.corpora.labels import label_names  # noqa: E402
from glode.corpora.reading import load_corpus  # noqa: E402
from glode.features.windows import build_features, gold_entities  # noqa: E402
from glode.metrics import entity_scores  # noqa: E402
from glode.run.embedded import DEMO_DIRECTORY  # noqa: E402
from modeling_glode import GlodeModel  # noqa: E402

LENGTH = 8  # L, in words


def repeated(files: list[Path], number: int, target: Path) -> Path:
    """The first `number` sentences of column files, from the start again where they have fewer."""
    sentences, lines = [], []
    for file in files:
        for _, line, _ in read_lines(file, "utf-8", "strict"):
            if line.strip():
                lines.append(line.strip())
            elif lines:
                sentences.append("\n".join(lines))
                lines = []
    target.write_text("\n\n".join(islice(cycle(sentences), number)) + "\n", encoding="utf-8")
    return target


def read(corpus: str, model: Path) -> dict:
    """Seconds and MB of reading, tokenising and labelling, in this process."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=True)
    tokenizer(["a"] * 2)
    meter = Meter()
    with meter.measure("reading"):
        sentences = load_corpus(corpus, labelled=True)
    with meter.measure("features"):
        build_features(sentences, tokenizer, 256, LENGTH, label_names(sentences))
    return {"sentences": len(sentences), "seconds": meter.figures, "mb": max(meter.peaks.values())}


def evaluate(corpus: str, model: GlodeModel, tokenizer, directory: str) -> dict:
    """Seconds of an evaluation, and those of its parts that are not the model."""
    sentences = load_corpus(corpus, labelled=True)
    windows = build_features(sentences, tokenizer, model.config.max_tokens, model.config.max_span_length)
    arguments = trainer_glode.GlodeTrainingArguments(
        output_dir=directory, disable_tqdm=True, use_cpu=True, eval_strategy="no", load_best_model_at_end=False
    )
    trainer = trainer_glode.GlodeTrainer(model, arguments, tokenizer)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable) -> Callable:
        def call(*args):
            start = time.perf_counter()
            result = work(*args)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return call

    parts = {"choice of entities": "entities_by_word", "joining of windows": "merge_windows"}
    start = time.perf_counter()
    with mock.patch.multiple(trainer_glode, **{f: timed(name, getattr(trainer_glode, f)) for name, f in parts.items()}):
        found = trainer.predict_entities(windows, len(sentences))
    scores = timed("counting", entity_scores)(gold_entities(sentences), found)
    total = time.perf_counter() - start
    share = sum(seconds.values()) / total
    return {"sentences": len(sentences), "entities": scores["predicted"], "seconds": {"all": total, **seconds}, "share": share}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "glode-demo", help="directory of a trained span model")
    parser.add_argument("--corpus", help="labelled column file that is read. Default: the demo's English")
    parser.add_argument("--eval_corpus", help="labelled column file that is evaluated. Default: the demo's German")
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--eval_sentences", type=int, default=10_000)
    parser.add_argument("--read", metavar="FILE", help="only read this file, in this process")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        parser.error(f"--model {options.model}: no model is there. Train one: accelerate launch run_crossner.py --target_lang de")
    torch.set_num_threads(os.cpu_count())
    if options.read:
        print(json.dumps(read(options.read, options.model)))
        return 0
    figures = {}
    with tempfile.TemporaryDirectory() as directory:
        given = Path(options.corpus or DEMO_DIRECTORY / "en" / "train.iob2")
        corpus = repeated([given], options.sentences, Path(directory, "train.iob2"))
        for name in ("first", "from the cache"):
            command = [sys.executable, __file__, "--read", str(corpus), "--model", str(options.model)]
            environment = {**os.environ, "HF_HOME": directory}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            figures[name] = json.loads(done.stdout.splitlines()[-1])
        given = Path(options.eval_corpus or DEMO_DIRECTORY / "de" / "test.iob2")
        corpus = repeated([given], options.eval_sentences, Path(directory, "test.iob2"))
        model = GlodeModel.from_pretrained(options.model)
        tokenizer = AutoTokenizer.from_pretrained(options.model, trust_remote_code=True)
        figures["evaluation"] = evaluate(str(corpus), model, tokenizer, directory)
    bars = {
        "reading, tokenising, labelling, s": (sum(figures["first"]["seconds"].values()), 10.0),
        "memory above the start, MB": (figures["first"]["mb"], 300.0),
        "the same from the cache, s": (sum(figures["from the cache"]["seconds"].values()), 2.0),
        "decoding, share of an evaluation": (figures["evaluation"]["share"], 0.10),
    }
    table = Table(title=f"{options.sentences:,} sentences read, {options.eval_sentences:,} evaluated")
    for column in ("", "figure", "bar", ""):
        table.add_column(column)
    for name, (figure, bar) in bars.items():
        table.add_row(name, f"{figure:.3g}", f"<= {bar:g}", "met" if figure <= bar else "MISSED")
    Console().print(table)
    content = {"machine": machine(), "L": LENGTH, "threads": torch.get_num_threads(), **figures}
    path = ROOT / "benchmarks" / "results" / "data.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure <= bar for figure, bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
