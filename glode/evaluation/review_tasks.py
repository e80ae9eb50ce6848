"""Reviewed sentences as tasks of Label Studio, and as rows of a page."""

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from glode.evaluation.doubts import Reviewed
from glode.evaluation.page import ReviewRow
from glode.publishing.token_classifier import running_text
from glode.serving.formats import LabelStudioWriter
from glode.serving.rendering import colors_of


def task(number: int, words: Sequence[str], reviewed: Reviewed, version: str) -> dict[str, Any]:
    """A sentence as a task of Label Studio with the model's entities as its prediction; `number` counts sentences from 1."""
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
    if reviewed.doubt is None:
        return ""
    begin, length, likely = reviewed.doubt
    types = ", ".join(f"{name} {100 * score:.0f} %" for name, score in likely)
    return f"{running_text(words[begin : begin + length])[0]}: {types}"


def page_row(sentence: int, words: Sequence[str], reviewed: Reviewed) -> ReviewRow:
    """A sentence as the page shows it."""
    now, before = (
        None if entities is None else {entity[:3]: entity[3] for entity in entities}
        for entities in (reviewed.entities, reviewed.before)
    )
    return ReviewRow(sentence, words, now or {}, before, told(words, reviewed))


def interface(types: Sequence[str]) -> str:
    """The labeling interface of a project that shows the tasks."""
    labels = [f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>" for name, color in colors_of(types).items()]
    lines = ["<View>", '  <Header value="$doubt"/>', '  <Labels name="label" toName="text">', *labels, "  </Labels>"]
    return "\n".join([*lines, '  <Text name="text" value="$text"/>', "</View>", ""])
