"""The pseudo labels of a run: by whom, on which confidence, from which file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glode.corpora.labels import parse_label_map
from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.columns import list_lengths
from glode.run.given_labels import Span, are_records, read_calibration, read_labels, read_records, write_labels, write_mean
from glode.run.models import StageModels
from glode.run.parts import numbered, teacher_labels
from glode.run.preparation import Preparation
from glode.run.report import Stopwatch, say
from glode.run.resuming import finished_part
from glode.run.scoring import score
from glode.run.teacher_kinds import LABELS
from glode.run.teachers import Labeller, decoded, entities_of, read_teacher, short_name, write_spans
from glode.training.assignment import empty_pseudo_labels
from glode.training.calibration import Scaling
from glode.training.mutual_calibration import calibrate_on_each_other, mean_of
from trainer_glode import GlodeTrainer


class Labelling:
    """Lets the teachers of a run label its target text.

    Args:
        models: for teachers that are models of ours.
    """

    def __init__(self, run: Preparation, models: StageModels):
        self.run, self.models = run, models

    def by_other(self, number: int) -> Path:
        """Let a teacher that is no model of ours label the target text, or take the labels that are there; its scores where gold
        exists. Returns the file of its labels."""
        run = self.run
        assert run.options.teachers, "only they can be others"
        watch, name = Stopwatch(), run.options.teachers[number - 1]
        given = run.teacher_kinds[name] == LABELS
        path = Path(name) if given else run.output / teacher_labels(number)
        if run.main:
            facts = {} if given else self._ask_teacher(name, path)
            facts["scores"] = self._scores_of_labels(path) | facts.get("scores", {})
            run.metrics.setdefault("teachers", []).append({"number": number, "name": name, "kind": LABELS, **facts})
        run.training.distributed_state.wait_for_everyone()
        run.metrics["cost"][numbered("teacher", number)] = watch.read()
        return path

    def _ask_teacher(self, name: str, path: Path) -> dict[str, Any]:
        """Write a teacher's labels of the target text to a file, unless they are there, and let it read the target test set.
        Returns its kind, what it tells of itself, and its scores."""
        labeller, corpora = Labeller(self.run, name), self.run.corpora
        if there := finished_part(self.run.training, path.name):
            say("labels", f"{there} is there already")
        else:
            say("labels", f"{short_name(name)} ({labeller.teacher.kind}) labels {len(corpora.target)} sentences")
            write_spans(path, corpora.target["words"], labeller.label(corpora.target, corpora.rows["target"]))
        scores = {}
        if (test := corpora.target_test) is not None:
            found = decoded(labeller.label(test, corpora.rows["target_test"]))
            scores = score(self.run, "test", test, self.run.features(test), found)
        return {"kind": labeller.teacher.kind, **labeller.teacher.facts(), "scores": scores}

    def _scores_of_labels(self, path: Path) -> dict[str, dict]:
        """The scores of a teacher's labels on the target text itself, where that has gold entities."""
        corpus = self.run.corpora.target
        if not list_lengths(corpus, "types").any():
            return {}
        return score(self.run, "target", corpus, self.run.target, entities_of(read_teacher(path, self.run), self.run.labels))

    def pseudo_labels(self, teachers: Sequence[GlodeTrainer | Path], number: int) -> PseudoLabels:
        """The mean of the teachers' soft labels of the target text, or those that are there."""
        run = self.run
        watch, path = Stopwatch(), run.output / f"{numbered('pseudo_labels', number)}.safetensors"
        given = run.options.pseudo_labels if number == 1 else None
        if there := given or finished_part(run.training, path.name):
            run.say("labels", f"{there} is there already")
            labels = self._read_pseudo_labels(Path(there))
            calibration = read_calibration(Path(there))
        else:
            labels, calibration = self._assign_pseudo_labels(teachers, number)
            if run.main:
                write_labels(labels, path, calibration)
        if calibration:
            told = {name: scaling._asdict() for name, scaling in calibration.items()}
            run.metrics["calibration"] = run.metrics.get("calibration", {}) | told
            shown = "; ".join(f"{name} {scaling.told}" for name, scaling in calibration.items())
            run.say("noted", f"confidence is calibrated: {shown}")
        run.metrics["cost"][numbered("pseudo_labels", number)] = watch.read()
        return labels

    def _assign_pseudo_labels(
        self, teachers: Sequence[GlodeTrainer | Path], number: int
    ) -> tuple[PseudoLabels, dict[str, Scaling]]:
        """Let the teachers label the target text, one after the other; with --calibrate also their scalings, by name."""
        run = self.run
        named = self._named(teachers, number)
        others = [path for _, path in named if isinstance(path, Path) and are_records(path)]
        if run.options.calibrate == "teachers" and len(teachers) > 1:
            each = [
                self._mean_of_others([t]) if t in others else self._trainer_of(t).assign_pseudo_labels(run.target)
                for t in teachers
            ]
            scalings = calibrate_on_each_other(each, run.target)
            return mean_of(each, scalings), dict(zip((name for name, _ in named), scalings, strict=True))
        labels = self._mean_of_others(others) if others else None
        calibration: dict[str, Scaling] = {}
        for before, (name, teacher) in enumerate(((name, t) for name, t in named if t not in others), len(others)):
            trainer = self._trainer_of(teacher)
            if run.options.calibrate == "dev":
                calibration[name] = Scaling(trainer.fit_temperature())
            labels = trainer.assign_pseudo_labels(run.target, calibration.get(name, Scaling()).temperature, labels, before)
        assert labels is not None, "a round has a teacher or given labels"
        return labels, calibration

    def _named(self, teachers: Sequence[GlodeTrainer | Path], number: int) -> list[tuple[str, GlodeTrainer | Path]]:
        """The teachers of a round with their names in metrics.json; says who they are."""
        run = self.run
        kind = "source" if number == 1 else "target"
        if any(run.teacher_kinds.values()) and number == 1:
            kind = "teacher" if len(teachers) == 1 else "teachers"
            run.say("labels", f"those of {len(teachers)} {kind}" + (", of which the mean counts" if len(teachers) > 1 else ""))
            names = [numbered("teacher" if other else "source_model", i) for i, other in enumerate(run.teacher_kinds.values(), 1)]
            return list(zip(names, teachers, strict=True))
        who = f"the {kind} model labels" if len(teachers) == 1 else f"{len(teachers)} {kind} models label"
        run.say("labels", f"{who} {len(run.corpora.target)} sentences")
        several = range(1, len(teachers) + 1)
        names = [numbered("source_model", i) if number == 1 else numbered("target_model", number - 1) for i in several]
        return list(zip(names, teachers, strict=True))

    def _trainer_of(self, teacher: GlodeTrainer | Path) -> GlodeTrainer:
        """The trainer of a teacher that is a model of ours."""
        return self.models.trainer(self.models.load(teacher), "source") if isinstance(teacher, Path) else teacher

    def _mean_of_others(self, paths: Sequence[Path]) -> PseudoLabels:
        """The mean of the labels in the files of teachers that are no models of ours."""
        return self._labels_of([read_teacher(path, self.run) for path in paths])

    def _read_pseudo_labels(self, path: Path) -> PseudoLabels:
        """Pseudo labels that were made before, see `read_labels` and `read_records`."""
        if are_records(path):
            mapping = parse_label_map(self.run.data.label_map) if self.run.data.label_map else {}
            return self._labels_of([read_records(path, self.run.corpora.target, self.run.labels, mapping)])
        labels = self._empty_labels()
        read_labels(path, labels, self.run.fingerprint)
        return labels

    def _empty_labels(self) -> PseudoLabels:
        wait_for_everyone = self.run.training.distributed_state.wait_for_everyone
        return empty_pseudo_labels(self.run.target, self.run.config, self.run.training, wait_for_everyone)

    def _labels_of(self, of_teachers: Sequence[list[list[Span]]]) -> PseudoLabels:
        """The mean of teachers' spans as soft labels; says what of them the labels do not hold."""
        labels = self._empty_labels()
        held, there = write_mean(labels, of_teachers, self.run.target)
        if held < there:
            why = f"longer than L = {self.run.length}, or with a border within a word"
            self.run.say("noted", f"{there - held} of {there} entities are left out: {why}")
        return labels
