"""Judges models by a labelled file of your own: scores, kinds of errors, what chance may have done, the worst sentences.

    glode evaluate --model glode-demo --gold gold.conll --output judged
    glode evaluate --model glode-demo user/other-model --gold gold.conll --train train.conll

A model is one of ours, any token classifier or any GLiNER model, on disk or on the Hub. Several are compared with the first one.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from glode.corpora.options import SCHEMES, ReadingOptions
from glode.errors import InputError, run_command
from glode.evaluation.kinds import outcomes
from glode.evaluation.report import show
from glode.evaluation.scores import Entities, Sentences, intervals_and_tests, names_of, scores_of
from glode.evaluation.statistics import TRIALS
from glode.files import write_whole
from glode.metrics import Entity
from glode.parser import parse

if TYPE_CHECKING:  # else loaded with the files and models: --help needs none of them
    from glode.evaluation.finders import Finder, FinderSettings

BUFFER = 512  # sentences that are given to a model together
DRAWS = 1000  # samples of the bootstrap


@dataclass
class EvaluateArguments:
    """What is judged, by what, and how."""

    model: list[str] = field(
        metadata={
            "help": "Directory of a model or its repository on the Hub: ours, a token classifier, or a GLiNER model, which is "
            "asked for the types of --gold. Several are compared."
        }
    )
    gold: str = field(metadata={"help": "Labelled file, in any format that training reads."})
    train: str | None = field(
        default=None, metadata={"help": "Labelled file of the training, for scores of names that it has and that it has not."}
    )
    output: str | None = field(default=None, metadata={"help": "Directory for evaluation.json and errors.html."})
    worst: int = field(default=50, metadata={"help": "Sentences in errors.html."})
    seed: int = field(default=0, metadata={"help": "Of the bootstrap and the paired test."})
    label_map: str | None = field(
        default=None, metadata={"help": "Renames, merges and drops types of files and models: FIRST=PER,LAST=PER,MISC=O."}
    )
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of files that are not UTF-8, such as latin-1."})
    encoding_errors: str = field(
        default="strict",
        metadata={
            "help": "Where bytes are no text: end with a message, or make them U+FFFD and count them.",
            "choices": ["strict", "replace"],
        },
    )
    token_column: str | None = field(
        default=None, metadata={"help": "Column of the words, where a file does not show it: a number from 1, or a name."}
    )
    tag_column: str | None = field(default=None, metadata={"help": "Column of the tags, the same."})
    scheme: str | None = field(
        default=None, metadata={"help": "Label scheme of the tags, where they do not show it.", "choices": list(SCHEMES)}
    )
    text_field: str | None = field(default=None, metadata={"help": "Key of the text in JSON records. Default: text."})
    batch_size: int = field(default=32, metadata={"help": "Windows at a time."})
    threshold: float = field(default=0.0, metadata={"help": "Least score of an entity."})
    nested: bool = field(default=False, metadata={"help": "Also entities within entities; not of token classifiers."})
    aggregation_strategy: str = field(
        default="simple",
        metadata={
            "help": "How the pipeline of a token classifier makes entities of tokens.",
            "choices": ["simple", "first", "average", "max"],
        },
    )
    device: str | None = field(default=None, metadata={"help": "Such as cuda:1 or cpu. Default: the GPU where there is one."})
    dtype: str = field(
        default="float32", metadata={"help": "Numbers of the model.", "choices": ["float32", "bfloat16", "float16"]}
    )

    def __post_init__(self):
        if len(set(self.model)) < len(self.model):
            raise InputError("--model names the same model twice. Give others to compare it with.")
        if self.batch_size < 1 or self.worst < 0 or self.seed < 0:
            raise InputError("--batch_size has to be 1 or more, --worst and --seed 0 or more.")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"--threshold {self.threshold} says nothing of scores, which go from 0 to 1.")
        if self.output and Path(self.output).exists() and not Path(self.output).is_dir():
            raise InputError(f"--output {self.output} is a file. Name a directory, which evaluation.json and errors.html go to.")

    @property
    def reading(self) -> ReadingOptions:
        return ReadingOptions(**{f.name: getattr(self, f.name) for f in dataclasses.fields(ReadingOptions)})

    @property
    def finding(self) -> "FinderSettings":
        from glode.evaluation.finders import FinderSettings

        return FinderSettings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(FinderSettings)})


@dataclass(frozen=True)
class Corpus:
    """Words and entities of each sentence."""

    words: Sentences
    entities: Entities


def read(path: str, options: ReadingOptions) -> Corpus:
    """A labelled file.

    Raises:
        InputError: it cannot be read, or has no entity.
    """
    from glode.corpora.reading import load_corpus
    from glode.features.reach import gold_entities

    corpus = load_corpus(path, labelled=True, options=options)
    found = Corpus(list(corpus["words"]), gold_entities(corpus))
    if not any(found.entities):
        raise InputError(f"{path} has no entity to judge by: every tag is O. Give a labelled file.")
    return found


def find(finder: "Finder", name: str, words: Sentences) -> list[list[Entity]]:
    """What a model finds, with a bar on the terminal."""
    found: list[list[Entity]] = []
    with tqdm(total=len(words), desc=name, unit=" sentences", disable=None) as progress:
        for at in range(0, len(words), BUFFER):
            found += finder(words[at : at + BUFFER])
            progress.update(min(BUFFER, len(words) - at))
    return found


def rename(entities: Iterable[Iterable[Entity]], mapping: Mapping[str, str]) -> list[list[Entity]]:
    """Entities with the new names of their types; those that are O now are dropped, those that are equal now are one."""
    named = ({(begin, length, mapping.get(name, name)) for begin, length, name in row} for row in entities)
    return [sorted(entity for entity in row if entity[2] != "O") for row in named]


def types_of(entities: Iterable[Iterable[Entity]]) -> set[str]:
    return {entity[2] for row in entities for entity in row}


def shared_types(gold: set[str], models: Mapping[str, set[str]]) -> tuple[set[str], list[str]]:
    """The types that the gold file and all models have, and lines on the others.

    Raises:
        InputError: a model shares none with the gold file, or there is none that all have.
    """
    lines, shared = [], set(gold)
    for name, types in models.items():
        if not gold & types:
            raise InputError(
                f"the gold file has the types {', '.join(sorted(gold)) or 'of nothing'}, {name} has {', '.join(sorted(types))}: "
                "they share none. Rename them with --label_map."
            )
        for missing, told in ((gold - types, f"that {name} lacks"), (types - gold, f"of {name} that the gold file lacks")):
            if missing:
                lines.append(f"types {told}: {', '.join(sorted(missing))}")
        shared &= types
    if not shared:
        raise InputError("there is no type that the gold file and all models have. Judge them one by one, or use --label_map.")
    return shared, [*lines, f"scores are on {', '.join(sorted(shared))}"] if lines else []


def evaluate(
    gold: Corpus,
    found: Mapping[str, Entities],
    types: Mapping[str, Iterable[str]],
    train: Corpus | None = None,
    mapping: Mapping[str, str] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, list]]:
    """Judge what models have found.

    Args:
        gold: the gold file.
        found: model -> (first word, length in words, type) of each sentence's entities.
        types: model -> the types that it can find.
        train: what training has seen; None where nobody knows.
        mapping: old type -> new type, of files and models.
    Returns:
        What evaluation.json holds: `sentences`, `entities`, `types` that are scored, `notes` on those that are not, `models` (see
        `scores_of`, with the `interval` of F1) and `tests` (see `intervals_and_tests`). And of each model what became of the
        entities of each sentence, see `glode.evaluation.kinds.outcomes`.
    Raises:
        InputError: types do not fit together.
    """
    mapping = mapping or {}
    known = types_of(gold.entities).union(*types.values(), types_of(train.entities) if train else ())
    if unknown := sorted(set(mapping) - known):
        raise InputError(
            f"--label_map: neither file nor model has the type {unknown[0]!r}. There are {', '.join(sorted(known))}."
        )
    wanted = rename(gold.entities, mapping)
    new = {name: {mapping.get(label, label) for label in labels} - {"O"} for name, labels in types.items()}
    shared, notes = shared_types(types_of(wanted), new)
    keep = {label: "O" for label in known.union(*new.values(), types_of(wanted)) - shared}
    wanted = rename(wanted, keep)
    judged = {name: rename(rename(entities, mapping), keep) for name, entities in found.items()}
    seen = names_of(train.words, rename(train.entities, mapping)) if train else None
    intervals, tests = intervals_and_tests(wanted, judged, DRAWS, TRIALS, seed)
    rows = {name: [outcomes(*pair) for pair in zip(wanted, entities, strict=True)] for name, entities in judged.items()}
    models = {
        name: scores_of(gold.words, wanted, entities, rows[name], seen) | {"interval": intervals[name]}
        for name, entities in judged.items()
    }
    report = {"sentences": len(wanted), "entities": sum(map(len, wanted)), "types": sorted(shared), "notes": notes}
    return report | {"models": models, "tests": tests}, rows


def write(directory: Path, report: Mapping[str, Any], page: str) -> None:
    """evaluation.json and errors.html, each whole or not at all."""
    for name, text in {"evaluation.json": json.dumps(report, indent=2, ensure_ascii=False), "errors.html": page}.items():
        with write_whole(directory / name) as partial:
            partial.write_text(text, encoding="utf-8", errors="replace")


def main(argv: Sequence[str]) -> None:
    """Judge what the arguments name."""
    arguments = parse(EvaluateArguments, argv, prog="glode evaluate", description=__doc__.split("\n\n")[0])
    from glode.corpora.labels import parse_label_map
    from glode.evaluation.finders import load_finder, types_to_ask_for
    from glode.evaluation.page import error_page, worst_sentences
    from glode.run.terminal import quieten

    quieten("passive")
    mapping = parse_label_map(arguments.label_map) if arguments.label_map else {}
    gold = read(arguments.gold, arguments.reading)
    train = read(arguments.train, arguments.reading) if arguments.train else None
    asked = types_to_ask_for(types_of(gold.entities), mapping)
    found, types = {}, {}
    notes: list[str] = []
    for name in arguments.model:
        finder = load_finder(name, arguments.finding, asked)
        types[name], found[name] = set(finder.types), find(finder, name, gold.words)
        notes += finder.notes
    report, rows = evaluate(gold, found, types, train, mapping, arguments.seed)
    report["notes"] += notes
    show(report)
    if arguments.output:
        files = {"gold": arguments.gold, "train": arguments.train, "seed": arguments.seed}
        page = error_page(Path(arguments.gold).name, worst_sentences(rows, arguments.worst), gold.words, rows)
        write(Path(arguments.output), files | report, page)
        print(f"written: {arguments.output}/evaluation.json, {arguments.output}/errors.html", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    return run_command(main, argv, resume="")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
