"""Protects the benchmark of tagging: each system answers from a process of its own, and what is not installed is not measured."""

import inference
import pytest


def test_systems_take_turns(directory, tmp_path, monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(inference, "write_rows", lambda name, rows: kept.extend(rows))
    monkeypatch.setattr(inference, "OURS", ("span model", "token classifier, pipeline"))
    monkeypatch.setattr(inference, "OTHERS", {"SpanMarker": "span_marker_python"})
    options = ["--repeats", "2", "--single_repeats", "1", "--sentences", "6", "--threads", "1"]
    inference.main(["--model", str(directory), *options])
    assert [row["system"] for row in kept] == ["span model", "token classifier, pipeline"]
    assert all(float(row["words a second"]) > 0 and row["MB at the peak"] > 0 for row in kept)
    assert "SpanMarker not measured: ModuleNotFoundError" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        inference.main(["--model", str(tmp_path)])
    assert "no model is there. Train one" in capsys.readouterr().err


def test_bars_are_ratios_of_one_turn():
    rows = [{"system": "span model", "seconds": "1 2 4"}, {"system": "token classifier", "seconds": "2 2 2"}]
    assert inference.bars(rows) == [("span model / token classifier", 1.0, ">=", 0.95)]


def test_a_worker_that_stops_shows_its_log(tmp_path):
    worker = inference.Worker("no such system", inference.sys.executable, tmp_path, 1)
    with pytest.raises(RuntimeError, match="no such system has stopped"):
        worker.answer()
    worker.close()
