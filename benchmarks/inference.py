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
Results: benchmarks/results/inference.csv. Says where a bar falls short, and exits with 0 all the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import ROOT, Row, machine, print_bars, write_rows
from transformers import AutoTokenizer

sys.path.insert(0, str(ROOT))

from glode.corpora.reading import load_corpus
from glode.publishing.token_classifier import running_text, tag_names
from modeling_glode import GlodeModel

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
        with open(self.log, "w", encoding="utf-8") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def answer(self) -> dict:
        """The next line that it writes.

        Raises:
            RuntimeError: it has stopped.
        """
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.system} has stopped:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        return json.loads(line)

    def tag(self, texts: list[str], batch_size: int) -> dict:
        """Tag texts: `seconds`, how many entities (or tags) were `found`, and the process' `peak` memory in MB."""
        print(json.dumps({"texts": texts, "batch_size": batch_size}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def prepare(directory: Path, setup: Path) -> dict:
    """Write into `setup` what the workers need: the encoder as a checkpoint of its own, types and limits."""
    model = GlodeModel.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, config=model.config)
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


def measure(workers: Sequence[Worker], texts: list[str], options: argparse.Namespace) -> list[dict]:
    """A row a system. The first turn warms up."""
    hello = {worker.system: worker.answer() for worker in workers}
    present = [worker for worker in workers if "missing" not in hello[worker.system]]
    tagged, alone = ({worker.system: [] for worker in present} for _ in range(2))
    for _ in range(options.repeats + 1):
        for worker in present:
            tagged[worker.system].append(worker.tag(texts, options.batch_size))
    for _ in range(options.single_repeats + 1):
        for worker in present:
            alone[worker.system].append(worker.tag([texts[len(texts) // 2]], 1)["seconds"])
    rows = []
    for worker in workers:
        if worker not in present:
            print(f"{worker.system} not measured: {hello[worker.system]['missing']}")
            continue
        answers = tagged[worker.system][1:]
        row = {
            "system": worker.system,
            "ms of one sentence": f"{1000 * statistics.median(alone[worker.system][1:]):.2f}",
            "MB loaded": hello[worker.system]["now"],
            "MB at the peak": answers[-1]["peak"],
            "found": answers[-1]["found"],
            "seconds": " ".join(f"{answer['seconds']:.4f}" for answer in answers),
        }
        rows.append(row | {"cpu": machine()["cpu"], "versions": hello[worker.system]["versions"]})
    return rows


def seconds_of(row: Row) -> list[float]:
    """Of each timed turn."""
    return [float(value) for value in row["seconds"].split()]


def bars(rows: Sequence[Row]) -> list[tuple[str, float, str, float]]:
    """Each of BARS that was measured: name, the ratio of words a second, at least, bar."""
    found, measured = {row["system"]: seconds_of(row) for row in rows}, []
    for system, other, bar in BARS:
        if system in found and other in found:
            ratios = [b / a for a, b in zip(found[system], found[other], strict=True)]
            measured.append((f"{system} / {other}", statistics.median(ratios), ">=", bar))
    return measured


def main(argv: list[str]) -> None:
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
    options = parser.parse_args(argv)
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
            rows = measure(workers, texts, options)
        finally:
            for worker in workers:
                worker.close()
    classifier = "trained" if setup["token_classifier"] else "random"
    settings = {"texts": len(texts), "words": words, "batch": options.batch_size, "threads": options.threads}
    settings |= {"L": setup["max_span_length"], "token classifier": classifier}
    rows = [{"system": row["system"], "words a second": words_a_second(row, words)} | row | settings for row in rows]
    for row in rows:
        print(row)
    write_rows("inference", rows)
    print_bars(bars(rows))


def words_a_second(row: dict, words: int) -> str:
    return f"{words / statistics.median(seconds_of(row)):.1f}"


if __name__ == "__main__":
    main(sys.argv[1:])
