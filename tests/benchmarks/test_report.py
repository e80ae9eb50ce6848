"""Protects the results: RESULTS.md is what the tables say, the same tables give the same bytes, and a study's figures are
computed as they are named."""

import json
from pathlib import Path

import pytest
import report
from common import RESULTS, read_rows, write_rows
from report import Cells, by_pair, labels_by_epoch, over_pairs, picture_of_labels, pictures
from study import Suite
from support import ROOT


def row(variant: str, seed: int, f1: float, labels: str = "") -> dict:
    values = {"suite": "smoke", "pair": "demo-en-de", "seed": seed, "variant": variant, "f1": f1, "label_f1": labels}
    values |= {"minutes": 6, "precision": "fp32", "cpu": "c", "versions": "v"}
    return {name: str(value) for name, value in values.items()}


@pytest.fixture
def rows() -> list[dict]:
    two = [row("plain", 0, 50), row("plain", 1, 54), row("supervised", 0, 70), row("supervised", 1, 74)]
    two += [row("glode-small", 0, 58, "60.0 62.0"), row("glode-small", 1, 58, "61.0 65.0")]
    return [*two, row("no-denoising", 0, 55, "60.0 60.0")]


def test_a_studys_figures(rows):
    suite = Suite("smoke")
    tests = [{"suite": "smoke", "pair": pair, "variant": "glode-small", "p": "0.0123"} for pair in ("all", "demo-en-de")]
    cells = Cells(suite, [*rows, row("plain", 0, 1) | {"suite": "other"}], tests)
    lines = over_pairs(cells).splitlines()
    assert (
        "| **GLoDe**, small | 58.0 | +6.0 | +3.0 | 0.0123 | 30 | +3.0 | 2 |" in lines
    )  # +8 and +4 above plain; seed 0 alone below
    assert "| no denoising | 55.0 | +5.0 | +0.0 | - | 15 | +0.0 | 1 |" in lines
    assert "| CoLaDa-style | - | - | - | - | - | - | 0 |" in lines
    by_method = by_pair(cells, suite.tables[0]["variants"], ["demo-en-de"])
    assert "| **GLoDe**, small | 58.0 ± 0.0 (2), p 0.0123 |" in by_method and "| no denoising | 55.0 (1) |" in by_method
    assert "| **GLoDe**, small | 30 |" in by_method
    assert "of the way" not in by_pair(cells, suite.tables[1]["variants"], ["demo-en-de"])
    assert "| **GLoDe**, small, demo-en-de | 60.5 | 63.5 |" in labels_by_epoch(cells)


def test_the_same_tables_give_the_same_bytes(rows, tmp_path):
    for path in RESULTS.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_rows("study", rows, tmp_path)
    write_rows("gpu", [{"gpu": "H", "step / encoder": "1.05", "cpu": "c", "versions": "v"} | dict.fromkeys(GPU, "")], tmp_path)
    suites = [Suite("smoke"), Suite("paper")]
    for number in "12":
        report.write_report(tmp_path / number, suites, tmp_path)
    first, second = (sorted((tmp_path / number).rglob("*.*")) for number in "12")
    assert [path.name for path in first] == ["RESULTS.md", "study-smoke-gap.png", "study-smoke-labels.png"]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(first, second, strict=True))
    text = first[0].read_text(encoding="utf-8")
    assert "7 of 20 cells are measured" in text and "0.7 hours of cells, fp32" in text
    assert "**Not measured yet**: none of" in text and "| step / encoder | 1.05 |" in text
    write_rows("study", [row for row in rows if row["variant"] == "plain"], tmp_path)
    text = report.page(suites, tmp_path)
    assert "| plain: source labels only | 52.0" in text and "by epoch" not in text and "study-smoke" not in text


def test_a_picture_shows_what_is_measured_alone(rows):
    suite = Suite("cpu")
    mine = [row | {"suite": "cpu", "pair": "conll-en-es"} for row in rows]
    open_gap = Cells(suite, [row for row in mine if row["variant"] != "supervised"], [])
    assert list(pictures(open_gap)) == ["labels"] and list(pictures(Cells(suite, mine, []))) == ["labels", "gap"]
    assert [axis.get_title() for axis in picture_of_labels(open_gap).axes] == ["conll-en-es"]


GPU = ("sequential / step", "model FLOP utilisation", "synchronisations", "peak MB", "words a second")


def test_results_md_is_what_the_tables_say(tmp_path):
    assert report.main([], tmp_path) == 0
    assert (tmp_path / "RESULTS.md").read_bytes() == (ROOT / "RESULTS.md").read_bytes(), "python benchmarks/report.py"


def test_an_empty_directory_is_not_measured(tmp_path):
    assert report.page([Suite("cpu")], tmp_path).count("Not measured yet") == 6


def test_missed_bars_are_said():
    assert report.judged("1.2", 1.2, "<=", 1.1) == "1.2 **missed**" and report.judged("1.2", 1.2, ">=", 1.1) == "1.2"
    assert "1.96 **missed**" in report.tagging(read_rows("inference"))


def test_tables_hold_no_raw_cells():
    """Results are a table a benchmark; the tree once had 184 files of them."""
    files = [path for path in (ROOT / "benchmarks" / "results").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".csv"} and sum(path.stat().st_size for path in files) < 200_000
    assert not any(json.dumps(str(Path.home())) in path.read_text(encoding="utf-8") for path in files)
