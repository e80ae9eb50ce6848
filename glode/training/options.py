"""Which options of every Trainer mean something here; those that would do nothing, or harm, are refused."""

from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from glode.errors import InputError

METRICS = ("f1", "precision", "recall")

# Option -> the value that it must keep, and why.
_FIXED = {
    "label_smoothing_factor": (0.0, "the losses are GLoDe's own, and smooth no labels"),
    "data_seed": (None, "the order of the sentences follows from --seed alone"),
    "dataloader_drop_last": (False, "it would drop sentences of the development and test sets as well"),
    "batch_eval_metrics": (False, "entities are scored over the whole corpus, since windows of one sentence are joined first"),
    "eval_do_concat_batches": (True, "entities are scored over the whole corpus, not batch by batch"),
    "remove_unused_columns": (False, "the collator needs every column"),
    "auto_find_batch_size": (False, "it changes one stream's batch and not the other's. Lower --per_device_train_batch_size"),
    "prediction_loss_only": (False, "without predictions there are no scores"),
    "train_sampling_strategy": ("random", "batches hold sentences of both languages and of similar length, in an order of ours"),
    "label_names": (None, "the trainer knows its labels"),
    "greater_is_better": ((None, True), "a higher score is better"),
}


def check_trainer_options(training: TrainingArguments) -> None:
    """What would go wrong, or be passed over, after hours.

    Raises:
        InputError: an option that does nothing or harm, a metric or a tracker that is not there, a seed out of range, or
            patience that nothing counts.
    """
    if (training.metric_for_best_model or "f1").removeprefix("eval_") not in METRICS:
        raise InputError(f"--metric_for_best_model {training.metric_for_best_model}: there are only {', '.join(METRICS)}.")
    for name, (kept, why) in _FIXED.items():
        value = getattr(training, name, None)
        if value not in (kept if isinstance(kept, tuple) else (kept,)):
            raise InputError(f"--{name} {_as_given(value)} is refused: {why}.")
    if not 0 <= training.seed < 2**32:
        raise InputError(f"--seed {training.seed}: expected a number from 0 to {2**32 - 1}.")
    if training.n_gpu > 1:
        raise InputError(
            f"one process with {training.n_gpu} GPUs would pair sentences of the two languages wrongly. Start one process a GPU: "
            "accelerate launch --multi_gpu run_crossner.py ..., or show it one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    _check_patience(vars(training)["early_stopping_patience"], training)
    _check_trackers(training.report_to or [])


def _check_patience(patience: int | None, training: TrainingArguments) -> None:
    """Whether there are evaluations to be patient with."""
    if patience is None:
        return
    if patience < 1:
        raise InputError(f"--early_stopping_patience {patience}: it counts evaluations, and is 1 or more.")
    if training.eval_strategy == "no":
        raise InputError(
            "--early_stopping_patience counts evaluations, and --eval_strategy no makes none. Leave one of them out."
        )


def _check_trackers(names: list[str] | str) -> None:
    """Whether the trackers of --report_to are known and installed."""
    for name in [names] if isinstance(names, str) else names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"--report_to {name}: no tracker of this name. There are {', '.join(INTEGRATION_TO_CALLBACK)}.")
        if name not in get_available_reporting_integrations():
            raise InputError(f"--report_to {name}: its package is not installed. Install {name}, or give --report_to none.")


def _as_given(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else " ".join(map(str, value)) if isinstance(value, list) else str(value)
