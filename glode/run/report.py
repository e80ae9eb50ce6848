"""What a run tells: lines and tables on the terminal, metrics.json."""

import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils import logging

from glode.corpora.labels import count_repeated, summarize
from glode.files import write_whole
from glode.run.arguments import DataArguments
from glode.run.corpora import Corpora
from glode.run.parts import is_numbered

logger = logging.get_logger("glode")
POOR_F1, WIDE_GAP = 50, 10  # points of development F1: a source model that has learnt little; a target model far behind it
console = Console(soft_wrap=True, markup=False, emoji=False)  # names of types and files are shown as they are

# The corpus whose sentences a development or test set must not repeat.
TRAINING_SETS = {"dev": "source", "source_test": "source", "target_test": "target"}


def say(name: str, text: str) -> None:
    """A line of the terminal, under a name."""
    console.print(Text(f"{name:<9}", "bold"), text)


class Stopwatch:
    """Seconds since it was made, and the process' peak memory so far."""

    def __init__(self):
        self.start = time.perf_counter()

    def read(self) -> dict[str, float]:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reading = {"seconds": round(time.perf_counter() - self.start, 1), "peak_memory_mb": round(memory)}
        if torch.cuda.is_available():
            reading["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        return reading


def part_names(data: DataArguments) -> dict[str, str]:
    """How the corpora that are scored are called in tables: those of all languages, and of each."""
    source, target = data.source_languages, data.target_languages
    kinds = {"dev": (source, "dev"), "source_test": (source, "test"), "test": (target, "test"), "target": (target, "text")}
    names = {name: f"{' + '.join(languages)} {kind}" for name, (languages, kind) in kinds.items()}
    for name, (languages, kind) in kinds.items():
        names |= {f"{name}_{language}": f"{language} {kind}" for language in languages}
    return names


def summarize_corpora(corpora: Corpora) -> dict[str, dict]:
    """What each corpus holds, see `summarize`; `repeated` counts the sentences that training has seen."""
    parts: dict[str, Dataset] = {}
    for name, corpus in corpora.present().items():
        languages = corpora.by_language(name).items()
        parts |= {f"{name} {language}": corpus.select(rows) for language, rows in languages} or {name: corpus}
    summaries = {name: summarize(corpus) for name, corpus in parts.items()}
    for name, summary in summaries.items():
        kind, *language = name.split()
        if kind in TRAINING_SETS:
            summary["repeated"] = count_repeated(parts[name], parts[" ".join([TRAINING_SETS[kind], *language])])
    return summaries


def show_corpora(summaries: Mapping[str, dict]) -> None:
    """The corpora as a table, and what was done to their words and tags."""
    table = Table(box=None, caption="longest: sentence / entity, in words; seen: sentences that are in the training text too")
    for column in ("corpus", "format", "sentences", "words", "longest", "seen", "entities"):
        table.add_column(column, justify="left" if column in ("corpus", "format", "entities") else "right")
    for name, summary in summaries.items():
        longest = f"{summary['longest_sentence']} / {summary['longest_entity']}"
        numbers = map(str, (summary["sentences"], summary["words"], longest, summary.get("repeated", "")))
        entities = ", ".join(f"{label} {count}" for label, count in summary["entities"].items())
        table.add_row(name, summary["format"], *numbers, entities)
    console.print(table)
    for name, summary in summaries.items():
        for note, count in summary["notes"].items():
            say("noted", f"{name}: {count} {note}")


def write_metrics(metrics: Mapping, output: Path, name: str = "metrics.json") -> Path:
    """metrics.json, whole or not at all."""
    path = output / name
    with write_whole(path) as partial:
        partial.write_text(json.dumps(metrics, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def show_results(metrics: Mapping, data: DataArguments) -> None:
    """The scores, the pseudo labels by epoch, and what it cost."""
    console.print(_score_table(metrics, data))
    rounds = metrics.get("rounds", [metrics])
    if histories := [history for part in rounds if (history := part.get("pseudo_labels"))]:
        console.print(_pseudo_label_table(histories))
    for line in doubts(metrics):
        logger.warning(line)
    costs = ", ".join(f"{name.replace('_', ' ')} {cost['seconds']:.0f} s" for name, cost in metrics["cost"].items())
    console.print(f"{costs}; peak memory {max(c['peak_memory_mb'] for c in metrics['cost'].values())} MB")


def doubts(metrics: Mapping) -> list[str]:
    """What a reader of the results should not overlook: a model that finds nothing."""
    config = Path(metrics.get("arguments", {}).get("run", {}).get("config") or "").stem
    begin = "" if config in ("small", "paper") else ", or begin with --config small or paper"
    found = []
    for model, epochs in (("source_model", "--source_num_train_epochs"), ("target_model", "--num_train_epochs")):
        mend = f"Raise {epochs} or --learning_rate, give more labelled text{begin}."
        scores, name = metrics.get(model, {}), model.replace("_", " ")
        dev, test = (scores.get(part, {}).get("strict") for part in ("dev", "test"))
        if dev and not dev["correct"]:
            found.append(f"the {name} finds no entity of the development set: it has learnt nothing. {mend}")
        elif test and test["gold"] and not test["predicted"]:
            found.append(f"the {name} finds no entity at all in the target test set. {mend}")
    if not found:
        found += _short_of_training(metrics)
    history = metrics.get("pseudo_labels")
    if history and not sum(number for label, number in history[0]["spans"].items() if label != "O"):
        found.append("the pseudo labels have no entity: the target stage had nothing to learn from the target text.")
    return found


def _short_of_training(metrics: Mapping) -> list[str]:
    """What development F1 says of the training: a source model that has not learnt the types, a target model far below it."""
    source, target = (
        metrics.get(f"{name}_model", {}).get("dev", {}).get("strict", {}).get("f1") for name in ("source", "target")
    )
    few = "too few steps or sentences; raise --num_train_epochs"
    if source is not None and source < POOR_F1:
        return [f"the source model's F1 on source dev is {source:.1f}: {few} (and --source_num_train_epochs)."]
    if source is not None and target is not None and source - target > WIDE_GAP:
        return [f"the target model's F1 on source dev is {target:.1f}, the source model's is {source:.1f}: {few}."]
    return []


def _score_table(metrics: Mapping, data: DataArguments) -> Table:
    table = Table(title=f"entity scores, {', '.join(data.source_languages)} -> {data.target_lang}")
    for column in ("model", "corpus", "P", "R", "F1 (all gold)", "F1 (paper's protocol)"):
        table.add_column(column, justify="left" if column in ("model", "corpus") else "right")
    names = part_names(data)
    for model, by_corpus in _scored_models(metrics).items():
        for corpus, scores in by_corpus.items():
            strict = scores["strict"]
            cells = [f"{value:.1f}" for value in (strict["precision"], strict["recall"], strict["f1"], scores["paper"]["f1"])]
            table.add_row(model, names[corpus], *cells)
    return table


def _scored_models(metrics: Mapping) -> dict[str, dict]:
    """The scores of each model, by its name in the table: all teachers and the target models of all rounds among them."""
    scored = {name.replace("_", " "): scores for name, scores in metrics.items() if is_numbered("source_model", name)}
    scored |= {f"teacher {told['number']}": told["scores"] for told in metrics.get("teachers", [])}
    rounds = metrics.get("rounds", [])
    scored |= {f"target model {number}": part["target_model"] for number, part in enumerate(rounds, 1)}
    last = [name for name in ("target_model", "token_classifier") if name in metrics and not (rounds and name == "target_model")]
    return scored | {name.replace("_", " "): metrics[name] for name in last}


def _pseudo_label_table(histories: list[list[dict]]) -> Table:
    """The pseudo labels by epoch, of one round after the other."""
    history = histories[0]
    table = Table(title="pseudo labels by epoch")
    rounds = ["round"] if len(histories) > 1 else []
    languages = ["language"] if "languages" in history[0] else []
    f1 = ["F1"] if "f1" in history[0] else []
    for column in (*rounds, "epoch", *languages, "mean confidence", *history[0]["spans"], *f1):
        table.add_column(column, justify="right")
    for number, entry in ((number, entry) for number, history in enumerate(histories, 1) for entry in history):
        for language, report in {"all": entry, **entry.get("languages", {})}.items():
            cells = [
                *([str(number)] if rounds else []),
                str(entry["epoch"]),
                *([language] if languages else []),
                f"{report['confidence']:.4f}",
            ]
            table.add_row(*cells, *map(str, report["spans"].values()), *([f"{report['f1']:.1f}"] if f1 else []))
    return table
