"""Protects the review: the sentences that need a person most come first, with what the model says of them in the places where
Label Studio and the page have it; what was corrected there is read as training's labels."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from support.command import Command

import run_crossner
from glode.command import main
from glode.corpora.reading import load_corpus
from glode.errors import InputError
from glode.evaluation.doubts import Reviewed, choose, doubts
from glode.evaluation.review_tasks import interface, task
from glode.features.reach import gold_entities

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")

SMALL = (
    "--config demo --target_lang de --use_cpu true --disable_tqdm true --report_to none --max_source_samples 40 "
    "--max_target_samples 12 --max_span_length 3 --per_device_train_batch_size 10 --learning_rate 3e-3 --num_train_epochs 2 "
    "--source_num_train_epochs 6 --refine_start 0"
)


@pytest.fixture(scope="module")
def finished(backbone: Path, tmp_path_factory) -> Path:
    """A finished run on the demo's corpus."""
    output = tmp_path_factory.mktemp("review") / "model"
    run_crossner.main([*SMALL.split(), "--model_name_or_path", str(backbone), "--output_dir", str(output)])
    return output


def tasks_of(directory: Path, *more: object, output: Path) -> list[dict]:
    assert main(["review", "--model", str(directory), "--output", str(output), *map(str, more)]) == 0
    return json.loads(output.read_text(encoding="utf-8"))


def test_a_finished_run_is_reviewed_by_its_own_text(finished: Path, tmp_path: Path, capsys):
    tasks = tasks_of(finished, "--number", 5, output=tmp_path / "r.json")
    assert len(tasks) == 5 and "5 of 12 sentences are written: " in (said := capsys.readouterr().err)
    assert " sentences are written: " in said and "with the second as the labeling interface" in said
    certainty = [task["data"]["certainty"] for task in tasks]
    assert certainty == sorted(certainty) and 0 < certainty[0] < 1
    for each in tasks:
        (prediction,) = each["predictions"]
        assert prediction["model_version"] == "model" and round(prediction["score"], 4) == each["data"]["certainty"]
        for result in prediction["result"]:
            value = result["value"]
            assert each["data"]["text"][value["start"] : value["end"]] == value["text"] and 0 < result["score"] <= 1
            assert (result["from_name"], result["to_name"], result["type"]) == ("label", "text", "labels")
        percent = round(100 * each["data"]["certainty"])
        assert re.fullmatch(rf".+: \S+ {percent} %, \S+ \d+ %", each["data"]["doubt"])
    every = tasks_of(finished, "--number", 99, output=tmp_path / "all.json")
    assert sorted(task["data"]["sentence"] for task in every) == list(range(1, 13)) and every[:5] == tasks


def test_what_changed_most_comes_first(finished: Path, tmp_path: Path):
    """Measured from the labels before refinement: where these are the model's own, nothing has changed."""
    tasks = tasks_of(finished, "--order", "changed", output=tmp_path / "r.json")
    change = [task["data"]["change"] for task in tasks]
    assert change == sorted(change, reverse=True) and change[0] > 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 12 == page.count("first pseudo labels</bdi>") and "those that changed most" in page
    same = tmp_path / "same"
    shutil.copytree(finished, same)
    shutil.rmtree(same / "source_model")
    for name in ("model.safetensors", "config.json"):
        shutil.copy(finished / "source_model" / name, same / name)
    tasks = tasks_of(same, "--order", "changed", output=tmp_path / "same.json")
    assert max(task["data"]["change"] for task in tasks) < 1e-3
    assert 'class="dashed"' not in (tmp_path / "same.html").read_text(encoding="utf-8")


def test_a_text_of_ones_own(directory: Path, tmp_path: Path):
    (tmp_path / "t.txt").write_text("Otto von Hagen wohnt in Bern.\nEs regnet, sagte Anna & Co.\n" * 3, encoding="utf-8")
    tasks = tasks_of(directory, "--text", tmp_path / "t.txt", "--batch_size", 2, output=tmp_path / "r.json")
    assert {task["data"]["text"] for task in tasks} == {"Otto von Hagen wohnt in Bern.", "Es regnet, sagte Anna & Co."}
    assert "change" not in tasks[0]["data"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    texts = [unescape(re.sub(r"<bdi.*?</bdi>|<[^>]+>", "", text)) for text in re.findall(r'<p dir="auto".*?</p>', page)]
    assert texts == [task["data"]["text"] for task in tasks] and "least certain: " in page and "the least certain ones" in page
    view = ElementTree.parse(tmp_path / "r.xml").getroot()
    labels = [label.get("value") for label in view.iter("Label")]
    assert labels == ["PER", "LOC", "ORG"]
    names = {result["from_name"] for task in tasks for result in task["predictions"][0]["result"]}
    assert names == {view.find("Labels").get("name")} and view.find("Text").get("value") == "$text"


def test_corrected_tasks_are_labels(finished: Path, tmp_path: Path):
    """As Label Studio exports them: the annotation beside the prediction, and what nobody has looked at left out."""
    tasks = tasks_of(finished, "--number", 4, output=tmp_path / "r.json")
    for number, each in enumerate(tasks, 1):
        right = [result for result in each["predictions"][0]["result"] if result["value"]["start"] > 0]
        each |= {"id": number, "annotations": [{"id": number, "was_cancelled": False, "result": right}]}
    (tmp_path / "corrected.json").write_text(json.dumps(tasks), encoding="utf-8")
    corpus = load_corpus(str(tmp_path / "corrected.json"), labelled=True)
    wanted = [[r["value"]["labels"][0] for r in each["annotations"][0]["result"]] for each in tasks]
    assert [[kind for _, _, kind in sorted(row)] for row in gold_entities(corpus)] == wanted
    with pytest.raises(InputError, match=r"no labels\. In a labelled corpus every sentence has them"):
        load_corpus(str(tmp_path / "r.json"), labelled=True)


def test_the_least_certain_span_of_a_batch():
    probabilities = torch.tensor([[[[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]], [[0.4, 0.25, 0.35], [0.3, 0.3, 0.4]]]])
    span_mask = torch.tensor([[[True, True], [True, False]]])
    ((begin, length, likely),) = doubts(probabilities, span_mask, {0: "O", 1: "PER", 2: "LOC"})
    assert (begin, length, [name for name, _ in likely]) == (1, 1, ["O", "LOC"])
    assert [value for _, value in likely] == pytest.approx([0.4, 0.35])


def test_orders():
    rows = [Reviewed(certainty=0.9, change=1.0), Reviewed(certainty=0.5, change=0.1), Reviewed(certainty=0.9, change=2.0)]
    assert choose(rows, "uncertain", 2) == [1, 0] and choose(rows, "changed", 2) == [2, 0]


def test_a_type_is_quoted_in_the_interface():
    view = ElementTree.fromstring(interface(['a"<b']))
    assert [label.get("value") for label in view.iter("Label")] == ['a"<b']
    assert task(1, ["x"], Reviewed(), "v")["data"]["doubt"] == ""


# ------------------------------------------------------------------------------------------------------------- what is refused


def refused(*argv: object, capsys) -> str:
    assert main(["review", *map(str, argv)]) == 2
    return capsys.readouterr().err


def test_mistakes_on_the_command_line(directory: Path, finished: Path, tmp_path: Path, capsys):
    (tmp_path / "t.txt").write_text("Es regnet.\n")
    output = ("--output", tmp_path / "r.json")
    assert "--number and --batch_size have to be" in refused("--model", finished, "--number", 0, capsys=capsys)
    assert "Label Studio imports tasks from a file" in refused("--model", finished, "--output", "r.jsonl", capsys=capsys)
    assert "has no metrics.json that names the text" in refused("--model", directory, *output, capsys=capsys)
    (tmp_path / "metrics").mkdir()
    other = refused("--model", finished, "--order", "changed", "--text", tmp_path / "t.txt", *output, capsys=capsys)
    assert "is of another text than this one. Give the corpora" in other
    (tmp_path / "r.html").write_text("mine")
    assert " is there already, and somebody may be at" in refused("--model", finished, *output, capsys=capsys)
    assert (tmp_path / "r.html").read_text() == "mine" and not (tmp_path / "r.json").exists()


def test_a_run_without_its_first_labels(finished: Path, tmp_path: Path, capsys):
    shutil.copytree(finished, tmp_path / "model")
    (tmp_path / "model" / "pseudo_labels.safetensors").unlink()
    message = refused("--model", tmp_path / "model", "--order", "changed", "--output", tmp_path / "r.json", capsys=capsys)
    assert " to compare with. Give --order uncertain" in message and "has no pseudo_labels.safetensors" in message


def test_corpora_that_were_in_no_file(finished: Path, tmp_path: Path, capsys):
    shutil.copytree(finished, tmp_path / "model")
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    metrics["arguments"]["data"] |= {"source_train": "source_train in memory", "target_unlabeled": ["target_unlabeled in memory"]}
    (tmp_path / "model" / "metrics.json").write_text(json.dumps(metrics))
    message = refused("--model", tmp_path / "model", "--output", tmp_path / "r.json", capsys=capsys)
    assert "the run's corpora were given from Python, and are" in message


def test_the_text_of_a_run_is_the_one_that_it_was_trained_on(finished: Path, tmp_path: Path, backbone: Path):
    """Also where labelled sentences were taken out of it, and types were renamed."""
    command = Command(tmp_path, backbone)
    gold = command.file("gold.iob2", "Es\tO\nregnet\tO\n.\tO\n\nLea\tB-NAME\n")
    metrics = json.loads((finished / "metrics.json").read_text())
    options = {"source_train": str(command.options["source_train"]), "target_unlabeled": [str(tmp_path / "de.txt")]}
    metrics["arguments"]["data"] |= options | {"target_train": [str(gold)], "label_map": "NAME=PER", "max_source_samples": None}
    shutil.copytree(finished, tmp_path / "model")
    (tmp_path / "model" / "metrics.json").write_text(json.dumps(metrics))
    (only,) = tasks_of(tmp_path / "model", output=tmp_path / "r.json")
    assert only["data"]["text"] == "Otto wohnt in Kiel."
