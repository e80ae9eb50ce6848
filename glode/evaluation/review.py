"""Chooses the sentences that a person should look at, and writes them for Label Studio with what the model says of them.

    glode review --model glode-demo --output review.json
    glode review --model glode-demo --order changed --number 100
    glode review --model user/some-model --text new.txt

The text is the target text of the run that left the model, or --text. Writes review.json, tasks with predictions and scores;
review.xml, the labeling interface of the project; and review.html, the same sentences as a page. What was corrected there goes
back into training by --target_train.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from tqdm import tqdm

from glode.corpora.options import ReadingOptions
from glode.errors import InputError, run_command
from glode.files import write_whole
from glode.parser import parse

if TYPE_CHECKING:  # else loaded with a model: --help needs none of them
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from glode.denoising.pseudo_labels import PseudoLabels
    from glode.evaluation.page import ReviewRow
    from modeling_glode import GlodeModel

FIRST_LABELS = "pseudo_labels.safetensors"
Doubt = tuple[int, int, list[tuple[str, float]]]  # first word, length in words, the two likeliest types with probabilities


@dataclass
class ReviewArguments:
    """What is looked through, and what is written."""

    model: str = field(metadata={"help": "Output directory of a finished run, or any model of ours, with --text."})
    text: list[str] | None = field(
        default=None, metadata={"help": "Text to choose from, as --target_unlabeled takes it. Default: the run's target text."}
    )
    order: str = field(
        default="uncertain",
        metadata={
            "help": "The sentences with the least certain span first; or those in which the model says most otherwise than the "
            "pseudo labels did before any refinement.",
            "choices": ["uncertain", "changed"],
        },
    )
    number: int = field(default=50, metadata={"help": "How many sentences are written."})
    output: str = field(
        default="review.json", metadata={"help": "Tasks to write; the page and the labeling interface get the same name."}
    )
    text_field: str | None = field(default=None, metadata={"help": "Key of the text in JSON records of --text."})
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of --text, where it is not UTF-8."})
    batch_size: int = field(default=32, metadata={"help": "Windows at a time."})
    device: str | None = field(default=None, metadata={"help": "Such as cuda:1 or cpu. Default: the GPU where there is one."})
    dtype: str = field(
        default="float32", metadata={"help": "Numbers of the model.", "choices": ["float32", "bfloat16", "float16"]}
    )

    def __post_init__(self):
        if self.number < 1 or self.batch_size < 1:
            raise InputError("--number and --batch_size have to be 1 or more.")
        if Path(self.output).suffix != ".json":
            raise InputError(f"--output {self.output}: Label Studio imports tasks from a file that ends in .json.")
        for path in self.files:
            if path.exists():
                raise InputError(f"--output: {path} is there already, and somebody may be at work on it. Name another file.")

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Tasks, labeling interface and page."""
        tasks = Path(self.output)
        return tasks, tasks.with_suffix(".xml"), tasks.with_suffix(".html")


@dataclass
class Reviewed:
    """What a model says of a sentence.

    Attributes:
        entities: (first word, length in words, type, probability), in text order.
        before: those of the first pseudo labels; None where nobody asks for them.
        certainty: the probability of the likeliest type of that span of which the model is least certain.
        doubt: that span.
        change: over all spans, how far the model's probabilities lie from those of the first pseudo labels (total variation).
    """

    entities: list[tuple] = field(default_factory=list)
    before: list[tuple] | None = None
    certainty: float = 1.0
    doubt: Doubt | None = None
    change: float = 0.0


# ------------------------------------------------------------------------------------------------------------------ the text


def run_of(directory: Path) -> dict[str, Any]:
    """What the arguments of the run that left a model were: `data`, `model`, `run`.

    Raises:
        InputError: nothing tells them.
    """
    try:
        return json.loads((directory / "metrics.json").read_text(encoding="utf-8"))["arguments"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"--model {directory} has no metrics.json that names the text of its run. Give the text by --text."
        ) from None


def target_text(run: dict[str, Any]) -> "Dataset":
    """The target text of a run, as it was trained on.

    Raises:
        InputError: it was no file, or is there no more.
    """
    from glode.corpora.labels import parse_label_map
    from glode.run.arguments import DataArguments
    from glode.run.corpora import load_corpora

    known = {f.name for f in dataclasses.fields(DataArguments)}
    data = DataArguments(**{name: value for name, value in run["data"].items() if name in known})
    paths = [data.source_train, *(data.target_unlabeled or [])]
    if any(path and path.endswith(" in memory") for path in paths):
        raise InputError("the run's corpora were given from Python, and are in no file. Give the text by --text.")
    if data.source_train:  # of the source nothing is asked
        data.source_dev = data.source_dev or data.source_train
    types = parse_label_map(data.label_map) if data.label_map else ()
    return load_corpora(data, None, types, bool(run["run"].get("pseudo_labels"))).target


def read_texts(paths: Sequence[str], options: ReadingOptions) -> "Dataset":
    from datasets import concatenate_datasets

    from glode.corpora.reading import load_corpus

    return concatenate_datasets([load_corpus(path, False, options) for path in paths])


def first_labels(directory: Path, run: dict[str, Any], windows: "Dataset", model: "GlodeModel") -> "PseudoLabels":
    """The pseudo labels from which a run began.

    Raises:
        InputError: they are not there, or of another text.
    """
    import torch
    from safetensors.torch import load_file

    from glode.denoising.pseudo_labels import PseudoLabels
    from glode.features.columns import numbers

    given = run["run"].get("pseudo_labels")
    path = next((p for p in (directory / FIRST_LABELS, Path(given or "")) if p.is_file() and p.suffix == ".safetensors"), None)
    if path is None:
        raise InputError(f"--order changed: {directory} has no {FIRST_LABELS} to compare with. Give --order uncertain.")
    state, words = load_file(path), numbers(windows, "own_end") - numbers(windows, "own_start")
    labels = PseudoLabels(words, model.config.max_span_length, model.config.num_labels)
    if not torch.equal(state["offsets"], labels.offsets) or state["probabilities"].shape != labels.probabilities.shape:
        raise InputError(f"--order changed: {path} is of another text than this one. Give the corpora of that run back.")
    labels.probabilities.copy_(state["probabilities"])
    return labels


# ----------------------------------------------------------------------------------------------------------------- the model


def batches(
    model: "GlodeModel", tokenizer: "PreTrainedTokenizerBase", windows: "Dataset", batch_size: int
) -> "Iterator[tuple[dict[str, Tensor], Tensor]]":
    """Batches of windows of similar length, and the probabilities of all their spans: [rows, words, length, types]."""
    import torch

    from glode.features.collator import GlodeCollator
    from glode.features.columns import list_lengths
    from glode.features.streams import TwoStreams
    from glode.training.reading import batches_of
    from trainer_glode import PREDICTION_COLUMNS

    collator, streams = GlodeCollator(tokenizer, model.config.max_span_length), TwoStreams(windows, None)
    with tqdm(total=len(windows), desc="reading", unit=" windows", disable=None) as progress, torch.inference_mode():
        for chosen, _ in batches_of(list_lengths(windows, "input_ids"), batch_size):
            batch = {name: tensor.to(model.device) for name, tensor in collator(streams.__getitems__(chosen.tolist())).items()}
            logits = model(**{name: batch[name] for name in PREDICTION_COLUMNS if name in batch}).logits
            yield {name: tensor.cpu() for name, tensor in batch.items()}, logits.float().softmax(-1).cpu()
            progress.update(len(chosen))


def review(
    model: "GlodeModel",
    tokenizer: "PreTrainedTokenizerBase",
    windows: "Dataset",
    sentences: int,
    first: "PseudoLabels | None" = None,
    batch_size: int = 32,
) -> list[Reviewed]:
    """What a model says of each sentence.

    Args:
        windows: of the sentences, see `build_features`.
        first: the pseudo labels from which the run began, of the same windows.
    """
    from modeling_glode import in_words, resolve

    names = model.config.id2label
    rows = [Reviewed(before=None if first is None else []) for _ in range(sentences)]
    places = windows.select_columns(["sentence", "borders"])
    for batch, probabilities in batches(model, tokenizer, windows, batch_size):
        found = places[batch["window"].tolist()]
        mine, borders = [rows[sentence] for sentence in found["sentence"]], found["borders"]
        for row, entity in decoded(probabilities, batch["span_mask"], names):
            mine[row].entities.append(in_words(entity, borders[row]))
        for row, (first_unit, length, likely) in enumerate(doubts(probabilities, batch["span_mask"], names)):
            if likely[0][1] < mine[row].certainty:
                begin, words = in_words((first_unit, length), borders[row])
                mine[row].certainty, mine[row].doubt = likely[0][1], (begin, words, likely)
        if first is None:
            continue
        before = first.read(batch["window"], batch["own_start"], probabilities.shape[1])
        moved = ((probabilities - before).abs().sum(-1) / 2 * batch["span_mask"]).sum((1, 2))
        for row, change in enumerate(moved.tolist()):
            mine[row].change += change
        for row, entity in decoded(before, batch["span_mask"], names):
            mine[row].before.append(in_words(entity, borders[row]))
    for entities in (entities for reviewed in rows for entities in (reviewed.entities, reviewed.before) if entities):
        entities[:] = resolve(entities)
    return rows


def decoded(probabilities: "Tensor", span_mask: "Tensor", names: dict[int, str]) -> Iterator[tuple[int, tuple]]:
    """The row and the entity, in units, of all entities of a batch."""
    from modeling_glode import decode

    columns = (column.tolist() for column in decode(probabilities.log(), span_mask))
    for row, begin, length, label, score in zip(*columns, strict=True):
        yield row, (begin, length, names[label], score)


def doubts(probabilities: "Tensor", span_mask: "Tensor", names: dict[int, str]) -> Iterator[Doubt]:
    """Of each row the span of which the model is least certain: first unit, length in units, its two likeliest types."""
    score, label = probabilities.topk(2, dim=-1)
    least = score[..., 0].masked_fill(~span_mask, 2.0).flatten(1).argmin(1)
    for row, cell in enumerate(least.tolist()):
        begin, more = divmod(cell, span_mask.shape[2])
        pairs = zip(label[row, begin, more].tolist(), score[row, begin, more].tolist(), strict=True)
        yield begin, more + 1, [(names[kind], value) for kind, value in pairs]


def choose(rows: Sequence[Reviewed], order: str, number: int) -> list[int]:
    """The sentences to look at, the first one first."""
    key = (lambda i: rows[i].certainty) if order == "uncertain" else (lambda i: -rows[i].change)
    return sorted(range(len(rows)), key=key)[:number]


# -------------------------------------------------------------------------------------------------------------- what is written


def task(number: int, words: Sequence[str], reviewed: Reviewed, version: str) -> dict[str, Any]:
    """A sentence as a task of Label Studio with the model's entities as its prediction; `number` counts sentences from 1."""
    from glode.publishing.token_classifier import running_text
    from glode.serving.formats import LabelStudioWriter

    text, offsets = running_text(words)
    results = []
    for place, (begin, length, kind, score) in enumerate(reviewed.entities):
        start, end = offsets[begin][0], offsets[begin + length - 1][1]
        entity = {"start": start, "end": end, "word": text[start:end], "entity_group": kind, "score": score}
        results.append(LabelStudioWriter.result(place, entity))
    data = {"text": text, "sentence": number, "doubt": told(words, reviewed), "certainty": round(reviewed.certainty, 4)}
    if reviewed.before is not None:
        data["change"] = round(reviewed.change, 4)
    return {"data": data, "predictions": [{"model_version": version, "score": reviewed.certainty, "result": results}]}


def told(words: Sequence[str], reviewed: Reviewed) -> str:
    """The span of which the model is least certain, in words."""
    from glode.publishing.token_classifier import running_text

    if reviewed.doubt is None:
        return ""
    begin, length, likely = reviewed.doubt
    types = ", ".join(f"{name} {100 * score:.0f} %" for name, score in likely)
    return f"{running_text(words[begin : begin + length])[0]}: {types}"


def page_row(sentence: int, words: Sequence[str], reviewed: Reviewed) -> "ReviewRow":
    """A sentence as the page shows it."""
    from glode.evaluation.page import ReviewRow

    now, before = (
        None if entities is None else {entity[:3]: entity[3] for entity in entities}
        for entities in (reviewed.entities, reviewed.before)
    )
    return ReviewRow(sentence, words, now or {}, before, told(words, reviewed))


def interface(types: Sequence[str]) -> str:
    """The labeling interface of a project that shows the tasks."""
    from glode.serving.rendering import colors_of

    labels = [f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>" for name, color in colors_of(types).items()]
    lines = ["<View>", '  <Header value="$doubt"/>', '  <Labels name="label" toName="text">', *labels, "  </Labels>"]
    return "\n".join([*lines, '  <Text name="text" value="$text"/>', "</View>", ""])


def main(argv: Sequence[str]) -> None:
    """Review what the arguments name."""
    arguments = parse(ReviewArguments, argv, prog="glode review", description=__doc__.split("\n\n")[0])
    from glode.evaluation.page import review_page
    from glode.features.windows import build_features
    from glode.run.terminal import quieten
    from glode.serving.tag import load_model

    quieten("passive")
    directory = Path(arguments.model)
    needs_run = not arguments.text or arguments.order == "changed"
    run = run_of(directory) if needs_run else {}
    options = ReadingOptions(text_field=arguments.text_field, encoding=arguments.encoding)
    corpus = read_texts(arguments.text, options) if arguments.text else target_text(run)
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    cut = bool(run.get("model", {}).get("cut_sentences")) and not arguments.text
    windows = build_features(corpus, tokenizer, model.config.max_tokens, model.config.max_span_length, None, cut)
    first = first_labels(directory, run, windows, model) if arguments.order == "changed" else None
    rows = review(model, tokenizer, windows, len(corpus), first, arguments.batch_size)
    chosen = choose(rows, arguments.order, arguments.number)
    types = list(model.config.id2label.values())[1:]
    version = directory.resolve().name if directory.is_dir() else arguments.model
    tasks = [task(i + 1, corpus[i]["words"], rows[i], version) for i in chosen]
    page = review_page(f"Review of {version}", arguments.order, types, [page_row(i, corpus[i]["words"], rows[i]) for i in chosen])
    contents = (json.dumps(tasks, indent=1, ensure_ascii=False), interface(types), page)
    for path, content in zip(arguments.files, contents, strict=True):
        with write_whole(path) as partial:
            partial.write_text(content, encoding="utf-8", errors="replace")
    print(f"{len(chosen)} of {len(corpus)} sentences are written: {', '.join(map(str, arguments.files))}", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
