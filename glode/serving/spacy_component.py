"""A component for spaCy: nlp.add_pipe("glode", config={"model": "glode-demo"}).

Where the package is installed spaCy finds it by its name; else import this module first.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from spacy.language import Language
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import filter_spans, minibatch

from glode.serving.tag import load_model


class GlodeComponent:
    """Fills `doc.ents`, and `doc.spans["sc"]` with all that was found, `attrs["scores"]` among it.

    Words are split as the model has learnt them, whatever spaCy's tokens are; an entity that begins or ends within a token is
    widened to it. Entities that the doc has already stay, and win over what overlaps them.

    Args:
        model: directory of a model or its repository on the Hub.
        threshold: the least score of an entity.
        nested: also entities within entities, in `doc.spans` alone.
        batch_size: windows at a time.
        device: such as "cuda:1"; without it the GPU where there is one.
    Raises:
        InputError: there is no such model or device.
    """

    def __init__(self, model: str, threshold: float, nested: bool, batch_size: int, device: str | None):
        self.model, self.tokenizer = load_model(model, device)
        self.threshold, self.nested, self.batch_size = threshold, nested, batch_size

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 256) -> Iterator[Doc]:
        """The docs of a stream, `batch_size` read at a time."""
        for docs in minibatch(stream, batch_size):
            texts = [doc.text for doc in docs]
            found = self.model.predict(texts, self.tokenizer, self.batch_size, self.threshold, self.nested)
            for doc, entities in zip(docs, found, strict=True):
                annotate(doc, cast(list[dict], entities))
                yield doc

    def score(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """What `nlp.evaluate` reports: ents_p, ents_r, ents_f, ents_per_type."""
        return get_ner_prf(examples)


def annotate(doc: Doc, entities: Sequence[dict]) -> None:
    """Write the entities of the doc's text, as the pipeline returns them, into the doc."""
    found = [doc.char_span(e["start"], e["end"], label=e["entity_group"], alignment_mode="expand") for e in entities]
    spans = cast(list[Span], found)  # none is None, as a widened entity always has tokens
    doc.spans["sc"] = spans
    doc.spans["sc"].attrs["scores"] = [entity["score"] for entity in entities]
    kept = list(doc.ents)
    taken = {token for span in kept for token in range(span.start, span.end)}
    doc.set_ents([*kept, *filter_spans(span for span in spans if not taken.intersection(range(span.start, span.end)))])


@Language.factory(
    "glode",
    assigns=["doc.ents", "doc.spans"],
    default_config={"threshold": 0.0, "nested": False, "batch_size": 32, "device": None},
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def create(
    nlp: Language, name: str, model: str, threshold: float, nested: bool, batch_size: int, device: str | None
) -> GlodeComponent:
    """What spaCy calls."""
    return GlodeComponent(model, threshold, nested, batch_size, device)
