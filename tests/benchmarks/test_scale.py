"""Protects the benchmarks of data: a small corpus is measured as a large one is."""

import argparse
from pathlib import Path

import scale
from scale import SOURCE, one_size, write_corpus


def test_one_size(one_thread, tmp_path):
    assert SOURCE > 0
    write_corpus(tmp_path / "source", 60, labelled=True)
    write_corpus(tmp_path / "90", 90, labelled=False)
    options = argparse.Namespace(sentences=90, work=str(tmp_path), batch_size=4, steps=8, datastore=2000)
    figures = one_size(options)
    assert all(value >= 0 for value in figures.values()) and figures["MB on disk: checkpoint of the denoiser"] > 0.1
    assert figures["recall@K of the search"] == 1.0 and figures["seconds a step: denoising"] > 0


def test_sizes_are_measured_one_after_the_other(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(scale, "write_rows", lambda name, rows: kept.append((name, rows)))
    monkeypatch.setattr(scale, "SOURCE", 10)
    monkeypatch.setattr(scale, "in_process", lambda command: {"size": float(Path(command[-1], command[3]).exists())})
    assert scale.main(["--sizes", "10", "20", "--work", str(tmp_path)]) == 0
    ((name, rows),) = kept
    assert name == "scale" and [(row["sentences"], row["size"]) for row in rows] == [(10, "1"), (20, "1")]
