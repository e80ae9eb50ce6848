"""Protects texts for the eye: every character is there, entities within entities too, and none is a command to the terminal."""

import io
import json
import re
from html import unescape

import pytest
from IPython.core.formatters import DisplayFormatter
from rich.console import Console

from glode import InputError, render
from glode.serving import tag as tag_file
from glode.serving.documents import Document
from glode.serving.rendering import COLORS, Mark, RenderWriter, for_terminal, layers

TYPES = ["PER", "LOC"]


def entity(name: str, start: int, end: int) -> dict:
    return {"entity_group": name, "score": 0.9, "word": "", "start": start, "end": end}


def test_entities_stand_in_their_colors_or_in_brackets():
    text, entities = "Anna flew to Oslo.", [entity("PER", 0, 4), entity("LOC", 13, 17)]
    shown = for_terminal(text, entities, TYPES)
    assert shown.plain == " Anna PER  flew to  Oslo LOC ."
    assert [(shown.plain[s.start : s.end], s.style) for s in shown.spans] == [
        (" Oslo LOC ", f"bold white on {COLORS[1]}"),
        (" Anna PER ", f"bold white on {COLORS[0]}"),
    ]
    assert for_terminal(text, entities, TYPES, colored=False).plain == "[Anna PER] flew to [Oslo LOC]."
    assert for_terminal("", [], TYPES).plain == ""


def test_entities_within_entities():
    text = "Oslo Park Oslo"
    entities = [entity("LOC", 0, 14), entity("PER", 0, 9), entity("LOC", 0, 4), entity("PER", 10, 14)]
    assert for_terminal(text, entities, TYPES, colored=False).plain == "[[[Oslo LOC] Park PER] [Oslo PER] LOC]"
    widths = [span.end - span.start for span in for_terminal(text, entities, TYPES).spans]
    assert widths[0] == max(widths)  # what is painted later lies above


def test_a_text_gives_the_terminal_no_commands():
    text = "a\x1b[31mb\x07\u202ec\r\n\td"
    assert for_terminal(text, [entity("PER", 6, 7)], TYPES, colored=False).plain == "a\ufffd[31m[b PER]\ufffd\ufffdc\ufffd\n\td"


def test_markup_in_a_text_is_text():
    screen = io.StringIO()
    writer = RenderWriter(TYPES, Console(file=screen, color_system="truecolor", force_terminal=True, soft_wrap=True))
    writer.write([Document("[bold]Anna[/bold] :smile: " + "x" * 300)], [[entity("PER", 6, 10)]])
    assert "48;2;217;119;6m Anna PER \x1b[0m" in screen.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert plain == "[bold] Anna PER [/bold] :smile: " + "x" * 300 + "\n"


def test_the_command_renders_and_writes_where_asked_to(directory, ner, tmp_path, capsys):
    source, target = tmp_path / "a.txt", tmp_path / "b.jsonl"
    source.write_text("Anna Berg lives in New York .\nOslo\n")
    usual = ["--model", str(directory), "--input", str(source), "--device", "cpu", "--render"]
    tag_file.main(usual)
    shown = capsys.readouterr().out.splitlines()
    texts = source.read_text().splitlines()
    wanted = [for_terminal(text, ner(text), ["PER", "LOC", "ORG"], colored=False).plain for text in texts]
    assert shown == wanted and "[" in shown[0]
    tag_file.main([*usual, "--output", str(target)])
    assert capsys.readouterr().out.splitlines() == wanted
    assert [json.loads(line)["text"] for line in target.read_text().splitlines()] == texts


# ------------------------------------------------------------------------------------------------------------- in a notebook


def test_a_notebook_shows_texts_in_color(ner):
    texts = ["Anna Berg lives in New York .", "", "<b>Otto</b> & \u202eOslo\nKiel"]
    data, _ = DisplayFormatter().format(render(texts, ner(texts), types=["PER", "LOC", "ORG"]))
    shown, entities = data["text/html"], [found for its in ner(texts) for found in its]
    marked = re.findall(r'<mark style="background: (#\w+);[^>]*>(.*?)<bdi [^>]+>(\w+)</bdi></mark>', shown, re.DOTALL)
    names = [found["entity_group"] for found in entities]
    assert [(unescape(word), name) for _, word, name in marked] == [
        (found["word"].replace("\u202e", "\ufffd"), found["entity_group"]) for found in entities
    ]
    assert [color for color, _, _ in marked] == [COLORS[["PER", "LOC", "ORG"].index(name)] for name in names]
    assert len(set(names)) > 1
    plain = [unescape(re.sub("<bdi.*?</bdi>|<[^>]+>", "", part)) for part in re.findall("<p .*?</p>", shown, re.DOTALL)]
    assert plain == [text.replace("\u202e", "\ufffd") for text in texts]
    assert data["text/plain"].startswith("[") and "\x1b" not in data["text/plain"]


def test_as_a_string_in_brackets_and_by_rich_in_color():
    shown = render(["Anna flew.", "To Oslo!"], [[entity("PER", 0, 4)], [entity("LOC", 3, 7)]])
    assert str(shown) == repr(shown) == "[Anna PER] flew.\nTo [Oslo LOC]!"
    screen = io.StringIO()
    Console(file=screen, color_system="truecolor", force_terminal=True).print(shown)
    assert screen.getvalue().splitlines()[0] == "\x1b[1;37;48;2;37;99;235m Anna PER \x1b[0m flew."  # LOC, then PER: sorted


def test_entities_that_overlap_are_shown_one_below_the_other():
    marks = [Mark(0, 3, "ORG"), Mark(1, 2, "LOC"), Mark(2, 5, "PER"), Mark(3, 4, "LOC")]
    assert layers(reversed(marks)) == [[marks[0], marks[3]], [marks[1], marks[2]]]
    assert render("abcde", [entity(m.name, m.start, m.end) for m in marks])._repr_html_().count("<p ") == 2
    assert render("abcde", [])._repr_html_().count("<p ") == 1


def test_entities_of_another_text_are_refused():
    with pytest.raises(InputError, match="Give a list of entities for each text"):
        render(["Oslo"], [[], []])
    with pytest.raises(InputError, match="Give the text that was tagged"):
        render("Oslo", [entity("LOC", 0, 5)])
    for odd in ({"entity": "B-LOC", "start": 0, "end": 4}, [entity("LOC", 0, 4)]):
        with pytest.raises(InputError, match="Expected a dictionary with entity_group, start and end"):
            render("Oslo", [odd])
