"""What a target-stage step costs beside the encoder alone: python benchmarks/speed.py [--quick] [--bf16]

For each setting, alternating on the same batches of the demo corpus with the demo's backbone and recipe:

    step        the project's: collating, encoder, span head, MLM, denoising, losses, backward, clipping, optimiser
    encoder     the bare encoder's forward and backward on the same token sets (source; target and masked target), as transformers
                has it: padded rows, nn.Dropout
    sequential  the step as the paper's text describes it, one thing after the other (benchmarks/sequential.py)

and, inside the project's step, the denoiser. "encoder" and "sequential" multiply matrices as torch does by itself, the step as
run_crossner.py does. Step and encoder come first by turns. A ratio is the median of the ratios on one batch; the sequential step
draws its batches at random, so that it is compared over all batches together, which hold the same sentences. Datastores beyond
the vectors that the corpora give hold noisy copies of them. A blur is the standard deviation of noise on each coordinate of
stored vectors and queries; with 0.25 they cluster as badly as those of real corpora.

Exits with 1 where a bar is missed. --quick times fewer batches. --bf16 puts all that is compared into mixed precision. Results:
benchmarks/results/speed.csv. On a GPU: benchmarks/gpu.py.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from common import ROOT, machine, options_of, print_bars, read_rows, write_rows
from datasets import Dataset
from sequential import SequentialStep
from torch.nn import functional as F
from transformers import AutoTokenizer, HfArgumentParser, PreTrainedTokenizerBase

from glode.corpora.reading import load_corpus
from glode.fast.products import faster_products
from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import GlodeTrainer

RECIPE = ROOT / "glode/run/recipes/demo.yaml"
SOURCE, TARGET = ROOT / "glode/run/demo/en/train.iob2", ROOT / "glode/run/demo/de/unlabeled.txt"
SEED = 0
# The step is the paper's, whatever the demo's recipe is.
STEP = {"denoising": "both", "refine": "step", "self_direction": False, "local_threshold_scale": 1.0}
STEP |= {"auxiliary_task": "mlm", "mlm_vocabulary": "target", "refine_start": 0.6, "beta_epochs": 3}
QUIET = {"disable_tqdm": True, "report_to": "none", "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
REPEATS = 60  # batches that are timed, of each setting
WARM_UP = 3  # repeats before the first that counts: until then memory is fetched from the system
REAL_VECTORS = 20_000  # a datastore beyond this is filled up with noisy copies
COPY_NOISE = 0.03  # on each coordinate of a copy
SETTINGS = {  # stored vectors, L in words, blur, what is measured beside the step
    "200,000 stored, L 8": (200_000, 8, 0.0, ("encoder",)),
    "50,000 stored, L 4": (50_000, 4, 0.0, ("sequential",)),
    "30,000 stored that hardly cluster": (30_000, 8, 0.25, ("encoder",)),
}
CHECKS = (  # what is asked for: a figure, of which setting, at most or at least, how much
    ("step / encoder", "200,000 stored, L 8", "<=", 1.10),
    ("sequential / step", "50,000 stored, L 4", ">=", 2.0),
    ("denoiser / encoder", "200,000 stored, L 8", "<=", 0.05),
    ("denoiser / encoder", "30,000 stored that hardly cluster", "<=", 0.05),
    ("recall@K", "200,000 stored, L 8", ">=", 0.95),
)


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
    path = options.source_model or directory / "source_model"
    if not options.source_model:
        command = ["--config", str(RECIPE), "--stage", "source", "--target_lang", "de", "--output_dir", str(directory)]
        command += ["--max_span_length", "8", "--disable_tqdm", "true", "--report_to", "none"]
        subprocess.run([sys.executable, str(ROOT / "run_crossner.py"), *command], check=True)
    model = GlodeModel.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path, config=model.config)
    source, target = load_corpus(str(SOURCE), labelled=True), load_corpus(str(TARGET), labelled=False)
    return Parts(model, tokenizer, training_arguments(directory, bf16=options.bf16), source, target)


def training_arguments(directory: Path, **values) -> GlodeTrainingArguments:
    """The demo recipe's, without what a training does beside its steps."""
    values = {"use_cpu": not torch.cuda.is_available(), "output_dir": str(directory), "seed": SEED} | STEP | QUIET | values
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | values
    return HfArgumentParser(GlodeTrainingArguments).parse_dict(recipe, allow_extra_keys=True)[0]


def copied(model: GlodeModel, length: int) -> GlodeModel:
    """A copy of a model with this L or less, which reads padded rows, with the encoder's own attention and dropout."""
    copy = GlodeModel(GlodeConfig.from_dict(model.config.to_dict() | {"max_span_length": length})).to(model.device)
    state = model.state_dict()
    state["length_embedding.weight"] = state["length_embedding.weight"][:length]
    copy.load_state_dict(state)
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        ours.requires_grad_(theirs.requires_grad)
    return copy


def target_trainer(parts: Parts, stored: int, length: int, blur: float = 0.0, batch_size: int = 16) -> GlodeTrainer:
    """A target-stage trainer in its third epoch: a trained model, its pseudo labels, thresholds, and a full datastore.

    Args:
        stored: vectors in the datastore.
        length: L.
        blur: the standard deviation of the noise on each coordinate of stored vectors; 0 puts a little on copies alone.
        batch_size: sentences of each stream.
    """
    model = copied(parts.model, length)
    sizes = (parts.tokenizer, model.config.max_tokens, length)
    streams = {
        "source": build_features(parts.source, *sizes, list(model.config.id2label.values())),
        "target": build_features(parts.target, *sizes),
    }
    arguments = replace(parts.arguments, per_device_train_batch_size=batch_size, datastore_size=stored)
    labels = GlodeTrainer(model, arguments, parts.tokenizer, **streams).assign_pseudo_labels(streams["target"])
    trainer = GlodeTrainer(model, arguments, parts.tokenizer, **streams, pseudo_labels=labels)
    trainer.state.max_steps = 100
    store, generator = trainer.denoiser.datastore, torch.Generator().manual_seed(SEED)
    for epoch in (1, 2):  # the second pass knows the datastore, and with it the local thresholds
        fill(trainer, min(stored, REAL_VECTORS))
        trainer.denoiser.begin_epoch(epoch)
        copies = -(-stored // len(store))
        chosen = torch.randperm(copies * len(store), generator=generator)[:stored] % len(store)
        vectors, types = store.vectors[chosen], store.types[chosen]
        noise = blur or COPY_NOISE * (copies > 1)
        store.store(F.normalize(vectors + noise * torch.randn(vectors.shape, generator=generator).to(vectors), dim=-1), types)
    trainer.state.epoch = 2.0
    trainer.create_optimizer_and_scheduler(100)
    return trainer


@torch.no_grad()
def fill(trainer: GlodeTrainer, number: int) -> None:
    """Pass the corpora through the denoiser until the datastore's next vectors are `number`."""
    collator = replace(trainer.data_collator, mlm_probability=0.0)
    trainer.model.train()
    for epoch in itertools.count():
        trainer.sampler.set_epoch(epoch)
        for position, indices in enumerate(batches_of(trainer)):
            batch = trainer._prepare_inputs(collator(trainer.train_dataset.__getitems__(indices.tolist())))
            trainer.state.global_step = 1000 * epoch + position
            trainer.compute_loss(trainer.model, batch)
            if len(trainer.denoiser.datastore.reservoir) >= number:
                return


def batches_of(trainer: GlodeTrainer) -> torch.Tensor:
    """The windows of the sampler's epoch, source and target: [batches, 2 * batch size]."""
    return torch.tensor(list(trainer.sampler)).view(-1, 2 * trainer.args.per_device_train_batch_size)


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


class Bench:
    """A trainer, and the work that is timed on its batches. A blur is put on the vectors that the denoiser gets."""

    def __init__(self, trainer: GlodeTrainer, blur: float = 0.0):
        self.trainer, self.model, self.timer, self.blur = trainer, trainer.model.train(), Timer(), blur
        self.size, self.forward = trainer.args.per_device_train_batch_size, trainer.accelerator.autocast()(self.model.forward)
        self.plain = copied(self.model, self.model.config.max_span_length).train()
        self.plain_optimizer = torch.optim.AdamW([p for p in self.plain.parameters() if p.requires_grad], 1e-5, fused=True)
        self.sequential = SequentialStep(trainer, self.plain)
        self.denoise, trainer.denoiser.step = trainer.denoiser.step, self.timed_denoising

    def rows(self, indices: torch.Tensor) -> list[dict]:
        return self.trainer.train_dataset.__getitems__(indices.tolist())

    def batch(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return self.trainer._prepare_inputs(self.trainer.data_collator(rows))

    def step(self, rows: list[dict]) -> None:
        self.learn(self.batch(rows))

    @faster_products()
    def learn(self, batch: dict[str, torch.Tensor]) -> None:
        self.trainer.compute_loss(self.forward, batch).backward()
        self.update(self.model, self.trainer.optimizer)

    def timed_denoising(self, vectors: torch.Tensor, **spans) -> torch.Tensor:
        if self.blur:
            vectors = F.normalize(vectors + self.blur * torch.randn_like(vectors), dim=-1)
        return self.timer("denoiser", self.denoise, vectors, **spans)

    def one_by_one(self, rows: list[dict]) -> None:
        with self.trainer.accelerator.autocast():
            loss = self.sequential.loss(rows[: self.size], rows[self.size :])
        loss.backward()
        self.update(self.plain, self.plain_optimizer)

    def update(self, model: GlodeModel, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    def encoder(self, inputs: Sequence[dict]) -> None:
        with self.trainer.accelerator.autocast():
            hidden = [self.plain.encoder(**part).last_hidden_state for part in inputs]
        torch.autograd.backward(hidden, [torch.full_like(part, 1e-3) for part in hidden])
        self.plain.zero_grad()

    def turn(self, number: int, indices: torch.Tensor, mixed: torch.Tensor, beside: Sequence[str]) -> None:
        """All work on one batch, and the sequential step on one of random sentences."""
        rows = self.rows(indices)
        turns = [("step", self.step, rows)]
        if "encoder" in beside:
            turns.append(("encoder", self.encoder, token_sets(self.trainer, rows)))
        for work in turns if number % 2 else reversed(turns):
            self.timer(*work)
        if "sequential" in beside:
            self.timer("sequential", self.one_by_one, self.rows(mixed))


def measure(bench: Bench, repeats: int, beside: Sequence[str]) -> dict[str, float]:
    """Medians in seconds and of ratios, batch by batch in turn, of the step and what is measured beside it."""
    epoch = batches_of(bench.trainer)
    batches = epoch[torch.arange(WARM_UP + repeats) % len(epoch)]
    mixed, generator = batches.clone(), torch.Generator().manual_seed(SEED)
    for stream in mixed[WARM_UP:].chunk(2, dim=1):  # sentences in random order over all batches that count
        stream[:] = stream.flatten()[torch.randperm(stream.numel(), generator=generator)].view_as(stream)
    for number in range(len(batches)):
        bench.turn(number, batches[number], mixed[number], beside)
    seconds = {name: values[WARM_UP:] for name, values in bench.timer.seconds.items()}
    figures = {"repeats": repeats} | {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    for part in ("step", "denoiser"):
        if "encoder" in seconds:
            ratios = [a / b for a, b in zip(seconds[part], seconds["encoder"], strict=True)]
            figures[f"{part} / encoder"] = round(statistics.median(ratios), 4)
    if "sequential" in seconds:
        figures["sequential / step"] = round(sum(seconds["sequential"]) / sum(seconds["step"]), 4)
    return figures | {"recall@K": round(float(bench.trainer.denoiser.datastore.recall), 4)}


def token_sets(trainer: GlodeTrainer, rows: list[dict]) -> list[dict[str, torch.Tensor]]:
    """What passes the encoder, in padded rows: the source, and the target with its masked copies."""
    batch = trainer._prepare_inputs(replace(trainer.data_collator, first_position=None)(rows))
    tokens, mask, source = batch["input_ids"], batch["attention_mask"], trainer.args.per_device_train_batch_size
    parts = []
    for part in (slice(0, source), slice(source, None)):
        width = int(mask[part].sum(1).max())
        parts.append({"input_ids": tokens[part, :width], "attention_mask": mask[part, :width]})
    return parts


# -------------------------------------------------------------------------------------------------------------------- report


def bars(rows: Sequence[dict]) -> list[tuple[str, float, str, float]]:
    """Each of CHECKS, of one run: name, figure, at most or at least, bar."""
    found = {row["setting"]: row for row in rows}
    return [(f"{name}, {setting}", float(found[setting][name]), sign, bar) for name, setting, sign, bar in CHECKS]


def main(argv: list[str]) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="time a third of the batches")
    parser.add_argument("--bf16", action="store_true", help="all in mixed precision, as training with --bf16 true has it")
    parser.add_argument("--source_model", type=Path, help="a source model of the demo with L = 8; trained without it")
    options = parser.parse_args(argv)
    run = "bf16" if options.bf16 else "fp32"
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        parts = prepare(options, Path(directory))
        for name, (stored, length, blur, beside) in SETTINGS.items():
            bench = Bench(target_trainer(parts, stored, length, blur), blur)
            figures = measure(bench, REPEATS // 3 if options.quick else REPEATS, beside)
            rows.append({"run": run, "setting": name, **figures, **machine()})
            print(name, figures, flush=True)
    write_rows("speed", [row for row in read_rows("speed") if row["run"] != run] + rows)
    return 0 if print_bars(bars(rows)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
