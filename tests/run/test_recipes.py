"""Protects the recipes: each names every choice of the method, their values are those of the paper and of its authors' code, and
each trains both stages."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.world import tiny_encoder_config
from transformers import AutoModelForMaskedLM

import run_crossner
from glode.run.arguments import KINDS
from glode.run.config import RECIPES
from glode.run.models import StageModels
from glode.run.parsing import argument_groups, parse_arguments

ARMS = ("paper", "authors", "small")
# Beside the options of the method, what a result depends on.
CHOICES = (
    *("model_name_or_path", "dropout", "max_span_length", "max_tokens", "cut_sentences", "units", "projection_size"),
    *("lora_rank", "lora_alpha", "pretrain_epochs"),
    *("num_train_epochs", "source_num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "head_learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "lr_scheduler_type", "one_cycle"),
    *("warmup_steps", "load_best_model_at_end", "bf16"),
)
# The paper's text.
PAPER = {
    "model_name_or_path": "FacebookAI/xlm-roberta-large",
    "num_train_epochs": 8,
    "source_num_train_epochs": None,  # as many
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-5,
    "head_learning_rate": None,  # the same
    "auxiliary_task": "mlm",
    "source_mlm": "on",
    "mlm_text": "target",
    "mlm_vocabulary": "all",
    "mlm_probability": 0.25,
    "mlm_weight": 1e-3,
    "projection_size": 128,
    "denoising": "both",
    "directions": "multiple",
    "num_neighbors": 300,
    "prototype_decay": 0.99,
    "beta_start": 0.95,
    "beta_end": 0.80,
    "beta_epochs": 8,
}
# What the authors' code does where the paper is silent.
AUTHORS = PAPER | {
    "mlm_hide_masked": True,
    "load_best_model_at_end": False,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "loss_reduction": "batch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "one_cycle": True,
    "warmup_steps": 50,
    "initial_labels": "hard_outside",
    "double_softmax": True,
    "refine": "step",
    "refine_start": 0.25,  # the third of eight epochs
    "refine_every_visit": True,
    "normalize_directions": True,
    "beta_schedule": "epoch",
    "max_span_length": 4,
    "max_tokens": 128,
    "cut_sentences": True,
}
PLAIN = {field.name: field.default for kind in KINDS for field in fields(kind)}


def values_of(recipe: str) -> dict:
    return yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recipe", ARMS)
def test_a_recipe_names_every_choice(recipe: str):
    assert not {*argument_groups()["method"], *CHOICES} - values_of(recipe).keys()


@pytest.mark.parametrize(("recipe", "table"), [("paper", PAPER), ("authors", AUTHORS)])
def test_a_recipe_is_the_papers_table(recipe: str, table: dict):
    values = values_of(recipe)
    assert {name: values[name] for name in table} == table


def test_what_the_authors_do_otherwise_is_all_that_their_recipe_changes():
    """Beside it: all neighbours that the paper asks for, however small the datastore is."""
    paper, authors = values_of("paper"), values_of("authors")
    changed = {name for name in paper if authors[name] != paper[name]}
    assert changed == {name for name in AUTHORS if AUTHORS[name] != paper[name]} | {"neighbor_share"}
    assert authors["neighbor_share"] == 1


def test_the_papers_recipe_is_the_default():
    recipe = {name: value for name, value in values_of("paper").items() if name != "model_name_or_path"}
    assert {name: PLAIN[name] for name in recipe} == recipe


@pytest.fixture(scope="module")
def pretrained(tokenizer, tmp_path_factory) -> Path:
    """A tiny XLM-R that comes with the head of its language model."""
    directory = tmp_path_factory.mktemp("pretrained")
    AutoModelForMaskedLM.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


TINY_RUN = (
    "--target_lang de --max_source_samples 12 --max_target_samples 8 --max_steps 3 --use_cpu true --disable_tqdm true "
    "--bf16 false"
)


@pytest.mark.usefixtures("datasets_cache", "one_thread")
@pytest.mark.parametrize("recipe", ARMS)
def test_a_recipe_trains_both_stages(recipe: str, pretrained: Path, tmp_path: Path, capsys):
    argv = [*TINY_RUN.split(), "--config", recipe, "--model_name_or_path", str(pretrained), "--output_dir", str(tmp_path / "out")]
    run_crossner.main([*argv, "--per_device_train_batch_size", "2", "--refine_start", "0", "--report_to", "none"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["target_model"]["test"].keys() == metrics["source_model"]["dev"].keys() == {"strict", "paper"}
    assert metrics["epochs"].keys() == {"source", "target"} and all(metrics["epochs"].values())
    assert sum(metrics["pseudo_labels"][0]["spans"].values()) > 0
    out = capsys.readouterr().out
    assert "the encoder has no language model's head" not in out
    assert "the target stage has 3 steps: its warm-up takes 0 of them, not 50" in " ".join(out.split())


@pytest.mark.usefixtures("datasets_cache", "one_thread")
@pytest.mark.parametrize(("steps", "said"), [(4, "a fresh head is fitted for 4 steps: loss"), (0, "a fresh one learns")])
def test_a_fresh_head_is_fitted_once_or_told(steps: int, said: str, backbone: Path, tmp_path: Path, capsys):
    argv = [*TINY_RUN.split(), "--config", "paper", "--model_name_or_path", str(backbone), "--output_dir", str(tmp_path / "out")]
    run_crossner.main([*argv, "--max_steps", "1", "--mlm_head_warmup_steps", str(steps), "--report_to", "none"])
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize(
    ("wanted", "given", "steps", "taken", "warned"),
    [(50, False, 24, 2, False), (10, False, 120, 10, False), (50, True, 100, 50, False), (50, True, 24, 50, True)],
)
def test_a_warmup_fits_a_short_stage(wanted: int, given: bool, steps: int, taken: int, warned: bool, caplog):
    """The demo's is as it was: 10 of 120."""
    said = []
    args = SimpleNamespace(warmup_steps=wanted, max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=2)
    trainer = SimpleNamespace(args=args, sampler=SimpleNamespace(steps=steps - 1))
    options = SimpleNamespace(warmup_is_given=given)
    run = SimpleNamespace(options=options, main=True, say=lambda *words: said.append(words))
    StageModels(run)._fit_warmup(trainer, "source")
    assert trainer.args.warmup_steps == taken and bool(said) == (taken < wanted)
    assert ("is more than half of the 24 steps of the source stage" in caplog.text) == warned
    assert not warned or " is more than half of the " in caplog.text


def test_a_warmup_is_given_by_the_user_alone(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("warmup_steps: 7\n")
    data = ["--target_lang", "de", "--source_train", "a.conll", "--target_unlabeled", "b.txt"]
    rows = {
        (): False,
        ("--config", "small"): False,
        ("--warmup-steps", "7"): True,
        ("--config", str(tmp_path / "own.yaml")): True,
    }
    assert {more: parse_arguments([*data, *more])[3].warmup_is_given for more in rows} == rows
