"""What data costs: python benchmarks/scale.py

As the corpus grows: for 10,000, 100,000 and 1,000,000 unlabelled sentences of 20 words on average (L = 8, C = 4, 128
dimensions), each in a process of its own, with synthetic vectors in place of the encoder and everything else as in training:
the corpus in Arrow, the Trainer's sampler and collator, pseudo labels in their file, a datastore that is full at every size.
Measured are some steps of an epoch, a refresh after a filled reservoir (thresholds, datastore, the report over all labels) and
a checkpoint. Memory is RssAnon of /proc/self/status, sampled every 10 ms, less what it was before the corpus was opened: what
the process itself holds, without the pages of mapped files. Results: benchmarks/results/scale.csv.
"""

import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import torch
from common import machine, options_of, resident, write_rows
from datasets import Dataset
from speed import QUIET, WARM_UP, Timer
from tokenizers import Tokenizer, models
from torch.nn import functional as F
from transformers import BertConfig, PreTrainedTokenizerFast

from glode.denoising.denoiser import Denoiser
from glode.training.arguments import GlodeTrainingArguments
from glode.training.assignment import empty_pseudo_labels
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import SPAN_COLUMNS, GlodeTrainer

WORDS, LENGTH, TYPES, SIZE = 20, 8, 4, 128
SOURCE = 20_000  # labelled sentences beside any number of unlabelled ones


# -------------------------------------------------------------------------------------------------------------- the corpus


def write_corpus(path: Path, sentences: int, labelled: bool) -> None:
    """Windows of random words, one a sentence, as `build_features` leaves them in the cache of `datasets`: up to 10,000 different
    ones, over and over."""
    rng = random.Random(0)
    block = pa.Table.from_pylist([random_window(rng, labelled) for _ in range(min(sentences, 10_000))])
    with pa.ipc.new_stream(path, block.schema) as writer:
        for at in range(0, sentences, len(block)):
            part = block.slice(0, sentences - at)
            writer.write_table(part.set_column(0, "sentence", pa.array(range(at, at + len(part)))))


def random_window(rng: random.Random, labelled: bool) -> dict:
    """A sentence as one window; every other word has two tokens. With labels it has two entities of one word."""
    words = rng.randint(WORDS // 2, 3 * WORDS // 2)
    places = [1 + 3 * word // 2 for word in range(words)]
    window = {
        "sentence": 0,
        "input_ids": [rng.randrange(3, 30_000) for _ in range(words + words // 2 + 2)],
        "first_token": places,
        "last_token": places,
        "word_shapes": [rng.randrange(1, 6) for _ in range(words)],
        "borders": list(range(words + 1)),
        "own_start": 0,
        "own_end": words,
    }
    entities = {"begins": [0, 5], "lengths": [1, 1], "types": [rng.randrange(1, TYPES) for _ in range(2)]}
    return window | (entities if labelled else {})


# ------------------------------------------------------------------------------------------------------------- one size


CENTERS = torch.randn(50, TYPES, SIZE, generator=torch.Generator().manual_seed(0))  # of topics and types


def vectors_of(types: torch.Tensor) -> torch.Tensor:
    """Unit vectors around the center of each type and some topic, in place of the encoder's. [...] -> [..., D]"""
    topic = torch.randint(len(CENTERS), types.shape)
    return F.normalize(CENTERS[topic, types] + 0.7 * torch.randn(*types.shape, SIZE), dim=-1)


class Memory:
    """The highest resident memory of this process above its start, in MB."""

    def __init__(self):
        self.start, self.peak = resident("RssAnon"), 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, resident("RssAnon") - self.start)
            time.sleep(0.01)


def fill_reservoir(denoiser: Denoiser, first_step: int) -> None:
    """Collect half as many entity and kept O spans again as the datastore holds, as an epoch would: 1 to 4 of them are O."""
    reservoir, block = denoiser.datastore.reservoir, 5000
    settings = reservoir.settings
    reservoir.settings = replace(settings, datastore_outside_share=1.0)  # these are the ones that were kept
    for step in range(3 * settings.datastore_size // 2 // block):
        types = torch.multinomial(torch.tensor([0.4, 0.4, 0.19, 0.01]), block, replacement=True)
        everywhere = torch.ones_like(types, dtype=torch.bool)
        reservoir.collect(vectors_of(types), types, everywhere, torch.arange(block), first_step + step)
    reservoir.settings = settings


def trainer_of(work: Path, sentences: int, output: Path, stored: int, batch_size: int) -> GlodeTrainer:
    """A target-stage trainer on a corpus of `work`, with pseudo labels as if a source model had given them."""
    encoder = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    names = dict(enumerate(["O", "PER", "LOC", "ORG"]))
    model = GlodeModel(GlodeConfig(encoder, max_span_length=LENGTH, projection_size=SIZE, id2label=names))
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2}, "[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")
    sizes = {"per_device_train_batch_size": batch_size, "datastore_size": stored, "pseudo_labels_in_memory": 0}
    arguments = GlodeTrainingArguments(output_dir=str(output), use_cpu=True, mlm_weight=0.0, **sizes, **QUIET)
    source, target = (Dataset.from_file(str(work / name)) for name in ("source", str(sentences)))
    labels = empty_pseudo_labels(target, model.config, arguments, wait_for_everyone=lambda: None)
    for block in labels.probabilities.split(50_000):
        block.copy_((2 * torch.randn(block.shape) + torch.tensor([4.0, 0, 0, 0])).softmax(-1))
    trainer = GlodeTrainer(model, arguments, tokenizer, source=source, target=target, pseudo_labels=labels)
    trainer.state.epoch = 2.0
    return trainer


def one_size(sentences: int, work: Path, stored: int = 50_000, batch_size: int = 32, steps: int = 35) -> dict[str, float]:
    """All figures for one corpus, in this process; `stored` vectors are in the datastore."""
    torch.manual_seed(0)
    memory, timer, output = Memory(), Timer(), work / f"run-{sentences}"
    trainer = trainer_of(work, sentences, output, stored, batch_size)
    denoiser, refresh = trainer.denoiser, partial(trainer.denoising_callback._refresh, refined={})
    fill_reservoir(denoiser, 0)
    refresh(1)
    fill_reservoir(denoiser, 1000)
    batches = iter(trainer.get_train_dataloader())
    for number in range(steps):
        batch = timer("batch", next, batches)
        spans = {name: batch[name] for name in SPAN_COLUMNS}
        drawn = torch.rand(spans["span_mask"].shape)
        types = (drawn * 100).long().where(drawn < TYPES / 100, 0)  # 97 % O
        projection = vectors_of(torch.where(spans["is_target"][:, None, None], types, spans["labels"].clamp(min=0)))
        timer("denoising", denoiser.step, projection, **spans, step=2000 + number, beta=0.9)
    timer("refresh", refresh, 2)
    trainer.create_optimizer_and_scheduler(100)
    timer("save", trainer._save_optimizer_and_scheduler, str(output))
    return {
        "seconds a step: denoising": statistics.median(timer.seconds["denoising"][WARM_UP:]),
        "seconds a step: batch from the corpus": statistics.median(timer.seconds["batch"][WARM_UP:]),
        "seconds a refresh": timer.seconds["refresh"][0],
        "seconds to save a checkpoint": timer.seconds["save"][0],
        "MB of the process, above its start": memory.peak,
        "MB on disk: corpus": (work / str(sentences)).stat().st_size / 2**20,
        "MB on disk: pseudo labels": trainer.denoiser.pseudo_labels.probabilities.nbytes / 2**20,
        "MB on disk: checkpoint of the denoiser": max(f.stat().st_size for f in output.glob("*.safetensors")) / 2**20,
    }


def main(argv: list[str]) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--work", help="where the corpora go; about 4 GB for a million sentences. Default: a temporary directory")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(options.work or directory)
        write_corpus(work / "source", SOURCE, labelled=True)
        for size in options.sizes:
            write_corpus(work / str(size), size, labelled=False)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            figures = list(pool.map(partial(one_size, work=work), options.sizes))
    texts = [{name: f"{value:.4g}" for name, value in each.items()} for each in figures]
    rows = [{"sentences": size} | text | machine() for size, text in zip(options.sizes, texts, strict=True)]
    print(*rows, sep="\n")
    write_rows("scale", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
