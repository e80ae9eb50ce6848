"""What a target-stage step costs beside the encoder alone: python benchmarks/speed.py [--quick]

For each setting, alternating on the same batches of the demo corpus with the demo's backbone and recipe:

    step        the project's: collating, encoder, span head, MLM, denoising, losses, backward, clipping, optimiser
    encoder     the bare encoder's forward and backward on the same token sets (source, target, masked target)
    sequential  the step as the paper's text describes it, one thing after the other (benchmarks/sequential.py)

and, inside the project's step, the denoiser and the optimiser, and the span head by itself. Step and encoder come first by
turns. A ratio is the median of the ratios on one batch, with the quartiles beside it; so are seconds, and the memory that a step
takes at its peak. Datastores beyond the vectors that the corpora give hold noisy copies of them.
--quick measures the settings of the bars alone and exits with 1 where one falls short. Results: benchmarks/results/speed*.json;
tables and plots of them: benchmarks/tables.py. On a GPU: benchmarks/gpu.py.
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
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402
from scale import Meter  # noqa: E402
from sequential import SequentialStep  # noqa: E402

import run_crossner  # noqa: E402
from corpora_glode import SENTENCE  # noqa: E402
from data_glode import build_features  # noqa: E402
from denoising_glode import PseudoLabels  # noqa: E402
from modeling_glode import GlodeConfig, GlodeModel  # noqa: E402
from trainer_glode import GlodeTrainer  # noqa: E402

REAL_VECTORS = 20_000  # a datastore beyond this is filled up with noisy copies


@dataclass(frozen=True)
class Setting:
    """One row of the table: stored vectors, L in words, sentences of each stream a batch, types, demo sentences joined to one."""

    datastore: int = 50_000
    length: int = 8
    batch: int = 16
    types: int = 4
    joined: int = 1

    def __str__(self) -> str:
        return f"{self.datastore:,} stored, L {self.length}, batch {self.batch}, {self.types} types, {self.joined} joined"


BARS = (Setting(200_000), Setting(50_000, length=4), Setting(50_000, length=16))
GROWTH = {
    "datastore": (1_000, 50_000, 200_000, 1_000_000),
    "length": (4, 8, 16),
    "batch": (8, 16, 32),
    "types": (4, 5, 20),
    "joined": (1, 2, 4),
}
RATIOS = ("step / encoder", "sequential / step", "head / encoder", "denoiser / encoder", "optimizer / encoder")
SWEEP = tuple(Setting(**{name: size}) for name, sizes in GROWTH.items() for size in sizes)


def trained(options: argparse.Namespace, directory: str) -> tuple[run_crossner.Run, GlodeModel]:
    """The demo's corpora and tokenizer, and a source model with the longest L of all settings."""
    argv = f"--target_lang {options.language} --output_dir {directory} --disable_tqdm true --report_to none --seed {options.seed}"
    argv += " --max_span_length 16 --eval_strategy no --save_strategy no --load_best_model_at_end false"
    if options.source_model:
        argv += f" --source_model {options.source_model}"
    run = run_crossner.Run(*run_crossner.parse_arguments(argv.split()))
    return run, run.source_stage().model


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


def target_trainer(run: run_crossner.Run, model: GlodeModel, setting: Setting, seed: int) -> GlodeTrainer:
    """A target-stage trainer in its third epoch: a trained model, its pseudo labels, thresholds, and a full datastore."""
    model = varied(model, setting, seed)
    labels = list(model.config.id2label.values())
    source, target = (joined(corpus, setting.joined, setting.types) for corpus in (run.corpora.source, run.corpora.target))
    source = build_features(source, run.tokenizer, model.config.max_tokens, setting.length, labels)
    target = build_features(target, run.tokenizer, model.config.max_tokens, setting.length)
    arguments = replace(run.training, per_device_train_batch_size=setting.batch, datastore_size=setting.datastore)
    streams = {"source": source, "target": target}
    pseudo_labels = GlodeTrainer(model, arguments, run.tokenizer, **streams).assign_pseudo_labels(target)
    trainer = GlodeTrainer(model, arguments, run.tokenizer, **streams, pseudo_labels=pseudo_labels)
    trainer.state.max_steps = 100
    denoiser, store = trainer.denoiser, trainer.denoiser.datastore
    for epoch in (1, 2):  # the second pass knows the datastore, and with it the local thresholds
        fill(trainer, min(setting.datastore, REAL_VECTORS))
        denoiser.begin_epoch(epoch)
        copies = -(-setting.datastore // len(store))
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(copies * len(store), generator=generator)[: setting.datastore] % len(store)
        vectors, types = store.vectors[chosen], store.types[chosen]
        noise = torch.randn(vectors.shape, generator=generator)
        store.store(F.normalize(vectors + 0.03 * noise * (copies > 1), dim=-1), types)
    trainer.state.epoch = 2.0
    trainer.create_optimizer_and_scheduler(100)
    return trainer


@torch.no_grad()
def fill(trainer: GlodeTrainer, number: int) -> None:
    """Pass the corpora through the denoiser until the datastore's next vectors are `number`."""
    size, store = 2 * trainer.args.per_device_train_batch_size, trainer.denoiser.datastore
    trainer.model.train()
    for epoch in itertools.count():
        trainer.sampler.set_epoch(epoch)
        indices = list(trainer.sampler)
        for at in range(0, len(indices), size):
            batch = trainer.data_collator(trainer.train_dataset.__getitems__(indices[at : at + size]))
            batch.pop("mlm_labels", None)
            rows = len(batch["first_token"])
            batch |= {name: batch[name][:rows] for name in ("input_ids", "attention_mask")}
            trainer.state.global_step = 1000 * epoch + at
            trainer.compute_loss(trainer.model, batch)
            if sum(len(types) for _, types, *_ in store.collected) >= number:
                return


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
        """Of all repeats but the first."""
        return {name: round(statistics.median(values[1:]), 4) for name, values in self.seconds.items()}

    def ratios(self) -> dict[str, list[float]]:
        """First quartile, median and third quartile of what one batch's parts cost beside each other."""
        pairs = (name.split(" / ") for name in RATIOS)
        quotients = ([a / b for a, b in zip(*(self.seconds[name][1:] for name in pair), strict=True)] for pair in pairs)
        return {name: [round(q, 4) for q in statistics.quantiles(values)] for name, values in zip(RATIOS, quotients, strict=True)}


def measure(trainer: GlodeTrainer, repeats: int, seed: int) -> dict:
    """Seconds of the step, its parts, the bare encoder, the span head alone and the sequential step, batch by batch in turn."""
    model, optimizer, denoiser, timer = trainer.model, trainer.optimizer, trainer.denoiser, Timer()
    model.train()
    indices, size = list(trainer.sampler), 2 * trainer.args.per_device_train_batch_size
    sequential = sequential_step(trainer)
    generator = torch.Generator().manual_seed(seed)
    inner = denoiser.step
    denoiser.step = lambda *args, **kwargs: timer("denoiser", inner, *args, **kwargs)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    def step(rows: list[dict]) -> None:
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, trainer._prepare_inputs(trainer.data_collator(rows)))
        loss.backward()
        timer("optimizer", update)

    def one_by_one(source: list[dict], target: list[dict]) -> None:
        with trainer.compute_loss_context_manager():
            loss = sequential.loss(source, target)
        loss.backward()
        update()

    def encoder(batch: dict, gradient: torch.Tensor) -> None:
        with trainer.compute_loss_context_manager():
            hidden = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        hidden.backward(gradient.to(hidden))
        optimizer.zero_grad()

    def head(batch: dict, hidden: torch.Tensor) -> None:
        words = {name: batch[name] for name in ("first_token", "last_token", "word_shapes")}
        with trainer.compute_loss_context_manager():
            logits = model.score_spans(hidden, **words, return_projection=True)["logits"]
        logits.backward(torch.ones_like(logits))
        optimizer.zero_grad()

    for repeat in range(repeats + 1):
        chosen = [indices[(repeat * size + i) % len(indices)] for i in range(size)]
        rows = trainer.train_dataset.__getitems__(chosen)
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        gradient = 1e-3 * torch.randn(*batch["input_ids"].shape, model.config.encoder_config.hidden_size)
        turns = [("step", step, rows), ("encoder", encoder, batch, gradient)]
        for turn in turns if repeat % 2 else reversed(turns):
            timer(*turn)
        hidden = torch.randn(gradient[: len(batch["window"])].shape, device=model.device, requires_grad=True)
        timer("head", head, batch, hidden)
        drawn = torch.randint(len(indices) // 2, (2, size // 2), generator=generator)
        source, target = trainer.train_dataset.source, trainer.train_dataset.target
        source_rows = [source[i] for i in (drawn[0] % len(source)).tolist()]
        target_rows = [target[i] | {"window": i} for i in (drawn[1] % len(target)).tolist()]
        timer("sequential", one_by_one, source_rows, target_rows)
    denoiser.step = inner
    store = denoiser.datastore
    search = {"recall": round(store.recall, 4), "error of the shares": round(store.deviation, 6)}
    quartiles = timer.ratios()
    return {
        "median": timer.medians(),
        "ratios": {name: median for name, (_, median, _) in quartiles.items()},
        "quartiles": {name: [first, third] for name, (first, _, third) in quartiles.items()},
        **search,
        "tokens": batch["input_ids"].numel(),
        "peak_mb": peak_memory(step, rows),
    }


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
            return trainer.compute_loss(model, trainer._prepare_inputs(trainer.data_collator(rows)))

        loss = timer("collating, forward, denoiser, losses", losses)
        timer("backward", loss.backward)
        timer("clipping", torch.nn.utils.clip_grad_norm_, model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    for name, (owner, method) in parts.items():
        setattr(owner, method, kept[name])
    calls = {name: values[len(values) // (steps + 1) :] for name, values in timer.seconds.items()}
    return {name: round(1000 * sum(values) / steps, 1) for name, values in calls.items()}


def sequential_step(trainer: GlodeTrainer) -> SequentialStep:
    """The sequential step on the trainer's model, pseudo labels and datastore."""
    labels: PseudoLabels = trainer.denoiser.pseudo_labels
    soft = [part.clone() for part in labels.probabilities.split(labels.offsets.diff().tolist())]
    store = trainer.denoiser.datastore
    return SequentialStep(trainer.model, trainer.processing_class, soft, store.vectors, store.types, store.neighbors)


def bars(results: dict[Setting, dict]) -> list[tuple[str, float, str, float]]:
    """What is asked for: name, figure, at most or at least, bar."""
    large, short, long = (results[setting]["ratios"] for setting in BARS)
    return [
        ("step / encoder, 200,000 stored, L 8", large["step / encoder"], "<=", 1.10),
        ("sequential / step, 50,000 stored, L 4", short["sequential / step"], ">=", 2.0),
        ("head / encoder, L 16", long["head / encoder"], "<=", 0.05),
        ("denoiser / encoder, 200,000 stored, L 8", large["denoiser / encoder"], "<=", 0.05),
        ("recall@K of the search, 200,000 stored", results[BARS[0]]["recall"], ">=", 0.95),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the settings of the bars alone; exit 1 where one falls short")
    parser.add_argument("--profile", action="store_true", help="only where the time of a step goes, at the first bar's setting")
    parser.add_argument("--source_model", help="a source model of the demo with L = 16; trained without it")
    parser.add_argument("--language", default="de")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats of each setting")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    console, results = Console(), {}
    with tempfile.TemporaryDirectory() as directory:
        run, model = trained(options, directory)
        if options.profile:
            figures = profile(target_trainer(run, model, BARS[0], options.seed))
            path = ROOT / "benchmarks" / "results" / "profile.json"
            path.write_text(json.dumps({"machine": machine(), "setting": str(BARS[0]), "ms": figures}, indent=2) + "\n")
            console.print_json(data=figures)
            return
        for setting in BARS if options.quick else dict.fromkeys((*BARS, *SWEEP)):
            trainer = target_trainer(run, model, setting, options.seed)
            results[setting] = figures = measure(trainer, options.repeats, options.seed)
            console.print(f"{setting}: {figures['ratios']}, recall {figures['recall']}")
    console.print(table(results))
    checks = bars(results)
    missed = [check for check in checks if not (check[1] <= check[3] if check[2] == "<=" else check[1] >= check[3])]
    for check in checks:
        name, figure, relation, bar = check
        console.print(f"{'MISSED' if check in missed else 'met   '} {name}: {figure} ({relation} {bar})")
    record = [asdict(setting) | figures for setting, figures in results.items()]
    settings = {
        "repeats": options.repeats,
        "seed": options.seed,
        "language": options.language,
        "threads": torch.get_num_threads(),
    }
    path = ROOT / "benchmarks" / "results" / ("speed-quick.json" if options.quick else "speed.json")
    path.write_text(json.dumps({"settings": settings, "machine": machine(), "rows": record}, indent=2) + "\n")
    sys.exit(1 if options.quick and missed else 0)


def table(results: dict[Setting, dict]) -> Table:
    grid = Table(title="seconds and ratios, medians")
    names = ("step", "encoder", "sequential", "denoiser", "head", "optimizer")
    for column in ("setting", *names, "step / encoder", "sequential / step"):
        grid.add_column(column, justify="left" if column == "setting" else "right")
    for setting, figures in results.items():
        seconds = [f"{figures['median'][name]:.3f}" for name in names]
        grid.add_row(
            str(setting), *seconds, *(f"{figures['ratios'][name]:.3f}" for name in ("step / encoder", "sequential / step"))
        )
    return grid


if __name__ == "__main__":
    main()
