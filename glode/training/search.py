"""What a search for settings asks of the trainer."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_utils import number_of_arguments

from glode.errors import InputError
from glode.fast.preparing import speed_up
from modeling_glode import GlodeModel

SEARCHED = (  # arguments that may differ between trials: nothing of them is used before a training begins
    *("learning_rate", "head_learning_rate", "num_train_epochs", "warmup_steps", "weight_decay", "mlm_weight"),
    *("lr_scheduler_type", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon"),
)


def first_model(model: GlodeModel | None, model_init: Callable[..., GlodeModel] | None, seed: int, denoises: bool) -> GlodeModel:
    """The model that a trainer is made with: the one given, or the first that `model_init` gives.

    Raises:
        InputError: both, or neither; `model_init` in the target stage.
    """
    if model is not None and model_init is None:
        return model
    if model is not None or model_init is None:
        raise InputError("GlodeTrainer takes either a model or a model_init, and one of them.")
    if denoises:
        raise InputError(
            "model_init is for the source stage: a target stage changes its pseudo labels as it goes, so the next training "
            "would begin with labels of the last one. Make a trainer with fresh labels for each."
        )
    set_seed(seed)
    return _made(model_init, None)


def fresh_models(
    model_init: Callable[..., GlodeModel] | None, choose_what_learns: Callable[[GlodeModel], None]
) -> Callable[[Any], GlodeModel] | None:
    """What gives each training its model, prepared as the first one was; it takes the trial."""
    if model_init is None:
        return None

    def fresh(trial: Any) -> GlodeModel:
        model = _made(model_init, trial)
        choose_what_learns(model)
        speed_up(model)
        return model

    return fresh


def _made(model_init: Callable[..., GlodeModel], trial: Any) -> GlodeModel:
    return model_init(trial) if number_of_arguments(model_init) else model_init()


class SearchCallback(TrainerCallback):
    """Raises InputError where a search varies what the batches were made with."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if fixed := sorted(set(state.trial_params or {}) - set(SEARCHED)):
            raise InputError(f"{fixed[0]} cannot differ between trials; a search may only vary {', '.join(SEARCHED)}.")
