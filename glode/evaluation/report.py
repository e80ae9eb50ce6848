"""An evaluation as tables on the terminal."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from glode.evaluation.kinds import KINDS

console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)  # names are shown as they are
Scores = Mapping[str, Any]


def show(report: Scores) -> None:
    """Print an evaluation, see `glode.evaluation.evaluate.evaluate`. Several models are called A, B, ..."""
    models: dict[str, Scores] = report["models"]
    short = dict(zip(models, ascii_uppercase, strict=False)) if len(models) > 1 else dict.fromkeys(models, "")
    for line in [*report["notes"], *(f"{letter}: {name}" for name, letter in short.items() if letter)]:
        console.print(line)
    named = {short[name]: scores for name, scores in models.items()}
    console.print(_overview(named))
    for test in report["tests"]:
        pair, (low, high) = f"{short[test['first']]} - {short[test['second']]}", test["interval"]
        console.print(f"F1 of {pair}: {test['difference']:+.2f} [{low:.2f}, {high:.2f}], p = {test['p']:.4f}")
    console.print(_kinds(named))
    for key, by in (("per_type", "type"), ("per_length", "words"), ("per_novelty", "name in --train")):
        groups = {name: (scores["strict"] | scores).get(key, {}) for name, scores in named.items()}
        if any(groups.values()):
            console.print(_groups(by, groups))


def _table(title: str, left: Sequence[str], right: Sequence[str], models: Mapping[str, Any]) -> Table:
    """An empty table; where there are several models, they have the last column of the left ones."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column in [*left, *(["model"] if len(models) > 1 else [])]:
        table.add_column(column)
    for column in right:
        table.add_column(column, justify="right", no_wrap=column == "95 %")
    return table


def _rates(scores: Scores) -> list[str]:
    return [f"{scores[key]:.1f}" for key in ("precision", "recall", "f1")]


def _overview(models: Mapping[str, Scores]) -> Table:
    columns = ("P", "R", "F1", "95 %", "borders", "type", "partial", "gold", "found")
    table = _table("strict scores; F1 of borders, of types, and with credit for parts", (), columns, models)
    for name, scores in models.items():
        strict, partial, (low, high) = scores["strict"], scores["partial"], scores["interval"]
        rates = [*_rates(strict), f"{low:.1f}-{high:.1f}"]
        rates += [f"{partial[key]:.1f}" for key in ("exact", "ent_type", "partial")]
        table.add_row(*filter(None, [name]), *rates, str(strict["gold"]), str(strict["predicted"]))
    return table


def _kinds(models: Mapping[str, Scores]) -> Table:
    table = _table("what became of the entities", ("type",), KINDS, models)
    rows = {name: {"(all)": scores["kinds"]} | scores["kinds_by_type"] for name, scores in models.items()}
    for label in ["(all)", *sorted({label for kinds in rows.values() for label in kinds} - {"(all)"})]:
        for name, kinds in rows.items():
            if label in kinds:
                table.add_row(label, *filter(None, [name]), *(str(kinds[label][kind]) for kind in KINDS))
    return table


def _groups(by: str, groups: Mapping[str, Scores]) -> Table:
    table = _table(f"strict scores by {by}", (by,), ("P", "R", "F1", "gold", "found"), groups)
    for label in sorted({label for group in groups.values() for label in group}):
        for name, group in groups.items():
            if scores := group.get(label):
                table.add_row(label, *filter(None, [name]), *_rates(scores), str(scores["gold"]), str(scores["predicted"]))
    return table
