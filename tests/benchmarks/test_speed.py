"""Protects the benchmarks of a step: all that is timed runs, on a tiny encoder; sentences are joined without loss."""

import gpu
import pytest
import speed
from common import ROOT
from datasets import Dataset
from speed import BARS, CHECKS, Setting, bars, joined
from transformers import AutoConfig

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from glode.features.reach import gold_entities
from modeling_glode import GlodeConfig, GlodeModel


@pytest.fixture(scope="module")
def sentences() -> Dataset:
    return load_corpus(str(ROOT / "glode/run/demo/en/dev.iob2"), labelled=True)


def test_joined_sentences_have_the_words_and_entities(sentences):
    for corpus in (joined(sentences, 4), joined(sentences, len(sentences))):
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
    for figure in ("step / encoder", "sequential / step", "denoiser / encoder", "head", "recall", "words a second"):
        assert f"'{figure}'" in said


def test_bars_are_read_from_rows(capsys):
    rows = [speed.asdict(BARS[0]) | {"step / encoder": 1.2, "recall": 0.96}, speed.asdict(Setting(1_000))]
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    assert bars(texts) == [("step / encoder, 200,000 stored, L 8", 1.2, "<=", 1.1), (CHECKS[-1][0], 0.96, ">=", 0.95)]
    assert not speed.print_bars(bars(texts))
    said = capsys.readouterr().out
    assert "MISSED step / encoder, 200,000 stored, L 8: 1.2 (<= 1.1)" in said and "met    recall" in said


def test_the_command_of_a_step(backbone, tokenizer, sentences, one_thread, tmp_path, monkeypatch, capsys):
    kept = {}
    monkeypatch.setattr(speed, "write_rows", lambda name, rows: kept.update({name: rows}))
    monkeypatch.setattr(speed, "read_rows", lambda name: [{"run": "bf16"}, {"run": "fp32"}])
    small = Setting(500, batch=2), Setting(600, length=4, batch=2, blur=0.25)
    monkeypatch.setattr(speed, "BARS", small)
    monkeypatch.setattr(
        speed, "CHECKS", (("recall", "recall", small[0], ">=", 0.95), ("step", "step / encoder", small[0], "<=", 9))
    )
    monkeypatch.setattr(speed, "REAL_VECTORS", 300)
    monkeypatch.setattr(speed.os, "cpu_count", lambda: 1)
    names = dict(enumerate(label_names(sentences)))
    config = GlodeConfig(AutoConfig.from_pretrained(backbone), max_span_length=16, max_tokens=60, id2label=names)
    GlodeModel.from_encoder(str(backbone), config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert speed.main(["--quick", "--bf16", "--source_model", str(tmp_path), "--repeats", "2"]) in (0, 1)
    old, first, second = kept["speed"]
    assert old == {"run": "fp32"} and {first["run"], second["run"]} == {"bf16"}
    assert first["step in fp32 / step"] > 0 and first["step / encoder"] > 0 and "step / encoder" not in second
    assert "recall: 1 (>= 0.95)" in capsys.readouterr().out
