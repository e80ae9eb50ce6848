"""Chooses the sentences that a person should look at, and writes them for Label Studio with what the model says of them.

    glode review --model glode-demo --output review.json
    glode review --model glode-demo --order changed --number 100
    glode review --model user/some-model --text new.txt

The text is the target text of the run that left the model, or --text. Writes review.json, tasks with predictions and scores;
review.xml, the labeling interface of the project; and review.html, the same sentences as a page. What was corrected there goes
back into training by --target_train.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glode.corpora.options import ReadingOptions
from glode.errors import InputError, run_command
from glode.files import write_whole
from glode.parser import parse


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


def main(argv: Sequence[str]) -> None:
    """Review what the arguments name."""
    arguments = parse(ReviewArguments, argv, prog="glode review", description=__doc__.split("\n\n")[0])
    from datasets import concatenate_datasets  # --help needs none of these

    from glode.corpora.reading import load_corpus
    from glode.evaluation.doubts import choose, review
    from glode.evaluation.page import review_page
    from glode.evaluation.review_tasks import interface, page_row, task
    from glode.evaluation.run_text import first_labels, run_of, target_text
    from glode.features.windows import build_features
    from glode.run.terminal import quieten
    from glode.serving.tag import load_model

    quieten("passive")
    directory = Path(arguments.model)
    needs_run = not arguments.text or arguments.order == "changed"
    run = run_of(directory) if needs_run else {}
    options = ReadingOptions(text_field=arguments.text_field, encoding=arguments.encoding)
    texts = [load_corpus(path, False, options) for path in arguments.text or ()]
    corpus = concatenate_datasets(texts) if texts else target_text(run)
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    cut = bool(run.get("model", {}).get("cut_sentences")) and not arguments.text
    sizes = (model.config.max_tokens, model.config.max_span_length)
    windows = build_features(corpus, tokenizer, *sizes, None, cut, model.config.units)
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
    print("Import the first into Label Studio, with the second as the labeling interface; the third is to read.", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
