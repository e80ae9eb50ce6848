"""The stages of a run: source model, pseudo labels, target model and, where wanted, a token classifier."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets

from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.files import write_into, write_whole
from glode.publishing.token_classifier import predict_entities, train_token_classifier
from glode.run.labelling import Labelling
from glode.run.models import StageModels
from glode.run.parts import is_numbered, numbered
from glode.run.preparation import Preparation
from glode.run.pretraining import pretrain
from glode.run.publishing import open_repository_or_go_on
from glode.run.report import Stopwatch, say, show_results, write_metrics
from glode.run.resuming import claim_output, finished_part, finished_run
from glode.run.scoring import score, scores_of
from modeling_glode import GlodeModel
from trainer_glode import GlodeTrainer


def run_stages(run: Preparation) -> None:
    """Run the stages that the arguments ask for: the teachers, and round after round their labels and a target model.

    Raises:
        InputError: the target stage alone lacks what it starts from; the output directory holds parts of another run.
    """
    if run.options.stage == "target" and not run.options.teachers and not run.options.pseudo_labels:
        raise InputError("--stage target needs --teachers or --pseudo_labels.")
    if run.training.push_to_hub:
        run.repository = open_repository_or_go_on(run)
    claim_output(run.training, run.options, run.fingerprint)
    Stages(run).run_all()


class Stages:
    """The stages of a run, one after the other."""

    def __init__(self, run: Preparation):
        self.run, self.models = run, StageModels(run)
        self.labelling = Labelling(run, self.models)

    def run_all(self) -> None:
        """The teachers, and round after round their labels and a target model; of a finished run the scores alone."""
        options = self.run.options
        if before := finished_run(self.run.training, options):
            self._finished_stages(before)
            return
        if options.pretrain_epochs:
            pretrain(self.run, self.models)
        labels_are_there = options.stage == "target" and options.pseudo_labels
        teachers: list[GlodeTrainer | Path] = [] if labels_are_there else self.source_stages()
        if options.stage == "source":
            return
        for number in range(1, options.rounds + 1):
            teachers = [self.target_round(teachers, number)]

    def source_stages(self) -> list[GlodeTrainer | Path]:
        """The source models, one after the other. Of several, which memory may not hold at once, the directories."""
        kinds = list(self.run.teacher_kinds.values()) or [None] * self.run.options.num_teachers
        if kinds == [None]:
            return [self.source_stage(1)[0]]
        return [self.labelling.by_other(number) if kind else self.source_stage(number)[1] for number, kind in enumerate(kinds, 1)]

    def source_stage(self, number: int) -> tuple[GlodeTrainer, Path]:
        """Train a source model, or take the one that is there; its scores. Returns its trainer and its directory."""
        run = self.run
        watch, name = Stopwatch(), numbered("source_model", number)
        there = run.options.teachers[number - 1] if run.options.teachers else finished_part(run.training, name)
        directory = Path(there or run.output / name)
        if there:
            run.say("source", f"{directory} is there already, and is not trained again")
            trainer = self.models.trainer(self.models.load(directory), "source", number)
        else:
            run.heading("stage 1: source model" + _of(number, run.options.num_teachers))
            trainer = self.models.trainer(self.models.fresh_model("source", number), "source", number)
            self.models.train(trainer, "source", number)
            self.models.save(trainer, write_whole(directory, owner=run.main), run.fingerprint.write)
        run.metrics["cost"][numbered("source_stage", number)] = watch.read()
        run.metrics[name] = scores_of(run, trainer)
        return trainer, directory

    def target_round(self, teachers: Sequence[GlodeTrainer | Path], number: int) -> Path:
        """One round: the teachers label the target text, and a target model learns it. Returns its directory."""
        run = self.run
        directory = run.output if number == run.options.rounds else run.output / numbered("target_model", number)
        if directory != run.output and finished_part(run.training, directory.name):
            run.say("target", f"{directory} is there already, and is not trained again")
            result = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        else:
            result = self.target_stage(self.labelling.pseudo_labels(teachers, number), number, directory)
        run.metrics |= result
        if run.options.rounds > 1:
            run.metrics.setdefault("rounds", []).append(result)
        return directory

    def target_stage(self, labels: PseudoLabels, number: int, directory: Path) -> dict[str, Any]:
        """Train a target model on the labels, which are refined meanwhile. Returns its scores, and the labels by epoch."""
        run = self.run
        run.heading("stage 2: target model" + _of(number, run.options.rounds, ", round"))
        watch, last = Stopwatch(), number == run.options.rounds
        trainer = self.models.trainer(self.models.fresh_model("target"), "target", number, labels)
        self.models.train(trainer, "target", number)
        if last:
            self.models.save(trainer, write_into(directory, owner=run.main))
        run.metrics["cost"][numbered("target_stage", number)] = watch.read()
        result = {"target_model": scores_of(run, trainer), "pseudo_labels": trainer.pseudo_label_history}
        result |= {name: run.metrics[name] for name in ("calibration",) if name in run.metrics}
        if not last:
            self.models.save(trainer, write_whole(directory, owner=run.main), partial(self._write_round, result))
        elif run.options.export_token_classifier:
            self.token_classifier(trainer)
        return result

    def _write_round(self, result: Mapping, directory: Path) -> None:
        """What stands with the model of a round that is not the last."""
        self.run.fingerprint.write(directory)
        write_metrics(result, directory)

    def _finished_stages(self, before: dict) -> None:
        """What a finished run has, with scores on the test sets that are given now."""
        run = self.run
        run.heading("finished before: nothing is left to train")
        if run.options.stage == "all" and not any(run.teacher_kinds.values()):
            self.source_stages()
        trainer = self.models.trainer(GlodeModel.from_pretrained(run.output), "source")
        run.metrics["target_model"] = scores_of(run, trainer)
        kept = ["pseudo_labels", "teachers", "token_classifier", "rounds", "calibration", "cost", "epochs"]
        kept += ["parameters", "bf16_speedup", "pretraining"]
        kept += [name for name in before if is_numbered("source_model", name) and name not in run.metrics]
        run.metrics |= {name: before[name] for name in kept if name in before}

    def token_classifier(self, teacher: GlodeTrainer) -> None:
        """Train the built-in token classifier beside the target model, and score it as its users will call it."""
        run = self.run
        run.heading("token classifier")
        watch = Stopwatch()
        directory, epochs = run.output / "token_checkpoints", run.options.token_classifier_epochs
        arguments = self.models.arguments(output_dir=str(directory), num_train_epochs=epochs, push_to_hub=False)
        labelled = [corpus for corpus in (run.corpora.source, run.corpora.target_train) if corpus is not None]
        data = (concatenate_datasets(labelled), run.corpora.dev, run.corpora.target)
        entities = teacher.pseudo_entities(len(run.corpora.target))
        adapters = {name: getattr(run.model_arguments, name) for name in ("lora_rank", "lora_alpha")}
        trainer = train_token_classifier(run.path, teacher.model, run.tokenizer, arguments, *data, entities, **adapters)
        directory = run.output / "token_classifier"
        self.models.save(trainer, write_whole(directory, owner=run.main))
        run.metrics["cost"]["token_classifier"] = watch.read()
        scores = run.metrics["token_classifier"] = {}
        for name, corpus in {"dev": run.corpora.dev, "test": run.corpora.target_test}.items():
            if corpus is not None:
                found = predict_entities(directory, corpus, run.config.max_tokens, run.training.device)
                scores |= score(run, name, corpus, run.features(corpus), found)


def report(run: Preparation) -> None:
    """The results as metrics.json and as tables on the terminal."""
    if run.main:
        scored = run.options.stage == "source" and run.options.teachers and (run.output / "metrics.json").exists()
        # Scores of a model that was there already do not take the place of those of the run that trained it.
        path = write_metrics(run.metrics, run.output, "scores.json" if scored else "metrics.json")
        show_results(run.metrics, run.data)
        say("model", str(run.model_directory))
        say("results", str(path))


def _of(number: int, total: int, what: str = "") -> str:
    """2 of 3, where there are several."""
    return f"{what} {number} of {total}" if total > 1 else ""
