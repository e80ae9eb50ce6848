"""One cell of the study: a run of run_crossner.py, and all counts of it that the report needs.

    python benchmarks/cell.py RESULT.json --stage target --pseudo_labels FILE ...

takes the arguments of run_crossner.py. The target's gold entities are read after training, for the counts alone.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis import calibration, changes, error_kinds, familiarity, length_name, recall_by, sentence_counts
from crossner import machine

import run_crossner
from glode.corpora.labels import summarize
from glode.denoising.pseudo_labels import PseudoLabels
from glode.features.collator import GlodeCollator
from glode.features.streams import TwoStreams
from glode.features.windows import build_features, gold_entities
from run_crossner import InputError, Run
from trainer_glode import GlodeTrainer


class SourceAndTargetCell(Run):
    """A run that also notes the pseudo labels as they were before they were refined."""

    def target_stage(self, labels: PseudoLabels) -> GlodeTrainer:
        self.before = pseudo_label_spans(self, labels)
        trainer = super().target_stage(labels)
        self.after = pseudo_label_spans(self, labels)
        return trainer


def main(argv: list[str]) -> None:
    """Run a cell and write its result.

    Raises:
        InputError: see run_crossner.py.
    """
    result, *arguments = argv
    run_crossner.use_all_cores()
    run = SourceAndTargetCell(*run_crossner.parse_arguments(arguments))
    trainer = run.stages()
    if run.run.stage == "source":
        run.pseudo_labels(trainer)  # for the cells that start from this model
    run.report()
    content = {
        "date": machine()["date"],
        "machine": machine() | {"threads": torch.get_num_threads(), "gpu": gpu()},
        "max_span_length": run.length,
        "sentences": {"source": len(run.corpora.source), "dev": len(run.corpora.dev), "target": len(run.corpora.target)},
        "unreachable": run.metrics["unreachable"],
        "cost": run.metrics["cost"],
        "scores": run.metrics[f"{run.last_stage}_model"],
        "source_types": summarize(run.corpora.source)["entities"],
        "target_types": summarize(run.corpora.target)["entities"],
        **test_counts(run),
    }
    if run.last_stage == "target":
        content |= {"pseudo_labels": run.metrics["pseudo_labels"], **refinement_counts(run)}
    Path(result).write_text(json.dumps(content), encoding="utf-8")


def gpu() -> str | None:
    """The name of the GPU, if there is one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def test_counts(run: Run) -> dict:
    """Counts on the target's test set: of each sentence, by kind of error, by length, and by familiarity of the name."""
    test, found = run.corpora.target_test, run.predictions["test"]
    gold = gold_entities(test)
    texts = [*run.corpora.source["words"], *run.corpora.target["words"]]
    lengths = [[length_name(n) for _, n, _ in entities] for entities in gold]
    return {
        "test_sentences": sentence_counts(gold, found),
        "errors": error_kinds(gold, found),
        "recall_by_length": recall_by(lengths, gold, found),
        "recall_by_familiarity": recall_by(familiarity(test["words"], gold, texts), gold, found),
    }


def pseudo_label_spans(run: Run, labels: PseudoLabels) -> dict[str, np.ndarray]:
    """Of all target spans that are an entity by gold or by pseudo label: `confidence`, `label`, `gold` and `length`, each [spans]
    and, for all spans, their place `at`."""
    columns: dict[str, list[Tensor]] = {name: [] for name in ("at", "confidence", "label", "gold", "length")}
    done = 0
    for batch in gold_batches(run):
        owner, valid = batch["window"] + len(run.target), batch["span_mask"]
        words = valid.shape[1]
        soft = labels.read(owner.to(labels.offsets.device), batch["own_start"].to(labels.offsets.device), words).cpu()[valid]
        confidence, label = soft.max(-1)
        gold, length = batch["labels"][valid], valid.nonzero()[:, 2] + 1
        kept = (gold != 0) | (label != 0)
        at = torch.arange(done, done + len(gold))
        done += len(gold)
        for name, values in zip(columns, (at, confidence, label, gold, length), strict=True):
            columns[name].append(values[kept])
    return {name: torch.cat(values).numpy() for name, values in columns.items()}


def gold_batches(run: Run) -> Iterator[dict[str, Tensor]]:
    """The target's windows in order with their gold grids."""
    windows = build_features(run.corpora.target, run.tokenizer, run.config.max_tokens, run.length, run.labels)
    collator = GlodeCollator(run.tokenizer, run.length)
    for at in range(0, len(windows), 256):
        yield collator(TwoStreams(windows, None).__getitems__(range(at, min(at + 256, len(windows)))))


def refinement_counts(run: SourceAndTargetCell) -> dict:
    """Calibration of the pseudo labels that say an entity, before and after, and what refinement mended and broke."""
    before, after = run.before, run.after
    content = {}
    for name, spans in (("first", before), ("last", after)):
        entity = spans["label"] != 0
        content[name] = calibration(spans["confidence"][entity], (spans["label"] == spans["gold"])[entity])
    # A span may be an entity in one of the two alone: where it is not listed it is "O", and so is its gold.
    at = np.union1d(before["at"], after["at"])
    columns = {name: np.zeros((2, len(at)), dtype=np.int64) for name in ("label", "gold", "length")}
    for row, spans in enumerate((before, after)):
        place = np.searchsorted(at, spans["at"])
        for name, column in columns.items():
            column[row, place] = spans[name]
    gold, length = columns["gold"].max(0), columns["length"].max(0)
    type_names, length_names = np.array(run.labels), np.array([length_name(n) for n in length.tolist()])
    counts = {"by_type": type_names[gold], "by_length": length_names}
    return {
        "calibration": content,
        "changes": {name: changes(group, gold, *columns["label"]) for name, group in counts.items()},
    }


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
