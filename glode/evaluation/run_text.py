"""What a finished run was about: its arguments, its target text, and the pseudo labels from which it began."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file

from glode.corpora.labels import parse_label_map
from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.features.columns import numbers
from glode.run.arguments import DataArguments
from glode.run.corpora import load_corpora
from modeling_glode import GlodeModel

FIRST_LABELS = "pseudo_labels.safetensors"


def run_of(directory: Path) -> dict[str, Any]:
    """What the arguments of the run that left a model were: `data`, `model`, `run`.

    Raises:
        InputError: nothing tells them.
    """
    try:
        return json.loads((directory / "metrics.json").read_text(encoding="utf-8"))["arguments"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"--model {directory} has no metrics.json that names the text of its run. Give the text by --text."
        ) from None


def target_text(run: dict[str, Any]) -> Dataset:
    """The target text of a run, as it was trained on.

    Raises:
        InputError: it was no file, or is there no more.
    """
    known = {f.name for f in dataclasses.fields(DataArguments)}
    data = DataArguments(**{name: value for name, value in run["data"].items() if name in known})
    for name in ("source_train", "source_dev", "source_test"):
        if isinstance(value := getattr(data, name), str):  # of an older run
            setattr(data, name, [value])
    if any(path.endswith(" in memory") for path in [*(data.source_train or []), *(data.target_unlabeled or [])]):
        raise InputError("the run's corpora were given from Python, and are in no file. Give the text by --text.")
    if data.source_train:  # of the source nothing is asked
        data.source_dev = [*(data.source_dev or []), *data.source_train]
    types = parse_label_map(data.label_map) if data.label_map else ()
    return load_corpora(data, None, types, bool(run["run"].get("pseudo_labels"))).target


def first_labels(directory: Path, run: dict[str, Any], windows: Dataset, model: GlodeModel) -> PseudoLabels:
    """The pseudo labels from which a run began.

    Raises:
        InputError: they are not there, or of another text.
    """

    given = run["run"].get("pseudo_labels")
    path = next((p for p in (directory / FIRST_LABELS, Path(given or "")) if p.is_file() and p.suffix == ".safetensors"), None)
    if path is None:
        raise InputError(f"--order changed: {directory} has no {FIRST_LABELS} to compare with. Give --order uncertain.")
    state, words = load_file(path), numbers(windows, "own_end") - numbers(windows, "own_start")
    labels = PseudoLabels(words, model.config.max_span_length, model.config.num_labels)
    if not torch.equal(state["offsets"], labels.offsets) or state["probabilities"].shape != labels.probabilities.shape:
        raise InputError(f"--order changed: {path} is of another text than this one. Give the corpora of that run back.")
    labels.probabilities.copy_(state["probabilities"])
    return labels
