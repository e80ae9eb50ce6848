"""What happens between epochs, and on Ctrl-C."""

import math
import signal
import threading
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from glode.denoising.denoiser import Denoiser
from glode.features.streams import TwoStreamSampler


class SamplerCallback(TrainerCallback):
    """Tells the sampler which epoch begins; accelerate does not where a run of several processes is resumed."""

    def __init__(self, sampler: TwoStreamSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class DenoisingCallback(TrainerCallback):
    """Refreshes the denoising state between epochs: thresholds, datastore, pseudo labels of all processes.

    It acts at the beginning of an epoch, where a resumed run passes as well; what is done already is not done again.
    Quality and statistics of the pseudo labels are kept in `history`, one entry an epoch, and logged.

    Args:
        denoiser: what is refreshed.
        report: what the history has of the labels, see `PseudoLabelReport.summary`.
        log: takes a log line.
        refine: refines the labels as an epoch begins, where that is asked for and not done, and says what is logged of it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        report: Callable[[], dict],
        log: Callable[[dict[str, float]], None],
        refine: Callable[[int], dict[str, float]],
    ):
        self.denoiser, self.report, self.log, self.refine = denoiser, report, log, refine
        self.history: list[dict] = []

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        epoch = int(state.epoch or 0)
        self._refresh(epoch, self.refine(epoch))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._refresh(math.ceil(state.epoch), {})  # the last epoch may be cut

    def _refresh(self, epoch: int, refined: dict[str, float]) -> None:
        self.denoiser.begin_epoch(epoch)
        if any(entry["epoch"] == epoch for entry in self.history):
            return
        summary, store = self.report(), self.denoiser.datastore
        self.history.append({"epoch": epoch} | summary)
        logs = {"datastore_size": len(store), "datastore_recall": store.recall, "datastore_deviation": store.deviation}
        logs |= refined | _flat(summary, "pseudo_labels_")
        for language, part in summary.get("languages", {}).items():
            logs |= _flat(part, f"pseudo_labels_{language}_")
        self.log(logs)


def _flat(summary: dict, prefix: str) -> dict[str, float]:
    """The numbers of a summary under the names that they have in the log."""
    spans = {f"{prefix}spans_{name}": number for name, number in summary["spans"].items()}
    return spans | {prefix + name: value for name, value in summary.items() if name not in ("spans", "languages")}


def out_of_patience(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether `early_stopping_patience`, if that is given, evaluations in a row have brought no better score. They are counted in
    the log, which a checkpoint carries: a resumed run counts on."""
    patience = vars(args)["early_stopping_patience"]  # GlodeTrainingArguments have it
    metric = f"eval_{(args.metric_for_best_model or 'f1').removeprefix('eval_')}"
    scores = [entry[metric] for entry in state.log_history if metric in entry]
    return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


class PatienceCallback(TrainerCallback):
    """Ends a training that is out of patience."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if out_of_patience(args, state):
            control.should_training_stop = True


class InterruptCallback(TrainerCallback):
    """Ctrl-C while a model is trained: finish the step, save a checkpoint, stop. `interrupted` says that it happened; a second
    Ctrl-C stops at once."""

    def __init__(self):
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.interrupted = False  # a training that was stopped may go on in the same process
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._remember)

    def _remember(self, number: int, frame) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
