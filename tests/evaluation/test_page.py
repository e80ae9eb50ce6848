"""Protects the page of errors: every word and entity is there and harmless, whatever its script; nested ones too."""

import re
from html import unescape
from html.parser import HTMLParser

from glode.evaluation.kinds import outcomes
from glode.evaluation.page import error_page, worst_sentences

WORDS = [["وصل", "محمد", "الفاسي", "<script>", "&", "\u202eOslo"], ["in", "Rome"], ["no", "one"]]
GOLD = [[(1, 2, "PER"), (5, 1, "LOC")], [(1, 1, "LOC")], []]
FOUND = [[(1, 1, "PER"), (5, -1, "LOC")], [(1, 1, "LOC")], [(1, 1, "a<b")]]


def rows(found: list) -> list:
    return [outcomes(*pair) for pair in zip(GOLD, found, strict=True)]


class Balance(HTMLParser):
    """Every element that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.opened, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.opened += [tag] * (tag != "meta")

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag


def test_the_worst_come_first_and_those_without_an_error_not_at_all():
    outcomes_of = {"a": rows(FOUND), "b": rows(GOLD)}
    assert worst_sentences(outcomes_of, 10) == [0, 2] and worst_sentences(outcomes_of, 1) == [0]
    assert worst_sentences({"b": rows(GOLD)}, 10) == []
    assert "No sentence has an error" in error_page("x", [], WORDS, {"b": rows(GOLD)})


def test_both_sides_are_shown_and_harmless():
    page = error_page("<gold>", [0, 2], WORDS, {"one & only": rows(FOUND), "good": rows(GOLD)})
    parser = Balance()
    parser.feed(page)
    assert not parser.opened and "script" not in {tag for tag, _ in parser.tags}
    assert not re.search(r"https?:|src=|url\(|@import", page) and "\u202e" not in page
    texts = [unescape(re.sub(r"<bdi.*?</bdi>|<[^>]+>", "", text)) for text in re.findall(r'<p dir="auto".*?</p>', page)]
    assert texts == ["وصل محمد الفاسي <script> & \ufffdOslo"] * 3 + ["no one"] * 3
    marked = re.findall(r"<mark( class=\"dashed\")? style=[^>]+>(.*?)<bdi [^>]+>(.*?)</bdi></mark>", page)
    assert "mark.dashed {" in page
    wrong, loc = ' class="dashed"', ("\ufffdOslo", "LOC")
    assert marked == [
        (wrong, "محمد الفاسي", "PER"),  # gold: not all have found it
        (wrong, *loc),
        (wrong, "محمد", "PER"),
        (wrong, *loc),
        ("", "محمد الفاسي", "PER"),
        ("", *loc),
        (wrong, "one", "a&lt;b"),
    ]
    assert 'wrong borders: <bdi dir="auto">محمد الفاسي</bdi> <bdi>PER</bdi> → <bdi dir="auto">محمد</bdi>' in page
    assert "\ufffdOslo (borders within words)" in page and "spurious: " in page


def test_entities_that_overlap_are_lines_of_their_own():
    entities = [(0, 3, "ORG"), (1, 1, "LOC"), (2, 3, "PER"), (3, 1, "LOC")]
    page = error_page("x", [0], [["a", "b", "c", "d", "e"]], {"m": [outcomes(entities, [])]})
    assert page.count('<p dir="auto"') == 2 + 1
