"""One system of benchmarks/inference.py in a process of its own, under whatever interpreter can import it.

    python inference_worker.py SYSTEM SETUP THREADS

SETUP is a directory: `setup.json` (the span model's directory, its types and limits) and `encoder/`, a checkpoint with a
tokenizer. The first line written says that the system is loaded, or why it is not; then each line read,
{"texts": [...], "batch_size": 32}, is answered by one line with the seconds that tagging took. Nothing is imported that the
system does not need, so that another environment can be one with other versions of everything.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

Tagger = Callable[[list[str], int], list[list]]  # texts, batch size -> what is found in each text


def span_model(setup: dict, encoder: str) -> Tagger:
    """GlodeModel.predict."""
    model, tokenizer = _glode(setup, encoder)
    return lambda texts, batch_size: model.predict(texts, tokenizer, batch_size=batch_size)


def span_pipeline(setup: dict, encoder: str) -> Tagger:
    """GlodePipeline."""
    from modeling_glode import GlodePipeline

    model, tokenizer = _glode(setup, encoder)
    ner = GlodePipeline(model=model, tokenizer=tokenizer)
    return lambda texts, batch_size: list(ner(texts, batch_size=batch_size))


def _glode(setup: dict, encoder: str) -> tuple:
    from transformers import AutoTokenizer

    from modeling_glode import GlodeModel

    return GlodeModel.from_pretrained(setup["model"]).eval(), AutoTokenizer.from_pretrained(encoder)


def token_model(setup: dict, encoder: str) -> Tagger:
    """Texts in, the arg max of each token out; no entities are put together."""
    import torch

    model, tokenizer = _token_classifier(setup, encoder)

    @torch.no_grad()
    def tag(texts: list[str], batch_size: int) -> list[list]:
        tags = []
        for at in range(0, len(texts), batch_size):
            batch = tokenizer(texts[at : at + batch_size], padding=True, truncation=True, return_tensors="pt")
            tags += (model(**batch).logits.argmax(-1) * batch["attention_mask"]).tolist()
        return [[model.config.id2label[tag] for tag in row if tag] for row in tags]

    return tag


def token_pipeline(setup: dict, encoder: str) -> Tagger:
    """The built-in pipeline."""
    from transformers import pipeline

    model, tokenizer = _token_classifier(setup, encoder)
    ner = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    return lambda texts, batch_size: list(ner(texts, batch_size=batch_size))


def _token_classifier(setup: dict, encoder: str) -> tuple:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    if setup["token_classifier"]:
        model = AutoModelForTokenClassification.from_pretrained(setup["token_classifier"])
    else:
        tags = dict(enumerate(setup["tags"]))
        model = _reluctant(AutoModelForTokenClassification.from_pretrained(encoder, id2label=tags))
    return model.eval(), AutoTokenizer.from_pretrained(encoder)


def span_marker(setup: dict, encoder: str) -> Tagger:
    """SpanMarkerModel.predict, with the sizes of SpanMarker's own examples but for the longest entity."""
    from span_marker import SpanMarkerModel
    from tokenizers.pre_tokenizers import Punctuation, Sequence

    sizes = {"model_max_length": 256, "marker_max_length": 128, "entity_max_length": setup["max_span_length"]}
    model = _reluctant(SpanMarkerModel.from_pretrained(encoder, labels=setup["types"], **sizes))
    backend = model.tokenizer.tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Punctuation(), backend.pre_tokenizer])  # as SpanMarker does for XLM-R's tokenizer
    return lambda texts, batch_size: model.predict(texts, batch_size=batch_size)


def gliner(setup: dict, encoder: str, default_sizes: bool = False) -> Tagger:
    """GLiNER.inference, with the types as labels. No score exceeds the threshold, so that nothing is found."""
    from gliner import GLiNER

    config = json.loads(Path(encoder, "config.json").read_text(encoding="utf-8"))
    sizes = {} if default_sizes else {"max_width": setup["max_span_length"], "hidden_size": config["hidden_size"]}
    settings = {"model_name": encoder, "encoder_config": config, "max_len": setup["max_tokens"]} | sizes
    model = GLiNER.from_config(settings, backbone_from_pretrained=True)
    labels = setup["types"][1:]
    return lambda texts, batch_size: model.inference(texts, labels, threshold=1.0, batch_size=batch_size)


def _reluctant(model):
    """A random head that finds nothing: with as many entities as chance gives, their building would cost more than it does."""
    model.classifier.bias.data[0] = 100.0
    return model


SYSTEMS = {
    "span model": (span_model, ()),
    "span model, pipeline": (span_pipeline, ()),
    "token classifier": (token_model, ()),
    "token classifier, pipeline": (token_pipeline, ()),
    "SpanMarker": (span_marker, ("span-marker",)),
    "GLiNER": (gliner, ("gliner",)),
    "GLiNER, default sizes": (partial(gliner, default_sizes=True), ("gliner",)),
}


def resident() -> dict[str, int]:
    """MB of this process in memory, now and at most so far; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return {name: int(lines.get(key, "0").split()[0]) // 1024 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


def main() -> None:
    system, directory, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like

    def answer(**figures) -> None:
        print(json.dumps(figures), file=answers, flush=True)

    load, packages = SYSTEMS[system]
    try:
        import torch

        torch.set_num_threads(int(threads))
        torch.manual_seed(0)
        setup = json.loads(Path(directory, "setup.json").read_text(encoding="utf-8"))
        tag = load(setup, str(Path(directory, "encoder")))
    except ImportError as error:
        return answer(missing=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    answer(versions=", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", *packages)), **resident())
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        found = tag(request["texts"], request["batch_size"])
        seconds = time.perf_counter() - start
        answer(seconds=seconds, found=sum(map(len, found)), **resident())


if __name__ == "__main__":
    main()
