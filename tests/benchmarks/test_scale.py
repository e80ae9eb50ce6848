"""Protects the benchmarks of data: a small corpus is measured as a large one is."""

import scale
from datasets import Dataset
from scale import SOURCE, one_size, write_corpus


def test_a_corpus_has_as_many_windows_as_asked(tmp_path):
    write_corpus(tmp_path / "corpus", 10_010, labelled=False)
    corpus = Dataset.from_file(str(tmp_path / "corpus"))
    assert corpus["sentence"][:] == list(range(10_010)) and corpus[3]["input_ids"] == corpus[10_003]["input_ids"]


def test_one_size(one_thread, tmp_path):
    assert SOURCE > 0
    write_corpus(tmp_path / "source", 60, labelled=True)
    write_corpus(tmp_path / "90", 90, labelled=False)
    figures = one_size(90, tmp_path, stored=2000, batch_size=4, steps=8)
    assert all(value >= 0 for value in figures.values()) and figures["MB on disk: checkpoint of the denoiser"] > 0.1
    assert figures["seconds a step: denoising"] > 0


class Processes:
    """Stands in for those that measure."""

    def __init__(self, *settings, **more):
        pass

    def map(self, work, sizes):
        return [{"size": float((work.keywords["work"] / str(size)).exists())} for size in sizes]

    def __enter__(self):
        return self

    __exit__ = __init__


def test_each_size_is_measured(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(scale, "write_rows", lambda name, rows: kept.append((name, rows)))
    monkeypatch.setattr(scale, "SOURCE", 10)
    monkeypatch.setattr(scale, "ProcessPoolExecutor", Processes)
    assert scale.main(["--sizes", "10", "20", "--work", str(tmp_path)]) == 0
    ((name, rows),) = kept
    assert name == "scale" and [(row["sentences"], row["size"]) for row in rows] == [(10, "1"), (20, "1")]
