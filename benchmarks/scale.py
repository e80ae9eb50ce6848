"""What a target stage costs as its corpus grows: python benchmarks/scale.py

For 10,000, 100,000 and 1,000,000 unlabelled sentences of 20 words on average (L = 8, C = 4, 128 dimensions), each in a
process of its own, with synthetic vectors in place of the encoder and everything else as in training: the corpus in Arrow, the
Trainer's sampler and collator, pseudo labels in their file, a datastore that is full at every size. Measured are some steps of
an epoch, a refresh after a filled reservoir (thresholds, datastore, the report over all labels), the order of an epoch, a
checkpoint and its reading.

Memory is RssAnon of /proc/self/status, sampled every 10 ms, less what it was before the corpus was opened: what the process
itself holds. RssFile beside it are pages of the corpus and of the labels' file, which the kernel drops when it needs the room.

Prints a table; writes benchmarks/results/scale.json and docs/scale.png.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from torch.nn import functional as F
from transformers import BertConfig, PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402

from glode.denoising.denoiser import Denoiser  # noqa: E402
from glode.denoising.refinement import refine  # noqa: E402
from glode.training.arguments import GlodeTrainingArguments  # noqa: E402
from modeling_glode import GlodeConfig, GlodeModel  # noqa: E402
from trainer_glode import DENOISING_STATE, GlodeTrainer  # noqa: E402

WORDS, LENGTH, TYPES, SIZE = 20, 8, 4, 128
SOURCE = 20_000  # labelled sentences beside any number of unlabelled ones


# -------------------------------------------------------------------------------------------------------------- the corpus


def write_corpus(path: Path, sentences: int, labelled: bool) -> None:
    """Windows of random words, one a sentence, as `build_features` leaves them in the cache of `datasets`."""
    rng = np.random.default_rng(0)
    writer = None
    for at in range(0, sentences, 10_000):
        rows = min(10_000, sentences - at)
        words = rng.integers(WORDS // 2, 3 * WORDS // 2 + 1, rows)
        tokens = words + words // 2 + 2
        columns = {
            "sentence": pa.array(np.arange(at, at + rows)),
            "input_ids": lists(rng.integers(3, 30_000, tokens.sum()), tokens),
            "first_token": lists(1 + within(words) * 3 // 2, words),
            "last_token": lists(1 + within(words) * 3 // 2, words),
            "word_shapes": lists(rng.integers(1, 6, words.sum()), words),
            "borders": lists(within(words + 1), words + 1),
            "own_start": pa.array(np.zeros(rows, dtype=np.int64)),
            "own_end": pa.array(words),
        }
        if labelled:  # two entities of one word
            two = np.full(rows, 2)
            columns |= {"begins": lists(np.tile([0, 5], rows), two), "lengths": lists(np.ones(2 * rows, dtype=int), two)}
            columns["types"] = lists(rng.integers(1, TYPES, 2 * rows), two)
        table = pa.table(columns)
        writer = writer or pa.ipc.new_stream(path, table.schema)
        writer.write_table(table)
    writer.close()


def lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32()), pa.array(values))


def within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... for each list."""
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)


# ------------------------------------------------------------------------------------------------------------- one size


def resident(kind: str) -> float:
    """MB of RssAnon or RssFile."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(kind))) / 1024


class Meter:
    """Seconds and the highest resident memory, in MB above the start, of each part of a run."""

    def __init__(self):
        self.start, self.figures, self.part = resident("RssAnon"), {}, None
        self.peaks: dict[str, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            if (part := self.part) is not None:
                self.peaks[part] = max(self.peaks.get(part, 0.0), resident("RssAnon") - self.start)
            time.sleep(0.01)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        self.part, start = part, time.perf_counter()
        yield
        self.figures[part] = time.perf_counter() - start
        self.peaks[part] = max(self.peaks.get(part, 0.0), resident("RssAnon") - self.start)
        self.part = None


class Vectors:
    """Unit vectors around a center for each type and topic, in place of the encoder's."""

    def __init__(self, topics: int = 50):
        self.generator = torch.Generator().manual_seed(0)
        self.centers = torch.randn(topics, TYPES, SIZE, generator=self.generator)

    def __call__(self, types: torch.Tensor) -> torch.Tensor:
        """[...] -> [..., D]."""
        topic = torch.randint(0, len(self.centers), types.shape, generator=self.generator)
        noise = torch.randn(*types.shape, SIZE, generator=self.generator)
        return F.normalize(self.centers[topic, types] + 0.7 * noise, dim=-1)


def fill_reservoir(denoiser: Denoiser, vectors: Vectors, first_step: int) -> None:
    """Collect half as many entity and kept O spans again as the datastore holds, as an epoch would: 1 to 4 of them are O."""
    store, block = denoiser.datastore, 5000
    for step in range(3 * store.capacity // 2 // block):
        types = torch.multinomial(torch.tensor([0.4, 0.4, 0.19, 0.01]), block, replacement=True, generator=vectors.generator)
        keys, share = torch.arange(block), store.outside_share
        store.outside_share = 1.0  # these are the ones that were kept
        store.collect(vectors(types), types, torch.ones_like(types, dtype=torch.bool), keys, first_step + step)
        store.outside_share = share


def one_size(options: argparse.Namespace) -> dict:
    """All figures for one corpus, in this process."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    directory = Path(options.work, f"run-{options.sentences}")
    encoder = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    names = dict(enumerate(["O", "PER", "LOC", "ORG"]))
    model = GlodeModel(GlodeConfig(encoder, max_span_length=LENGTH, projection_size=SIZE, id2label=names))
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2}, "[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")
    arguments = GlodeTrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=options.batch_size,
        datastore_size=options.datastore,
        pseudo_labels_in_memory=0,
        mlm_weight=0.0,
        eval_strategy="no",
        load_best_model_at_end=False,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    vectors, meter = Vectors(), Meter()
    with meter.measure("open"):
        source, target = (Dataset.from_file(str(Path(options.work, name))) for name in ("source", str(options.sentences)))
        labels = GlodeTrainer(model, arguments, tokenizer).empty_pseudo_labels(target)
        trainer = GlodeTrainer(model, arguments, tokenizer, source=source, target=target, pseudo_labels=labels)
    denoiser, refresh = trainer.denoiser, trainer.denoising_callback._refresh
    with meter.measure("labels"):  # as if a source model had given them
        for block in labels.probabilities.split(50_000):
            block.copy_((2 * torch.randn(block.shape, generator=vectors.generator) + torch.tensor([4.0, 0, 0, 0])).softmax(-1))
    trainer.state.epoch = 2.0
    fill_reservoir(denoiser, vectors, 0)
    refresh(1)
    fill_reservoir(denoiser, vectors, 1000)
    with meter.measure("epoch order"):
        batches = iter(trainer.get_train_dataloader())
        next(batches)
    data, step = [], []
    with meter.measure("steps"):
        for number in range(options.steps):
            start = time.perf_counter()
            batch = next(batches)
            fetched = time.perf_counter()
            spans = {name: batch[name] for name in ("labels", "window", "own_start", "span_mask")}
            drawn = torch.rand(spans["span_mask"].shape, generator=vectors.generator)
            types = (drawn * 100).long().where(drawn < TYPES / 100, 0)  # 97 % O
            projection = vectors(torch.where(spans["labels"] >= 0, spans["labels"], types))
            begun = time.perf_counter()
            denoiser.step(projection, **spans, step=2000 + number, beta=0.9)
            step.append(time.perf_counter() - begun)
            data.append(fetched - start)
    with meter.measure("refresh"):
        refresh(2)
    trainer.create_optimizer_and_scheduler(100)
    with meter.measure("save"):
        trainer._save_optimizer_and_scheduler(str(directory))
    with meter.measure("load"):
        trainer._load_optimizer_and_scheduler(str(directory))
    return {
        "seconds_step": statistics.median(step[5:]),
        "seconds_batch": statistics.median(data[5:]),
        "seconds_epoch_order": meter.figures["epoch order"],
        "seconds_refresh": meter.figures["refresh"],
        "seconds_save": meter.figures["save"],
        "seconds_load": meter.figures["load"],
        "mb_anonymous": {"before the corpus": meter.start} | meter.peaks,
        "mb_file_at_end": resident("RssFile"),
        "mb_disk_corpus": Path(options.work, str(options.sentences)).stat().st_size / 2**20,
        "mb_disk_labels": labels.probabilities.nbytes / 2**20,
        "mb_disk_checkpoint": (directory / DENOISING_STATE).stat().st_size / 2**20,
        "stored": len(denoiser.datastore),
        "recall": denoiser.datastore.recall,
    }


# ---------------------------------------------------------------------------------------------------------- half precision


def rounding_errors(refinements: int) -> dict[str, float]:
    """The largest error of 20,000 labels that are rounded after each of some refinements with beta = 0.95 towards types that stay
    the same, where an update becomes smaller and smaller."""
    generator = torch.Generator().manual_seed(0)
    start = (4 * torch.randn(20_000, TYPES, generator=generator)).softmax(-1)
    towards = (torch.rand(start.shape, generator=generator) < 0.4).float()
    exact, errors = start.double(), {}
    for _ in range(refinements):
        exact = refine(exact, towards.double(), 0.95)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rounded = start.to(dtype)
        for _ in range(refinements):
            rounded = refine(rounded.float(), towards, 0.95).to(dtype)
        errors[str(dtype).removeprefix("torch.")] = float((rounded.double() - exact).abs().max())
    return errors


# ------------------------------------------------------------------------------------------------------------------ report


def plot(figures: dict[str, dict], path: Path) -> None:
    """Memory, step and refresh over the size of the corpus; lines differ in mark and dash, not in color alone."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [int(size) for size in figures]
    rows = list(figures.values())
    peaks = [max(value for part, value in row["mb_anonymous"].items() if part != "before the corpus") for row in rows]
    panels = {
        "memory, MB": {
            "of the process itself": peaks,
            "corpus, labels (on disk)": [r["mb_disk_corpus"] + r["mb_disk_labels"] for r in rows],
        },
        "seconds a step": {"denoising": [r["seconds_step"] for r in rows], "batch": [r["seconds_batch"] for r in rows]},
        "seconds an epoch": {"refresh": [r["seconds_refresh"] for r in rows], "checkpoint": [r["seconds_save"] for r in rows]},
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for (name, values), (mark, dash) in zip(lines.items(), (("o", "-"), ("s", "--")), strict=True):
            axis.plot(sizes, values, color="black", marker=mark, linestyle=dash, markerfacecolor="white", label=name)
        axis.set(title=title, xscale="log", xlabel="unlabelled sentences", xticks=sizes)
        axis.set_yscale("linear" if title == "seconds a step" else "log")
        axis.set_ylim(bottom=0 if title == "seconds a step" else None)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--datastore", type=int, default=50_000, help="vectors that the datastore holds")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=35, help="steps, of which the first five do not count")
    parser.add_argument("--work", help="where the corpora go; about 4 GB for a million sentences. Default: a temporary directory")
    parser.add_argument("--sentences", type=int, help="measure this size alone, in this process, with the corpora in --work")
    options = parser.parse_args()
    if options.sentences:
        print(json.dumps(one_size(options)))
        return
    figures = {}
    with tempfile.TemporaryDirectory() as directory:
        options.work = options.work or directory
        write_corpus(Path(options.work, "source"), SOURCE, labelled=True)
        for size in options.sizes:
            write_corpus(Path(options.work, str(size)), size, labelled=False)
            command = [sys.executable, __file__, "--sentences", str(size), "--work", options.work]
            command += ["--datastore", str(options.datastore), "--batch_size", str(options.batch_size)]
            done = subprocess.run([*command, "--steps", str(options.steps)], stdout=subprocess.PIPE, text=True, check=True)
            figures[str(size)] = json.loads(done.stdout.splitlines()[-1])
            print(size, figures[str(size)], flush=True)
    table = Table(title="a target stage as its corpus grows")
    table.add_column("")
    for size in options.sizes:
        table.add_column(f"{size:,}", justify="right")
    for name in next(iter(figures.values())):
        values = [row[name] for row in figures.values()]
        if isinstance(values[0], dict):
            for part in values[0]:
                table.add_row(f"{name}, {part}", *(f"{value[part]:.0f}" for value in values))
        else:
            table.add_row(name, *(f"{value:.4g}" for value in values))
    Console().print(table)
    rounding = {str(number): rounding_errors(number) for number in (6, 500)}
    print("rounding", rounding)
    plot(figures, ROOT / "docs" / "scale.png")
    settings = {name: value for name, value in vars(options).items() if name not in ("work", "sentences")}
    settings |= {"words": WORDS, "L": LENGTH, "C": TYPES, "D": SIZE, "source sentences": SOURCE, "threads": 2, "seed": 0}
    content = {"machine": machine(), "settings": settings, "sizes": figures, "rounding": rounding}
    (ROOT / "benchmarks" / "results" / "scale.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
