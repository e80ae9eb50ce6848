"""Tagged texts for the eye: in a terminal, in a notebook, on a page of HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from glode.errors import InputError
from glode.serving.documents import Document
from glode.serving.formats import Writer

COLORS = ("#d97706", "#2563eb", "#16a34a", "#db2777", "#7c3aed", "#dc2626", "#0891b2", "#57534e")  # dark enough for white on them
# A terminal takes these for commands; each becomes one visible character, so that offsets hold.
CONTROLS = {point: "\ufffd" for point in (*range(0x09), *range(0x0B, 0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F))}

# A notebook shows many outputs on one page, so an element brings its own style.
_TEXT = "margin: 0; line-height: 2; white-space: pre-wrap; overflow-wrap: anywhere"
_MARK = "color: #fff; padding: .1em .3em; border-radius: .3em; unicode-bidi: isolate"
_NAME = "font-size: .7em; font-weight: bold; margin-inline-start: .3em"


def colors_of(types: Sequence[str]) -> dict[str, str]:
    """Each type's color, by its place."""
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(types)}


# ------------------------------------------------------------------------------------------------------------ what users call


@dataclass(frozen=True, repr=False)
class Rendering:
    """Texts with their entities. A notebook shows them in color, so does rich's `print` in a terminal; as a string they have
    brackets."""

    texts: Sequence[str]
    entities: Sequence[Sequence[dict]]
    types: Sequence[str]

    def _repr_html_(self) -> str:
        colors, shown = colors_of(self.types), []
        for text, entities in zip(self.texts, self.entities, strict=True):
            marks = [Mark(e["start"], e["end"], e["entity_group"]) for e in entities]
            shown.append(f'<div style="padding: .3em 0">\n{paragraphs(text, marks, colors)}\n</div>')
        return "\n".join(shown)

    def __rich__(self) -> Text:
        return Text("\n").join(self._lines(colored=True))

    def __str__(self) -> str:
        return "\n".join(line.plain for line in self._lines(colored=False))

    __repr__ = __str__

    def _lines(self, colored: bool) -> list[Text]:
        pairs = zip(self.texts, self.entities, strict=True)
        return [for_terminal(text, entities, self.types, colored) for text, entities in pairs]


def render(text: str | Sequence[str], entities: Sequence[Any], types: Sequence[str] | None = None) -> Rendering:
    """A text with its entities, or several with those of each, to look at: the last line of a notebook's cell shows it.

    Args:
        text: a text, or texts.
        entities: what the pipeline, `predict` or `glode tag` found in it; of several texts a list each. They may be within one
            another: then a text is shown more than once.
        types: which gets which color, in the order of a model's types; by default those that were found, sorted.
    Raises:
        InputError: the entities are not those of the texts.
    """
    texts, found = ([text], [entities]) if isinstance(text, str) else (list(text), list(entities))
    if len(texts) != len(found):
        raise InputError(f"render: {len(texts)} texts, but the entities of {len(found)}. Give a list of entities for each text.")
    for part, its_entities in zip(texts, found, strict=True):
        for entity in its_entities:
            _check(part, entity)
    names = sorted({entity["entity_group"] for its_entities in found for entity in its_entities})
    return Rendering(texts, found, list(dict.fromkeys([*(types or ()), *names])))


def _check(text: str, entity: Any) -> None:
    """Whether an entity can be one of the text.

    Raises:
        InputError: it lacks something, or lies outside.
    """
    if not isinstance(entity, Mapping) or not {"entity_group", "start", "end"} <= entity.keys():
        raise InputError(
            f"render: {entity!r} is no entity. Expected a dictionary with entity_group, start and end, as our pipeline returns "
            'it, and a token classifier\'s with aggregation_strategy="simple".'
        )
    start, end = entity["start"], entity["end"]
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"render: an entity from {start} to {end} in a text of {len(text)} characters. Give the text that was tagged; start "
            "and end count its characters, not words."
        )


# --------------------------------------------------------------------------------------------------------------------- HTML


class Mark(NamedTuple):
    """An entity of a text to show: its first character, the one after its last, its type; a dashed one is one in doubt."""

    start: int
    end: int
    name: str
    dashed: bool = False


def paragraphs(text: str, marks: Iterable[Mark], colors: Mapping[str, str]) -> str:
    """A text with its entities in HTML, once for each layer of entities that do not overlap."""
    return "\n".join(_paragraph(text, layer, colors) for layer in layers(marks) or [[]])


def _paragraph(text: str, layer: Sequence[Mark], colors: Mapping[str, str]) -> str:
    parts, at = [], 0
    for start, end, name, dashed in layer:
        kind = ' class="dashed"' if dashed else ""
        parts.append(harmless(text[at:start]))
        parts.append(f'<mark{kind} style="background: {colors[name]}; {_MARK}">{harmless(text[start:end])}')
        parts.append(f'<bdi style="{_NAME}">{harmless(name)}</bdi></mark>')
        at = end
    return f'<p dir="auto" style="{_TEXT}">{"".join(parts)}{harmless(text[at:])}</p>'


def layers(marks: Iterable[Mark]) -> list[list[Mark]]:
    """The marks in as few lists as it takes for none of a list to overlap another, each in text order."""
    found: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda m: (m.start, -m.end, m.name)):
        for layer in found:
            if layer[-1].end <= mark.start:
                layer.append(mark)
                break
        else:
            found.append([mark])
    return found


def harmless(text: str) -> str:
    """A text as HTML shows it, markup and control characters included."""
    return escape(text.translate(CONTROLS))


# ----------------------------------------------------------------------------------------------------------------- terminal


def for_terminal(text: str, entities: Sequence[dict], types: Sequence[str], colored: bool = True) -> Text:
    """A text with its entities in the colors of their types, and the type's name behind each.

    Args:
        entities: as the pipeline returns them, within one another as well.
        types: of the model, in its order.
        colored: else entities stand in brackets.
    """
    opening, closing, colors = *((" ", " ") if colored else ("[", "]")), colors_of(types)
    text = text.translate(CONTROLS)
    # Of two that begin together the longer one comes first, of two that end together the shorter.
    events = [(e["start"], 1, -e["end"], e["entity_group"]) for e in entities]
    events += [(e["end"], 0, -e["start"], e["entity_group"]) for e in entities]
    shown, at = Text(), 0
    begun: list[int] = []
    styles: list[tuple[str, int, int]] = []
    for position, begins, _, name in sorted(events):
        shown.append(text[at:position])
        at = position
        if begins:
            begun.append(len(shown))
            shown.append(opening)
        else:
            shown.append(f" {name}{closing}")
            styles.append((f"bold white on {colors[name]}", begun.pop(), len(shown)))
    shown.append(text[at:])
    for style in reversed(styles) if colored else ():  # the inner over the outer
        shown.stylize(*style)
    return shown


class RenderWriter(Writer):
    """Prints every text for the eye."""

    def __init__(self, types: Sequence[str], console: Console | None = None):
        self.types, self.console = types, console or Console(soft_wrap=True, highlight=False)

    def write(self, documents: Sequence[Document], found: Sequence[list[dict]]) -> None:
        colored = self.console.color_system is not None and not self.console.no_color
        for document, entities in zip(documents, found, strict=True):
            self.console.print(for_terminal(document.text, entities, self.types, colored))
