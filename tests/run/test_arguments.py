"""Protects the command line: its help is whole and told by groups, a recipe goes by its name, a YAML file says what it says."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from transformers import XLMRobertaConfig

from glode.command import COMMANDS
from glode.run.arguments import KINDS
from glode.run.config import RECIPES
from glode.run.parsing import argument_groups, parse_arguments
from glode.training.arguments import GlodeTrainingArguments

ARGUMENTS = [field.name for kind in KINDS for field in dataclasses.fields(kind) if field.init]


def shown_help(capsys, option: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments([option])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def entry(text: str, name: str) -> str:
    """What a help says of an argument, in one line."""
    match = re.search(rf"^  --{name} (.*?)(?=^  --|^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(match[1].split())


def test_each_argument_is_in_one_group():
    assert sorted(name for group in argument_groups().values() for name in group) == sorted(ARGUMENTS)


def test_the_help_has_our_arguments_by_groups(capsys):
    text, groups = shown_help(capsys, "--help"), argument_groups()
    theirs = groups.pop("every Trainer's")
    assert [title for title in groups if f"\n{title}:\n" in text] == ["data", "model", "method", "training", "run", "publishing"]
    assert re.findall(r"^  --(\w+)", text, re.MULTILINE) == [name for group in groups.values() for name in group]
    for name in (name for group in groups.values() for name in group):
        assert len(entry(text, name).split()) > 3, name
    assert len(theirs) > 30 and max(map(len, text.splitlines())) < 170
    assert "usage: run_crossner.py --target_lang LANGUAGE" in text and "--help_all: " in text


def test_the_whole_help_has_every_argument(capsys):
    assert sorted(re.findall(r"^  --(\w+)", shown_help(capsys, "--help_all"), re.MULTILINE)) == sorted(ARGUMENTS)


def test_the_help_shows_defaults(capsys):
    text = shown_help(capsys, "-h")
    assert entry(text, "learning_rate").endswith("Default: 1e-05.")
    assert entry(text, "freeze_embeddings").startswith("true|false") and "Default: false." in entry(text, "freeze_embeddings")
    assert entry(text, "stage").startswith("all|source|target ") and entry(text, "stage").endswith("Default: all.")
    assert entry(text, "target_lang").endswith("Needed.")
    assert entry(text, "max_span_length").endswith("covers 99.5 % of the source's entities.")  # a bare percent sign
    assert entry(text, "target_test").startswith("TEXT ...") and entry(text, "num_neighbors").startswith("NUMBER ")
    for field in dataclasses.fields(GlodeTrainingArguments):
        if field.name in argument_groups()["method"] and field.default is not None:
            shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            assert entry(text, field.name).endswith(f"Default: {shown}."), field.name


@pytest.mark.parametrize("program", [["run_crossner.py"], ["-m", "run_crossner"], ["-m", "glode", "train"]], ids=" ".join)
def test_every_way_to_the_command_has_this_help(program, capsys):
    done = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    name = "glode train" if "glode" in program else "run_crossner.py"
    assert (done.returncode, done.stdout) == (0, shown_help(capsys, "--help").replace("run_crossner.py", name, 1)), done.stderr
    assert COMMANDS["train"][0] == "run_crossner"


def test_a_recipe_goes_by_its_name():
    data = ["--target_lang", "de", "--source_train", "a.conll", "--target_unlabeled", "b.txt"]
    by_name, by_path = (parse_arguments([*data, "--config", config]) for config in ("small", str(RECIPES / "small.yaml")))
    assert by_name[3].config == by_path[3].config and by_name[2].learning_rate == by_path[2].learning_rate == 2e-4


def test_a_file_of_ones_own_is_read_before_a_recipe_of_the_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small").write_text("target_lang: de\nlearning_rate: 0.5\n")
    *_, training, run = parse_arguments(["--config", "small"])
    assert training.learning_rate == 0.5 and run.config == "small"


@pytest.mark.parametrize(("given", "expected"), [({"XDG_CACHE_HOME": "/caches"}, "/caches/glode"), ({}, "~/.cache/glode")])
def test_the_cache_is_where_the_system_has_caches(given: dict, expected: str):
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"} | given
    code = "from glode.run.arguments import RunArguments as R; print(R.model_cache)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected


def test_yaml_values_are_text_as_it_stands_there(tmp_path: Path):
    """`no` is Norwegian and `off` a choice, not false; what has no value keeps its default."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "target_lang: no\nsource_mlm: off\nmax_span_length: null\nsource_test:\nlearning_rate: 1e-4\nbf16: off\n"
        "widget_examples: [yes, 1.0]\nfreeze_embeddings: on\n"
    )
    data, model, training, run = parse_arguments(["--config", str(path)])
    assert data.target_languages == ["no"] and data.source_test is None and model.max_span_length is None
    assert (training.source_mlm, training.learning_rate, training.bf16, training.freeze_embeddings) == ("off", 1e-4, False, True)
    assert run.widget_examples == ["yes", "1.0"]


def test_settings_fit_the_encoder_and_say_why(tmp_path: Path):
    data = ["--target_lang", "de", "--source_train", "a.conll", "--target_unlabeled", "b.txt"]
    XLMRobertaConfig(hidden_size=384, num_attention_heads=6).save_pretrained(tmp_path / "small")
    XLMRobertaConfig(hidden_size=1024).save_pretrained(tmp_path / "large")
    for backbone, recipe, rate in (("e5-small", "small", 2e-4), ("small", "small", 2e-4), ("large", "paper", 1e-5)):
        path = backbone if backbone == "e5-small" else str(tmp_path / backbone)
        _, model, training, run = parse_arguments([*data, "--model_name_or_path", path])
        assert (Path(run.config).stem, training.learning_rate, model.model_name_or_path) == (recipe, rate, path)
        assert f"recipe {recipe}" in run.config_reason or "the paper's settings" in run.config_reason
        assert ("384" if recipe == "small" else "1024") in run.config_reason
    *_, training, run = parse_arguments([*data, "--learning_rate", "0.5", "--model_name_or_path", str(tmp_path / "small")])
    assert training.learning_rate == 0.5 and training.center_vectors  # the command line wins, argument by argument
    *_, training, run = parse_arguments([*data, "--config", "paper"])
    assert run.config_reason is None and training.learning_rate == 1e-5
    *_, run = parse_arguments([*data, "--model_name_or_path", str(tmp_path / "nothing")])
    assert run.config is None  # the run will end on it


def test_of_an_option_that_is_there_twice_the_last_counts(tmp_path: Path):
    """As in a script that hands its own arguments on: also for what chooses the recipe."""
    *_, training, run = parse_arguments(["--target_lang", "de", "--config", "small", "--config", "paper"])
    assert (Path(run.config).stem, training.learning_rate) == ("paper", 1e-5)
    XLMRobertaConfig(hidden_size=1024).save_pretrained(tmp_path)
    data = ["--target_lang", "de", "--source_train", "a.conll", "--target_unlabeled", "b.txt"]
    *_, run = parse_arguments([*data, "--model_name_or_path", "e5-small", "--model_name_or_path", str(tmp_path)])
    assert Path(run.config).stem == "paper"


def test_a_file_of_data_alone_stands_over_the_fitting_recipe(tmp_path: Path):
    own = tmp_path / "own.yaml"
    own.write_text("target_lang: de\nsource_train: a.conll\ntarget_unlabeled: b.txt\nnum_neighbors: 7\n")
    *_, training, run = parse_arguments(["--config", str(own)])
    assert (training.learning_rate, training.num_neighbors, run.config) == (2e-4, 7, str(own))
    assert run.config_reason.startswith(f"{own}; the encoder is small (384 wide): recipe small")
    *_, training, run = parse_arguments(["--config", str(own), "--learning_rate", "3e-5"])
    assert (training.learning_rate, training.center_vectors, run.config_reason) == (3e-5, False, None)
