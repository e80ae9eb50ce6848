"""Protects the benchmarks of data: a small corpus is measured as a large one is, and reading and evaluating with a model."""

import argparse
import json
from pathlib import Path

import scale
from scale import SOURCE, one_size, repeated, write_corpus

from glode.corpora.reading import load_corpus


def test_one_size(one_thread, tmp_path):
    assert SOURCE > 0
    write_corpus(tmp_path / "source", 60, labelled=True)
    write_corpus(tmp_path / "90", 90, labelled=False)
    options = argparse.Namespace(sentences=90, work=str(tmp_path), batch_size=4, steps=8, datastore=2000)
    figures = one_size(options)
    assert all(value >= 0 for value in figures.values()) and figures["MB on disk: checkpoint of the denoiser"] > 0.1
    assert figures["recall@K of the search"] == 1.0 and figures["seconds a step: denoising"] > 0


def test_reading_and_evaluating(directory, one_thread, tmp_path, monkeypatch, capsys):
    corpus = repeated(scale.DEMO / "en" / "train.iob2", 500, tmp_path / "train.iob2")
    assert len(load_corpus(str(corpus), labelled=True)) == 500
    kept = []
    monkeypatch.setattr(scale, "write_rows", lambda name, rows: kept.append((name, rows)))

    def in_process(command: list[str], **environment: str) -> dict:
        scale.main(command[2:])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(scale, "in_process", in_process)
    monkeypatch.setattr(scale.os, "cpu_count", lambda: 1)
    assert scale.main(["--model", str(directory), "--read_sentences", "60"]) in (0, 1)
    ((name, rows),) = kept
    assert name == "reading" and [row["what"] for row in rows] == [what for what, *_ in scale.READING]
    assert "the same from the cache, s" in capsys.readouterr().out


def test_sizes_are_measured_one_after_the_other(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(scale, "write_rows", lambda name, rows: kept.append((name, rows)))
    monkeypatch.setattr(scale, "SOURCE", 10)
    monkeypatch.setattr(scale, "in_process", lambda command: {"size": float(Path(command[-1], command[3]).exists())})
    assert scale.main(["--sizes", "10", "20", "--work", str(tmp_path)]) == 0
    ((name, rows),) = kept
    assert name == "scale" and [(row["sentences"], row["size"]) for row in rows] == [(10, "1"), (20, "1")]
