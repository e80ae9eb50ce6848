"""What tagging costs: python benchmarks/inference.py --model glode-demo [--span_marker_python PY] [--gliner_python PY]

Words a second, milliseconds of one sentence and memory, on the CPU, over the sentences of the demo's German test set, of

    span model                  GlodeModel.predict: texts in, entities out
    span model, pipeline        GlodePipeline
    token classifier            the built-in one on the same encoder: texts in, a tag for each token out, no entities built
    token classifier, pipeline  the built-in pipeline, aggregation_strategy="simple"
    SpanMarker                  SpanMarkerModel.predict (package span-marker)
    GLiNER                      GLiNER.inference (package gliner), and once more with its default sizes

Each is a process of its own (benchmarks/inference_worker.py). They take turns over the same texts, sorted by length as a user who
cares for speed would send them; a ratio is the median of the ratios within one turn. All have the span model's encoder and
tokenizer, random heads on it, and the same longest entity L (but for GLiNER's default sizes). What differs:

- SpanMarker puts a pair of marker tokens for each span behind the text and pads every sentence to 256 + 2 * 128 tokens (the sizes
  of its own examples); a sentence with more spans than fit is encoded several times.
- GLiNER puts the types' names before each text, and has an LSTM on the encoder and a layer for each span behind it. Its default
  sizes are spans of up to 12 words and 512 numbers, where it has L words and the encoder's width otherwise.
- The span model sorts what it is given once more, by tokens (`predict` and pipeline); the others take the texts' order.
- Weights do not change the time but for the entities that are found and then built. The span model is the one given; the token
  classifier is the run's own (`--export_token_classifier`) where there is one. Random heads are set to find nothing, which spares
  them that part.

SpanMarker 1.8 asks for transformers < 5 and GLiNER 0.2 for transformers < 5.17. They can have an environment of their own:

    python -m venv others && others/bin/pip install -r benchmarks/requirements-inference.txt

and then --span_marker_python others/bin/python --gliner_python others/bin/python; what is not installed is not measured.
Memory is the resident memory of the whole process, interpreter and libraries included: when the model is loaded, and at its peak.
Writes benchmarks/results/inference.json; says where a bar falls short, and exits with 0 all the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402

from glode.corpora.reading import load_corpus  # noqa: E402
from glode.publishing.token_classifier import running_text, tag_names  # noqa: E402
from modeling_glode import GlodeModel  # noqa: E402

OURS = ("span model", "span model, pipeline", "token classifier", "token classifier, pipeline")
OTHERS = {  # and the argument that names their interpreter
    "SpanMarker": "span_marker_python",
    "GLiNER": "gliner_python",
    "GLiNER, default sizes": "gliner_python",
}
BARS = (  # the first tags at least so many times as many words a second as the second
    ("span model", "token classifier", 0.95),
    ("span model, pipeline", "token classifier, pipeline", 0.95),
    *((ours, other, bar) for other, bar in zip(OTHERS, (5.0, 2.0, 2.0), strict=True) for ours in OURS[:2]),
)


class Worker:
    """A system in a process of its own, which tags texts when asked to."""

    def __init__(self, system: str, python: str, setup: Path, threads: int):
        self.system, self.log = system, setup / f"{system}.log"
        command = [python, str(ROOT / "benchmarks" / "inference_worker.py"), system, str(setup), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, **pipes)

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.system} has stopped:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def tag(self, texts: list[str], batch_size: int) -> dict:
        """Tag texts: `seconds`, how many entities (or tags) were `found`, and the process' `memory` in MB, `now` and `peak`."""
        print(json.dumps({"texts": texts, "batch_size": batch_size}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def prepare(directory: Path, setup: Path) -> dict:
    """Write into `setup` what the workers need: the encoder as a checkpoint of its own, types and limits."""
    model = GlodeModel.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
    model.encoder.save_pretrained(setup / "encoder")
    tokenizer.save_pretrained(setup / "encoder")
    path = setup / "encoder" / "tokenizer_config.json"
    kept = {"tokenizer_class": "PreTrainedTokenizerFast"}  # transformers 4 knows the generic class by this name only
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | kept), encoding="utf-8")
    types, tokens = list(model.config.id2label.values()), directory / "token_classifier"
    settings = {
        "model": str(directory.resolve()),
        "token_classifier": str(tokens.resolve()) if tokens.is_dir() else None,
        "types": types,
        "tags": tag_names(types),
        "max_span_length": model.config.max_span_length,
        "max_tokens": model.config.max_tokens,
    }
    (setup / "setup.json").write_text(json.dumps(settings), encoding="utf-8")
    return settings


def measure(workers: list[Worker], texts: list[str], words: int, options: argparse.Namespace) -> tuple[dict, dict]:
    """The figures of each system, and its seconds in each turn but the first, which warms up."""
    loaded = {worker.system: worker.answer() for worker in workers}
    figures = {}
    for system, hello in loaded.items():
        if "missing" in hello:
            install = "pip install -r benchmarks/requirements-inference.txt in an environment of its own, then"
            how = f"; {install} --{OTHERS[system]}" if system in OTHERS else ""
            figures[system] = {"not measured": hello["missing"] + how}
    present = [worker for worker in workers if worker.system not in figures]
    tagged = {worker.system: [] for worker in present}
    for _ in range(options.repeats + 1):
        for worker in present:
            tagged[worker.system].append(worker.tag(texts, options.batch_size))
    alone = {worker.system: [] for worker in present}
    for _ in range(options.single_repeats + 1):
        for worker in present:
            alone[worker.system].append(worker.tag([texts[len(texts) // 2]], 1)["seconds"])
    seconds = {system: [answer["seconds"] for answer in answers[1:]] for system, answers in tagged.items()}
    for system, values in seconds.items():
        figures[system] = {
            "words a second": round(words / statistics.median(values), 1),
            "ms of one sentence": round(1000 * statistics.median(alone[system][1:]), 2),
            "MB loaded": loaded[system]["memory"].get("now"),
            "MB at the peak": tagged[system][-1]["memory"].get("peak"),
            "found": tagged[system][-1]["found"],
            "seconds": [round(value, 4) for value in values],
            "versions": loaded[system]["versions"],
        }
    return {worker.system: figures[worker.system] for worker in workers}, seconds


def compare(seconds: dict[str, list[float]]) -> list[dict]:
    """The bars, with the ratio of words a second (None where it could not be measured)."""
    rows = []
    for system, other, bar in BARS:
        measured = system in seconds and other in seconds
        ratios = [b / a for a, b in zip(seconds[system], seconds[other], strict=True)] if measured else []
        ratio = round(statistics.median(ratios), 3) if measured else None
        rows.append({"system": system, "other": other, "ratio": ratio, "bar": bar, "met": ratio >= bar if measured else None})
    return rows


def table(figures: dict[str, dict]) -> Table:
    grid = Table(title="words a second, ms of one sentence, MB loaded and at the peak")
    columns = ("words/s", "ms", "MB", "MB peak", "found")
    for column in ("system", *columns):
        grid.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    for system, row in figures.items():
        names = ("words a second", "ms of one sentence", "MB loaded", "MB at the peak", "found")
        grid.add_row(system, *(str(row.get(name, "-")) for name in names))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a span model")
    parser.add_argument("--texts", help="labelled corpus whose sentences are tagged; default: the demo's German test set")
    parser.add_argument("--sentences", type=int, help="only so many sentences, spread over all lengths")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9, help="timed turns over all texts; one more goes before them")
    parser.add_argument("--single_repeats", type=int, default=50, help="timed turns of one sentence, the one of median length")
    parser.add_argument("--span_marker_python", default=sys.executable, help="interpreter of an environment with SpanMarker")
    parser.add_argument("--gliner_python", default=sys.executable, help="interpreter of an environment with GLiNER")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        parser.error(f"--model {options.model}: no model is there. Train one: accelerate launch run_crossner.py --target_lang de")
    corpus = load_corpus(options.texts or str(ROOT / "glode/run/demo" / "de" / "test.iob2"), labelled=True)
    sentences = sorted(corpus["words"], key=len)
    if options.sentences:
        sentences = sentences[:: -(-len(sentences) // options.sentences)]
    texts, words = [running_text(sentence)[0] for sentence in sentences], sum(map(len, sentences))
    pythons = dict.fromkeys(OURS, sys.executable) | {name: getattr(options, python) for name, python in OTHERS.items()}
    with tempfile.TemporaryDirectory() as directory:
        setup = prepare(options.model, Path(directory))
        workers = [Worker(system, python, Path(directory), options.threads) for system, python in pythons.items()]
        try:
            figures, seconds = measure(workers, texts, words, options)
        finally:
            for worker in workers:
                worker.close()
    bars = compare(seconds)
    settings = {
        "texts": len(texts),
        "words": words,
        "batch": options.batch_size,
        "threads": options.threads,
        "repeats": options.repeats,
        "repeats of one sentence": options.single_repeats,
        "the one sentence": texts[len(texts) // 2],
        "seed": 0,
        "L": setup["max_span_length"],
        "types": setup["types"],
        "token classifier": "trained" if setup["token_classifier"] else "random",
    }
    path = ROOT / "benchmarks" / "results" / "inference.json"
    record = {"settings": settings, "machine": machine(), "systems": figures, "bars": bars}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console = Console()
    console.print(table(figures))
    for system, row in figures.items():
        if "not measured" in row:
            console.print(f"{system} not measured: {row['not measured']}")
    for row in bars:
        verdict = {True: "met   ", False: "MISSED", None: "not measured"}[row["met"]]
        console.print(f"{verdict} {row['system']} / {row['other']}: {row['ratio']} (>= {row['bar']})")
    print(__doc__[__doc__.index("What differs") : __doc__.index("\n\nSpanMarker 1.8")])


if __name__ == "__main__":
    main()
