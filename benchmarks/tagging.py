"""Words a second of the pipelines: python benchmarks/tagging.py --model glode-demo

GlodePipeline with the span model beside the built-in pipeline with a token classifier on the same encoder, over the same
texts, alternating, in one process; medians and their ratio. The token classifier is the run's own
(`--export_token_classifier`) or, where there is none, one with random weights on the same encoder: the weights do not
change the time. Writes benchmarks/results/tagging.json.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, pipeline

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402

from corpora_glode import load_corpus  # noqa: E402
from modeling_glode import GlodeModel, GlodePipeline  # noqa: E402
from tokens_glode import running_text, tag_names  # noqa: E402


def pipelines(directory: Path) -> dict:
    """The two pipelines over one encoder."""
    model = GlodeModel.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
    tags = dict(enumerate(tag_names(list(model.config.id2label.values()))))
    tokens = directory / "token_classifier"
    if tokens.is_dir():
        native = AutoModelForTokenClassification.from_pretrained(tokens)
    else:
        config = AutoConfig.for_model(**model.config.encoder_config.to_dict() | {"id2label": tags})
        native = AutoModelForTokenClassification.from_config(config)
    return {
        "span model": GlodePipeline(model=model, tokenizer=tokenizer),
        "token classifier": pipeline("token-classification", model=native, tokenizer=tokenizer, aggregation_strategy="simple"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a span model")
    parser.add_argument("--texts", help="labelled corpus whose sentences are tagged; default: the demo's German test set")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    corpus = load_corpus(options.texts or str(ROOT / "demo" / "de" / "test.iob2"), labelled=True)
    sentences = sorted(corpus["words"], key=len)  # as a user who cares for speed would send them
    texts, words = [running_text(sentence)[0] for sentence in sentences], sum(map(len, sentences))
    both = pipelines(options.model)
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(options.repeats + 1):
        for name, ner in both.items():
            start = time.perf_counter()
            list(ner(texts, batch_size=options.batch_size))
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: round(words / statistics.median(values[1:])) for name, values in seconds.items()}
    ratios = [b / a for a, b in zip(*(values[1:] for values in seconds.values()), strict=True)]
    figures = {"words a second": speeds, "span model / token classifier": round(statistics.median(ratios), 3)}
    figures |= {"words": words, "texts": len(texts), "batch": options.batch_size, "machine": machine()}
    print(json.dumps(figures, indent=2))
    path = ROOT / "benchmarks" / "results" / "tagging.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
