"""Protects the study: what it counts equals plain loops, the significance test equals full enumeration, finished cells are never
run again and a failed one stops nothing, a whole small grid runs, no word of a corpus gets into a results file, and the same
results give the same report, that of speed too."""

import json
import random
from itertools import product
from pathlib import Path

import cell
import numpy as np
import pytest
import study
import tables
from analysis import calibration, changes, error_kinds, f1_of, familiarity, randomisation_test, recall_by, sentence_counts
from grid import Cell, Suite
from report import Results, differences, scores_table, write_report
from study import LABELS, Study
from support import ROOT

from run_crossner import parse_arguments

GOLD = [[(0, 2, "PER"), (4, 1, "LOC")], [], [(1, 1, "ORG"), (3, 2, "LOC")]]
FOUND = [[(0, 2, "LOC"), (4, 1, "LOC")], [(0, 1, "PER")], [(1, 2, "ORG"), (4, 1, "PER")]]


def test_kinds_of_errors():
    assert error_kinds(GOLD, FOUND) == {
        "correct": 1,
        "type": 1,
        "boundary": 1,
        "type and boundary": 1,
        "spurious": 1,
        "missed": 0,
    }
    assert error_kinds(GOLD, [[], [], []])["missed"] == 4
    assert sentence_counts(GOLD, FOUND) == [(1, 1, 1), (0, 1, 0), (0, 2, 2)]


def test_recall_by_group_and_familiarity():
    words = [["Anna", "Berg", "saw", "old", "Rome"], ["x"], ["the", "UN", "in", "New", "York"]]
    groups = familiarity(words, GOLD, [["old", "Rome", "."], ["Anna", "Bergmann"], ["in", "New", "York"]])
    assert groups == [["unseen", "seen"], [], ["unseen", "seen"]]
    assert recall_by(groups, GOLD, FOUND) == {"seen": [1, 2], "unseen": [0, 2]}


def test_calibration_and_changes_against_loops():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(200), rng.random(200) < 0.5
    for number, (count, sure, share) in enumerate(calibration(confidence, right, 5)):
        mine = [i for i in range(200) if number / 5 <= confidence[i] < (number + 1) / 5]
        assert count == len(mine)
        assert sure == pytest.approx(sum(confidence[mine]) / len(mine), abs=1e-4)
        assert share == pytest.approx(sum(right[mine]) / len(mine), abs=1e-4)
    assert calibration(np.array([1.0]), np.array([True]), 2) == [[0, 0, 0], [1, 1, 1]]
    gold, before, after = rng.integers(3, size=(3, 100))
    groups = np.array(["a", "b"])[rng.integers(2, size=100)]
    found = changes(groups, gold, before, after)
    for group in "ab":
        rows = [(b == g, a == g) for x, g, b, a in zip(groups, gold, before, after, strict=True) if x == group]
        assert found[group] == [rows.count(kind) for kind in ((True, True), (False, True), (True, False), (False, False))]


def test_randomisation_equals_enumeration():
    rng = random.Random(1)
    sides = [np.array([[rng.randint(0, 4), rng.randint(0, 2), rng.randint(0, 3)] for _ in range(8)]) for _ in range(2)]
    f1 = [200 * t / (2 * t + p + n) for t, p, n in (side.sum(0) for side in sides)]
    assert f1_of(sides[0].sum(0)) == pytest.approx(f1[0])
    extreme = 0
    for swap in product((False, True), repeat=8):
        mixed = [sum(sides[k ^ s][i] for i, s in enumerate(swap)) for k in (0, 1)]
        extreme += abs(f1_of(mixed[0]) - f1_of(mixed[1])) >= abs(f1[0] - f1[1]) - 1e-9
    difference, p = randomisation_test(*sides, trials=20_000)
    assert difference == pytest.approx(f1[0] - f1[1])
    assert p == pytest.approx(extreme / 2**8, abs=0.015)
    assert randomisation_test(*sides) == randomisation_test(*sides)
    assert randomisation_test(sides[0], sides[0])[1] == 1


@pytest.mark.parametrize("name", ["smoke", "small", "paper"])
def test_suites_ask_for_what_there_is(name, tmp_path):
    suite = Suite(name)
    cells = suite.cells()
    assert len(cells) == len(set(cells)) > 5
    for position, this in enumerate(cells):
        if teacher := suite.teacher_of(this.variant):
            assert Cell(this.pair, teacher, this.seed) in cells[:position]
    for variant in {this.variant for this in cells}:
        settings = suite.settings(next(this for this in cells if this.variant == variant)) | {"bf16": False}
        if "config" in settings:
            settings["config"] = str(ROOT / settings["config"])
        argv = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        parse_arguments([*argv, "--target_lang", "de", "--source_train", "x", "--output_dir", str(tmp_path)])


class FakeCells:
    """Stands in for the process of a cell: notes what was asked for, and fails where told to. `labels` come of every model."""

    def __init__(self, failing: str = "nothing", labels: str = ""):
        self.failing, self.labels, self.asked = failing, labels, []

    def __call__(self, arguments: list[str], log: Path) -> int:
        name = Path(arguments[0]).parent.name
        self.asked.append(name)
        if self.failing in name:
            return 1
        (Path(arguments[0]).parent / "run" / LABELS).write_text(self.labels)
        Path(arguments[0]).write_text(json.dumps({"scores": {"test": {"strict": {"f1": 50.0}}}}))
        return 0


def smoke(directory: Path, launch, extra=()) -> Study:
    return Study(Suite("smoke"), ROOT / "glode/run/demo", directory / "results" / "smoke", directory / "work", extra, launch)


def test_finished_cells_are_never_run_again(tmp_path, capsys):
    first = FakeCells()
    assert smoke(tmp_path, first).run("*/*f*/*") == 0
    assert first.asked == ["plain-0", "self-training-0", "confidence-0"]  # what the labels come from goes first
    second = FakeCells()
    assert smoke(tmp_path, second).run() == 0
    assert len(second.asked) == len(set(second.asked)) == len(Suite("smoke").cells()) - 3
    assert not set(first.asked) & set(second.asked)
    third = FakeCells()
    smoke(tmp_path, third).run()
    assert third.asked == [] and "12 of 12 cells are there" in capsys.readouterr().out


def test_a_failed_cell_is_reported_and_the_rest_go_on(tmp_path, capsys):
    launch = FakeCells("contproto")
    assert smoke(tmp_path, launch).run() == 1
    assert len(launch.asked) == 12 and not list(tmp_path.rglob("*.partial"))
    assert "FAILED: demo-en-de/contproto/0, see" in capsys.readouterr().out
    launch = FakeCells("plain")  # without it most have no labels, which is found out once
    assert smoke(tmp_path / "other", launch).run() > 5
    assert launch.asked.count("plain-0") == 1 and "glode-0" not in launch.asked and "supervised-0" in launch.asked


def test_lost_labels_are_made_again_and_the_same_ones_change_nothing(tmp_path):
    smoke(tmp_path, FakeCells()).run("*/plain/0")
    result = Cell("demo-en-de", "plain", 0).file(tmp_path / "results" / "smoke")
    before = result.read_bytes()
    next(tmp_path.rglob(LABELS)).unlink()
    launch = FakeCells()
    smoke(tmp_path, launch).run("*/glode/0")
    assert launch.asked == ["plain-0", "glode-0"] and result.read_bytes() == before


def test_what_was_measured_with_other_labels_is_measured_again(tmp_path, capsys):
    """A row of a table must not compare variants that start from different draws of the source model."""
    smoke(tmp_path, FakeCells()).run("*/*f*/*")
    teacher, student = (Cell("demo-en-de", name, 0).file(tmp_path / "results" / "smoke") for name in ("plain", "confidence"))
    before = json.loads(student.read_text())["teacher_sha256"]
    assert before == json.loads(teacher.read_text())["labels_sha256"]
    for labels in tmp_path.rglob(LABELS):
        labels.unlink()
    launch = FakeCells(labels="other")
    assert smoke(tmp_path, launch).run("*/[cg]*/0") == 0
    assert launch.asked[:2] == ["plain-0", "glode-0"] and "confidence-0" in launch.asked
    assert "gave other pseudo labels than before: 2 cells" in capsys.readouterr().out
    assert not Cell("demo-en-de", "self-training", 0).file(tmp_path / "results" / "smoke").exists()  # not asked for just now
    after = json.loads(student.read_text())["teacher_sha256"]
    assert after != before and after == json.loads(teacher.read_text())["labels_sha256"]
    again = FakeCells()
    smoke(tmp_path, again).run("*/[cg]*/0")
    assert again.asked == []


def test_the_time_limit_stops_between_cells(tmp_path, capsys):
    launch = FakeCells()
    assert smoke(tmp_path, launch).run(time_limit=-1) == 0
    assert launch.asked == [] and "12 cells are left" in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(backbone, one_thread, tmp_path_factory) -> Path:
    """Some cells of the smoke suite on a tiny encoder, in this process."""
    directory = tmp_path_factory.mktemp("study")

    def launch(arguments: list[str], log: Path) -> int:
        cell.main(arguments)
        return 0

    extra = ["--model_name_or_path", str(backbone), "--use_cpu", "true", "--learning_rate", "0.003"]
    for variant in ("mlm", "glode", "without-denoising", "supervised"):
        assert smoke(directory, launch, extra).run(f"*/{variant}/0") == 0
    return directory


def test_a_cell_holds_counts_and_no_text(finished):
    results = Results(Suite("smoke"), finished / "results")
    assert {variant for _, variant in results.cells} == {"plain", "mlm", "glode", "without-denoising", "supervised"}
    for (_, variant), (content,) in results.cells.items():
        scores = content["scores"]["test"]["strict"]
        true, wrong, missed = np.array(content["test_sentences"]).sum(0).tolist()
        assert (true, true + wrong, true + missed) == (scores["correct"], scores["predicted"], scores["gold"])
        kinds = content["errors"]
        assert kinds["correct"] == true and sum(kinds.values()) - kinds["missed"] == true + wrong
        for group in ("recall_by_length", "recall_by_familiarity"):
            assert np.array(list(content[group].values())).sum(0).tolist() == [true, true + missed]
        assert content["machine"]["torch"] and content["seconds"] > 0 and content["seed"] == 0
        assert content["settings"]["config"] == "glode/run/recipes/demo.yaml"
        if variant == "glode":
            assert [entry["epoch"] for entry in content["pseudo_labels"]] == [0, 1, 2, 3]
            assert content["pseudo_labels"][0]["f1"] >= 0  # the demo's gold is read for the report
            by_type, by_length = (np.array(list(content["changes"][k].values())).sum(0) for k in ("by_type", "by_length"))
            assert by_type.tolist() == by_length.tolist() and by_type.sum() > 0
    text = (finished / "results").rglob("*.json")
    joined = "".join(path.read_text(encoding="utf-8") for path in text)
    words = {line.split("\t")[0] for line in (ROOT / "glode/run/demo/de/test.iob2").read_text(encoding="utf-8").split("\n")}
    assert not any(word in joined for word in words if len(word) > 7)
    assert str(finished) not in joined


def test_the_same_results_give_the_same_report(finished, tmp_path):
    for number in "12":
        write_report([Suite("smoke"), Suite("paper")], finished / "results", tmp_path / number)
    first, second = ((tmp_path / number / "RESULTS.md").read_bytes() for number in "12")
    assert first == second
    text = first.decode()
    assert "not measured" in text and "**GLoDe**" in text and "study-smoke-calibration.png" in text
    pictures = sorted((tmp_path / "1" / "docs").iterdir())
    assert [path.name for path in pictures] == ["study-smoke-calibration.png", "study-smoke-types.png"]
    assert all(path.read_bytes() == (tmp_path / "2" / "docs" / path.name).read_bytes() for path in pictures)


def test_variants_are_compared_over_the_seeds_that_both_have():
    """Seeds lie further apart than methods: a mean over other seeds says nothing."""
    suite = Suite("smoke")
    suite.tables, suite.seeds = [{"pairs": ["demo-en-de"], "variants": ["glode", "plain"]}], [0, 1, 2]
    results = Results(suite, Path("nowhere"))

    def cells(*scores: float) -> list[dict]:
        tests = [{"strict": {"f1": f1}, "paper": {"f1": f1}} for f1 in scores]
        return [{"seed": seed, "scores": {"test": test, "dev": test}} for seed, test in enumerate(tests)]

    results.cells = {("demo-en-de", "glode"): cells(50, 60, 70), ("demo-en-de", "plain"): cells(49, 63)}
    assert differences(results).splitlines()[-1].endswith("| -1.0 (2) | -1.0 ± 2.0 | 1 of 2 | -1.0 ± 2.0 |")  # +1 and -3
    assert "| 60.0 ± 10.0 (3) |" in scores_table(results, suite.tables[0])
    assert "| 50.0 (1) |" in scores_table(results, suite.tables[0] | {"seeds": [0]})


def test_results_md_is_what_the_files_say(tmp_path):
    write_report([Suite("small"), Suite("paper")], ROOT / "benchmarks" / "results" / "study", tmp_path)
    assert (tmp_path / "RESULTS.md").read_bytes() == (ROOT / "RESULTS.md").read_bytes(), "python benchmarks/study.py --report"


def test_the_page_of_speed_is_what_the_files_say():
    assert tables.page() == (ROOT / "benchmarks" / "results" / "README.md").read_text(), "python benchmarks/tables.py"


def test_the_commands_of_the_study(capsys, monkeypatch, tmp_path):
    for wrong in ([], ["--suite", "smoke", "--only", "wikiann*"]):
        with pytest.raises(SystemExit, match="2"):
            study.main(wrong)
    assert "such as demo-en-de/plain/0" in capsys.readouterr().err
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    arguments = ["--suite", "smoke", "--corpora", str(tmp_path / "none"), "--work", str(tmp_path / "work"), "--only", "*/plain/0"]
    assert study.main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
