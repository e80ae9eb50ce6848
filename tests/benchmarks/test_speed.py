"""Protects the benchmarks of a step: all that is timed runs, on a tiny encoder; sentences are joined and recut without loss."""

import gpu
import pytest
import speed
from common import ROOT
from datasets import Dataset
from speed import BARS, CHECKS, Setting, bars, joined, recut

from glode.corpora.reading import load_corpus
from glode.features.windows import gold_entities


@pytest.fixture(scope="module")
def sentences() -> Dataset:
    return load_corpus(str(ROOT / "glode/run/demo/en/dev.iob2"), labelled=True)


def test_joined_and_recut_sentences_have_the_words_and_entities(sentences):
    for corpus in (joined(sentences, 4), recut(sentences, 0.6, seed=0)):
        words = [word for sentence in corpus["words"] for word in sentence]
        assert words == [word for sentence in sentences["words"] for word in sentence][: len(words)]
        known = {
            (" ".join(row[b : b + n]), name)
            for row, entities in zip(sentences["words"], gold_entities(sentences), strict=True)
            for b, n, name in entities
        }
        for row, entities in zip(corpus["words"], gold_entities(corpus), strict=True):
            assert all((" ".join(row[b : b + n]), name) in known for b, n, name in entities)


def test_the_gpu_script_runs_on_a_cpu(backbone, one_thread, capsys):
    assert gpu.main([]) == 0 and "no GPU here: not measured" in capsys.readouterr().out
    assert gpu.main(["--tiny", "--tokenizer", str(backbone), "--repeats", "2"]) == 0
    said = capsys.readouterr().out
    for figure in ("step / encoder", "sequential / step", "denoiser / encoder", "head", "packed", "recall", "words a second"):
        assert f"'{figure}'" in said


def test_bars_are_read_from_rows(capsys):
    rows = [speed.asdict(BARS[0]) | {"step / encoder": 1.2, "recall": 0.96}, speed.asdict(Setting(1_000))]
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    assert bars(texts) == [("step / encoder, 200,000 stored, L 8", 1.2, "<=", 1.1), (CHECKS[-1][0], 0.96, ">=", 0.95)]
    assert not speed.print_bars(bars(texts))
    said = capsys.readouterr().out
    assert "MISSED step / encoder, 200,000 stored, L 8: 1.2 (<= 1.1)" in said and "met    recall" in said
