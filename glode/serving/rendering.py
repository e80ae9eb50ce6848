"""Tagged texts for the eye, in a terminal or a notebook."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from glode.serving.documents import Document
from glode.serving.formats import Writer

COLORS = ("#d97706", "#2563eb", "#16a34a", "#db2777", "#7c3aed", "#dc2626", "#0891b2", "#57534e")  # dark enough for white on them
# A terminal takes these for commands; each becomes one visible character, so that offsets hold.
CONTROLS = {point: "\ufffd" for point in (*range(0x09), *range(0x0B, 0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F))}


def render(text: str, entities: Sequence[dict], types: Sequence[str], colored: bool = True) -> Text:
    """A text with its entities in the colors of their types, and the type's name behind each; a notebook shows it as it is.

    Args:
        entities: as the pipeline returns them, within one another as well.
        types: of the model, in its order.
        colored: else entities stand in brackets.
    """
    opening, closing = (" ", " ") if colored else ("[", "]")
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
            styles.append((f"bold white on {COLORS[types.index(name) % len(COLORS)]}", begun.pop(), len(shown)))
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
            self.console.print(render(document.text, entities, self.types, colored))
