"""Protects the study: finished cells are never run again and a failed one stops nothing, what started from another source
model is void, a whole small grid runs and leaves counts and no word of a corpus."""

from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np
import pytest
import study
from common import read_rows
from study import SUITES, Cell, Study, Suite
from support import ROOT

import run_crossner


@pytest.mark.parametrize("name", sorted(SUITES["suites"]))
def test_suites_ask_for_what_there_is(name, tmp_path):
    suite = Suite(name)
    cells = suite.cells()
    assert len(cells) == len(set(cells)) > 5
    assert suite.baseline in suite.tables[0]["variants"]
    for position, cell in enumerate(cells):
        assert set(suite.teachers(cell)) <= set(cells[:position])
    for variant in {cell.variant for cell in cells}:
        settings = suite.settings(next(cell for cell in cells if cell.variant == variant))
        if "config" in settings:
            settings["config"] = str(ROOT / settings["config"])
        argv = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        argv += ["--teachers", "one", "another"] if settings["stage"] == "target" else []
        run_crossner.parse_arguments([*argv, "--target_lang", "de", "--source_train", "x", "--output_dir", str(tmp_path)])


def test_a_few_labelled_sentences_are_the_first_of_the_target_text(tmp_path):
    """So the run takes them out there, and its vocabulary is that of its source model."""
    (tmp_path / "wikiann").mkdir()
    for language, parts in {"en": ("train", "dev"), "ru": ("train", "test")}.items():
        for part in parts:
            text = "\n\n".join(f"{language}{number}\tO" for number in range(30))
            (tmp_path / "wikiann" / language).mkdir(exist_ok=True)
            (tmp_path / "wikiann" / language / f"{part}.iob2").write_text(text)
    few = Study(Suite("cpu"), tmp_path, tmp_path / "work", tmp_path, [], FakeCells())
    cells = {name: Cell("wikiann-en-ru", 0, name) for name in ("glode-small", "few-20", "few-50")}
    files = {name: few.files(cell) for name, cell in cells.items()}
    assert "target_train" not in files["glode-small"] and few.suite.settings(cells["few-20"]).keys().isdisjoint({"few", "gold"})
    given, text = (Path(files["few-20"][name]).read_text().split("\n\n") for name in ("target_train", "target_unlabeled"))
    assert len(given) == 20 and [each.strip() for each in given] == [each.strip() for each in text[:20]]
    assert len({few.fingerprint(cell) for cell in cells.values()}) == 3


class FakeCells:
    """Stands in for the processes of cells: notes what is asked for, fails where told to, leaves models of these `weights`."""

    def __init__(self, failing: str = "nothing", weights: str = ""):
        self.failing, self.weights, self.asked, self.resumed = failing, weights, [], []

    def __call__(self, command: list[str], log: Path, threads: int) -> int:
        if command[1] == "--count":
            np.save(command[4], np.ones((2, 3), dtype=np.int16))
            return 0
        run = Path(command[command.index("--output_dir") + 1])
        self.asked.append(run.parent.name)
        self.resumed += [run.parent.name] * ("--resume_from_checkpoint" in command)
        if self.failing == run.parent.name:
            return 1
        model = run if "--teachers" in command else run / "source_model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.safetensors").write_text(self.weights)
        scores = {"dev": {"strict": {"f1": 90.0}}, "test": {"strict": {"f1": 100.0}, "paper": {"f1": 100.0}}}
        metrics = {"source_model": scores, "target_model": scores, "pseudo_labels": [{"f1": 50.0}, {"f1": 51.5}]}
        (run / "metrics.json").write_text(study.json.dumps(metrics))
        return 0


def smoke(directory: Path, launch: study.Launch, extra: Sequence[str] = (), jobs: int = 1) -> Study:
    corpora = ROOT / "glode/run/demo"
    return Study(Suite("smoke"), corpora, directory / "work", directory / "results", extra, launch, jobs=jobs)


def variants(directory: Path) -> list[str]:
    return [row["variant"] for row in read_rows("study", directory / "results")]


def test_finished_cells_are_never_run_again(tmp_path, capsys):
    first = FakeCells()
    assert smoke(tmp_path, first).run("*/0/[gs]*") == 0
    wanted = {"plain", "mlm", "glode-small", "glode-paper", "self-training", "supervised", "scl"}
    assert set(first.asked) == wanted and first.asked.count("plain") == 2  # what the labels come from, of all seeds
    assert len(first.asked) == len(wanted) + 1
    second = FakeCells()
    assert smoke(tmp_path, second, jobs=2).run("*/0/*") == 0
    assert set(second.asked) == {"no-denoising", "contproto", "colada"}
    third = FakeCells()
    smoke(tmp_path, third).run("*/0/*")
    assert third.asked == [] and "10 of 10 cells are there" in capsys.readouterr().out
    assert sorted(variants(tmp_path)) == sorted([*{cell.variant for cell in Suite("smoke").cells()}, "plain"])
    tests = read_rows("study-tests", tmp_path / "results")
    assert len(tests) == 16 and {row["pair"] for row in tests} == {"demo-en-de", "all"}
    other = FakeCells()
    smoke(tmp_path, other, ["--learning_rate", "1"]).run("*/0/plain")
    assert other.asked == ["plain"]  # with other arguments it is another cell


def test_a_failed_cell_is_reported_and_the_rest_go_on(tmp_path, capsys):
    launch = FakeCells("contproto")
    assert smoke(tmp_path, launch, jobs=2).run("*/0/*") == 1
    assert len(launch.asked) == 11 and "FAILED: demo-en-de/0/contproto, see" in capsys.readouterr().out
    again = FakeCells()
    assert smoke(tmp_path, again).run("*/0/*") == 0
    assert again.asked == again.resumed == ["contproto"]  # from its checkpoint, as the arguments are the same
    launch = FakeCells("plain")
    assert smoke(tmp_path / "other", launch).run("*/0/*") == 8  # of both seeds, with the six that start from them
    assert "glode-small" not in launch.asked and "supervised" in launch.asked
    assert "demo-en-de/0/plain left no model" in capsys.readouterr().out


def test_what_started_from_another_source_model_is_run_again(tmp_path, capsys):
    """A row of a table must not compare variants that start from different draws of the source model."""
    smoke(tmp_path, FakeCells()).run("*/0/*[ny]*")
    for model in tmp_path.rglob("source_model"):
        (model / "model.safetensors").unlink()
        model.rmdir()
    same = FakeCells()
    smoke(tmp_path, same).run("*/0/colada")
    assert same.asked == ["plain", "colada"]
    for model in tmp_path.rglob("source_model"):
        (model / "model.safetensors").unlink()
        model.rmdir()
    launch = FakeCells(weights="other")
    assert smoke(tmp_path, launch).run("*/0/*[ct]*") == 0
    assert "another model than before" in capsys.readouterr().out
    assert {"plain", "contproto", "self-training", "colada"} <= set(launch.asked)
    rows = [(row["seed"], row["variant"]) for row in read_rows("study", tmp_path / "results")]
    assert len(rows) == len(set(rows))


def test_a_model_that_does_not_give_the_scores_of_its_run_is_no_result(tmp_path, capsys):
    class Forgetful(FakeCells):
        def __call__(self, command, log, threads):
            code = super().__call__(command, log, threads)
            if command[1] == "--count":
                np.save(command[4], np.array([[2, 2, 1]], dtype=np.int16))
            return code

    assert smoke(tmp_path, Forgetful()).run("*/0/plain") == 1
    assert "the run reports F1 100.00, and its model gives 50.00" in capsys.readouterr().out
    assert variants(tmp_path) == []


def in_process(command: list[str], log: Path, threads: int) -> int:
    return run_crossner.run(command[1:]) if command[0] == "run_crossner.py" else study.main(command[1:])


def test_a_small_grid(backbone, one_thread, tmp_path):
    extra = ["--model_name_or_path", str(backbone), "--use_cpu", "true", "--learning_rate", "0.003"]
    for name in ("glode-paper", "no-denoising", "supervised"):
        assert smoke(tmp_path, in_process, extra).run(f"*/0/{name}") == 0
    rows = {row["variant"]: row for row in read_rows("study", tmp_path / "results")}
    assert set(rows) == {"plain", "mlm", "glode-paper", "no-denoising", "supervised"}
    assert len(rows["glode-paper"]["label_f1"].split()) == 4 and rows["plain"]["label_f1"] == ""
    assert rows["glode-paper"]["teacher"] == rows["mlm"]["weights"] != rows["plain"]["weights"]
    tests = {(row["pair"], row["variant"]): row for row in read_rows("study-tests", tmp_path / "results")}
    test = tests["all", "glode-paper"]
    assert float(test["difference"]) == pytest.approx(
        float(rows["glode-paper"]["f1"]) - float(rows["no-denoising"]["f1"]), abs=0.02
    )
    assert not list(tmp_path.rglob("*_checkpoints"))
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "results").iterdir())
    words = {line.split("\t")[0] for line in (ROOT / "glode/run/demo/de/test.iob2").read_text(encoding="utf-8").split("\n")}
    assert not any(word in text for word in words if len(word) > 7)
    assert str(tmp_path) not in text


def test_the_command_line(capsys, tmp_path):
    for wrong in ([], ["--suite", "cpu"], ["--suite", "smoke", "--only", "wikiann*"]):
        with pytest.raises(SystemExit, match="2"):
            study.main(wrong)
    said = capsys.readouterr().err
    assert (
        "give --suite" in said and "the directory of the corpora with --corpora" in said and "such as demo-en-de/0/plain" in said
    )
    arguments = ["--suite", "smoke", "--corpora", str(tmp_path / "none"), "--work", str(tmp_path), "--precision", "fp32"]
    with pytest.raises(FileNotFoundError):
        common.sample(tmp_path, "conll/en/train", 3, tmp_path)
    with pytest.raises(SystemExit, match="2"):
        study.main(arguments, FakeCells(), tmp_path / "results")
    assert "no such file. Give the directory" in capsys.readouterr().err
    assert study.main([*arguments[:2], *arguments[4:]], FakeCells(), tmp_path / "results") == 0


def test_bf16_is_asked_for_on_any_device(tmp_path):
    runner = smoke(tmp_path, FakeCells())
    runner.bf16 = True
    command = runner.command(Cell("demo-en-de", 0, "plain"))
    assert command[command.index("--bf16") + 1] == "true" and command[command.index("--use_cpu") + 1] == "true"
    assert study.faster_in_bf16(8) in (True, False)
