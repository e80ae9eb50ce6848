"""Protects the benchmark of tagging: each system answers from a process of its own, and what is not installed is not measured."""

import inference
import pytest
from common import ROOT


@pytest.fixture(autouse=True)
def few_sentences(tmp_path, monkeypatch, one_thread):
    path = tmp_path / "test.iob2"
    path.write_text("Ada\tB-PER\nschläft\tO\n\nBonn\tB-LOC\n", encoding="utf-8")
    monkeypatch.setattr(inference, "CORPUS", path)
    monkeypatch.setattr(inference, "THREADS", 1)


def test_systems_take_turns(directory, tmp_path, monkeypatch, capsys):
    kept, turns = [], []
    monkeypatch.setattr(inference, "write_rows", lambda name, rows: kept.extend(rows))

    def in_this_process(system, python, setup):
        turns.append(system)
        return inference.work(system, setup)

    monkeypatch.setattr(inference, "tag_in_process", in_this_process)
    inference.main(["--model", str(directory), "--repeats", "2"])
    assert turns == ["span model", "token classifier"] * 2
    assert [row["system"] for row in kept] == turns[:2] and (kept[0]["sentences"], kept[0]["words"]) == (2, 3)
    assert all(float(row["words a second"]) > 0 and float(row["MB at the peak"]) > 0 for row in kept)
    assert "span model / token classifier: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        inference.main(["--model", str(tmp_path)])
    assert "no model is there. Train one" in capsys.readouterr().err


def test_a_process_says_what_its_system_takes(directory, tmp_path):
    inference.prepare(directory, tmp_path)
    assert inference.tag_in_process("span model", inference.sys.executable, tmp_path).keys() == {"seconds", "peak", "versions"}
    with pytest.raises(inference.subprocess.CalledProcessError):
        inference.tag_in_process("no such system", inference.sys.executable, tmp_path)
    assert {system for system, (_, packages) in inference.SYSTEMS.items() if packages} == {"SpanMarker", "GLiNER"}
    needed = (ROOT / "benchmarks/requirements-inference.txt").read_text()
    assert all(package in needed for _, packages in inference.SYSTEMS.values() for package in packages)


def test_bars_are_ratios_of_one_turn():
    rows = [{"system": "span model", "seconds": "1 2 4"}, {"system": "token classifier", "seconds": "2 2 2"}]
    assert inference.bars(rows) == [("span model / token classifier", 1.0, ">=", 0.95)]
