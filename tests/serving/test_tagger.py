"""Protects tagging by an engine: the recipes of docs/scaling.md give what the pipeline finds, with two workers; a result from the
cache is never that of another model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.fingerprint import Hasher
from support import ROOT
from support.entities import places
from support.recipes import recipe

from glode import InputError, Tagger
from glode.serving import tagger as module
from glode.serving.tagger import ENTITIES

pytestmark = pytest.mark.usefixtures("one_thread")  # a tagger sets its process' threads

TEXTS = ["Anna Berg lives in New York .", "", "Otto von Hagen's plane flew to Oslo-Kiel !", "在北京", "Rome " * 50, "it rains"]


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """The working directory, with TEXTS in the file that the recipes read."""
    monkeypatch.chdir(tmp_path)
    lines = (json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS))
    Path("posts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def recipe_for(words: str, directory: Path) -> str:
    """The recipe of docs/scaling.md with these words, for another model."""
    return recipe("scaling.md", words).replace("glode-demo", str(directory))


def check(work: Path, ner) -> None:
    """Whether what was written is TEXTS, each with what the pipeline finds."""
    (written,) = work.glob("tagged*")
    rows = sorted(pq.read_table(written).to_pylist(), key=lambda row: row["id"])
    assert [row["text"] for row in rows] == TEXTS
    assert [places(row["entities"]) for row in rows] == [places(found) for found in ner(TEXTS)]
    scores = [[entity["score"] for entity in found] for found in ner(TEXTS)]
    assert [[entity["score"] for entity in row["entities"]] for row in rows] == [pytest.approx(row, abs=1e-5) for row in scores]
    assert sum(map(len, scores)) > len(TEXTS)


def test_two_processes_of_datasets(directory, ner, work, datasets_cache):
    torch.set_num_threads(2)
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # its threads do not live on in a forked process
    exec(recipe_for("num_proc=2", directory), {})
    check(work, ner)


@pytest.mark.slow
def test_two_workers_of_ray(directory, ner, work):
    """In a process of its own, which Ray's threads and signal handlers end with."""
    start = "import ray; ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", start + recipe_for("import ray", directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    check(work, ner)


def test_options_and_columns(directory, ner):
    table = pa.table({"body": [TEXTS[0], None, "."], "id": [3, 4, 5]})
    tagged = Tagger(str(directory), text_field="body", threshold=0.3, nested=True, batch_size=1, device="cpu")(table)
    assert tagged.select(["body", "id"]) == table and tagged.schema.field("entities").type == ENTITIES
    found = tagged.column("entities").to_pylist()
    assert places(found[0]) == places(ner(TEXTS[0], threshold=0.3, nested=True)) and found[1] == []
    nothing = Tagger(str(directory), threshold=1.1)(pa.table({"text": TEXTS}))
    assert nothing.schema.field("entities").type == ENTITIES
    assert nothing.column("entities").to_pylist() == [[]] * len(TEXTS)


def test_a_process_takes_the_gpu_of_its_rank(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module, "load_model", lambda model, device: taken.append(device) or pytest.fail("loaded"))
    for device, rank in ((None, 3), (None, None), ("cpu", 1)):
        with pytest.raises(pytest.fail.Exception, match="loaded"):
            Tagger("user/model", device=device)(pa.table({"text": TEXTS}), rank)
    assert taken == ["cuda:1", None, "cpu"]


def test_a_cached_result_is_never_that_of_another_model(directory, tmp_path):
    model = shutil.copytree(directory, tmp_path / "model")
    tagger = Tagger(str(model))
    before = Hasher.hash(tagger)
    tagger(pa.table({"text": TEXTS}))
    assert Hasher.hash(tagger) == Hasher.hash(Tagger(str(model))) == before
    assert Hasher.hash(Tagger(str(model), threshold=0.5)) != before
    os.utime(model / "model.safetensors", ns=(0, 0))
    assert Hasher.hash(Tagger(str(model))) != before


def test_tables_that_cannot_be_tagged(directory, tmp_path):
    with pytest.raises(InputError, match="there is no column 'text' in ") as error:
        Tagger(str(directory))(pa.table({"body": TEXTS}))
    assert str(error.value).endswith("Name it by text_field.")
    with pytest.raises(InputError, match="has a column 'entities' already"):
        Tagger(str(directory))(pa.table({"text": TEXTS, "entities": TEXTS}))
    with pytest.raises(InputError, match="there is no such directory"):
        Tagger(str(tmp_path / "none"))(pa.table({"text": TEXTS}))
