"""What finds entities in the words of a gold file: a model of ours, a token classifier, or a GLiNER model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from transformers import PretrainedConfig, TokenClassificationPipeline

from glode.corpora.schemes import PREFIXED
from glode.errors import InputError
from glode.metrics import Entity, entities_of
from glode.publishing.token_classifier import find_entities
from glode.serving.tag import load_model, move
from glode.teachers.gliner import GlinerTeacher
from glode.teachers.loading import kind_of
from glode.teachers.teacher import TeacherSettings, likeliest, without_overlap
from glode.teachers.tokens import load_token_classifier, takes_tokens
from modeling_glode import GlodeModel

IOB2 = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}  # what the built-in pipeline does not know -> what it does


@dataclass(frozen=True)
class FinderSettings:
    """How entities are found.

    Attributes:
        batch_size: windows, or texts of a token classifier, at a time.
        threshold: the least score of an entity.
        nested: entities within entities too; not of token classifiers.
        aggregation_strategy: how a token classifier's pipeline makes entities of tokens.
        device, dtype: where and in which numbers.
    """

    batch_size: int = 32
    threshold: float = 0.0
    nested: bool = False
    aggregation_strategy: str = "simple"
    device: str | None = None
    dtype: str = "float32"


class SpanFinder:
    """A model of ours. `types` are those that it knows."""

    notes: Sequence[str] = ()

    def __init__(self, name: str, settings: FinderSettings):
        self.model, self.tokenizer = load_model(name, settings.device, settings.dtype)
        self.settings, self.types = settings, list(self.model.config.id2label.values())[1:]

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[Entity]]:
        """(first word, length in words, type) of each sentence's entities."""
        how = (self.settings.batch_size, self.settings.threshold, self.settings.nested)
        found = cast(list[list[dict]], self.model.predict(sentences, self.tokenizer, *how))
        return entities_of(found)


class TokenFinder:
    """A token classifier, as its pipeline reads running text. `types` are those that it knows."""

    notes: Sequence[str] = ()

    def __init__(self, name: str, settings: FinderSettings):
        if settings.nested:
            raise InputError(f"--nested: --model {name} is a token classifier, which finds no entities within entities.")
        model, tokenizer = load_token_classifier(name, settings.dtype, "--model")
        labels = {i: _as_iob2(label) for i, label in model.config.id2label.items()}
        model.config.id2label, self.settings = labels, settings
        tokenizer.model_max_length = takes_tokens(model, tokenizer)
        model = move(model, settings.device)
        strategy = settings.aggregation_strategy
        self.ner = TokenClassificationPipeline(
            model=model, tokenizer=tokenizer, aggregation_strategy=strategy, device=model.device
        )
        self.types = sorted({_type_of(label) for label in labels.values()} - {"O"})

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[Entity]]:
        """(first word, length in words, type) of each sentence's entities, see `find_entities` for those within words."""
        return find_entities(self.ner, sentences, self.settings.batch_size, self.settings.threshold)


class GlinerFinder:
    """A GLiNER model. `types` are the names of those that it is asked for, see `TeacherSettings`."""

    def __init__(self, name: str, settings: FinderSettings, asked: Mapping[str, str]):
        if settings.dtype != "float32":
            raise InputError(f"--dtype {settings.dtype}: --model {name} is a GLiNER model, which is read in float32 here.")
        self.name, self.settings = name, settings
        self.teacher = GlinerTeacher(name, TeacherSettings(asked, batch_size=settings.batch_size), "--model")
        self.teacher.model = move(self.teacher.model, settings.device)
        self.types = list(self.teacher.types)

    def __call__(self, sentences: Sequence[Sequence[str]]) -> list[list[Entity]]:
        """(first word, length in words, type) of each sentence's entities: the likeliest types of spans that are likelier a name
        than none, without overlap unless `nested` is set."""
        rows = (likeliest(row) for row in self.teacher(sentences, "en"))
        kept = (row if self.settings.nested else without_overlap(row) for row in rows)
        return [sorted(span[:3] for span in row if span.score >= self.settings.threshold) for row in kept]

    @property
    def notes(self) -> list[str]:
        """What is to be said of what it has found."""
        within = self.teacher.facts()["within_words"]
        return [f"{self.name}: {within} entities with a border within a word are left out"] if within else []


Finder = SpanFinder | TokenFinder | GlinerFinder


def types_to_ask_for(gold: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """What a model is asked for that can be asked for any type: name -> type of the gold file as --label_map names it.

    Args:
        gold: the types of the gold file, as it has them.
        mapping: of --label_map. A name in it that the gold file lacks is asked for in the place of what it becomes.
    """
    have = set(gold)
    wanted = sorted({mapping.get(name, name) for name in have} - {"O"})
    named = {old: new for old, new in mapping.items() if old not in have and new in wanted}
    return named | {name: name for name in wanted if name not in named.values()}


def load_finder(name: str, settings: FinderSettings, asked: Mapping[str, str] | None = None) -> Finder:
    """What finds entities under a name on disk or on the Hub.

    Args:
        asked: what it is asked for, where it can be asked for any type, see `types_to_ask_for`.
    Raises:
        InputError: there is no such model, or one of another kind, or no such device.
    """
    if Path(name).is_file():
        raise InputError(f"--model {name} is a file. Give the directory of a model.")
    if kind_of(name) == "gliner":
        return GlinerFinder(name, settings, asked or {})
    try:
        config, reason = PretrainedConfig.get_config_dict(name)[0], "there is none."
    except OSError as error:
        config, reason = {}, " ".join(str(error).split())[:200]
    if not config:
        raise InputError(f"--model {name} has no config.json that can be read: {reason}")
    ours = config.get("model_type") == GlodeModel.config_class.model_type
    return (SpanFinder if ours else TokenFinder)(name, settings)


def _as_iob2(label: str) -> str:
    match = PREFIXED.match(label)
    return f"{IOB2.get(match[1], match[1])}-{match[2]}" if match else label


def _type_of(label: str) -> str:
    match = PREFIXED.match(label)
    return match[2] if match else label
