"""Memory of long texts: python benchmarks/long_text.py

Tags texts of 10,000 characters up to a million with a tiny random model, by `predict` and by the pipeline, and reports by how
much the process' peak memory has grown over what it was. Writes benchmarks/results/long_text.json.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

import torch  # noqa: E402
from conftest import make_tokenizer, save_random_model  # noqa: E402
from crossner import machine  # noqa: E402

from modeling_glode import GlodeModel, GlodePipeline  # noqa: E402


def peak() -> float:
    """The process' peak memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    figures = {}
    tokenizer = make_tokenizer(["Anna Berg lives in New York"])
    with tempfile.TemporaryDirectory() as directory:
        save_random_model(Path(directory), tokenizer)
        model = GlodeModel.from_pretrained(directory)
    model.config.max_tokens = 128
    torch.nn.init.constant_(model.classifier.linear.bias[:1], 8.0)  # fewer entities, as in real text
    ner = GlodePipeline(model=model, tokenizer=tokenizer)
    ways = {"predict": lambda text: model.predict(text, tokenizer), "pipeline": ner}
    for language in ("en", "zh"):
        name = "train.iob2" if language == "en" else "unlabeled.txt"
        lines = (ROOT / "glode/run/demo" / language / name).read_text(encoding="utf-8").splitlines()
        corpus = " ".join(line.split("\t")[0] for line in lines) + " "
        for number in (10_000, 100_000, 1_000_000):
            text = (corpus * (number // len(corpus) + 1))[:number]
            for way, tag in ways.items():
                before = peak()
                found = len(tag(text))
                figures[f"{language}, {number} characters, {way}"] = {"entities": found, "MB more": round(peak() - before)}
                print(list(figures.items())[-1], flush=True)
    path = ROOT / "benchmarks" / "results" / "long_text.json"
    path.write_text(json.dumps({"peak memory": figures, "seed": 1, "machine": machine()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
