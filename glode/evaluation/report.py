"""An evaluation as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from glode.evaluation.kinds import KINDS

console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)  # names are shown as they are


def show(report: Mapping[str, Any]) -> None:
    """Print an evaluation, see `glode.evaluation.evaluate.evaluate`."""
    models = report["models"]
    for line in report["notes"]:
        console.print(line)
    console.print(_overview(models))
    for test in report["tests"]:
        low, high = test["interval"]
        console.print(
            f"F1 of {test['first']} - {test['second']}: {test['difference']:+.2f} [{low:.2f}, {high:.2f}], p = {test['p']:.4f}"
        )
    console.print(_kinds(models))
    for key, name in (("per_type", "type"), ("per_length", "words"), ("per_novelty", "name in --train")):
        groups = {model: (scores["strict"] | scores).get(key, {}) for model, scores in models.items()}
        if all(groups.values()):
            console.print(_groups(name, groups))


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in left:
        table.add_column(column)
    for column in right:
        table.add_column(column, justify="right")
    return table


def _overview(models: Mapping[str, Any]) -> Table:
    columns = ("P", "R", "F1", "95 %", "F1 borders", "F1 type", "F1 partial", "gold", "found")
    table = _table("strict scores, and F1 with credit for borders alone, type alone, and parts", ("model",), columns)
    for name, scores in models.items():
        strict, partial, (low, high) = scores["strict"], scores["partial"], scores["interval"]
        rates = [f"{strict[key]:.1f}" for key in ("precision", "recall", "f1")] + [f"{low:.1f}-{high:.1f}"]
        rates += [f"{partial[key]:.1f}" for key in ("exact", "ent_type", "partial")]
        table.add_row(name, *rates, str(strict["gold"]), str(strict["predicted"]))
    return table


def _kinds(models: Mapping[str, Any]) -> Table:
    table = _table("what became of the entities", ("model", "type"), KINDS)
    for name, scores in models.items():
        for label, kinds in {"all": scores["kinds"], **scores["kinds_by_type"]}.items():
            table.add_row(name, label, *(str(kinds[kind]) for kind in KINDS))
    return table


def _groups(by: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table(f"strict scores by {by}", (by, "model"), ("P", "R", "F1", "gold", "found"))
    for label in sorted({label for group in groups.values() for label in group}):
        for name, group in groups.items():
            if label in group:
                scores = group[label]
                rates = [f"{scores[key]:.1f}" for key in ("precision", "recall", "f1")]
                table.add_row(label, name, *rates, str(scores["gold"]), str(scores["predicted"]))
    return table
