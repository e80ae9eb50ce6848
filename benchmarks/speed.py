"""What a target-stage step costs beside the encoder alone: python benchmarks/speed.py [--quick]

For each setting, alternating on the same batches of the demo corpus with the demo's backbone and recipe:

    step        the project's: collating, encoder, span head, MLM, denoising, losses, backward, clipping, optimiser
    encoder     the bare encoder's forward and backward on the same token sets (source; target and masked target), as transformers
                has it: padded rows, nn.Dropout
    packed      the same encoder's forward and backward as the step uses it (packing_glode.py)
    sequential  the step as the paper's text describes it, one thing after the other (benchmarks/sequential.py), with the
                encoder as transformers has it

and, inside the project's step, the denoiser and the optimiser, and the span head by itself. "encoder" and "sequential" multiply
matrices as torch does by itself, the others as run_crossner.py does (faster_products). Step and encoder come first by turns. A
ratio is the median of the ratios on one batch, with the quartiles beside it. The sequential step draws its batches at random, the
project's are sorted by length, so those two are compared over all batches together, which hold the same sentences for both.
Seconds are medians; then comes the memory that a step takes at its peak. Datastores beyond the vectors that the corpora
give hold noisy copies of them. The demo's vectors cluster, and those of real corpora hardly do: in the settings with a blur,
stored vectors and queries have so much noise that the search has to work as hard as on real ones (docs/speed.md).
"index" is what an epoch's end costs: the datastore's index is made anew.
"directions changed" is the share of the last batch's spans whose local directions (eq. 8) an exact search would have chosen
otherwise.
--quick measures what the bars are on alone and exits with 1 where one falls short. --corpora and --pair take sentences of real
corpora instead of the demo's. --bf16 puts all that is compared into mixed precision, and a step in fp32 beside it.
Results: benchmarks/results/speed*.json; tables and plots of them: benchmarks/tables.py. On a GPU: benchmarks/gpu.py.
"""

import argparse
import ctypes
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine, sample  # noqa: E402
from scale import Meter  # noqa: E402
from sequential import SequentialStep  # noqa: E402

import run_crossner  # noqa: E402
from glode.corpora.schema import SENTENCE  # noqa: E402
from glode.denoising.datastore import Datastore  # noqa: E402
from glode.denoising.pseudo_labels import PseudoLabels  # noqa: E402
from glode.denoising.refinement import directions  # noqa: E402
from glode.fast.products import faster_products  # noqa: E402
from glode.features.windows import build_features, list_lengths  # noqa: E402
from modeling_glode import GlodeConfig, GlodeModel  # noqa: E402
from trainer_glode import GlodeTrainer  # noqa: E402

WARM_UP = 3  # repeats before the first that counts: until then memory is fetched from the system
REAL_VECTORS = 20_000  # a datastore beyond this is filled up with noisy copies
COPY_NOISE = 0.03  # on each coordinate of a copy
REAL_SENTENCES = 400  # of each file of real corpora


@dataclass(frozen=True)
class Setting:
    """One row of the table: stored vectors, L in words, sentences of each stream a batch, types, demo sentences joined to one;
    the standard deviation of the sentences' lengths beside their mean (0: the demo's own), and that of the noise on each
    coordinate of stored vectors and queries (0: on copies alone)."""

    datastore: int = 50_000
    length: int = 8
    batch: int = 16
    types: int = 4
    joined: int = 1
    spread: float = 0.0
    blur: float = 0.0

    def __str__(self) -> str:
        text = f"{self.datastore:,} stored, L {self.length}, batch {self.batch}, {self.types} types, {self.joined} joined"
        text += f", lengths spread by {self.spread:g}" if self.spread else ""
        return text + (f", vectors blurred by {self.blur:g}" if self.blur else "")


REAL = 0.6  # spread of real sentences: 0.52 for WikiANN en, 0.50 ru, 0.60 de; 0.68 for CoNLL en, 0.59 de
BLUR = 0.25  # vectors then cluster as badly as those of real corpora, see docs/speed.md
BARS = (
    Setting(200_000),
    Setting(50_000, length=4),
    Setting(50_000, length=16),
    Setting(50_000, length=4, spread=REAL),
    Setting(30_000, blur=BLUR),
)
CHECKS = (  # what is asked for: its name, the figure, of which setting, at most or at least, how much
    ("step / encoder, 200,000 stored, L 8", "step / encoder", BARS[0], "<=", 1.10),
    ("sequential / step, 50,000 stored, L 4", "sequential / step", BARS[1], ">=", 2.0),
    ("the same, lengths spread as real ones", "sequential / step", BARS[3], ">=", 2.0),
    ("head / encoder, L 16", "head / encoder", BARS[2], "<=", 0.05),
    ("denoiser / encoder, 200,000 stored, L 8", "denoiser / encoder", BARS[0], "<=", 0.05),
    ("the same, 30,000 stored that hardly cluster", "denoiser / encoder", BARS[4], "<=", 0.05),
    ("recall@K of the search, 200,000 stored", "recall", BARS[0], ">=", 0.95),
)
ENCODER_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_places", "read_tokens")
GROWTH = {
    "datastore": (1_000, 50_000, 200_000, 1_000_000),
    "length": (4, 8, 16),
    "batch": (8, 16, 32),
    "types": (4, 5, 20),
    "joined": (1, 2, 4),
}
BESIDE = ("encoder", "packed", "head", "sequential")  # what is measured beside the step
RATIOS = ("step / encoder", "step / packed", "head / encoder", "denoiser / encoder", "optimizer / encoder")
SWEEP = (*BARS, Setting(200_000, blur=BLUR), *(Setting(**{name: size}) for name, sizes in GROWTH.items() for size in sizes))


def trained(options: argparse.Namespace, corpora: list[str], directory: str) -> tuple[run_crossner.Run, GlodeModel]:
    """The demo's corpora, or those that arguments name, its tokenizer, and a source model with the longest L of all settings."""
    argv = f"--target_lang {options.language} --output_dir {directory} --disable_tqdm true --report_to none --seed {options.seed}"
    argv += " --max_span_length 16 --eval_strategy no --save_strategy no --load_best_model_at_end false"
    if options.bf16:
        argv += f" --bf16 true --use_cpu {not torch.cuda.is_available()}"  # else the Trainer refuses bf16 on a CPU
    if options.source_model:
        argv += f" --source_model {options.source_model}"
    run = run_crossner.Run(*run_crossner.parse_arguments([*argv.split(), *corpora]))
    return run, run.source_stage().model


def language_pair(text: str) -> tuple[str, str, str]:
    """CORPUS-SOURCE-TARGET, taken apart.

    Raises:
        argparse.ArgumentTypeError: it is not that.
    """
    if text.count("-") != 2:
        raise argparse.ArgumentTypeError(f"{text} is not CORPUS-SOURCE-TARGET, such as wikiann-en-ru")
    corpus, source, target = text.split("-")
    return corpus, source, target


def real_corpora(corpora: Path, pair: tuple[str, str, str], directory: str) -> list[str]:
    """Arguments for sentences of real corpora in the place of the demo's, with the demo's recipe.

    Raises:
        FileNotFoundError: there is no such corpus in `corpora`.
    """
    corpus, source, target = pair
    parts = {"source_train": f"{source}/train", "source_dev": f"{source}/dev", "target_unlabeled": f"{target}/train"}
    arguments = ["--config", str(ROOT / "glode/run/recipes" / "demo.yaml"), "--source_lang", source, "--target_lang", target]
    for name, part in parts.items():
        arguments += [f"--{name}", str(sample(corpora, f"{corpus}/{part}", REAL_SENTENCES, Path(directory)))]
    return arguments


def varied(model: GlodeModel, setting: Setting, seed: int) -> GlodeModel:
    """The model with another L and other types: further types are entities at random, scored as the known ones are."""
    names = ["O", *(f"T{i}" for i in range(1, setting.types))]
    config = GlodeConfig.from_dict(
        {**model.config.to_dict(), "max_span_length": setting.length, "id2label": dict(enumerate(names))}
    )
    state, generator = model.state_dict(), torch.Generator().manual_seed(seed)
    state["length_embedding.weight"] = state["length_embedding.weight"][: setting.length]
    for name in ("classifier.linear.weight", "classifier.linear.bias"):
        known = state[name][1:]
        rows = known[torch.arange(setting.types - 1) % len(known)]
        if setting.types - 1 != len(known):
            rows = rows + 0.1 * known.std() * torch.randn(rows.shape, generator=generator)
        state[name] = torch.cat([state[name][:1], rows])
    varied = GlodeModel(config)
    varied.load_state_dict(state)
    return varied


def joined(corpus: Dataset, number: int, types: int) -> Dataset:
    """A corpus of `number` times longer sentences, whose entities have the types T1, T2, ... by turns."""
    rows, count = [], itertools.count()
    for at in range(0, len(corpus) - number + 1, number):
        row = {"words": [], "begins": [], "lengths": [], "types": []}
        for sentence in corpus.select(range(at, at + number)):
            row["begins"] += [begin + len(row["words"]) for begin in sentence["begins"]]
            row["lengths"] += sentence["lengths"]
            row["types"] += [f"T{next(count) % (types - 1) + 1}" for _ in sentence["types"]]
            row["words"] += sentence["words"]
        rows.append(row)
    return Dataset.from_list(rows, features=SENTENCE)


def recut(corpus: Dataset, spread: float, seed: int) -> Dataset:
    """The corpus's words, cut anew into sentences whose lengths are log-normal, with the mean that they have and a standard
    deviation of `spread` times that. A cut that falls into an entity moves behind it."""
    words = [word for sentence in corpus["words"] for word in sentence]
    borders = np.cumsum([0, *(len(sentence) for sentence in corpus["words"])])
    begins = np.concatenate([np.add(row, at) for row, at in zip(corpus["begins"], borders[:-1], strict=True)]).astype(int)
    lengths, types = np.concatenate(corpus["lengths"]).astype(int), np.concatenate(corpus["types"])
    sigma = np.sqrt(np.log1p(spread**2))
    drawn = np.random.default_rng(seed).lognormal(np.log(len(words) / len(corpus)) - sigma**2 / 2, sigma, 2 * len(corpus))
    cuts = np.cumsum(np.maximum(drawn.round(), 1)).astype(int)
    inside = np.zeros(len(words) + 1, dtype=bool)  # a cut here would part an entity
    for begin, length in zip(begins, lengths, strict=True):
        inside[begin + 1 : begin + length] = True
    free = np.flatnonzero(~inside)
    cuts = np.unique([0, *free[np.searchsorted(free, cuts[cuts < len(words)])], len(words)])
    rows = []
    for start, end in itertools.pairwise(cuts.tolist()):
        own = (begins >= start) & (begins < end)
        row = {"words": words[start:end], "begins": begins[own] - start, "lengths": lengths[own], "types": types[own]}
        rows.append(row)
    return Dataset.from_list(rows, features=SENTENCE)


def target_trainer(run: run_crossner.Run, model: GlodeModel, setting: Setting, seed: int) -> GlodeTrainer:
    """A target-stage trainer in its third epoch: a trained model, its pseudo labels, thresholds, and a full datastore."""
    model = varied(model, setting, seed)
    labels = list(model.config.id2label.values())
    source, target = (joined(corpus, setting.joined, setting.types) for corpus in (run.corpora.source, run.corpora.target))
    if setting.spread:
        source, target = (recut(corpus, setting.spread, seed) for corpus in (source, target))
    source = build_features(source, run.tokenizer, model.config.max_tokens, setting.length, labels)
    target = build_features(target, run.tokenizer, model.config.max_tokens, setting.length)
    arguments = replace(run.training, per_device_train_batch_size=setting.batch, datastore_size=setting.datastore)
    streams = {"source": source, "target": target}
    pseudo_labels = GlodeTrainer(model, arguments, run.tokenizer, **streams).assign_pseudo_labels(target)
    trainer = GlodeTrainer(model, arguments, run.tokenizer, **streams, pseudo_labels=pseudo_labels)
    trainer.state.max_steps = 100
    denoiser, store = trainer.denoiser, trainer.denoiser.datastore
    if setting.blur:
        denoiser.neighbour_shares = Blurred(denoiser.neighbour_shares, setting.blur, store.size, seed)
    for epoch in (1, 2):  # the second pass knows the datastore, and with it the local thresholds
        fill(trainer, min(setting.datastore, REAL_VECTORS))
        denoiser.begin_epoch(epoch)
        copies = -(-setting.datastore // len(store))
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(copies * len(store), generator=generator)[: setting.datastore] % len(store)
        vectors, types = store.vectors[chosen], store.types[chosen]
        noise = setting.blur or COPY_NOISE * (copies > 1)
        store.store(F.normalize(vectors + noise * torch.randn(vectors.shape, generator=generator), dim=-1), types)
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
            batch = collator(trainer.train_dataset.__getitems__(indices[at : at + size]))
            trainer.state.global_step = 1000 * epoch + at
            trainer.compute_loss(forward, batch)
            if sum(len(types) for _, types, *_ in store.collected) >= number:
                return


def as_trained(trainer: GlodeTrainer) -> Callable:
    """The model's forward in the precision of the training, and nothing but it, as Accelerate prepares a model."""
    return trainer.accelerator.autocast()(trainer.model.forward)


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

    def medians(self) -> dict[str, float]:
        """Of all repeats after the warm-up."""
        return {name: round(statistics.median(values[WARM_UP:]), 4) for name, values in self.seconds.items()}

    def quartiles(self, name: str) -> list[float]:
        """First quartile, median and third quartile of what a batch costs one part beside another."""
        over, under = (self.seconds[part][WARM_UP:] for part in name.split(" / "))
        return [round(q, 4) for q in statistics.quantiles(a / b for a, b in zip(over, under, strict=True))]

    def over_all(self, name: str) -> float:
        """What all batches together cost one part beside another."""
        over, under = (sum(self.seconds[part][WARM_UP:]) for part in name.split(" / "))
        return round(over / under, 4)


def measure(trainer: GlodeTrainer, repeats: int, seed: int, beside: Collection[str] = BESIDE) -> dict:
    """Seconds of the step and its parts and, of what is asked for `beside` it, the bare encoder, the same packed, the span head
    alone and the sequential step, batch by batch in turn."""
    model, optimizer, denoiser, timer = trainer.model, trainer.optimizer, trainer.denoiser, Timer()
    model.train()
    plain = as_transformers_has_it(model)
    plain_optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], 1e-5, fused=True)
    size, sequential = 2 * trainer.args.per_device_train_batch_size, sequential_step(trainer, plain)
    batches = epoch_of_batches(trainer, repeats)
    drawn = at_random(batches, torch.Generator().manual_seed(seed))
    inner, store, last_search = denoiser.step, denoiser.datastore, {}
    denoiser.step = lambda *args, **kwargs: timer("denoiser", inner, *args, **kwargs)

    def similarity(vectors: torch.Tensor, types: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
        shares = Datastore.similarity(store, vectors, types, thresholds)
        last_search.update(vectors=vectors, thresholds=thresholds, shares=shares)
        return shares

    store.similarity = similarity

    def update(model: GlodeModel = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    prepared = as_trained(trainer)

    @faster_products()
    def step(rows: list[dict], forward: Callable = prepared) -> None:
        trainer.compute_loss(forward, trainer._prepare_inputs(trainer.data_collator(rows))).backward()
        timer("optimizer", update)

    def one_by_one(source: list[dict], target: list[dict]) -> None:
        with trainer.accelerator.autocast():
            loss = sequential.loss(source, target)
        loss.backward()
        update(plain, plain_optimizer)

    def encoder(model: GlodeModel, parts: list[dict]) -> None:
        with trainer.accelerator.autocast():
            hidden = [model.encoder(**part).last_hidden_state for part in parts]
        torch.autograd.backward(hidden, [torch.full_like(part, 1e-3) for part in hidden])
        model.zero_grad()

    def head(batch: dict, hidden: torch.Tensor) -> None:
        words = {name: batch[name] for name in ("first_token", "last_token", "word_shapes")}
        with trainer.accelerator.autocast():
            logits = model.score_spans(hidden, **words, return_projection=True)["logits"]
        logits.backward(torch.ones_like(logits))
        optimizer.zero_grad()

    for repeat in range(WARM_UP + repeats):
        rows = trainer.train_dataset.__getitems__(batches[repeat].tolist())
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        turns = [("step", step, rows)]
        if "encoder" in beside:
            turns.append(("encoder", encoder, plain, token_sets(trainer, rows)))
        for turn in turns if repeat % 2 else reversed(turns):
            timer(*turn)
        if "packed" in beside:
            timer("packed", faster_products()(encoder), model, [{name: batch[name] for name in ENCODER_INPUTS if name in batch}])
        if "head" in beside:
            shape = (*batch["input_ids"].shape, model.config.encoder_config.hidden_size)
            timer("head", faster_products()(head), batch, torch.randn(shape, device=model.device, requires_grad=True))
        if "sequential" in beside:
            mixed = trainer.train_dataset.__getitems__(drawn[repeat].tolist())
            timer("sequential", one_by_one, mixed[: size // 2], mixed[size // 2 :])
    denoiser.step = inner
    del store.similarity
    search = {"recall": round(store.recall, 4), "error of the shares": round(store.deviation, 6)}
    rebuilding = Timer()
    rebuilding("index", store.store, store.vectors, store.types)
    search["index"] = round(rebuilding.seconds["index"][0], 3)
    search["directions changed"] = round(directions_changed(store, **last_search), 6)
    quartiles = {name: timer.quartiles(name) for name in RATIOS if timer.seconds.keys() >= set(name.split(" / "))}
    ratios = {name: median for name, (_, median, _) in quartiles.items()}
    if "sequential" in beside:
        ratios["sequential / step"] = timer.over_all("sequential / step")
    medians = timer.medians()
    if trainer.args.bf16:
        precisions = Timer()
        for indices in batches[: WARM_UP + 7]:
            rows = trainer.train_dataset.__getitems__(indices.tolist())
            precisions("step", step, rows)
            precisions("step in fp32", step, rows, model.forward)
        ratios["step in fp32 / step"] = precisions.over_all("step in fp32 / step")
    return {
        "repeats": repeats,
        "median": medians,
        "ratios": ratios,
        "quartiles": {name: [first, third] for name, (first, _, third) in quartiles.items()},
        **search,
        "tokens": batch["input_ids"].numel(),
        "peak_mb": peak_memory(step, rows),
    }


def directions_changed(store: Datastore, vectors: torch.Tensor, thresholds: torch.Tensor, shares: torch.Tensor) -> float:
    """The share of spans whose directions (eq. 8) by these shares [spans, types] are not those by an exact search."""
    sizes = (store.number_of_types, store.size, store.most_neighbors, store.neighbor_share)
    exact = Datastore(*sizes, exact_size=len(store), device=store.vectors.device)
    exact.store(store.vectors, store.types)
    wanted, got = (directions(of, thresholds) for of in (exact.similarity(vectors), shares))
    return float((wanted != got).any(1).double().mean())


def epoch_of_batches(trainer: GlodeTrainer, number: int) -> torch.Tensor:
    """[WARM_UP + number, windows]: the widest batch of an epoch for warming up, so that its memory is there, then `number` in the
    sampler's order, which starts anew at the epoch's end."""
    batches = torch.tensor(list(trainer.sampler)).view(-1, 2 * trainer.args.per_device_train_batch_size)
    streams = (trainer.train_dataset.source, trainer.train_dataset.target)
    tokens = torch.from_numpy(np.concatenate([list_lengths(stream, "input_ids") for stream in streams]))
    widest = tokens[batches % len(tokens)].max(dim=1).values.argmax()
    return torch.cat([batches[widest].expand(WARM_UP, -1), batches[torch.arange(number) % len(batches)]])


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


def at_random(batches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[repeats, batch]: each stream's sentences in random order over all batches but those for warming up."""
    mixed = batches.clone()
    for stream in mixed[WARM_UP:].chunk(2, dim=1):
        stream[:] = stream.flatten()[torch.randperm(stream.numel(), generator=generator)].view_as(stream)
    return mixed


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


@faster_products()
def profile(trainer: GlodeTrainer, steps: int = 5) -> dict[str, float]:
    """Milliseconds a step spends in each part; what is indented lies within the part before it."""
    model, denoiser, timer = trainer.model, trainer.denoiser, Timer()
    parts = {  # name: whose, which method
        "collating": (trainer, "data_collator"),
        "forward": (model, "forward"),
        "  encoder": (model.encoder, "forward"),
        "  scores of the spans": (model, "score_spans"),
        "  masked language head": (model.mlm_head, "forward"),
        "denoiser": (denoiser, "step"),
        "  search": (denoiser.datastore, "similarity"),
        "  prototypes": (denoiser.prototypes, "update"),
        "  centers": (denoiser.centers, "update"),
        "  pseudo labels": (denoiser.pseudo_labels, "write"),
        "optimiser": (trainer.optimizer, "step"),
    }
    kept = {name: getattr(*place) for name, place in parts.items()}
    for name, (owner, method) in parts.items():
        setattr(owner, method, functools.partial(timer, name, kept[name]))
    model.train()
    indices, size = list(trainer.sampler), 2 * trainer.args.per_device_train_batch_size
    for at in range(0, (steps + 1) * size, size):
        rows = trainer.train_dataset.__getitems__(indices[at : at + size])

        def losses(rows: list[dict] = rows) -> torch.Tensor:
            return trainer.compute_loss(as_trained(trainer), trainer._prepare_inputs(trainer.data_collator(rows)))

        loss = timer("collating, forward, denoiser, losses", losses)
        timer("backward", loss.backward)
        timer("clipping", torch.nn.utils.clip_grad_norm_, model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    for name, (owner, method) in parts.items():
        setattr(owner, method, kept[name])
    calls = {name: values[len(values) // (steps + 1) :] for name, values in timer.seconds.items()}
    return {name: round(1000 * sum(values) / steps, 1) for name, values in calls.items()}


def sequential_step(trainer: GlodeTrainer, model: GlodeModel) -> SequentialStep:
    """The sequential step on a model, and the trainer's pseudo labels and datastore."""
    labels: PseudoLabels = trainer.denoiser.pseudo_labels
    soft = [part.clone() for part in labels.probabilities.split(labels.offsets.diff().tolist())]
    store = trainer.denoiser.datastore
    return SequentialStep(model, trainer.processing_class, soft, store.vectors, store.types, store.neighbors)


def bars(results: dict[Setting, dict]) -> list[tuple[str, float, list[float], str, float, bool]]:
    """Each of CHECKS that was measured: name, figure, quartiles (where it is a median), at most or at least, bar, whether it is
    met."""
    rows = []
    for name, key, setting, relation, bar in CHECKS:
        if (figures := results.get(setting)) is None:
            continue
        figure = figures["ratios"].get(key, figures.get(key))
        met = figure <= bar if relation == "<=" else figure >= bar
        rows.append((name, figure, figures["quartiles"].get(key, []), relation, bar, met))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the settings of the bars alone; exit 1 where one falls short")
    parser.add_argument("--profile", action="store_true", help="only where the time of a step goes, at the first bar's setting")
    parser.add_argument("--bf16", action="store_true", help="all in mixed precision, as training with --bf16 true has it")
    parser.add_argument("--source_model", help="a source model of the demo with L = 16; trained without it")
    parser.add_argument("--language", default="de")
    parser.add_argument("--corpora", type=Path, help="measure on real sentences: directory of CORPUS/LANGUAGE/SPLIT.iob2.gz")
    parser.add_argument(
        "--pair", type=language_pair, default="wikiann-en-ru", help="with --corpora: CORPUS-SOURCE-TARGET, such as %(default)s"
    )
    parser.add_argument(
        "--repeats", type=int, help="timed batches of each setting; 9, with --quick an epoch of 20 for the sequential step"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpora = f"demo, {options.language}" if options.corpora is None else "-".join(options.pair)
    suffix = f"-{corpora}" * (options.corpora is not None) + "-bf16" * options.bf16
    torch.set_num_threads(os.cpu_count())
    console, results = Console(), {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            real = [] if options.corpora is None else real_corpora(options.corpora, options.pair, directory)
        except FileNotFoundError as error:
            parser.error(f"{error.filename}: no such file. Give the directory of the corpora with --corpora.")
        run, model = trained(options, real, directory)
        if options.profile:
            figures = profile(target_trainer(run, model, BARS[0], options.seed))
            path = ROOT / "benchmarks" / "results" / f"profile{suffix}.json"
            path.write_text(json.dumps({"machine": machine(), "setting": str(BARS[0]), "ms": figures}, indent=2) + "\n")
            console.print_json(data=figures)
            return
        for setting in BARS if options.quick else dict.fromkeys(SWEEP):
            trainer = target_trainer(run, model, setting, options.seed)
            asked = {part for _, figure, at, *_ in CHECKS if at == setting for part in figure.split(" / ")}
            beside = asked.intersection(BESIDE) if options.quick else BESIDE
            repeats = options.repeats or (20 if options.quick and "sequential" in beside else 9)
            results[setting] = figures = measure(trainer, repeats, options.seed, beside)
            search = {name: figures[name] for name in ("recall", "error of the shares", "directions changed")}
            console.print(f"{setting}: {figures['ratios']}, search: {search}")
    console.print(table(results))
    checks = bars(results)
    for name, figure, _, relation, bar, met in checks:
        console.print(f"{'met   ' if met else 'MISSED'} {name}: {figure} ({relation} {bar})")
    record = [asdict(setting) | figures for setting, figures in results.items()]
    settings = {
        "seed": options.seed,
        "corpora": corpora,
        "bf16": options.bf16,
        "threads": torch.get_num_threads(),
    }
    path = ROOT / "benchmarks" / "results" / f"speed{'-quick' * options.quick}{suffix}.json"
    path.write_text(json.dumps({"settings": settings, "machine": machine(), "rows": record}, indent=2) + "\n")
    sys.exit(1 if options.quick and not all(met for *_, met in checks) else 0)


def table(results: dict[Setting, dict]) -> Table:
    grid = Table(title="seconds and ratios, medians")
    names = ("step", "encoder", "packed", "sequential", "denoiser", "head", "optimizer")
    for column in ("setting", *names, "step / encoder", "sequential / step"):
        grid.add_column(column, justify="left" if column == "setting" else "right")
    for setting, figures in results.items():
        cells = [figures["median"].get(name) for name in names]
        cells += [figures["ratios"].get(name) for name in ("step / encoder", "sequential / step")]
        grid.add_row(str(setting), *("" if cell is None else f"{cell:.3f}" for cell in cells))
    return grid


if __name__ == "__main__":
    main()
