"""Of which run a part in the output directory is: a fingerprint of data, arguments and code stands with every part."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

import glode
from glode.errors import InputError
from glode.files import write_whole
from glode.run.arguments import ModelArguments, RunArguments
from glode.run.corpora import Corpora
from glode.training.arguments import GlodeTrainingArguments

FILE = "fingerprint.json"
CORPORA = {"source": "source corpus", "dev": "development corpus", "target": "target text"}
CORPORA |= {"target_train": "set of labelled target sentences"}

# Training arguments that change no result: what is written, shown or pushed, and on which machine.
_HARMLESS_PREFIXES = (
    *("log", "save_", "hub_", "push_", "report_", "dataloader_", "ddp_", "trackio", "include_", "do_", "fsdp", "deepspeed"),
    *("activation_checkpointing", "gradient_checkpointing", "torch_compile", "torch_empty"),
)
_HARMLESS = {
    *("output_dir", "resume_from_checkpoint", "use_cpu", "run_name", "project", "disable_tqdm", "per_device_eval_batch_size"),
    *("restore_callback_states_from_checkpoint", "local_rank", "accelerator_config", "parallelism_config", "debug"),
    *("skip_memory_metrics", "enable_jit_checkpoint", "eval_accumulation_steps", "average_tokens_across_devices"),
}
# Told together, as the sentences of one update of the weights, on however many processes.
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True)
class Fingerprint:
    """What a run's results depend on.

    Args:
        values: name -> a JSON value; corpora and given files are hashes of what they hold.
    """

    values: Mapping[str, Any]

    def write(self, directory: Path) -> None:
        """Put it beside a part."""
        with write_whole(directory / FILE) as partial:
            partial.write_text(json.dumps(dict(self.values), indent=2, ensure_ascii=False), encoding="utf-8")

    def differences(self, other: "Fingerprint | None") -> str:
        """What differs in another run, in words; empty where nothing does."""
        if other is None:
            return f"there is no {FILE}: an older version, or a stranger, made it"
        named = []
        for name in [*self.values, *(name for name in other.values if name not in self.values)]:
            ours, theirs = (side.values.get(name) for side in (self, other))
            if ours != theirs:
                told = name in (*CORPORA.values(), "source model", "pseudo labels")
                named.append(f"another {name}" if told else f"{name} {_shown(theirs)}, now {_shown(ours)}")
        return "; ".join(named[:5]) + (f"; and {len(named) - 5} more" if len(named) > 5 else "")


def read_fingerprint(directory: Path) -> Fingerprint | None:
    """What stands beside a part; None where nothing does, or nothing that can be read."""
    try:
        values = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Fingerprint(values) if isinstance(values, dict) else None


def fingerprint_of(
    corpora: Corpora,
    model: ModelArguments,
    training: GlodeTrainingArguments,
    run: RunArguments,
    labels: list[str],
    max_span_length: int,
) -> Fingerprint:
    """The fingerprint of a run, the same on each of its processes, and on another number of them with the same global batch."""
    values: dict[str, Any] = {"glode": glode.__version__}
    values |= {told: corpus_hash(getattr(corpora, name)) for name, told in CORPORA.items()}
    for name in ("source", "target", "target_train"):  # shares, thresholds and centers are of a language
        if languages := corpora.by_language(name):
            values |= {f"{name} languages": {language: len(rows) for language, rows in languages.items()}}
    values |= {"source model": [_teacher_hash(teacher) for teacher in run.teachers or ()] or None}
    values |= {"names of teachers": corpora.names_of_teachers} if corpora.names_of_teachers else {}
    values |= {name: getattr(run, name) for name in ("num_teachers", "rounds", "calibrate")}
    values |= {"pretrain_epochs": run.pretrain_epochs} if run.pretrain_epochs else {}
    values |= {"pseudo labels": _file_hash(run.pseudo_labels and Path(run.pseudo_labels))}
    values |= {"warmup_is_given": run.warmup_is_given}  # else a short stage has a shorter one
    values |= {"types": labels} | vars(model) | {"max_span_length": max_span_length}
    if model.units == "piece":  # runs from before there was a choice go on
        del values["units"]
    settings = {field.name: getattr(training, field.name) for field in dataclasses.fields(training) if field.init}
    batch = training.world_size * training.per_device_train_batch_size * training.gradient_accumulation_steps
    for name, value in settings.items():
        if name not in _HARMLESS and name not in _BATCH and not name.startswith(_HARMLESS_PREFIXES):
            values[name] = value if isinstance(value, (int, float, str, bool, list, dict, type(None))) else str(value)
    # As it is read back: tuples are lists, keys are texts.
    return Fingerprint(json.loads(json.dumps(values | {"batch": batch}, default=str)))


def corpus_hash(corpus: Dataset | None) -> str | None:
    """A hash of the words and the entities of a corpus, in order; None where there is none."""
    if corpus is None:
        return None
    content = hashlib.sha256()
    for batch in corpus.select_columns(["words", "begins", "lengths", "types"]).iter(10_000):
        content.update(json.dumps(batch).encode())
    return content.hexdigest()[:16]


def _teacher_hash(name: str) -> str | None:
    """A hash of a teacher's weights or labels; its name where they are not on this machine."""
    return _file_hash(Path(name, "model.safetensors")) or _file_hash(name) or name


def _file_hash(path: Path | str | None) -> str | None:
    """A hash of a given file; None where none is given or there."""
    if not path or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_parts(output: Path, parts: Mapping[str, Path], ours: Fingerprint, resuming: bool) -> None:
    """Refuse to take up, or to write over, what another run has left.

    Args:
        parts: the parts in the output directory, by name, each with the directory where its fingerprint stands.
        resuming: whether the run goes on with them.
    Raises:
        InputError: it is resumed and one of them does not fit, or it is not and there are some.
    """
    for name, directory in parts.items():
        differs = ours.differences(read_fingerprint(directory))
        if resuming and differs:
            raise InputError(
                f"--resume_from_checkpoint: {output / name} is of another run ({differs}). Give the data and arguments of that "
                "run, or another --output_dir."
            )
        if not resuming:
            whose = f"another run ({differs})" if differs else "a run with these data and arguments"
            resume = "" if differs else "--resume_from_checkpoint auto to go on with it, "
            raise InputError(
                f"--output_dir {output} has {', '.join(parts)} of {whose}. Give {resume}--overwrite to delete it, or another "
                "--output_dir."
            )
