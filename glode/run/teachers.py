"""Teachers that are no models of ours: which there are, what they are told, and their labels of the target text as a file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from tqdm import tqdm

from glode.corpora.labels import parse_label_map
from glode.errors import InputError
from glode.features.reach import gold_entities
from glode.files import write_whole
from glode.metrics import Entity
from glode.run.checks import parse_price
from glode.run.given_labels import Span, read_records
from glode.run.preparation import Preparation
from glode.run.report import say
from glode.teachers.loading import load_teacher
from glode.teachers.prompts import choose_examples
from glode.teachers.teacher import Example, SoftSpan, Teacher, TeacherSettings, as_record, likeliest, renamed, without_overlap

BLOCK = 1024  # sentences that a model reads at a time
EXAMPLES_FROM = 2000  # source sentences among which examples are chosen


class Labeller:
    """A teacher of a run that is no model of ours.

    Attributes:
        name, teacher: as --teachers calls it, and what stands under the name.
        mapping: its names of types -> ours.
    Raises:
        InputError: it does not load, or none of its types is one of the source's.
    """

    def __init__(self, run: Preparation, name: str):
        self.run, self.name, self.types = run, name, run.labels[1:]
        named = {old: new for old, new in run.corpora.names_of_teachers.items() if new in self.types}
        asked = named | {kind: kind for kind in self.types if kind not in named.values()}
        price, training = run.options.teacher_price, run.training
        settings = TeacherSettings(
            asked=asked,
            examples=_examples(run.corpora.source, {ours: old for old, ours in asked.items()}),
            device=training.device,
            batch_size=training.per_device_eval_batch_size,
            requests=run.options.teacher_requests,
            price=parse_price(price) if price else None,
            cache=Path(run.options.model_cache).expanduser() / "answers.sqlite",
            quiet=bool(training.disable_tqdm),
        )
        self.teacher: Teacher = load_teacher(name, settings)
        self.mapping = asked | (parse_label_map(run.data.label_map) if run.data.label_map else {})
        self._compare_types()

    def label(self, corpus: Dataset, rows: Mapping[str, range]) -> list[list[SoftSpan]]:
        """The soft spans of each sentence of a corpus in the target languages, with our types.

        Args:
            rows: the sentences of each language.
        """
        found: list[list[SoftSpan]] = []
        for language, part in rows.items():
            words = corpus.select(part)["words"]
            if self.teacher.kind == "chat model":  # which shows what it has spent
                found += self.teacher(list(words), language)
                continue
            with tqdm(total=len(words), desc=self.teacher.kind, unit=" sentences", disable=self.run.training.disable_tqdm) as bar:
                for at in range(0, len(words), BLOCK):
                    block = list(words[at : at + BLOCK])
                    found += self.teacher(block, language)
                    bar.update(len(block))
        return [renamed(spans, self.mapping, self.types) for spans in found]

    def _compare_types(self) -> None:
        """Say which types the source and the teacher do not share."""
        known = {self.mapping.get(name, name) for name in self.teacher.types} - {"O"}
        if not known & set(self.types):
            raise InputError(
                f"--teachers {self.name} has the types {', '.join(sorted(known)) or 'of nothing'}, and none is one of the "
                f"source's {', '.join(self.types)}. Rename them by --label_map."
            )
        for names, told in (
            (known - set(self.types), "are no types of the source and are dropped"),
            (set(self.types) - known, "is what it does not find"),
        ):
            if names:
                say("noted", f"{self.name}: {', '.join(sorted(names))} {told}")


def _examples(source: Dataset, names: Mapping[str, str]) -> list[Example]:
    """Labelled source sentences for a chat model, with the names by which it is asked for types."""
    rows = source.select(range(min(len(source), EXAMPLES_FROM)))
    examples = [Example(words, entities) for words, entities in zip(rows["words"], gold_entities(rows), strict=True)]
    chosen = choose_examples(examples)
    return [
        Example(e.words, [(begin, length, names[kind]) for begin, length, kind in e.entities if kind in names]) for e in chosen
    ]


def write_spans(path: Path, words: Sequence[Sequence[str]], spans: Sequence[Sequence[SoftSpan]]) -> None:
    """A teacher's labels, in the form that --pseudo_labels reads."""
    with write_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for sentence, found in zip(words, spans, strict=True):
            file.write(json.dumps(as_record(sentence, found), ensure_ascii=False) + "\n")


def read_teacher(path: Path, run: Preparation) -> list[list[Span]]:
    """The spans of each target sentence in a teacher's labels; of a file that is given, --label_map renames the types."""
    given = path in map(Path, run.options.teachers or ()) and run.data.label_map
    return read_records(path, run.corpora.target, run.labels, parse_label_map(given) if given else {})


def entities_of(spans: Sequence[Sequence[Span]], types: Sequence[str]) -> list[list[Entity]]:
    """What a teacher's spans say: the likeliest, without overlap. (first word, length, type) of each sentence."""
    soft = ([SoftSpan(begin, length, types[kind], score) for begin, length, (kind, score) in row if length] for row in spans)
    return decoded(soft)


def decoded(spans: Iterable[Iterable[SoftSpan]]) -> list[list[Entity]]:
    """The entities that the soft spans of each sentence say: the likeliest first, without overlap."""
    return [sorted(span[:3] for span in without_overlap(likeliest(row))) for row in spans]


def short_name(name: str) -> str:
    """A teacher's name in tables: the model's of an address, the last part of a path."""
    return name.split("#")[-1].rstrip("/").split("/")[-1]
