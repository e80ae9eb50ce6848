"""What tagging costs: python benchmarks/inference.py --model glode-demo [--others_python PYTHON]

Words a second and memory, on two threads of the CPU, over the sentences of the demo's German test set, of

    span model          GlodeModel.predict: texts in, entities out
    token classifier    the built-in one: texts in, a tag for each token out, no entities built
    SpanMarker          SpanMarkerModel.predict (package span-marker)
    GLiNER              GLiNER.inference (package gliner)

They take turns over the same texts, sorted by length as a user who cares for speed would send them, each time in a process of
their own; a ratio is the median of the ratios within one turn. All have the span model's encoder and tokenizer, random heads on
it, and the same longest entity L. What differs: docs/speed.md. Memory is the most that the whole process held, interpreter and
libraries included. SpanMarker 1.8 asks for transformers < 5 and GLiNER 0.2 for transformers < 5.17, so that they are measured in
an environment of their own:

    python -m venv others && others/bin/pip install -r benchmarks/requirements-inference.txt

and then --others_python others/bin/python. Nothing is imported here that a system does not need, as versions differ there.
Results: benchmarks/results/inference.csv. Says where a bar falls short, and exits with 0 all the same.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from common import ROOT, Row, machine, options_of, print_bars, resident, write_rows

BARS = {"token classifier": 0.95, "SpanMarker": 5.0, "GLiNER": 2.0}  # the span model tags so many times as many words a second
CORPUS, THREADS = ROOT / "glode/run/demo/de/test.iob2", 2
Tagger = Callable[[list[str], int], list]  # texts, batch size -> what is found in each text


# ---------------------------------------------------------------------------------------------- the systems, in their process


def span_model(setup: dict, encoder: str) -> Tagger:
    """GlodeModel.predict."""
    from transformers import AutoTokenizer

    from modeling_glode import GlodeModel

    model, tokenizer = GlodeModel.from_pretrained(setup["model"]), AutoTokenizer.from_pretrained(encoder)
    return lambda texts, batch_size: model.predict(texts, tokenizer, batch_size=batch_size)


def token_classifier(setup: dict, encoder: str) -> Tagger:
    """Texts in, the arg max of each token out; no entities are put together."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tags, tokenizer = dict(enumerate(setup["tags"])), AutoTokenizer.from_pretrained(encoder)
    model = reluctant(AutoModelForTokenClassification.from_pretrained(encoder, id2label=tags))

    @torch.no_grad()
    def tag(texts: list[str], batch_size: int) -> list[list[str]]:
        found = []
        for at in range(0, len(texts), batch_size):
            batch = tokenizer(texts[at : at + batch_size], padding=True, truncation=True, return_tensors="pt")
            found += (model(**batch).logits.argmax(-1) * batch["attention_mask"]).tolist()
        return [[tags[tag] for tag in row if tag] for row in found]

    return tag


def span_marker(setup: dict, encoder: str) -> Tagger:
    """SpanMarkerModel.predict, with the sizes of SpanMarker's own examples but for the longest entity."""
    from span_marker import SpanMarkerModel
    from tokenizers.pre_tokenizers import Punctuation, Sequence

    sizes = {"model_max_length": 256, "marker_max_length": 128, "entity_max_length": setup["max_span_length"]}
    model = reluctant(SpanMarkerModel.from_pretrained(encoder, labels=setup["types"], **sizes))
    backend = model.tokenizer.tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Punctuation(), backend.pre_tokenizer])  # as SpanMarker does for XLM-R's tokenizer
    return lambda texts, batch_size: model.predict(texts, batch_size=batch_size)


def gliner(setup: dict, encoder: str) -> Tagger:
    """GLiNER.inference, with the types as labels. No score exceeds the threshold, so that nothing is found."""
    from gliner import GLiNER

    config = json.loads(Path(encoder, "config.json").read_text(encoding="utf-8"))
    sizes = {"max_width": setup["max_span_length"], "hidden_size": config["hidden_size"], "max_len": setup["max_tokens"]}
    settings = {"model_name": encoder, "encoder_config": config} | sizes
    model, labels = GLiNER.from_config(settings, backbone_from_pretrained=True), setup["types"][1:]
    return lambda texts, batch_size: model.inference(texts, labels, threshold=1.0, batch_size=batch_size)


def reluctant(model):
    """A random head that finds nothing: with as many entities as chance gives, their building would cost more than it does."""
    model.classifier.bias.data[0] = 100.0
    return model.eval()


SYSTEMS = {  # and the packages whose versions are told beside those of torch and transformers
    "span model": (span_model, ()),
    "token classifier": (token_classifier, ()),
    "SpanMarker": (span_marker, ("span-marker",)),
    "GLiNER": (gliner, ("gliner",)),
}


def work(system: str, directory: Path) -> dict:
    """What a system takes for the texts: `seconds`, the `peak` of memory in MB, `versions`."""
    load, packages = SYSTEMS[system]
    import torch

    setup = json.loads((directory / "setup.json").read_text(encoding="utf-8"))
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    tag = load(setup, str(directory / "encoder"))
    tag(setup["texts"], setup["batch_size"])  # the first time warms up
    start = time.perf_counter()
    tag(setup["texts"], setup["batch_size"])
    seconds = time.perf_counter() - start
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", *packages))
    return {"seconds": seconds, "peak": resident("VmHWM"), "versions": versions}


# ---------------------------------------------------------------------------------------------------------------- all of them


def prepare(model: Path, directory: Path) -> dict:
    """Write what the systems need: setup.json, which is returned, and encoder/, a checkpoint with a tokenizer."""
    from transformers import AutoTokenizer

    from glode.corpora.reading import load_corpus
    from glode.publishing.token_classifier import running_text, tag_names
    from modeling_glode import GlodeModel

    loaded = GlodeModel.from_pretrained(model)
    loaded.encoder.save_pretrained(directory / "encoder")
    AutoTokenizer.from_pretrained(model, config=loaded.config).save_pretrained(directory / "encoder")
    path = directory / "encoder" / "tokenizer_config.json"
    kept = {"tokenizer_class": "PreTrainedTokenizerFast"}  # transformers 4 knows the generic class by this name only
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | kept), encoding="utf-8")
    sentences = sorted(load_corpus(str(CORPUS), labelled=True)["words"], key=len)
    types = list(loaded.config.id2label.values())
    setup = {
        "model": str(model.resolve()),
        "types": types,
        "tags": tag_names(types),
        "max_span_length": loaded.config.max_span_length,
        "max_tokens": loaded.config.max_tokens,
        "texts": [running_text(sentence)[0] for sentence in sentences],
        "sentences": len(sentences),
        "words": sum(map(len, sentences)),
        "batch_size": 32,
        "threads": THREADS,
    }
    (directory / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
    return setup


def tag_in_process(system: str, python: str, directory: Path) -> dict:
    """What `work` gives under an interpreter.

    Raises:
        subprocess.CalledProcessError: the system has failed.
    """
    command, environment = [python, __file__, "--work", system, str(directory)], os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def bars(rows: Sequence[Row]) -> list[tuple[str, float, str, float]]:
    """Each of BARS that was measured: name, the ratio of words a second, at least, bar."""
    found = {row["system"]: [float(value) for value in row["seconds"].split()] for row in rows}
    ours = found.pop("span model")
    ratios = {name: statistics.median(b / a for a, b in zip(ours, theirs, strict=True)) for name, theirs in found.items()}
    return [(f"span model / {name}", ratio, ">=", BARS[name]) for name, ratio in ratios.items()]


def main(argv: list[str]) -> None:
    parser = options_of(__doc__)
    parser.add_argument("--model", type=Path, help="directory of a span model")
    parser.add_argument("--repeats", type=int, default=9, help="turns over all texts")
    parser.add_argument("--others_python", help="interpreter with SpanMarker and GLiNER; without it they are not measured")
    parser.add_argument("--work", nargs=2, metavar=("SYSTEM", "DIRECTORY"), help="one turn of one system, in this process")
    options = parser.parse_args(argv)
    if options.work:
        print(json.dumps(work(options.work[0], Path(options.work[1]))))
        return
    if not options.model or not (options.model / "config.json").is_file():
        parser.error(f"--model {options.model}: no model is there. Train one: accelerate launch run_crossner.py --target_lang de")
    pythons = {name: options.others_python if packages else sys.executable for name, (_, packages) in SYSTEMS.items()}
    pythons = {name: python for name, python in pythons.items() if python}
    with tempfile.TemporaryDirectory() as directory:
        setup = prepare(options.model, Path(directory))
        turns = [
            {system: tag_in_process(system, python, Path(directory)) for system, python in pythons.items()}
            for _ in range(options.repeats)
        ]
    settings = {name: setup[name] for name in ("sentences", "words", "batch_size", "threads")} | {"cpu": machine()["cpu"]}
    rows = []
    for system in pythons:
        seconds, last = [turn[system]["seconds"] for turn in turns], turns[-1][system]
        row = {"system": system, "words a second": f"{setup['words'] / statistics.median(seconds):.1f}"}
        row |= {"MB at the peak": f"{last['peak']:.0f}", "seconds": " ".join(f"{value:.4f}" for value in seconds)}
        rows.append(row | settings | {"versions": last["versions"]})
    print(*rows, sep="\n")
    write_rows("inference", rows)
    print_bars(bars(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
