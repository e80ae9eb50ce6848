"""What happens between epochs, and on Ctrl-C."""

import signal
import threading
from collections.abc import Sequence

from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from glode.training.arguments import GlodeTrainingArguments


class DenoisingCallback(TrainerCallback):
    """Refreshes the denoising state between epochs: thresholds, datastore, pseudo labels of all processes.

    It acts at the beginning of an epoch, where a resumed run passes as well; what is done already is not done again.
    Quality and statistics of the pseudo labels are kept in `history`, one entry an epoch.

    Args:
        trainer: the trainer whose state is refreshed.
        references: gold entities of each target sentence, where there are any. For the report only.
    """

    def __init__(self, trainer, references: Sequence | None = None):
        self.trainer, self.references = trainer, references
        self.history: list[dict] = []

    def _prefixes(self) -> dict[str | None, str]:
        """What the names of a language's log lines begin with; None stands for all languages together."""
        return {None: "pseudo_labels_"} | {name: f"pseudo_labels_{name}_" for name in self.trainer.languages}

    def on_train_begin(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """A resumed run finds the history of the epochs before in the Trainer's log."""
        for logs in state.log_history:
            if "pseudo_labels_confidence" in logs:
                reports = {language: self._from_logs(logs, prefix) for language, prefix in self._prefixes().items()}
                self.history.append({"epoch": round(logs["epoch"])} | _joined(reports))

    def _from_logs(self, logs: dict[str, float], prefix: str) -> dict:
        names = self.trainer.model.config.id2label.values()
        report = {name: logs[prefix + name] for name in ("confidence", "precision", "recall", "f1") if prefix + name in logs}
        return report | {"spans": {name: logs[f"{prefix}spans_{name}"] for name in names}}

    def on_epoch_begin(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        epoch = int(state.epoch or 0)
        self.trainer.sampler.set_epoch(epoch)
        self._refresh(epoch)

    def on_train_end(self, args: GlodeTrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self._refresh(round(state.epoch))

    def _refresh(self, epoch: int) -> None:
        if self.trainer.denoiser is None:
            return
        self.trainer.denoiser.begin_epoch(epoch)
        if not any(entry["epoch"] == epoch for entry in self.history):
            reports = self.trainer.pseudo_label_reports(self.references)
            self.history.append({"epoch": epoch} | _joined(reports))
            store = self.trainer.denoiser.datastore
            logs = {"datastore_size": len(store), "datastore_recall": store.recall, "datastore_deviation": store.deviation}
            for language, prefix in self._prefixes().items():
                report = dict(reports[language])
                logs |= {f"{prefix}spans_{name}": number for name, number in report.pop("spans").items()}
                logs |= {prefix + name: value for name, value in report.items()}
            self.trainer.log(logs)


def _joined(reports: dict[str | None, dict]) -> dict:
    """The report of all languages (None), with those of the single ones, if there are several, as `languages`."""
    single = {language: report for language, report in reports.items() if language is not None}
    return reports[None] | ({"languages": single} if single else {})


class InterruptCallback(TrainerCallback):
    """Ctrl-C while a model is trained: finish the step, save a checkpoint, stop. `interrupted` says that it happened; a second
    Ctrl-C stops at once."""

    def __init__(self):
        self.interrupted, self._before = False, None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
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
