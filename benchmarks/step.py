"""What a target-stage step costs beside the encoder: python benchmarks/step.py

Alternates, on the same batches of the demo corpus with the demo backbone, (a) the whole step (collating, encoder, span head, MLM,
denoising with a full datastore, loss, backward, clipping, optimiser) and (b) the bare encoder's forward and backward on the same
tokens. Prints medians and their ratio, and the parts of (a); writes benchmarks/results/step.json.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402

import run_crossner  # noqa: E402


def target_trainer(options: argparse.Namespace, directory: str):
    """A target-stage trainer on the demo that stands in its third epoch: a trained model, its pseudo labels, and a datastore of
    the corpora's own span vectors."""
    argv = f"--target_lang {options.language} --output_dir {directory} --disable_tqdm true --report_to none --seed 0"
    argv += f" --per_device_train_batch_size {options.batch_size} --max_span_length {options.length} --eval_strategy no"
    argv += " --save_strategy no --load_best_model_at_end false"
    run = run_crossner.Run(*run_crossner.parse_arguments(argv.split()))
    source = run.source_stage()
    trainer = run.trainer(source.model, "target", source.assign_pseudo_labels(run.target))
    denoiser, store = trainer.denoiser, trainer.denoiser.datastore
    store.exact_size, store.outside_share = options.exact_size, 0.3
    trainer.state.max_steps = 100
    for epoch in (0, 1):  # the second pass knows the datastore, and with it the local thresholds
        fill(trainer, options.datastore)
        denoiser.begin_epoch(epoch + 1)
    trainer.state.epoch = 2.0
    trainer.create_optimizer_and_scheduler(100)
    return trainer


@torch.no_grad()
def fill(trainer, number: int) -> None:
    """Pass the corpora through the denoiser until the datastore's next vectors are `number`."""
    size, store = 2 * trainer.args.per_device_train_batch_size, trainer.denoiser.datastore
    trainer.model.train()
    for step in itertools.count():
        trainer.sampler.set_epoch(step)
        indices = list(trainer.sampler)
        for at in range(0, len(indices), size):
            batch = trainer.data_collator(trainer.train_dataset.__getitems__(indices[at : at + size]))
            spans = {name: batch[name] for name in ("labels", "window", "own_start", "span_mask")}
            rows = len(batch["first_token"])
            tokens = {name: batch[name][:rows] for name in ("input_ids", "attention_mask")}
            words = {name: batch[name] for name in ("first_token", "last_token", "word_shapes")}
            projection = trainer.model(**tokens, **words, return_projection=True).projection
            trainer.denoiser.step(projection, **spans, step=1000 * step + at, beta=None)
            if sum(len(types) for _, types, *_ in store.collected) >= number:
                store.collected = [tuple(torch.cat(column)[:number] for column in zip(*store.collected, strict=True))]
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datastore", type=int, default=50_000, help="stored vectors")
    parser.add_argument("--exact_size", type=int, default=20_000, help="beyond so many vectors the search is approximate")
    parser.add_argument("--length", type=int, default=8, help="L, in words")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--language", default="de")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    with tempfile.TemporaryDirectory() as directory:
        trainer = target_trainer(options, directory)
        figures = measure(trainer, options.repeats)
        store = trainer.denoiser.datastore
        figures |= {"recall of the search": round(store.recall, 4), "error of the shares": round(store.deviation, 4)}
        figures["stored O spans"] = round(float((store.types == 0).float().mean()), 4)
    figures |= {"settings": vars(options), "threads": torch.get_num_threads(), "machine": machine()}
    for name, value in figures.items():
        print(f"{name:24} {value}")
    path = ROOT / "benchmarks" / "results" / "step.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")


def measure(trainer, repeats: int) -> dict:
    """Medians in seconds, of the whole step, the bare encoder and the parts that are timed inside the step."""
    model, optimizer = trainer.model, trainer.optimizer
    model.train()
    indices = list(trainer.sampler)
    size = trainer.args.per_device_train_batch_size * 2
    parts: dict[str, list[float]] = {name: [] for name in ("step", "encoder", "denoiser", "optimizer", "collate")}
    inner = trainer.denoiser.step

    def timed_denoiser(*args, **kwargs):
        start = time.perf_counter()
        result = inner(*args, **kwargs)
        parts["denoiser"].append(time.perf_counter() - start)
        return result

    trainer.denoiser.step = timed_denoiser
    for repeat in range(repeats + 1):
        chosen = indices[(repeat * size) % len(indices) :][:size]
        start = time.perf_counter()
        batch = trainer.data_collator(trainer.train_dataset.__getitems__(chosen))
        collated = time.perf_counter()
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        trainer.compute_loss(model, dict(batch)).backward()
        computed = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        end = time.perf_counter()
        model.encoder(**tokens).last_hidden_state.sum().backward()
        encoder = time.perf_counter() - end
        optimizer.zero_grad()
        for name, seconds in (
            ("step", end - start),
            ("encoder", encoder),
            ("collate", collated - start),
            ("optimizer", end - computed),
        ):
            parts[name].append(seconds)
    medians = {name: statistics.median(values[1:]) for name, values in parts.items()}
    # Batches differ in size, so the share is that of all the time, and the median over the batches stands beside it.
    step, encoder = (sum(parts[name][1:]) for name in ("step", "encoder"))
    shares = [1 - bare / whole for whole, bare in zip(parts["step"][1:], parts["encoder"][1:], strict=True)]
    medians |= {
        "step / encoder": step / encoder,
        "share beside encoder": 1 - encoder / step,
        "its median": statistics.median(shares),
    }
    return {name: round(value, 4) for name, value in medians.items()}


if __name__ == "__main__":
    main()
