"""Protects the benchmark of several workers: each engine and number of workers is a row, and the report has a line of each."""

import report
import workers


def test_engines_one_after_the_other(directory, one_thread, monkeypatch):
    kept = []
    monkeypatch.setattr(workers, "write_rows", lambda name, rows: kept.append((name, rows)))
    monkeypatch.setattr(workers, "MORE", 40)  # else a difference of nothing
    monkeypatch.delitem(workers.ENGINES, "Ray Data")  # tests/serving/test_tagger.py starts it
    workers.main(["--model", str(directory), "--texts", "20", "--repeats", "1"])
    ((name, rows),) = kept
    assert name == "workers"
    assert [(row["engine"], row["workers"]) for row in rows] == [("one process", 1), ("datasets", 1), ("datasets", 2)]
    assert all(row["model"] == "glode-tiny" and float(row["words a second"]) > 0 for row in rows[:1])


def test_the_report_compares_with_one_process_of_the_same_model():
    common = {"model": "m", "seconds to start": "3", "cpu": "c", "versions": "v"}
    rows = [common | {"engine": "one process", "workers": "1", "words a second": "100"}]
    rows.append(common | {"engine": "Ray Data", "workers": "2", "words a second": "180"})
    lines = report.several_workers(rows).splitlines()
    assert lines[0].startswith("A thread a process; c, v.") and "| m, Ray Data | 2 | 180 | 1.80 | 3 |" in lines
