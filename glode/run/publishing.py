"""The end of a run: the card, its picture, the code that travels with the model; and the push to the Hub."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from glode.errors import InputError
from glode.publishing.card import PICTURE, TOKENS_CARD, CardFacts, examples_in, plot_pseudo_labels, write_card
from glode.publishing.hub import copy_code, make_portable, open_repository, publish
from glode.run.arguments import RunArguments
from glode.run.corpora import files_by_language, languages_of
from glode.run.embedded import DEMO_BACKBONE
from glode.run.given_labels import are_records
from glode.run.parts import numbered
from glode.run.preparation import Preparation, refines
from glode.run.report import part_names, say

logger = logging.get_logger("glode")


def finish(run: Preparation) -> None:
    """Finish the model's directory: card, picture, code; and push it, where asked to.

    Raises:
        InputError: the Hub cannot be reached or refuses. All files are written by then.
    """
    if not run.main or (run.last_stage == "source" and run.options.teachers):  # which is somebody else's
        return
    directory = run.model_directory
    copy_code(directory)
    make_portable(directory)
    write_run_card(run, directory)
    tokens = run.output / "token_classifier" if run.options.export_token_classifier else None
    if tokens:
        make_portable(tokens)
        write_tokens_card(run, tokens)
    if run.training.push_to_hub:
        _push(run, directory, tokens)


def _push(run: Preparation, directory: Path, tokens: Path | None) -> None:
    name = run.training.hub_model_id or run.output.name
    private, revision = run.training.hub_private_repo, run.training.hub_revision
    run.repository = run.repository or open_repository(name, None, private)
    if tokens:
        repository = open_repository(f"{run.repository}-tokens", None, private)
        write_tokens_card(run, tokens)
        say("pushed", publish(tokens, repository, None, revision, "End of training"))
    write_run_card(run, directory)
    say("pushed", publish(directory, run.repository, None, revision, "End of training"))


def write_run_card(run: Preparation, directory: Path) -> None:
    """README.md and the picture of the pseudo labels, from what is known so far."""
    facts = card_facts(run)
    if history := run.metrics.get("pseudo_labels"):
        plot_pseudo_labels(history, directory / PICTURE, facts.first_refining_epoch - 1 if facts.refined else None)
    write_card(directory, facts)


def write_tokens_card(run: Preparation, directory: Path) -> None:
    """README.md of the token classifier."""
    facts = card_facts(run)
    test = run.metrics["token_classifier"].get("test")
    repository = run.repository and f"{run.repository}-tokens"
    changes = {
        "main_repo": run.repository,
        "repo": repository or str(directory),
        "model_name": repository.split("/")[-1] if repository else f"{facts.model_name}-tokens",
        "test_scores": test and test["strict"],
    }
    write_card(directory, dataclasses.replace(facts, **changes), TOKENS_CARD)


def card_facts(run: Preparation) -> CardFacts:
    """What the cards tell of a run, as far as it has come."""
    data, training, metrics, options = run.data, run.training, run.metrics, run.options
    names, languages = part_names(data), data.target_languages
    repository = run.repository or training.hub_model_id
    scores = metrics.get(f"{run.last_stage}_model", {})
    history = metrics.get("pseudo_labels", [])
    epochs = metrics["epochs"].get(numbered("target", options.rounds), training.num_train_epochs)
    source_name, target_name, test_name = _corpus_names(run)
    base_model, backbone = _backbone_names(run.model_arguments.model_name_or_path)
    return CardFacts(
        model_name=(repository or run.output.resolve().name).split("/")[-1],
        repo=repository or str(run.output),
        license=options.license,
        base_model=base_model,
        backbone=backbone,
        datasets=[data.dataset_name] if data.dataset_name else None,
        labels=run.labels[1:],
        source_lang=", ".join(data.source_languages),
        target_lang=", ".join(languages),
        languages=[*languages, *data.source_languages],
        source_name=source_name,
        target_name=target_name,
        source_sentences=len(run.corpora.source),
        target_sentences=len(run.corpora.target),
        examples=options.widget_examples or examples_in(languages),
        scores={names[name]: values for name, values in scores.items()},
        test_name=test_name,
        **_test_facts(metrics, run.last_stage, names),
        unreachable=metrics["unreachable"].get("target test"),
        max_span_length=run.length,
        max_tokens=run.config.max_tokens,
        last_stage=run.last_stage,
        source_epochs=metrics["epochs"].get("source", training.source_num_train_epochs or training.num_train_epochs),
        target_epochs=epochs,
        **_who_labels(options),
        other_teachers=_other_teachers(metrics),
        refined=refines(training, epochs),
        first_refining_epoch=training.denoising_settings.refining_epochs(math.ceil(epochs)).start + 1,
        best_checkpoint=training.load_best_model_at_end,
        source_mlm=training.auxiliary_task == "mlm" and training.mlm_weight > 0 and training.source_mlm == "on",
        denoising=training.denoising,
        **_how_it_learns(run),
        pretraining=metrics.get("pretraining"),
        history=bool(history),
        history_f1=any("f1" in entry for entry in history),
        tokens_repo=f"{run.repository}-tokens" if run.repository and options.export_token_classifier else None,
        token_scores={names[name]: values for name, values in metrics.get("token_classifier", {}).items()},
        token_epochs=options.token_classifier_epochs,
    )


def _how_it_learns(run: Preparation) -> dict[str, Any]:
    """What the cards tell of the training's numbers."""
    training = run.training
    settings = {"learning_rate": training.learning_rate, "batch_size": training.per_device_train_batch_size}
    return settings | {"seed": training.seed, "lora_rank": run.model_arguments.lora_rank}


def _who_labels(options: RunArguments) -> dict[str, Any]:
    """What the cards tell of the teachers."""
    return {
        "source_is_given": bool(options.teachers or options.pseudo_labels),
        "labels_are_given": are_records(Path(options.pseudo_labels or "")),
        "teachers": len(options.teachers or ()) or options.num_teachers,
        "calibrated": options.calibrate,
        "rounds": options.rounds,
    }


def _other_teachers(metrics: Mapping[str, Any]) -> list[str]:
    """The teachers that are no models of ours, with their kinds, for readers."""
    return [f"{Path(told['name'].split('#')[-1]).name} ({told['kind']})" for told in metrics.get("teachers", [])]


def _test_facts(metrics: Mapping[str, Any], last_stage: str, names: Mapping[str, str]) -> dict[str, Any]:
    """What the card tells of the target's labels: the size of its test set, both models' scores on it, and how many sentences
    were learnt."""
    before = metrics.get("source_model", {}) if last_stage == "target" else {}
    summaries = [summary for name, summary in metrics["corpora"].items() if name.split()[0] == "target_test"]
    learnt = metrics.get("target_train", {"sentences": 0, "weight": 1.0})
    return {
        "target_train_sentences": learnt["sentences"],
        "target_train_weight": learnt["weight"],
        "test_scores": metrics.get(f"{last_stage}_model", {}).get("test", {}).get("strict"),
        "source_scores": {names[name]: values for name, values in before.items() if name.startswith("test")},
        "test_sentences": sum(summary["sentences"] for summary in summaries),
        "repeated": sum(summary["repeated"] for summary in summaries),
    }


def _corpus_names(run: Preparation) -> tuple[str, str, str]:
    """What the source corpus, the target text and the target test set are called."""
    data = run.data
    if whole := data.dataset_name or (None if data.source_train else "the GLoDe demo corpus"):
        return whole, whole, whole

    def names(option: str) -> str:
        files = files_by_language(option, getattr(data, option), languages_of(option, data))
        return ", ".join(Path(path).name for path in itertools.chain(*files.values()))

    return names("source_train"), names("target_unlabeled"), names("target_test")


def _backbone_names(name: str) -> tuple[str | None, str]:
    """The backbone's name on the Hub, if it is there, and for readers."""
    embedded = name == DEMO_BACKBONE
    backbone = "intfloat/multilingual-e5-small" if embedded else name
    public = "/" in backbone and not Path(backbone).exists()
    shown = f"{backbone} (4 bits a weight, vocabulary trimmed to the corpora)" if embedded else Path(backbone).name
    return backbone if public else None, shown


def open_repository_or_go_on(run: Preparation) -> str | None:
    """The repository to push to; None where the Hub refuses now: then training goes on, and the end tries again."""
    name = run.training.hub_model_id or run.output.name
    try:
        return open_repository(name, None, run.training.hub_private_repo)
    except InputError as error:
        logger.warning(f"{error} Training goes on without pushing; the end of the run tries again.")
        return None
