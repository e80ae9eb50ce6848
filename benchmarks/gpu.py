"""What a target-stage step costs on a GPU: python benchmarks/gpu.py

An XLM-R-large-shaped encoder with random weights in bf16, 32 sentences of about 64 tokens of each stream, L = 8, 50,000 stored
vectors: the project's step beside the bare encoder's and the sequential step, as benchmarks/speed.py has them; model FLOP
utilisation (what the encoder alone computes in the time of a whole step, of what the GPU can do); and where a step waits for the
GPU (host synchronisations by line). Bars: step / encoder <= 1.10, sequential / step >= 4, no synchronisation.

Without a GPU it says so, and benchmarks/results/gpu.json stays as it is; --tiny runs the same code on a CPU with a tiny
encoder, for the code's sake, and writes nothing.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoTokenizer, XLMRobertaConfig

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402
from speed import Setting, as_trained, measure, target_trainer, token_sets  # noqa: E402

import run_crossner  # noqa: E402
from trainer_glode import GlodeTrainer  # noqa: E402

SETTING = Setting(50_000, length=8, batch=32, joined=4)  # four of the demo's sentences are about 64 tokens
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def random_backbone(shape: dict[str, int], directory: str) -> str:
    """An encoder of this shape with random weights and the demo's tokenizer, as a directory."""
    demo = run_crossner.Run(*run_crossner.parse_arguments(["--target_lang", "de", "--output_dir", f"{directory}/demo"]))
    tokenizer = AutoTokenizer.from_pretrained(demo.path)
    pieces = 250_002 if shape is LARGE else len(tokenizer)  # as XLM-R has
    config = XLMRobertaConfig(vocab_size=pieces, max_position_embeddings=514, type_vocab_size=1, **shape)
    AutoModel.from_config(config).save_pretrained(f"{directory}/encoder")
    tokenizer.save_pretrained(f"{directory}/encoder")
    return f"{directory}/encoder"


def encoder_flops(trainer: GlodeTrainer) -> tuple[int, int]:
    """What the encoder's forward and backward compute for a batch, and the tokens of that batch."""
    indices = list(trainer.sampler)[: 2 * trainer.args.per_device_train_batch_size]
    parts = token_sets(trainer, trainer.train_dataset.__getitems__(indices))
    with FlopCounterMode(display=False) as counter, trainer.accelerator.autocast():
        sum(trainer.model.encoder(**part).last_hidden_state.sum() for part in parts).backward()
    trainer.optimizer.zero_grad()
    return counter.get_total_flops(), sum(part["input_ids"].numel() for part in parts)


def synchronisations(trainer: GlodeTrainer) -> dict[str, int]:
    """How often a step waits for the GPU, by file and line."""
    indices = list(trainer.sampler)[: 2 * trainer.args.per_device_train_batch_size]
    batch = trainer._prepare_inputs(trainer.data_collator(trainer.train_dataset.__getitems__(indices)))
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.compute_loss(as_trained(trainer), batch).backward()
    torch.cuda.set_sync_debug_mode("default")
    trainer.optimizer.zero_grad()
    places = (f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    return dict(Counter(places).most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the same code with a tiny encoder on whatever is there")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None and not options.tiny:
        print("no GPU here: not measured")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        backbone = random_backbone(TINY if options.tiny else LARGE, directory)
        argv = f"--config {ROOT}/glode/run/recipes/demo.yaml --target_lang de "
        argv += f"--model_name_or_path {backbone} --output_dir {directory}/run"
        argv += f" --max_span_length 16 --bf16 {str(not options.tiny).lower()} --freeze_embeddings false --report_to none"
        argv += " --disable_tqdm true --eval_strategy no --save_strategy no --load_best_model_at_end false"
        run = run_crossner.Run(*run_crossner.parse_arguments([*argv.split(), "--seed", str(options.seed)]))
        trainer = target_trainer(run, run.fresh_model(), SETTING, options.seed)
        figures = measure(trainer, options.repeats, options.seed)
        flops, tokens = encoder_flops(trainer)
        peak = next((value for name, value in PEAK_FLOPS.items() if gpu and name in gpu), None)
        rate = flops / tokens * figures["tokens"] / figures["median"]["step"]
        figures["model FLOP utilisation"] = round(rate / peak, 4) if peak else "not known: the GPU's peak is not in PEAK_FLOPS"
        figures["synchronisations"] = synchronisations(trainer) if gpu else "not measured: no GPU"
    Console().print_json(data=figures)
    if not options.tiny:
        content = {"machine": machine() | {"gpu": gpu}, "setting": asdict(SETTING), "encoder": LARGE, "seed": options.seed}
        path = ROOT / "benchmarks" / "results" / "gpu.json"
        path.write_text(json.dumps(content | figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
