"""The sentences with most errors as a page of HTML: one file, no script, nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from glode.evaluation.kinds import CORRECT, Outcome, end_of
from glode.metrics import Entity
from glode.publishing.token_classifier import running_text
from glode.serving.rendering import Mark, colors_of, harmless, paragraphs

SURE = 0.9  # of an entity, on a page for review

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
article { border-top: 1px solid #8886; padding: .8rem 0; }
h2 { font-size: 1rem; margin: 0; }
.who { font-size: .8rem; opacity: .75; margin: .5rem 0 0; }
mark.dashed { outline: 2px dashed currentColor; outline-offset: -2px; }
ul { margin: .3rem 0; font-size: .9rem; }
"""


def worst_sentences(outcomes: Mapping[str, Sequence[Sequence[Outcome]]], number: int) -> list[int]:
    """The sentences in which all models together make most errors, at most so many; those without an error are left out."""
    errors: dict[int, int] = {}
    for rows in outcomes.values():
        for sentence, row in enumerate(rows):
            errors[sentence] = errors.get(sentence, 0) + sum(outcome.kind != CORRECT for outcome in row)
    return [sentence for sentence in sorted(errors, key=lambda i: (-errors[i], i)) if errors[sentence]][:number]


def error_page(
    title: str,
    sentences: Sequence[int],
    words: Sequence[Sequence[str]],
    outcomes: Mapping[str, Sequence[Sequence[Outcome]]],
) -> str:
    """A page with gold and found entities of some sentences, and what is wrong.

    Args:
        sentences: their places in the gold file, from 0; shown from 1.
        words: of all sentences.
        outcomes: model -> what became of the entities of each sentence.
    """
    rows = [row for model in outcomes.values() for i in sentences for row in model[i]]
    colors = colors_of(sorted({entity[2] for outcome in rows for entity in (outcome.gold, outcome.found) if entity}))
    parts = [_article(i, words[i], {name: model[i] for name, model in outcomes.items()}, colors) for i in sentences]
    first = f"{len(sentences)} sentences, those with most errors first. A dashed border marks what is wrong."
    return _page(title, first, "\n".join(parts) or "<p>No sentence has an error.</p>")


def _page(title: str, first: str, body: str) -> str:
    """A document with a title, a first paragraph and what follows."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1><bdi>{escape(title)}</bdi></h1>\n"
        f"<p>{first}</p>\n{body}\n</body>\n</html>\n"
    )


@dataclass(frozen=True)
class ReviewRow:
    """A sentence of a page for review.

    Args:
        sentence: its place in the text, from 0; shown from 1.
        words: its words.
        found: the model's entities -> their probabilities.
        before: those of the first pseudo labels; None where they are not shown.
        doubt: what the model is least certain of, in words.
    """

    sentence: int
    words: Sequence[str]
    found: Mapping[Entity, float]
    before: Mapping[Entity, float] | None
    doubt: str


def review_page(title: str, order: str, types: Sequence[str], rows: Sequence[ReviewRow]) -> str:
    """A page of sentences that a person should look at: the model's entities and, where they are given, those of the first pseudo
    labels; `order` says which sentences these are."""
    colors = colors_of(types)
    which = "the least certain ones" if order == "uncertain" else "those that changed most"
    first = f"{len(rows)} sentences, {which} first. A dashed border marks "
    first += "what is not on the other side." if order == "changed" else f"entities of less than {100 * SURE:.0f} % probability."
    return _page(title, first, "\n".join(_review_article(row, colors) for row in rows))


def _review_article(row: ReviewRow, colors: Mapping[str, str]) -> str:
    """One sentence: what the model says now, what the first labels said, and the model's doubt."""
    before = row.before
    found = {entity: score >= SURE if before is None else entity in before for entity, score in row.found.items()}
    parts = [f"<article>\n<h2>Sentence {row.sentence + 1}</h2>"]
    if before is not None:
        parts.append(_texts("first pseudo labels", row.words, {entity: entity in found for entity in before}, colors))
    parts.append(_texts("model", row.words, found, colors))
    items = [f"least certain: {row.doubt}"]
    items += [f"{_words(entity, row.words)}: {entity[2]} {100 * score:.0f} %" for entity, score in row.found.items()]
    shown = "".join(f'<li><bdi dir="auto">{harmless(item)}</bdi></li>' for item in items)
    return "\n".join([*parts, f"<ul>{shown}</ul>", "</article>"])


def _article(number: int, words: Sequence[str], outcomes: Mapping[str, Sequence[Outcome]], colors: Mapping[str, str]) -> str:
    """One sentence: its gold entities, then for each model what it found and the list of its errors."""
    answers = [outcome for row in outcomes.values() for outcome in row if outcome.gold]
    wrong = {outcome.gold for outcome in answers if outcome.kind != CORRECT}
    gold = {outcome.gold: outcome.gold not in wrong for outcome in answers if outcome.gold}
    parts = [f"<article>\n<h2>Sentence {number + 1}</h2>", _texts("gold", words, gold, colors)]
    for name, row in outcomes.items():
        found = {outcome.found: outcome.kind == CORRECT for outcome in row if outcome.found}
        parts.append(_texts(name, words, found, colors))
        errors = [f"<li>{_error(outcome, words)}</li>" for outcome in row if outcome.kind != CORRECT]
        parts.append("<ul>" + "".join(errors) + "</ul>" if errors else "")
    return "\n".join([*filter(None, parts), "</article>"])


def _error(outcome: Outcome, words: Sequence[str]) -> str:
    sides = [entity for entity in (outcome.gold, outcome.found) if entity]
    names = [f'<bdi dir="auto">{harmless(_words(entity, words))}</bdi> <bdi>{harmless(entity[2])}</bdi>' for entity in sides]
    return f"{outcome.kind}: {' → '.join(names)}"


def _words(entity: Entity, words: Sequence[str]) -> str:
    return running_text(words[entity[0] : end_of(entity)])[0] + (" (borders within words)" if entity[1] < 0 else "")


def _texts(who: str, words: Sequence[str], entities: Mapping[Entity, bool], colors: Mapping[str, str]) -> str:
    """The sentence with its entities (-> whether they are right)."""
    text, offsets = running_text(words)
    places = {entity: (offsets[entity[0]][0], offsets[end_of(entity) - 1][1]) for entity in entities}
    marks = [Mark(*places[entity], entity[2], dashed=not right) for entity, right in entities.items()]
    return f'<p class="who"><bdi>{harmless(who)}</bdi></p>\n{paragraphs(text, marks, colors)}'
