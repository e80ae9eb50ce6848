"""What a target-stage step costs beside the encoder alone: python benchmarks/speed.py [--quick] [--bf16]

For each setting, alternating on the same batches of the demo corpus with the demo's backbone and recipe:

    step        the project's: collating, encoder, span head, MLM, denoising, losses, backward, clipping, optimiser
    encoder     the bare encoder's forward and backward on the same token sets (source; target and masked target), as transformers
                has it: padded rows, nn.Dropout
    sequential  the step as the paper's text describes it, one thing after the other (benchmarks/sequential.py)

and, inside the project's step, the denoiser and the optimiser, and the span head by itself. "encoder" and "sequential"
multiply matrices as torch does by itself, the others as run_crossner.py does. Step and encoder come first by turns. A ratio
is the median of the ratios on one batch, with the quartiles beside it; the sequential step draws its batches at random, so
that it is compared over all batches together, which hold the same sentences. Datastores beyond the vectors that the corpora
give hold noisy copies of them; with a blur, stored vectors and queries have so much noise that they cluster as badly as those
of real corpora. "index" is what an epoch's end costs: the datastore's index is made anew.

Exits with 1 where a bar is missed. --quick times fewer batches. --bf16 puts all that is compared into mixed precision, and a
step in fp32 beside it. Results: benchmarks/results/speed.csv. On a GPU: benchmarks/gpu.py.
"""

import argparse
import ctypes
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from common import ROOT, Meter, Row, machine, print_bars, read_rows, write_rows
from datasets import Dataset
from sequential import SequentialStep
from torch.nn import functional as F
from transformers import AutoTokenizer, HfArgumentParser, PreTrainedTokenizerBase

sys.path.insert(0, str(ROOT))

from glode.corpora.reading import load_corpus
from glode.corpora.schema import SENTENCE
from glode.fast.products import faster_products
from glode.features.columns import list_lengths
from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import GlodeTrainer

RECIPE = ROOT / "glode/run/recipes/demo.yaml"
DEMO = ROOT / "glode/run/demo"
WARM_UP = 3  # repeats before the first that counts: until then memory is fetched from the system
REAL_VECTORS = 20_000  # a datastore beyond this is filled up with noisy copies
COPY_NOISE = 0.03  # on each coordinate of a copy
BLUR = 0.25  # vectors then cluster as badly as those of real corpora


@dataclass(frozen=True)
class Setting:
    """One row: stored vectors, L in words, sentences of each stream a batch, demo sentences joined to one, and the standard
    deviation of the noise on each coordinate of stored vectors and queries (0: on copies alone)."""

    datastore: int = 50_000
    length: int = 8
    batch: int = 16
    joined: int = 1
    blur: float = 0.0


BARS = (Setting(200_000), Setting(50_000, length=4), Setting(50_000, length=16), Setting(30_000, blur=BLUR))
CHECKS = (  # what is asked for: its name, the figure, of which setting, at most or at least, how much
    ("step / encoder, 200,000 stored, L 8", "step / encoder", BARS[0], "<=", 1.10),
    ("sequential / step, 50,000 stored, L 4", "sequential / step", BARS[1], ">=", 2.0),
    ("head / encoder, L 16", "head / encoder", BARS[2], "<=", 0.05),
    ("denoiser / encoder, 200,000 stored, L 8", "denoiser / encoder", BARS[0], "<=", 0.05),
    ("the same, 30,000 stored that hardly cluster", "denoiser / encoder", BARS[3], "<=", 0.05),
    ("recall@K of the search, 200,000 stored", "recall", BARS[0], ">=", 0.95),
)
BESIDE = ("encoder", "head", "sequential")  # what is measured beside the step
RATIOS = ("step / encoder", "head / encoder", "denoiser / encoder", "optimizer / encoder")


# ----------------------------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Parts:
    """What trainers of all settings are made of."""

    model: GlodeModel
    tokenizer: PreTrainedTokenizerBase
    arguments: GlodeTrainingArguments
    source: Dataset
    target: Dataset


def prepare(options: argparse.Namespace, directory: Path) -> Parts:
    """The demo's corpora, and a source model with the longest L of all settings, trained by the command line."""
    command = ["--config", str(RECIPE), "--stage", "source", "--target_lang", options.language, "--output_dir", str(directory)]
    model = options.source_model
    if model is None:
        command += ["--max_span_length", "16", "--seed", str(options.seed), "--disable_tqdm", "true", "--report_to", "none"]
        subprocess.run([sys.executable, str(ROOT / "run_crossner.py"), *command], check=True)
        model = directory / "source_model"
    loaded = GlodeModel.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model, config=loaded.config)
    source = load_corpus(str(DEMO / "en" / "train.iob2"), labelled=True)
    target = load_corpus(str(DEMO / options.language / "unlabeled.txt"), labelled=False)
    return Parts(loaded, tokenizer, training_arguments(directory, bf16=options.bf16, seed=options.seed), source, target)


def training_arguments(directory: Path, **values) -> GlodeTrainingArguments:
    """The demo recipe's, without what a training does beside its steps."""
    quiet = {
        "disable_tqdm": True,
        "report_to": "none",
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
    }
    values = {"use_cpu": not torch.cuda.is_available(), "output_dir": str(directory)} | values
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | quiet | values
    return HfArgumentParser(GlodeTrainingArguments).parse_dict(recipe, allow_extra_keys=True)[0]


def cut(model: GlodeModel, length: int) -> GlodeModel:
    """A copy of a model with a smaller L."""
    copy = GlodeModel(GlodeConfig.from_dict({**model.config.to_dict(), "max_span_length": length}))
    state = model.state_dict()
    state["length_embedding.weight"] = state["length_embedding.weight"][:length]
    copy.load_state_dict(state)
    return copy


def joined(corpus: Dataset, number: int) -> Dataset:
    """A corpus of `number` times longer sentences."""
    rows = []
    for at in range(0, len(corpus) - number + 1, number):
        row = {"words": [], "begins": [], "lengths": [], "types": []}
        for sentence in corpus.select(range(at, at + number)):
            row["begins"] += [begin + len(row["words"]) for begin in sentence["begins"]]
            for name in ("lengths", "types", "words"):
                row[name] += sentence[name]
        rows.append(row)
    return Dataset.from_list(rows, features=SENTENCE)


def target_trainer(parts: Parts, setting: Setting, seed: int) -> GlodeTrainer:
    """A target-stage trainer in its third epoch: a trained model, its pseudo labels, thresholds, and a full datastore."""
    model = cut(parts.model, setting.length)
    source, target = (joined(corpus, setting.joined) for corpus in (parts.source, parts.target))
    sizes = (parts.tokenizer, model.config.max_tokens, setting.length)
    streams = {
        "source": build_features(source, *sizes, list(model.config.id2label.values())),
        "target": build_features(target, *sizes),
    }
    arguments = replace(parts.arguments, per_device_train_batch_size=setting.batch, datastore_size=setting.datastore)
    labels = GlodeTrainer(model, arguments, parts.tokenizer, **streams).assign_pseudo_labels(streams["target"])
    trainer = GlodeTrainer(model, arguments, parts.tokenizer, **streams, pseudo_labels=labels)
    trainer.state.max_steps = 100
    denoiser, store = trainer.denoiser, trainer.denoiser.datastore
    if setting.blur:
        denoiser.neighbor_shares = Blurred(denoiser.neighbor_shares, setting.blur, model.config.projection_size, seed)
    generator = torch.Generator().manual_seed(seed)
    for epoch in (1, 2):  # the second pass knows the datastore, and with it the local thresholds
        fill(trainer, min(setting.datastore, REAL_VECTORS))
        denoiser.begin_epoch(epoch)
        copies = -(-setting.datastore // len(store))
        chosen = torch.randperm(copies * len(store), generator=generator)[: setting.datastore] % len(store)
        vectors, types = store.vectors[chosen], store.types[chosen]
        noise = setting.blur or COPY_NOISE * (copies > 1)
        store.store(F.normalize(vectors + noise * torch.randn(vectors.shape, generator=generator).to(vectors), dim=-1), types)
    trainer.state.epoch = 2.0
    trainer.create_optimizer_and_scheduler(100)
    return trainer


class Blurred:
    """A search whose queries have noise, cut out of one table: to draw it anew would take longer than the search."""

    def __init__(self, search: Callable, deviation: float, size: int, seed: int):
        self.search, self.at = search, 0
        self.table = deviation * torch.randn(2**17, size, generator=torch.Generator().manual_seed(seed))

    def __call__(self, vectors: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        self.at = (self.at + len(vectors)) % (len(self.table) - len(vectors))
        noise = self.table[self.at : self.at + len(vectors)].to(vectors)
        return self.search(F.normalize(vectors + noise, dim=-1), *rest)


@torch.no_grad()
def fill(trainer: GlodeTrainer, number: int) -> None:
    """Pass the corpora through the denoiser until the datastore's next vectors are `number`."""
    size, store = 2 * trainer.args.per_device_train_batch_size, trainer.denoiser.datastore
    collator, forward = replace(trainer.data_collator, mlm_probability=0.0), as_trained(trainer)
    trainer.model.train()
    for epoch in itertools.count():
        trainer.sampler.set_epoch(epoch)
        indices = list(trainer.sampler)
        for at in range(0, len(indices), size):
            batch = trainer._prepare_inputs(collator(trainer.train_dataset.__getitems__(indices[at : at + size])))
            trainer.state.global_step = 1000 * epoch + at
            trainer.compute_loss(forward, batch)
            if len(store.reservoir) >= number:
                return


def as_trained(trainer: GlodeTrainer) -> Callable:
    """The model's forward in the precision of the training, and nothing but it, as Accelerate prepares a model."""
    return trainer.accelerator.autocast()(trainer.model.forward)


# ----------------------------------------------------------------------------------------------------------------- measuring


class Timer:
    """Seconds by name; on a GPU, until the work is done."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, work: Callable, *args, **kwargs):
        start = self._now()
        result = work(*args, **kwargs)
        self.seconds[name].append(self._now() - start)
        return result

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def after_warm_up(self, name: str) -> list[float]:
        return self.seconds[name][WARM_UP:]

    def quartiles(self, ratio: str) -> list[float]:
        """First quartile, median and third quartile of what a batch costs one part beside another."""
        over, under = map(self.after_warm_up, ratio.split(" / "))
        return statistics.quantiles(a / b for a, b in zip(over, under, strict=True))

    def over_all(self, ratio: str) -> float:
        """What all batches together cost one part beside another."""
        over, under = (sum(self.after_warm_up(part)) for part in ratio.split(" / "))
        return over / under


class Bench:
    """A trainer, and the work that is timed on its batches."""

    def __init__(self, trainer: GlodeTrainer):
        self.trainer, self.model, self.timer = trainer, trainer.model.train(), Timer()
        self.size, self.forward = trainer.args.per_device_train_batch_size, as_trained(trainer)
        self.plain = as_transformers_has_it(self.model)
        self.plain_optimizer = torch.optim.AdamW([p for p in self.plain.parameters() if p.requires_grad], 1e-5, fused=True)
        self.sequential = sequential_step(trainer, self.plain)
        self.inner = trainer.denoiser.step
        trainer.denoiser.step = lambda *args, **kwargs: self.timer("denoiser", self.inner, *args, **kwargs)

    def rows(self, indices: torch.Tensor) -> list[dict]:
        return self.trainer.train_dataset.__getitems__(indices.tolist())

    def update(self, model: GlodeModel, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    @faster_products()
    def step(self, rows: list[dict], forward: Callable | None = None) -> None:
        batch = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
        self.trainer.compute_loss(forward or self.forward, batch).backward()
        self.timer("optimizer", self.update, self.model, self.trainer.optimizer)

    def one_by_one(self, rows: list[dict]) -> None:
        with self.trainer.accelerator.autocast():
            loss = self.sequential.loss(rows[: self.size], rows[self.size :])
        loss.backward()
        self.update(self.plain, self.plain_optimizer)

    def encoder(self, model: GlodeModel, inputs: Sequence[dict]) -> None:
        with self.trainer.accelerator.autocast():
            hidden = [model.encoder(**part).last_hidden_state for part in inputs]
        torch.autograd.backward(hidden, [torch.full_like(part, 1e-3) for part in hidden])
        model.zero_grad()

    @faster_products()
    def head(self, batch: dict, hidden: torch.Tensor) -> None:
        words = {name: batch[name] for name in ("first_token", "last_token", "word_shapes")}
        with self.trainer.accelerator.autocast():
            logits = self.model.score_spans(hidden, **words, return_projection=True)["logits"]
        logits.backward(torch.ones_like(logits))
        self.model.zero_grad()

    def turn(self, number: int, indices: torch.Tensor, mixed: torch.Tensor, beside: Collection[str]) -> None:
        """All work on one batch, and the sequential step on one of random sentences."""
        rows = self.rows(indices)
        batch = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
        turns = [("step", self.step, rows)]
        if "encoder" in beside:
            turns.append(("encoder", self.encoder, self.plain, token_sets(self.trainer, rows)))
        for work in turns if number % 2 else reversed(turns):
            self.timer(*work)
        if "head" in beside:
            shape = (*batch["input_ids"].shape, self.model.config.encoder_config.hidden_size)
            self.timer("head", self.head, batch, torch.randn(shape, device=self.model.device, requires_grad=True))
        if "sequential" in beside:
            self.timer("sequential", self.one_by_one, self.rows(mixed))

    def close(self) -> None:
        self.trainer.denoiser.step = self.inner


def measure(trainer: GlodeTrainer, repeats: int, seed: int, beside: Collection[str] = BESIDE) -> dict[str, float | str]:
    """Medians in seconds, ratios and their quartiles, batch by batch in turn; what of BESIDE is asked for beside the step."""
    bench, batches = Bench(trainer), epoch_of_batches(trainer, repeats)
    drawn = at_random(batches, torch.Generator().manual_seed(seed))
    for number in range(WARM_UP + repeats):
        bench.turn(number, batches[number], drawn[number], beside)
    bench.close()
    timer, store, rebuilding = bench.timer, trainer.denoiser.datastore, Timer()
    figures: dict[str, float | str] = {"repeats": repeats}
    for name in ("step", *BESIDE, "denoiser", "optimizer"):
        if name in timer.seconds:
            figures[name] = round(statistics.median(timer.after_warm_up(name)), 4)
    for ratio in (ratio for ratio in RATIOS if timer.seconds.keys() >= set(ratio.split(" / "))):
        first, median, third = timer.quartiles(ratio)
        figures |= {ratio: round(median, 4), f"{ratio}, quartiles": f"{first:.3f} to {third:.3f}"}
    if "sequential" in beside:
        figures["sequential / step"] = round(timer.over_all("sequential / step"), 4)
    if trainer.args.bf16:
        bench.timer = precisions = Timer()
        for indices in batches[: WARM_UP + 7]:
            precisions("step", bench.step, bench.rows(indices))
            precisions("step in fp32", bench.step, bench.rows(indices), bench.model.forward)
        figures["step in fp32 / step"] = round(precisions.over_all("step in fp32 / step"), 4)
    rebuilding("index", store.store, store.vectors, store.types)
    rows = bench.rows(batches[-1])
    figures |= {"recall": round(float(store.recall), 4), "index": round(rebuilding.seconds["index"][0], 3)}
    return figures | {"tokens": count_tokens(trainer, rows), "peak MB": peak_memory(bench.step, rows)}


def count_tokens(trainer: GlodeTrainer, rows: list[dict]) -> int:
    return trainer.data_collator(rows)["input_ids"].numel()


def epoch_of_batches(trainer: GlodeTrainer, number: int) -> torch.Tensor:
    """[WARM_UP + number, windows]: the widest batch of an epoch for warming up, so that its memory is there, then `number` in the
    sampler's order, which starts anew at the epoch's end."""
    batches = torch.tensor(list(trainer.sampler)).view(-1, 2 * trainer.args.per_device_train_batch_size)
    streams = (trainer.train_dataset.source, trainer.train_dataset.target)
    tokens = torch.from_numpy(np.concatenate([list_lengths(stream, "input_ids") for stream in streams]))
    widest = tokens[batches % len(tokens)].max(dim=1).values.argmax()
    return torch.cat([batches[widest].expand(WARM_UP, -1), batches[torch.arange(number) % len(batches)]])


def at_random(batches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[repeats, batch]: each stream's sentences in random order over all batches but those for warming up."""
    mixed = batches.clone()
    for stream in mixed[WARM_UP:].chunk(2, dim=1):
        stream[:] = stream.flatten()[torch.randperm(stream.numel(), generator=generator)].view_as(stream)
    return mixed


def token_sets(trainer: GlodeTrainer, rows: list[dict]) -> list[dict[str, torch.Tensor]]:
    """What passes the encoder, in padded rows: the source, and the target with its masked copies."""
    batch = trainer._prepare_inputs(replace(trainer.data_collator, first_position=None)(rows))
    tokens, mask, source = batch["input_ids"], batch["attention_mask"], trainer.args.per_device_train_batch_size
    parts = []
    for part in (slice(0, source), slice(source, None)):
        width = int(mask[part].sum(1).max())
        parts.append({"input_ids": tokens[part, :width], "attention_mask": mask[part, :width]})
    return parts


def as_transformers_has_it(model: GlodeModel) -> GlodeModel:
    """A copy that reads padded rows, with the attention and the dropout of the encoder's own code."""
    copy = GlodeModel(GlodeConfig.from_dict(model.config.to_dict())).to(model.device)
    copy.load_state_dict(model.state_dict())
    trained = dict(model.named_parameters())
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(trained[name].requires_grad)
    return copy.train()


def sequential_step(trainer: GlodeTrainer, model: GlodeModel) -> SequentialStep:
    """The sequential step on a model, and the trainer's pseudo labels and datastore."""
    labels, store = trainer.denoiser.pseudo_labels, trainer.denoiser.datastore
    soft = [part.clone() for part in labels.probabilities.split(labels.offsets.diff().tolist())]
    return SequentialStep(model, trainer.processing_class, soft, store.vectors, store.types, store.neighbors)


def peak_memory(work: Callable, *args) -> float:
    """MB that some work takes at its peak, above what is held before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work(*args)
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier steps have left free would hide this one
    meter = Meter()
    with meter.measure("work"):
        work(*args)
    return round(meter.peaks["work"], 1)


# -------------------------------------------------------------------------------------------------------------------- report


def setting_of(row: Row) -> Setting:
    """The setting of a row of speed.csv."""
    return Setting(**{name: type(value)(row[name]) for name, value in asdict(Setting()).items()})


def bars(rows: Sequence[dict]) -> list[tuple[str, float, str, float]]:
    """Each of CHECKS that was measured: name, figure, at most or at least, bar."""
    found = {setting_of(row): row for row in rows}
    return [(name, float(found[at][key]), sign, bar) for name, key, at, sign, bar in CHECKS if found.get(at, {}).get(key)]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="time a third of the batches")
    parser.add_argument("--bf16", action="store_true", help="all in mixed precision, as training with --bf16 true has it")
    parser.add_argument("--source_model", type=Path, help="a source model of the demo with L = 16; trained without it")
    parser.add_argument("--language", default="de", help="of the demo")
    parser.add_argument("--repeats", type=int, help="timed batches of each setting; 27, and 60 for the sequential step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    run = "bf16" if options.bf16 else "fp32"
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        parts = prepare(options, Path(directory))
        for setting in BARS:
            asked = {part for _, figure, at, *_ in CHECKS if at == setting for part in figure.split(" / ")}
            beside = asked.intersection(BESIDE)
            repeats = options.repeats or (20 if "sequential" in beside else 9) * (1 if options.quick else 3)
            figures = measure(target_trainer(parts, setting, options.seed), repeats, options.seed, beside)
            rows.append({"run": run, **asdict(setting), **figures, **machine()})
            print(setting, figures, flush=True)
    write_rows("speed", [row for row in read_rows("speed") if row["run"] != run] + rows)
    return 0 if print_bars(bars(rows)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
