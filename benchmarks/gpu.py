"""What a target-stage step costs on a GPU: python benchmarks/gpu.py

An XLM-R-large-shaped encoder with random weights in bf16, 32 sentences of about 64 tokens of each stream, L = 8, 200,000 stored
vectors: the project's step beside the bare encoder's and the sequential step, as benchmarks/speed.py has them; model FLOP
utilisation (what the encoder alone computes in the time of a whole step, of what the GPU can do); how often a step waits for the
GPU (host synchronisations); and words a second of tagging. Bars: step / encoder <= 1.10, sequential / step >= 4, at most 3
synchronisations. Writes benchmarks/results/gpu.csv.

Without a GPU it says so and writes nothing; --tiny runs the same code with a tiny encoder on what is there, and writes nothing.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from common import ROOT, machine, print_bars, write_rows
from speed import DEMO, Bench, Parts, Setting, measure, target_trainer, token_sets, training_arguments
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase, XLMRobertaConfig

sys.path.insert(0, str(ROOT))

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from glode.run.embedded import convert_e5
from modeling_glode import GlodeConfig, GlodeModel

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def random_parts(shape: dict[str, int], pieces: int, tokenizer: PreTrainedTokenizerBase, directory: Path, seed: int) -> Parts:
    """The demo's corpora, and a model on an encoder of this shape with random weights."""
    source, target = load_corpus(str(DEMO / "en" / "train.iob2"), True), load_corpus(str(DEMO / "de" / "unlabeled.txt"), False)
    torch.manual_seed(seed)
    encoder = XLMRobertaConfig(vocab_size=pieces, max_position_embeddings=514, type_vocab_size=1, **shape)
    AutoModel.from_config(encoder).save_pretrained(directory / "encoder")
    config = GlodeConfig(encoder, max_span_length=16, id2label=dict(enumerate(label_names(source))))
    model = GlodeModel.from_encoder(str(directory / "encoder"), config)
    arguments = training_arguments(directory, bf16=shape is LARGE, seed=seed, freeze_embeddings=False)
    return Parts(model, tokenizer, arguments, source, target)


def flop_utilisation(bench: Bench, rows: list[dict], seconds: float, gpu: str | None) -> float | None:
    """What the encoder's forward and backward compute for a batch, of what the GPU can do in the seconds of a step."""
    with FlopCounterMode(display=False) as counter, bench.trainer.accelerator.autocast():
        sum(bench.model.encoder(**part).last_hidden_state.sum() for part in token_sets(bench.trainer, rows)).backward()
    bench.model.zero_grad()
    peak = next((value for name, value in PEAK_FLOPS.items() if gpu and name in gpu), None)
    return round(counter.get_total_flops() / seconds / peak, 4) if peak else None


def synchronisations(bench: Bench, rows: list[dict]) -> int:
    """How often a step waits for the GPU; where, is printed. Its batch is there already: a training's loader does not wait."""
    batch = bench.trainer._prepare_inputs(bench.trainer.data_collator(rows))
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench.trainer.compute_loss(bench.forward, batch).backward()
        bench.update(bench.model, bench.trainer.optimizer)
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    print("synchronisations:", *places)
    return len(places)


def words_a_second(parts: Parts, number: int) -> float:
    """Of `predict`, over so many of the demo's sentences."""
    sentences = (list(parts.target["words"]) * (number // len(parts.target) + 1))[:number]
    parts.model.predict(sentences[:64], parts.tokenizer)
    start = time.perf_counter()
    parts.model.predict(sentences, parts.tokenizer, batch_size=64)
    return round(sum(map(len, sentences)) / (time.perf_counter() - start), 1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the same code with a tiny encoder on whatever is there")
    parser.add_argument("--tokenizer", help="directory of a fast tokenizer. Default: the embedded encoder's")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None and not options.tiny:
        print("no GPU here: not measured")
        return 0
    # Four of the demo's sentences are about 64 tokens.
    setting = Setting(2_000, batch=2, joined=4) if options.tiny else Setting(200_000, batch=32, joined=4)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = (line for path in DEMO.glob("*/*") for line in path.read_text(encoding="utf-8").splitlines())
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or convert_e5(directory, text))
        pieces = len(tokenizer) if options.tiny else 250_002  # as XLM-R has
        parts = random_parts(TINY if options.tiny else LARGE, pieces, tokenizer, directory, options.seed)
        trainer = target_trainer(parts, setting, options.seed)
        figures = measure(trainer, options.repeats, options.seed)
        bench, indices = Bench(trainer), torch.tensor(list(trainer.sampler)[: 2 * setting.batch])
        rows = bench.rows(indices)
        figures["model FLOP utilisation"] = flop_utilisation(bench, rows, float(figures["step"]), gpu)
        figures["synchronisations"] = synchronisations(bench, rows) if gpu else None
        figures["words a second"] = words_a_second(parts, 100 if options.tiny else 5000)
    print(figures)
    if options.tiny:
        return 0
    write_rows("gpu", [figures | {"seed": options.seed, "gpu": gpu} | machine()])
    bars = (("step / encoder", "<=", 1.10), ("sequential / step", ">=", 4.0), ("synchronisations", "<=", 3))
    return 0 if print_bars((name, float(figures[name]), sign, bar) for name, sign, bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
