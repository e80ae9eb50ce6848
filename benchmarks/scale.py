"""What data costs: python benchmarks/scale.py

As the corpus grows: for 10,000, 100,000 and 1,000,000 unlabelled sentences of 20 words on average (L = 8, C = 4, 128
dimensions), each in a process of its own, with synthetic vectors in place of the encoder and everything else as in training:
the corpus in Arrow, the Trainer's sampler and collator, pseudo labels in their file, a datastore that is full at every size.
Measured are some steps of an epoch, a refresh after a filled reservoir (thresholds, datastore, the report over all labels),
the order of an epoch, a checkpoint and its reading. Memory is RssAnon of /proc/self/status, sampled every 10 ms, less what it
was before the corpus was opened: what the process itself holds. RssFile beside it are pages of the corpus and of the labels'
file, which the kernel drops when it needs the room. Results: benchmarks/results/scale.csv.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from common import ROOT, Meter, machine, resident, write_rows
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch.nn import functional as F
from transformers import BertConfig, PreTrainedTokenizerFast

sys.path.insert(0, str(ROOT))

from glode.denoising.denoiser import Denoiser
from glode.training.arguments import GlodeTrainingArguments
from glode.training.assignment import empty_pseudo_labels
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import SPAN_COLUMNS, GlodeTrainer

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
    reservoir, block = denoiser.datastore.reservoir, 5000
    settings = reservoir.settings
    reservoir.settings = replace(settings, datastore_outside_share=1.0)  # these are the ones that were kept
    for step in range(3 * settings.datastore_size // 2 // block):
        types = torch.multinomial(torch.tensor([0.4, 0.4, 0.19, 0.01]), block, replacement=True, generator=vectors.generator)
        everywhere = torch.ones_like(types, dtype=torch.bool)
        reservoir.collect(vectors(types), types, everywhere, torch.arange(block), first_step + step)
    reservoir.settings = settings


def one_size(options: argparse.Namespace) -> dict:
    """All figures for one corpus, in this process."""
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
        labels = empty_pseudo_labels(target, model.config, arguments, wait_for_everyone=lambda: None)
        trainer = GlodeTrainer(model, arguments, tokenizer, source=source, target=target, pseudo_labels=labels)
    denoiser, refresh = trainer.denoiser, partial(trainer.denoising_callback._refresh, refined={})
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
            spans = {name: batch[name] for name in SPAN_COLUMNS}
            drawn = torch.rand(spans["span_mask"].shape, generator=vectors.generator)
            types = (drawn * 100).long().where(drawn < TYPES / 100, 0)  # 97 % O
            projection = vectors(torch.where(spans["is_target"][:, None, None], types, spans["labels"].clamp(min=0)))
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
        "seconds a step: denoising": statistics.median(step[5:]),
        "seconds a step: batch from the corpus": statistics.median(data[5:]),
        "seconds a refresh": meter.seconds["refresh"],
        "seconds for the order of an epoch": meter.seconds["epoch order"],
        "seconds to save a checkpoint": meter.seconds["save"],
        "seconds to load a checkpoint": meter.seconds["load"],
        "MB of the process, above its start": max(meter.peaks.values()),
        "MB while the corpus is opened": meter.peaks["open"],
        "MB of mapped files at the end": resident("RssFile"),
        "MB on disk: corpus": Path(options.work, str(options.sentences)).stat().st_size / 2**20,
        "MB on disk: pseudo labels": labels.probabilities.nbytes / 2**20,
        "MB on disk: checkpoint of the denoiser": max(f.stat().st_size for f in directory.glob("*.safetensors")) / 2**20,
        "recall@K of the search": float(denoiser.datastore.recall),
    }


def in_process(command: list[str]) -> dict[str, float]:
    """What a process prints as its last line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--datastore", type=int, default=50_000, help="vectors that the datastore holds")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=35, help="steps, of which the first five do not count")
    parser.add_argument("--work", help="where the corpora go; about 4 GB for a million sentences. Default: a temporary directory")
    parser.add_argument("--sentences", type=int, help="measure this size alone, in this process, with the corpora in --work")
    options = parser.parse_args(argv)
    if options.sentences:
        torch.set_num_threads(os.cpu_count() or 1)
        print(json.dumps(one_size(options)))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        options.work = options.work or directory
        write_corpus(Path(options.work, "source"), SOURCE, labelled=True)
        for size in options.sizes:
            write_corpus(Path(options.work, str(size)), size, labelled=False)
            names = ("datastore", "batch_size", "steps", "work")
            settings = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
            figures = in_process([sys.executable, __file__, "--sentences", str(size), *settings])
            rows.append({"sentences": size} | {name: f"{figure:.4g}" for name, figure in figures.items()} | machine())
            print(rows[-1], flush=True)
    write_rows("scale", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
