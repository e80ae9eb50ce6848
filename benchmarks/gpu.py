"""What a target-stage step costs on a GPU: python benchmarks/gpu.py

An XLM-R-large-shaped encoder with random weights in bf16, 32 sentences of about 64 tokens of each stream, L = 8, 200,000 stored
vectors: the project's step beside the bare encoder's and the sequential step, as benchmarks/speed.py has them; model FLOP
utilisation (what the encoder alone computes in the time of a whole step, of what the GPU can do); how often a step waits for the
GPU (host synchronisations); and words a second of tagging such sentences. Bars: step / encoder <= 1.10, sequential / step >= 4,
at most 3 synchronisations. Writes benchmarks/results/gpu.csv.

Without a GPU it says so and writes nothing; --tiny runs the same code with a tiny encoder on what is there, and writes nothing.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from common import machine, options_of, print_bars, write_rows
from speed import SEED, SOURCE, TARGET, Bench, Parts, batches_of, measure, target_trainer, token_sets, training_arguments
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, PreTrainedTokenizerBase, XLMRobertaConfig

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from glode.run.embedded import convert_e5
from modeling_glode import GlodeConfig, GlodeModel

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def joined(path: Path, directory: Path, between: str, within: str) -> Path:
    """A corpus of sentences that are four of another, which stand `between` each other; joined by `within`."""
    sentences = path.read_text(encoding="utf-8").strip().split(between)
    longer = (within.join(sentences[at : at + 4]) for at in range(0, len(sentences), 4))
    (directory / path.name).write_text(between.join(longer) + "\n", encoding="utf-8")
    return directory / path.name


def random_parts(tiny: bool, tokenizer: PreTrainedTokenizerBase, directory: Path) -> Parts:
    """The demo's corpora, four sentences joined to one of about 64 tokens, and a model with random weights."""
    source = load_corpus(str(joined(SOURCE, directory, "\n\n", "\n")), labelled=True)
    target = load_corpus(str(joined(TARGET, directory, "\n", " ")), labelled=False)
    torch.manual_seed(SEED)
    pieces = len(tokenizer) if tiny else 250_002  # as XLM-R has
    shape = {"vocab_size": pieces, "max_position_embeddings": 514, "type_vocab_size": 1} | (TINY if tiny else LARGE)
    names = dict(enumerate(label_names(source)))
    model = GlodeModel(GlodeConfig(XLMRobertaConfig(**shape), max_span_length=8, id2label=names))
    return Parts(model, tokenizer, training_arguments(directory, bf16=not tiny, freeze_embeddings=False), source, target)


def flop_utilisation(bench: Bench, rows: list[dict], seconds: float, gpu: str | None) -> float | None:
    """What the encoder's forward and backward compute for a batch, of what the GPU can do in the seconds of a step."""
    with FlopCounterMode(display=False) as counter:
        bench.encoder(token_sets(bench.trainer, rows))
    peak = next((value for name, value in PEAK_FLOPS.items() if gpu and name in gpu), None)
    return round(counter.get_total_flops() / seconds / peak, 4) if peak else None


def waits_and_memory(bench: Bench, rows: list[dict]) -> dict[str, float]:
    """How often a step waits for the GPU (where, is printed), and the MB that it takes at its peak, above what is held before it.
    Its batch is there already: a training's loader does not wait."""
    batch, before = bench.batch(rows), torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench.learn(batch)
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    print("synchronisations:", *places)
    return {"synchronisations": len(places), "peak MB": round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)}


def words_a_second(bench: Bench, parts: Parts, number: int) -> float:
    """Of `predict`, over so many sentences."""
    model, sentences = bench.plain.eval(), (list(parts.target["words"]) * (number // len(parts.target) + 1))[:number]
    with bench.trainer.accelerator.autocast():
        model.predict(sentences[:64], parts.tokenizer)
        start = time.perf_counter()
        model.predict(sentences, parts.tokenizer, batch_size=64)
    return round(sum(map(len, sentences)) / (time.perf_counter() - start), 1)


def main(argv: list[str]) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="the same code with a tiny encoder on whatever is there")
    parser.add_argument("--tokenizer", help="directory of a fast tokenizer. Default: the embedded encoder's")
    options = parser.parse_args(argv)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None and not options.tiny:
        print("no GPU here: not measured")
        return 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = (line for path in (SOURCE, TARGET) for line in path.read_text(encoding="utf-8").splitlines())
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or convert_e5(directory, text))
        parts = random_parts(options.tiny, tokenizer, directory)
        stored, batch_size, repeats, words = (2_000, 2, 2, 100) if options.tiny else (200_000, 32, 9, 5000)
        bench = Bench(target_trainer(parts, stored, length=8, batch_size=batch_size))
        figures = measure(bench, repeats, ("encoder", "sequential"))
        rows = bench.rows(batches_of(bench.trainer)[0])
        figures["model FLOP utilisation"] = flop_utilisation(bench, rows, float(figures["step"]), gpu)
        figures |= waits_and_memory(bench, rows) if gpu else {}
        figures["words a second"] = words_a_second(bench, parts, words)
    print(figures)
    if options.tiny:
        return 0
    write_rows("gpu", [figures | {"gpu": gpu} | machine()])
    bars = (("step / encoder", "<=", 1.10), ("sequential / step", ">=", 4.0), ("synchronisations", "<=", 3))
    return 0 if print_bars((name, float(figures[name]), sign, bar) for name, sign, bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
