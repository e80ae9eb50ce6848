"""Protects who gives the pseudo labels: several teachers count as the mean of their labels, a round begins with the target model
of the one before, confidence is calibrated on source dev, labels of others are taken as they are; what is stopped goes on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support.command import Command

import run_crossner
from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.windows import build_features
from glode.run.arguments import ModelArguments
from glode.run.backbone import glode_config
from glode.run.given_labels import read_calibration
from glode.run.models import StageModels
from glode.training.arguments import GlodeTrainingArguments
from glode.training.assignment import write_soft_labels
from glode.training.calibration import HIGHEST, LOWEST, Scaling, fit_temperature, gold_logits
from glode.training.mutual_calibration import fit_scaling

pytestmark = pytest.mark.usefixtures("datasets_cache", "one_thread")

SMALL = (
    "--config demo --target_lang de --use_cpu true --disable_tqdm true --report_to none --max_source_samples 30 "
    "--max_target_samples 10 --per_device_train_batch_size 10 --max_span_length 3 --learning_rate 3e-3 --dropout 0.2 "
    "--num_train_epochs 1 --source_num_train_epochs 1 --refine_start 0 --keep_checkpoints"
)


OPTIONS = ("--num_teachers", 2, "--rounds", 2, "--calibrate", "dev", "--seed", 5)
NAMES = ("source_model", "source_model_2", "pseudo_labels.safetensors", "target_model", "pseudo_labels_2.safetensors")


def arguments(backbone: Path, output: Path, *more: object) -> list[str]:
    return [*SMALL.split(), "--model_name_or_path", str(backbone), "--output_dir", str(output), *map(str, more)]


def run(*given) -> dict:
    run_crossner.main(arguments(*given))
    return json.loads((given[1] / "metrics.json").read_text())


def probabilities(path: Path) -> torch.Tensor:
    return load_file(path)["probabilities"]


@pytest.fixture(scope="module")
def several(backbone, tmp_path_factory) -> tuple[Path, dict]:
    """A run with all of it: two teachers, two rounds, calibrated."""
    output = tmp_path_factory.mktemp("teachers") / "model"
    return output, run(backbone, output, *OPTIONS)


def test_teachers_differ_by_their_seeds_and_rounds_by_their_labels(several):
    output, metrics = several
    weights = [load_file(output / name / "model.safetensors")["classifier.linear.weight"] for name in NAMES[:2]]
    assert not torch.equal(*weights)
    assert {"source_model", "source_model_2", "target_model"} <= metrics.keys() and len(metrics["rounds"]) == 2
    assert metrics["rounds"][1]["target_model"] == metrics["target_model"]
    assert metrics["rounds"][1]["pseudo_labels"] == metrics["pseudo_labels"] != metrics["rounds"][0]["pseudo_labels"]
    assert set(metrics["calibration"]) == {"source_model", "source_model_2", "target_model"}
    for scaling in metrics["calibration"].values():
        assert LOWEST < scaling["temperature"] < HIGHEST and scaling["temperature"] != 1 and scaling["outside"] == 0
    assert set(metrics["epochs"]) == {"source", "source_2", "target", "target_2"}
    card = " ".join((output / "README.md").read_text().split())
    assert "2 source models of consecutive seeds, each 1 epochs" in card and "in 2 rounds: from the second on" in card
    assert "the mean of the source models' soft pseudo labels of the de text, calibrated on en development text" in card


def labels_by(backbone: Path, output: Path, *teachers: Path) -> torch.Tensor:
    """The labels of teachers that are there already; nothing is trained on them."""
    with pytest.raises(AssertionError, match="a target stage began"):
        run(backbone, output, "--teachers", *teachers, "--calibrate", "dev", "--stage", "target")
    return probabilities(output / "pseudo_labels.safetensors")


def test_the_labels_are_the_mean_of_the_teachers(several, backbone, tmp_path, monkeypatch):
    """The same as of teachers that are there already, in whatever order; one alone gives others."""
    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", no_target_stage)
    first, second = (several[0] / name for name in NAMES[:2])
    alone = [labels_by(backbone, tmp_path / teacher.name, teacher) for teacher in (first, second)]
    assert not torch.allclose(*alone)
    mean = probabilities(several[0] / "pseudo_labels.safetensors")
    torch.testing.assert_close(mean, (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(mean, labels_by(backbone, tmp_path / "both", second, first))


def no_target_stage(*_, **__):
    raise AssertionError("a target stage began")


@pytest.mark.parametrize("finished", [1, 4])
def test_a_stopped_run_goes_on_with_what_is_finished(several, backbone, tmp_path, capsys, finished: int):
    """It ends as the run that was not stopped."""
    output, metrics = several
    for name in ("fingerprint.json", *NAMES[:finished]):
        (shutil.copytree if (output / name).is_dir() else shutil.copy)(output / name, tmp_path / name)
    again = run(backbone, tmp_path, *OPTIONS, "--resume_from_checkpoint", "auto")
    for name in ("source_model", "source_model_2", "target_model", "rounds", "calibration"):
        assert again[name] == metrics[name], name
    for name in ("model.safetensors", "pseudo_labels_2.safetensors"):
        assert (tmp_path / name).read_bytes() == (output / name).read_bytes(), name
    told = capsys.readouterr().out
    assert told.count("is there already") == (1 if finished == 1 else 3)


@pytest.mark.parametrize("file", [None, "labels"])
def test_a_window_that_is_met_twice_counts_once(tmp_path, file: str | None):
    """As where several processes fill up their last batch."""
    labels = PseudoLabels([1, 1, 1], 1, 2, file=file and tmp_path / file)
    teachers = torch.randn(3, 3, 1, 1, 2)  # teacher, window, word, length, type
    for others, logits in enumerate(teachers):
        batches = [
            {"window": torch.tensor(rows), "own_start": torch.zeros(2, dtype=torch.long), "rows": rows}
            for rows in ([0, 1], [2, 0])
        ]
        read = ((batch, logits[batch["rows"]]) for batch in batches)
        write_soft_labels(labels, read, 1.0, hard_outside=False, others=others, gather=lambda tensor: tensor[None])
    expected = teachers.softmax(-1).mean(0)[:, 0]
    torch.testing.assert_close(labels.probabilities.float(), expected, rtol=0, atol=1e-3 if file else 1e-6)
    assert labels.refined_in.eq(-1).all()


def test_a_temperature_makes_the_gold_types_most_likely():
    torch.manual_seed(0)
    logits = torch.randn(500, 3)
    labels = torch.distributions.Categorical(logits=logits / 2.5).sample()
    found = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return torch.nn.functional.cross_entropy(logits.double() / temperature, labels).item()

    assert found == pytest.approx(2.5, rel=0.3)
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))
    assert fit_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(LOWEST, rel=1e-3)


def test_teachers_are_calibrated_on_each_other(several, backbone, tmp_path, monkeypatch):
    """Each teacher's scaling is that of the least cross-entropy to what the other says; the labels are their scaled mean."""
    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", no_target_stage)
    teachers = [several[0] / name for name in NAMES[:2]]
    for name, given in {"one": teachers[:1], "other": teachers[1:], "both": teachers}.items():
        more = ("--calibrate", "teachers") if name == "both" else ()
        with pytest.raises(AssertionError, match="a target stage began"):
            run(backbone, tmp_path / name, "--teachers", *given, "--stage", "target", *more)
    one, other, both = (probabilities(tmp_path / name / "pseudo_labels.safetensors") for name in ("one", "other", "both"))
    scalings = list(read_calibration(tmp_path / "both" / "pseudo_labels.safetensors").values())
    assert len(scalings) == 2 and all(scaling.temperature != 1 and scaling.outside != 0 for scaling in scalings)
    torch.testing.assert_close(both, (scalings[0].of(one) + scalings[1].of(other)) / 2)


def test_a_scaling_says_best_what_others_say():
    torch.manual_seed(0)
    soft = torch.randn(4000, 3).mul(3).softmax(-1)
    wanted = torch.nn.functional.one_hot(torch.distributions.Categorical(probs=Scaling(2.0, 1.0).of(soft)).sample(), 3)
    found = fit_scaling(soft, wanted.float())
    assert found.temperature == pytest.approx(2, rel=0.15) and found.outside == pytest.approx(1, rel=0.15)

    def loss(scaling: Scaling) -> float:
        return -(wanted * scaling.of(soft).double().log()).sum().item()

    assert all(
        loss(found) < loss(Scaling(found.temperature * t, found.outside + b))
        for t, b in ((1.02, 0), (0.98, 0), (1, 0.02), (1, -0.02))
    )


def test_labels_that_others_contradict_become_unsure_and_are_not_turned_round():
    soft = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])
    found = fit_scaling(soft, soft.flip(1))
    assert found.temperature == HIGHEST
    assert found.of(soft)[:, 1].argsort().tolist() == soft[:, 1].argsort().tolist()


def test_where_all_teachers_are_certain_labels_stay():
    """No span is left to fit."""
    assert fit_scaling(torch.empty(0, 3), torch.empty(0, 3)) == Scaling()


def test_all_teachers_begin_with_the_head_of_the_first(backbone, tokenizer, corpus, tmp_path):
    """A language model's head that the encoder came without; also where a run is resumed whose first teacher is there."""
    model = ModelArguments(model_name_or_path=str(backbone), max_tokens=64)
    windows = build_features(corpus, tokenizer, 64, 2)
    run = SimpleNamespace(
        path=str(backbone),
        config=glode_config(model, str(backbone), tokenizer, ["O", "PER"], 2),
        model_arguments=model,
        training=GlodeTrainingArguments(str(tmp_path), mlm_head_warmup_steps=2, per_device_train_batch_size=2),
        tokenizer=tokenizer,
        source=windows,
        target=windows,
        say=lambda *_: None,
    )
    whole, resumed = StageModels(run), StageModels(run)
    first, second, alone = whole.fresh_model("source"), whole.fresh_model("source", 2), resumed.fresh_model("source", 2)
    heads = [model.mlm_head.state_dict() for model in (first, second, alone)]
    assert all(torch.equal(weights, head[name]) for name, weights in heads[0].items() for head in heads[1:])
    classifiers = [model.classifier.linear.weight for model in (first, second, alone)]
    assert torch.equal(classifiers[1], classifiers[2]) and not torch.equal(classifiers[0], classifiers[1])


def test_without_labelled_windows_there_is_no_temperature():
    with pytest.raises(ValueError, match="there is no labelled window to fit"):
        gold_logits([], None, lambda tensor: tensor[None])


# ------------------------------------------------------------------------------------------------ labels that others have made


def labels_of(command: Command, *records: dict, name: str = "labels.jsonl") -> Path:
    return command.file(name, "".join(json.dumps(record) + "\n" for record in records))


def entity(start: int, end: int, kind: str, score: float | None = 0.75) -> dict:
    return {"start": start, "end": end, "entity_group": kind} | ({} if score is None else {"score": score})


OTTO = {"text": "Otto wohnt in Kiel .", "entities": [entity(0, 4, "PER"), entity(14, 18, "LOC", 0.5)]}
RAIN = {"text": "Es regnet .", "entities": []}


def given_labels(command: Command, monkeypatch, path: Path, **changes) -> torch.Tensor:
    """The labels with which the target stage begins: [words, length, types]."""
    seen = []

    def train(trainer, **_):
        seen.append(trainer.denoiser.pseudo_labels.probabilities.clone())
        raise AssertionError("a target stage began")

    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", train)
    with pytest.raises(AssertionError, match="a target stage began"):
        run_crossner.main(command.arguments(pseudo_labels=path, stage="target", **changes))
    return seen[0]


def test_scores_become_soft_labels(command: Command, monkeypatch):
    soft = given_labels(command, monkeypatch, labels_of(command, OTTO, RAIN))
    assert soft.shape == (8, 1, 3)  # O, LOC, PER
    expected = torch.tensor([1.0, 0, 0]).repeat(8, 1, 1)
    expected[0, 0], expected[3, 0] = torch.tensor([0.25, 0, 0.75]), torch.tensor([0.5, 0.5, 0])
    assert torch.equal(soft, expected)


def test_records_of_words_of_paragraphs_and_of_others_are_read(command: Command, monkeypatch, capsys):
    """Several sentences in one record; other names; a span without a score is certain; what no span can be is counted."""
    words = ["Otto", "wohnt", "in", "Kiel", ".", "Es", "regnet", "."]
    entities = [{"start": 0, "end": 1, "label": "person"}, entity(3, 4, "LOC"), entity(3, 5, "LOC"), entity(5, 6, "X")]
    path = labels_of(command, {"tokens": words, "entities": entities})
    soft = given_labels(command, monkeypatch, path, label_map="person=PER,X=O")
    assert soft[0, 0].tolist() == [0, 0, 1] and soft[3, 0].tolist() == [0.25, 0.75, 0] and soft[5, 0].tolist() == [1, 0, 0]
    assert "1 of 3 entities are left out: longer than L = 1, or with a border within a word" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([OTTO], ("ends after 1 of 2", " target sentences. Label all of them.")),
        ([OTTO, RAIN, RAIN], ("target sentence 3, which is none: there are 2", " does not begin with target sentence ")),
        ([RAIN, OTTO], ("line 1: 'Esregnet.' does", "target sentence 1, which is 'Otto wohnt in Kiel .'")),
        ([OTTO | {"entities": [entity(14, 99, "LOC")]}], ("'end': 99", " is no entity of this text: expected ")),
        ([OTTO | {"entities": [entity(0, 4, "PER", 1.5)]}], ("1.5", " is no entity of this text: expected ")),
        ([OTTO | {"entities": [entity(0, 4, "DOG")]}], ("'DOG' is none of the source's LOC, PER", ". Rename it by --label_map.")),
        ([OTTO | {"entities": [entity(0, 4, "PER"), entity(0, 4, "LOC")]}], ("from 0 to 4", " make more than 1. Correct them.")),
        ([{"text": "Otto"}], ("line 1", ": no record of pseudo labels, ")),
    ],
)
def test_labels_that_do_not_fit_are_refused(command: Command, records: list[dict], told: tuple[str, ...]):
    path = labels_of(command, *records)
    message = command.error(pseudo_labels=path, stage="target")
    assert all(text in message for text in (str(path), *told))


# ----------------------------------------------------------------------------------------------------- what contradicts itself


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rounds": 0}, "--rounds 0 is out of range: expected a number from 1 on."),
        ({"num_teachers": 2, "teachers": "somewhere"}, "--num_teachers says how many source models are trained"),
        ({"rounds": 2, "stage": "source"}, "--rounds repeats the target stage, which --stage source"),
        ({"calibrate": "teachers"}, "--calibrate teachers asks how far several teachers agree: give"),
        ({"calibrate": "dev", "stage": "source"}, "--calibrate: no model labels the target text in this run"),
    ],
)
def test_options_that_would_do_nothing(command: Command, changes: dict, told: str):
    assert told in command.error(**changes)


def test_an_alias_in_a_configuration(command: Command):
    path = command.file("run.yaml", "source_model: nowhere\nstage: target\n")
    assert "--teachers nowhere cannot be loaded (" in command.error(config=path)


def test_what_the_arguments_name_is_not_deleted(command: Command, source_model):
    """Also where it is called as a part of this run would be."""
    output = command.directory / "output"
    given = source_model(["LOC", "PER"], 1).rename(output.mkdir() or output / "target_model")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main([*command.arguments(stage="target", overwrite="true"), "--teachers", str(given)])
    assert (given / "model.safetensors").is_file() and (output / "pseudo_labels.safetensors").is_file()
