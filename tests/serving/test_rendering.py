"""Protects texts for the eye: every character is there, entities within entities too, and none is a command to the terminal."""

import io
import json
import re

from rich.console import Console

from glode.serving import tag as tag_file
from glode.serving.documents import Document
from glode.serving.rendering import COLORS, RenderWriter, render

TYPES = ["PER", "LOC"]


def entity(name: str, start: int, end: int) -> dict:
    return {"entity_group": name, "score": 0.9, "word": "", "start": start, "end": end}


def test_entities_stand_in_their_colors_or_in_brackets():
    text, entities = "Anna flew to Oslo.", [entity("PER", 0, 4), entity("LOC", 13, 17)]
    shown = render(text, entities, TYPES)
    assert shown.plain == " Anna PER  flew to  Oslo LOC ."
    assert [(shown.plain[s.start : s.end], s.style) for s in shown.spans] == [
        (" Oslo LOC ", f"bold white on {COLORS[1]}"),
        (" Anna PER ", f"bold white on {COLORS[0]}"),
    ]
    assert render(text, entities, TYPES, colored=False).plain == "[Anna PER] flew to [Oslo LOC]."
    assert render("", [], TYPES).plain == ""
    assert f"background-color: {COLORS[1]}" in shown._repr_mimebundle_(include=[], exclude=[])["text/html"]  # as a notebook asks


def test_entities_within_entities():
    text = "Oslo Park Oslo"
    entities = [entity("LOC", 0, 14), entity("PER", 0, 9), entity("LOC", 0, 4), entity("PER", 10, 14)]
    assert render(text, entities, TYPES, colored=False).plain == "[[[Oslo LOC] Park PER] [Oslo PER] LOC]"
    widths = [span.end - span.start for span in render(text, entities, TYPES).spans]
    assert widths[0] == max(widths)  # what is painted later lies above


def test_a_text_gives_the_terminal_no_commands():
    text = "a\x1b[31mb\x07\u202ec\r\n\td"
    assert render(text, [entity("PER", 6, 7)], TYPES, colored=False).plain == "a\ufffd[31m[b PER]\ufffd\ufffdc\ufffd\n\td"


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
    wanted = [render(text, ner(text), ["PER", "LOC", "ORG"], colored=False).plain for text in source.read_text().splitlines()]
    assert shown == wanted and "[" in shown[0]
    tag_file.main([*usual, "--output", str(target)])
    assert capsys.readouterr().out.splitlines() == wanted
    assert [json.loads(line)["text"] for line in target.read_text().splitlines()] == source.read_text().splitlines()
