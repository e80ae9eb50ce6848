"""What a stage shows while it trains: one bar with the loss and the development F1 (of pretraining the loss on held-out text),
or a line an evaluation."""

import shutil
import sys

from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

VERBOSE = ("detail", "debug", "info")  # --log_level that shows every logged value


def watch(trainer: Trainer, name: str) -> None:
    """Show a trainer's progress in the place of the Trainer's own bars and dictionaries.

    Args:
        name: what is trained.
    """
    for kind in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
        trainer.remove_callback(kind)
    bar = not trainer.args.disable_tqdm and sys.stderr.isatty()
    trainer.add_callback(StageProgress(name, bar, verbose=trainer.args.log_level in VERBOSE))


class StageProgress(TrainerCallback):
    """A stage's bar on a terminal; elsewhere, as in a log file, a line an evaluation.

    Args:
        name: what is trained.
        bar: whether there is a terminal for a bar.
        verbose: whether every logged value is shown.
    """

    def __init__(self, name: str, bar: bool, verbose: bool):
        self.name, self.verbose, self.shows_bar = name, verbose, bar
        self._bar: tqdm | None = None
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._shown = {}
        if self.shows_bar and state.is_world_process_zero:
            columns = shutil.get_terminal_size().columns
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name, unit="step", ncols=columns)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs) -> None:
        if not state.is_world_process_zero:
            return
        logs = logs or {}
        if "loss" in logs:
            self._show(loss=f"{logs['loss']:.3g}")
        if self.verbose:
            values = ", ".join(f"{name} {_number(value)}" for name, value in logs.items() if name != "epoch")
            self._write(f"{self.name}, step {state.global_step}: {values}")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics=None, **kwargs) -> None:
        metrics = metrics or {}
        if not state.is_world_process_zero or not {"eval_f1", "eval_loss"} & metrics.keys():
            return
        if "eval_f1" in metrics:
            self._show(**{"dev F1": f"{metrics['eval_f1']:.1f}"})
        else:
            self._show(**{"held-out loss": f"{metrics['eval_loss']:.3g}"})
        if self._bar is None:
            shown = ", ".join(f"{name} {value}" for name, value in self._shown.items())
            self._write(
                f"{self.name}: epoch {state.epoch or 0:.4g} of {args.num_train_epochs:.4g}, step {state.global_step} of "
                f"{state.max_steps}, {shown}"
            )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, **values: str) -> None:
        self._shown |= values
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(f"{name} {value}" for name, value in self._shown.items()))

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
