"""Protects the benchmarks of a step: all that is timed runs, on a tiny encoder; sentences are joined without loss."""

from itertools import chain

import gpu
import speed
from gpu import joined
from speed import CHECKS, SETTINGS, SOURCE, TARGET, bars
from transformers import AutoConfig

from glode.corpora.labels import label_names
from glode.corpora.reading import load_corpus
from modeling_glode import GlodeConfig, GlodeModel


def test_joined_sentences_have_the_words_and_entities(tmp_path):
    plain, longer = (load_corpus(str(path), labelled=True) for path in (SOURCE, joined(SOURCE, tmp_path, "\n\n", "\n")))
    assert len(longer) == -(-len(plain) // 4)
    for name in ("words", "types", "lengths"):
        assert list(chain(*longer[name])) == list(chain(*plain[name]))
    texts = joined(TARGET, tmp_path, "\n", " ").read_text(encoding="utf-8").splitlines()
    assert texts[1] == " ".join(TARGET.read_text(encoding="utf-8").splitlines()[4:8])


def test_the_gpu_script_runs_on_a_cpu(backbone, one_thread, capsys):
    assert gpu.main([]) == 0 and "no GPU here: not measured" in capsys.readouterr().out
    assert gpu.main(["--tiny", "--tokenizer", str(backbone)]) == 0
    said = capsys.readouterr().out
    for figure in ("step / encoder", "sequential / step", "denoiser / encoder", "recall@K", "words a second"):
        assert f"'{figure}'" in said


def test_bars_are_read_from_rows(capsys):
    rows = [{"setting": name} | dict.fromkeys([figure for figure, *_ in CHECKS], "1.2") for name in SETTINGS]
    assert bars(rows)[0] == ("step / encoder, 200,000 stored, L 8", 1.2, "<=", 1.1)
    assert not speed.print_bars(bars(rows))
    said = capsys.readouterr().out
    assert "MISSED step / encoder, 200,000 stored, L 8: 1.2 (<= 1.1)" in said and "met    recall@K, 200,000 stored" in said


def test_the_command_of_a_step(backbone, tokenizer, one_thread, tmp_path, monkeypatch, capsys):
    kept = {}
    monkeypatch.setattr(speed, "write_rows", lambda name, rows: kept.update({name: rows}))
    monkeypatch.setattr(speed, "read_rows", lambda name: [{"run": "bf16"}, {"run": "fp32"}])
    small = {"small": (500, 8, 0.0, ("encoder",)), "blurred": (600, 4, 0.25, ())}
    monkeypatch.setattr(speed, "SETTINGS", small)
    monkeypatch.setattr(speed, "CHECKS", (("recall@K", "small", ">=", 0.95), ("recall@K", "blurred", ">=", 0.95)))
    monkeypatch.setattr(speed, "REAL_VECTORS", 300)
    monkeypatch.setattr(speed, "REPEATS", 6)
    monkeypatch.setattr(speed.os, "cpu_count", lambda: 1)
    names = dict(enumerate(label_names(load_corpus(str(SOURCE), labelled=True))))
    config = GlodeConfig(AutoConfig.from_pretrained(backbone), max_span_length=8, max_tokens=60, id2label=names)
    GlodeModel.from_encoder(str(backbone), config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert speed.main(["--quick", "--bf16", "--source_model", str(tmp_path)]) == 0
    old, first, second = kept["speed"]
    assert old == {"run": "fp32"} and {first["run"], second["run"]} == {"bf16"} and first["repeats"] == 2
    assert first["step / encoder"] > 0 and "step / encoder" not in second
    assert "recall@K, small: 1 (>= 0.95)" in capsys.readouterr().out
