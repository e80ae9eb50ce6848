"""Protects --teachers that are no models of ours: each kind labels the target text with the source's types, several count as
their mean, their scores are reported, and what they have labelled is not labelled twice."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.chat_server import chat_server, says
from support.command import Command
from support.world import tiny_encoder_config
from transformers import AutoModelForTokenClassification, AutoTokenizer

import run_crossner
from glode.run.checks import parse_price
from glode.run.given_labels import read_calibration

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")

GOLD = "Otto\tB-PER\nwohnt\tO\nin\tO\nKiel\tB-LOC\n.\tO\n\nEs\tO\nregnet\tO\n.\tO\n"
OTTO = {"text": "Otto wohnt in Kiel .", "entities": [{"start": 0, "end": 4, "label": "person", "score": 0.75}]}
RAIN = {"text": "Es regnet .", "entities": []}


@pytest.fixture
def classifier(command: Command, backbone: Path) -> Path:
    """A token classifier that takes every word for a person."""
    tokenizer, names = AutoTokenizer.from_pretrained(backbone), {0: "O", 1: "B-person", 2: "I-person", 3: "B-animal"}
    config = tiny_encoder_config("xlm-roberta", len(tokenizer), id2label=names, label2id={v: k for k, v in names.items()})
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 2, -9, -9]))
    for part in (model, tokenizer):
        part.save_pretrained(command.directory / "tokens")
    return command.directory / "tokens"


@pytest.fixture
def chat(monkeypatch):
    """A chat model that finds Otto, and takes Kiel for a person."""
    monkeypatch.setenv("NO_PROXY", "*")
    with chat_server(lambda prompt: says(("Otto", "Person"), ("Kiel", "Person")) if "wohnt" in prompt else says()) as server:
        yield server


def labels_by(command: Command, *teachers: object, **changes) -> torch.Tensor:
    """The labels with which the target stage begins: [words, length, types] of O, LOC, PER."""
    options = {"stage": "target", "max_span_length": 2, "disable_tqdm": "true", "use_cpu": "true"} | changes
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main([*command.arguments(**options), "--teachers", *map(str, teachers)])
    return load_file(command.directory / "output" / "pseudo_labels.safetensors")["probabilities"]


def test_a_token_classifier(command: Command, classifier: Path, capsys):
    soft = labels_by(command, classifier, label_map="person=PER")
    begins = torch.tensor([0.0, 2, -9, -9]).softmax(-1)[1].item()
    assert soft[:, 0, 2].tolist() == pytest.approx([begins] * 8, abs=1e-3)
    torch.testing.assert_close(soft.sum(-1), torch.ones(8, 2))
    assert soft[:, 1, 2].max() < 0.01 and soft[:, :, 1].max() == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "tokens: animal are no types of the source and are dropped" in told and "tokens: LOC is what it does not find" in told
    assert "tokens (token classifier) labels 2 sentences" in told


def test_a_chat_model(command: Command, chat):
    """It is shown source sentences, asked once for each target sentence, and its answers are kept."""
    name = f"{chat.address}#tiny"
    soft = labels_by(command, name)
    assert soft[0, 0].tolist() == soft[3, 0].tolist() == [0, 0, 1] and soft[[1, 2, 4, 5, 6, 7], 0, 0].tolist() == [1] * 6
    assert len(chat.requests) == 2 and "Text: Anna sings in Oslo\nAntwort: " in chat.requests[0]["messages"][0]["content"]
    assert torch.equal(labels_by(command, name, overwrite="true"), soft) and len(chat.requests) == 2
    records = [json.loads(line) for line in (command.directory / "output" / "teacher_labels.jsonl").read_text().splitlines()]
    assert records[0]["entities"][0] == {"start": 0, "end": 1, "entity_group": "PER", "score": 1.0}


def test_several_count_as_their_mean(command: Command, chat, classifier: Path, source_model):
    """A file, a chat model, a token classifier and a model of ours."""
    path = command.file("labels.jsonl", "".join(json.dumps(record) + "\n" for record in (OTTO, RAIN)))
    names = [path, f"{chat.address}#tiny", classifier, source_model(["LOC", "PER"], 2)]
    options = {"label_map": "person=PER", "overwrite": "true"}
    alone = [labels_by(command, name, **options) for name in names[:3]]
    alone.append(labels_by(command, names[3], overwrite="true"))
    assert alone[0][0, 0].tolist() == [0.25, 0, 0.75]
    mean = labels_by(command, *names, **options)
    torch.testing.assert_close(mean, torch.stack(alone).mean(0), rtol=0, atol=1e-5)
    calibrated = labels_by(command, *names[1:3], **options, calibrate="teachers")
    scalings = read_calibration(command.directory / "output" / "pseudo_labels.safetensors")
    assert set(scalings) == {"teacher", "teacher_2"}
    expected = [scaling.of(soft) for scaling, soft in zip(scalings.values(), alone[1:3], strict=True)]
    torch.testing.assert_close(calibrated, torch.stack(expected).mean(0))


SMALL = {"num_train_epochs": 1, "max_span_length": 1, "refine_start": 0, "disable_tqdm": "true", "use_cpu": "true"}


def test_scores_are_reported(command: Command, chat, monkeypatch, capsys):
    """On the target text and its test set, before and after denoising; a run that is resumed asks nothing again."""
    monkeypatch.undo()  # this run trains
    monkeypatch.setenv("NO_PROXY", "*")
    gold, name = command.file("gold.iob2", GOLD), f"{chat.address}#tiny"
    options = {
        "stage": "target",
        "target_unlabeled": gold,
        "target_test": gold,
        "teacher_price": "1,2",
        "teachers": name,
        **SMALL,
    }
    run_crossner.main(command.arguments(**options))
    output = command.directory / "output"
    metrics = json.loads((output / "metrics.json").read_text())
    (teacher,) = metrics["teachers"]
    assert teacher["name"] == name and teacher["kind"] == "chat model" and teacher["price"] > 0 and teacher["asked"] == 2
    assert teacher["scores"]["target"]["strict"]["f1"] == teacher["scores"]["test"]["strict"]["f1"] == 50
    assert metrics["pseudo_labels"][0]["f1"] == 50 and "f1" in metrics["pseudo_labels"][-1] and metrics["cost"]["teacher"]
    assert "source_model" not in metrics
    told = capsys.readouterr().out
    assert "teacher 1" in told and "de text" in told and "de test" in told
    card = " ".join((output / "README.md").read_text().split())
    assert "Stage 1: labels of the de text by tiny (chat model)." in card and "labels and on these soft pseudo labels" in card
    chat.requests.clear()
    for part in ("model.safetensors", "pseudo_labels.safetensors"):
        (output / part).unlink()
    run_crossner.main(command.arguments(**options, resume_from_checkpoint="auto"))
    assert not chat.requests and "teacher_labels.jsonl is there already" in " ".join(capsys.readouterr().out.split())
    assert json.loads((output / "metrics.json").read_text())["teachers"][0]["scores"] == teacher["scores"]


def test_a_finished_run_keeps_what_it_tells_of_teachers(command: Command, source_model, monkeypatch, capsys):
    """Of each by its place among them, whether it is a model of ours or not."""
    monkeypatch.undo()  # this run trains
    monkeypatch.chdir(command.directory)
    command.file("labels.jsonl", "".join(json.dumps(record) + "\n" for record in (OTTO, RAIN)))
    arguments = command.arguments(stage="target", label_map="person=PER", num_train_epochs=1, max_span_length=2)
    arguments += ["--use_cpu", "--disable_tqdm", "true", "--teachers", str(source_model(["LOC", "PER"], 2)), "./labels.jsonl"]
    arguments += ["--target_unlabeled", str(command.file("gold.iob2", GOLD))]
    run_crossner.main(arguments)
    path = command.directory / "output" / "metrics.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {"parameters": {"learn": 1, "all": 2}, "bf16_speedup": 1.5}))
    assert before["teachers"][0]["number"] == 2 and {"source_model", "source_stage", "teacher_2"} < {*before, *before["cost"]}
    assert "teacher 2" in capsys.readouterr().out
    run_crossner.main([*arguments, "--resume_from_checkpoint", "auto"])
    told = capsys.readouterr().out
    assert "nothing is left to train" in told and "source model" in told and "teacher 2" in told
    after = json.loads(path.read_text())
    assert {name: after[name] for name in ("source_model", "teachers")} == {n: before[n] for n in ("source_model", "teachers")}
    assert after["parameters"] == {"learn": 1, "all": 2} and after["bf16_speedup"] == 1.5


def test_teachers_that_cannot_be_asked(command: Command, classifier: Path):
    command.options |= {"teachers": classifier, "use_cpu": "true"}
    assert "--stage source is about source models, and --teachers" in command.error(stage="source")
    assert "--calibrate dev is for models of ours, and --teachers" in command.error(calibrate="dev")
    told = command.error(label_map="animal=PET")
    assert (
        "has the types PET, person, and" in told and ", and none is one of the source's " in told and "LOC, PER. Rename" in told
    )
    assert "--label_map: no corpus has the type 'dog'" in command.error(label_map="dog=PER")
    assert " is no file that is there. Check the path." in command.error(teachers="nowhere.jsonl")
    listed = command.file("labels.json", "[]")
    assert f"{listed} is a file, but no .jsonl of labels. Give a model's directory; a" in command.error(teachers=listed)
    given = command.file("labels.jsonl", "".join(json.dumps(record) + "\n" for record in (OTTO, RAIN)))
    assert "--pseudo_labels stand in the place of what --teachers" in command.error(pseudo_labels=given)
    told = command.error("--teachers", str(given), str(classifier), str(given), teachers=None)
    assert str(given) in told and " twice, and it would count once. Leave one of" in told
    (command.directory / "output").mkdir(exist_ok=True)
    kept = command.file("output/teacher_labels.jsonl", given.read_text())
    told = command.error("--teachers", str(classifier), str(kept), teachers=None)
    assert f"{kept}: the run would write another teacher's labels there. Move the file, or give another" in told
    assert kept.read_text() == given.read_text()
    options = {"pseudo_labels": given, "rounds": "2", "calibrate": "teachers", "teachers": None}
    assert "--calibrate: no model labels the target text" in command.error("--teachers", "a", "b", **options)


def test_names_that_a_teacher_is_asked_for(command: Command, chat):
    """--label_map may name what no corpus has."""
    labels_by(command, f"{chat.address}#tiny", label_map="Mensch=PER")
    assert "Erlaubte Typen: Mensch, Ort." in chat.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize("text", ["1", "a,b", "1,2,3", "-1,2"])
def test_a_price_of_another_form(command: Command, text: str):
    assert parse_price("0.15, 0.6") == (0.15, 0.6)
    assert "expected two numbers, READ,WRITTEN, such as 0.15,0.60" in command.error(f"--teacher_price={text}")
