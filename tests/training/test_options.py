"""Protects from options that are silently passed over, or that spoil hours: they are refused before anything is read."""

import pytest

from glode.errors import InputError
from glode.run.parsing import parse_arguments
from glode.training import options
from glode.training.arguments import GlodeTrainingArguments

LINE = ["--target_lang", "de", "--source_train", "missing.conll", "--target_unlabeled", "missing.txt", "--use_cpu", "true"]


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("label_smoothing_factor", "0.1", "the losses are GLoDe's own"),
        ("data_seed", "5", "follows from --seed alone"),
        ("dataloader_drop_last", "true", "sentences of the development and test sets"),
        ("batch_eval_metrics", "true", "scored over the whole corpus"),
        ("eval_do_concat_batches", "false", "over the whole corpus, not batch by batch"),
        ("remove_unused_columns", "true", "the collator needs every column"),
        ("auto_find_batch_size", "true", "Lower --per_device_train_batch_size"),
        ("prediction_loss_only", "true", "without predictions there are no scores"),
        ("train_sampling_strategy", "sequential", "in an order of ours"),
        ("label_names", "labels", "the trainer knows its labels"),
        ("greater_is_better", "false", "a higher score is better"),
    ],
)
def test_options_that_do_nothing_or_harm(option: str, value: str, why: str):
    with pytest.raises(InputError) as error:
        parse_arguments([*LINE, f"--{option}", value])
    assert str(error.value).startswith(f"--{option} {value} is refused: ") and why in str(error.value)


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range(seed: str):
    with pytest.raises(InputError, match=f"--seed {seed}: ") as error:
        parse_arguments([*LINE, "--seed", seed])
    assert ": expected a number from 0 to " in str(error.value)
    parse_arguments([*LINE, "--seed", str(2**32 - 1)])


def test_a_metric_that_is_not_there():
    for metric in ("accuracy", "loss", "eval_loss"):
        with pytest.raises(InputError, match=f"--metric_for_best_model {metric}: ") as error:
            parse_arguments([*LINE, "--metric_for_best_model", metric])
        assert ": there are only " in str(error.value)
    with pytest.raises(InputError, match="--metric_for_best_model loss: "):  # it is looked up at each evaluation
        parse_arguments([*LINE, "--metric_for_best_model", "loss", "--load_best_model_at_end", "false"])
    for metric in ("recall", "eval_precision"):
        assert parse_arguments([*LINE, "--metric_for_best_model", metric])[2].metric_for_best_model == metric


def test_a_tracker_that_is_not_known_or_not_installed(monkeypatch):
    with pytest.raises(InputError, match="--report_to paper: ") as error:
        parse_arguments([*LINE, "--report_to", "paper"])
    assert ": no tracker of this name. There are " in str(error.value)
    monkeypatch.setattr(options, "get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(InputError, match="--report_to wandb: ") as error:
        parse_arguments([*LINE, "--report_to", "wandb"])
    assert ": its package is not installed. Install " in str(error.value)
    for known in ("tensorboard", "none"):
        parse_arguments([*LINE, "--report_to", known])


def test_patience_that_nothing_counts():
    assert parse_arguments([*LINE, "--early_stopping_patience", "2"])[2].early_stopping_patience == 2
    with pytest.raises(InputError, match=": it counts evaluations, and is 1 or more"):
        parse_arguments([*LINE, "--early_stopping_patience", "0"])
    without = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    with pytest.raises(InputError, match="--early_stopping_patience counts evaluations, and --eval_strategy no makes none"):
        parse_arguments([*LINE, "--early_stopping_patience", "2", *without])


def test_every_tracker_reaches_the_trainer(monkeypatch):
    monkeypatch.setattr(options, "get_available_reporting_integrations", lambda: ["tensorboard", "trackio", "wandb"])
    for name in ("tensorboard", "wandb", "trackio"):
        assert parse_arguments([*LINE, "--report_to", name])[2].report_to in (name, [name])


def test_several_gpus_in_one_process(monkeypatch):
    monkeypatch.setattr(GlodeTrainingArguments, "n_gpu", 2)
    with pytest.raises(InputError, match=" GPUs would pair sentences of the two languages wrongly"):
        parse_arguments(LINE)
