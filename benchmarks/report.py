"""RESULTS.md and its pictures, from the results files of the study alone: the same files give the same bytes."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import chain
from pathlib import Path

import numpy as np
from analysis import ERRORS, LENGTHS, randomisation_test
from grid import Suite
from matplotlib.figure import Figure

NONE = "not measured"
COMPARED = ("glode", "without-denoising")
HEAD = """# Results

Written by `python benchmarks/study.py --report` from the files in benchmarks/results/study; do not edit. The data:
benchmarks/suites/*.yaml, the baselines: docs/baselines.md.

Each figure is the mean and, after ±, the standard deviation over seeds, whose number stands in brackets. **F1** is strict: every
gold entity of the test set counts. **Protocol** is the paper's, which leaves out gold entities that the span grid cannot hold.
**Gap** is the share of the way from the plain to the supervised model (strict F1, means over seeds) that a method goes.
Checkpoints are chosen by source dev; the target's gold is read for these reports alone, except by the supervised model. Figures
of the paper itself (XLM-R-large) are not set beside: its tables were not at hand, and no number is quoted from memory.
"""


class Results:
    """The results of a suite: lists of cells, one a seed, by pair and variant."""

    def __init__(self, suite: Suite, directory: Path):
        self.suite = suite
        self.cells: dict[tuple[str, str], list[dict]] = {}
        for cell in sorted(suite.cells(), key=lambda cell: cell.seed):
            if (path := cell.file(directory / suite.name)).exists():
                content = json.loads(path.read_text(encoding="utf-8"))
                self.cells.setdefault((cell.pair, cell.variant), []).append(content)

    def get(self, pair: str, variant: str) -> list[dict]:
        """The cells of all seeds; an empty list where nothing is measured."""
        return self.cells.get((pair, variant), [])

    def of_seeds(self, seeds: Sequence[int]) -> "Results":
        """The results of these seeds alone."""
        some = copy(self)
        some.cells = {key: kept for key, cells in self.cells.items() if (kept := [c for c in cells if c["seed"] in seeds])}
        return some

    def mean(self, pair: str, variant: str, value: Callable[[dict], float]) -> float | None:
        """The mean over seeds of a value of the cells."""
        cells = self.get(pair, variant)
        return statistics.mean(map(value, cells)) if cells else None

    def summed(self, pair: str, variant: str, name: str) -> dict[str, np.ndarray]:
        """A cell's {group: counts}, summed over seeds."""
        total: dict[str, np.ndarray] = {}
        for cell in self.get(pair, variant):
            for group, counts in cell[name].items():
                total[group] = total.get(group, 0) + np.array(counts)
        return total


def strict(cell: dict) -> float:
    return cell["scores"]["test"]["strict"]["f1"]


def protocol(cell: dict) -> float:
    return cell["scores"]["test"]["paper"]["f1"]


def source_dev(cell: dict) -> float:
    return cell["scores"]["dev"]["strict"]["f1"]


def spread(values: Sequence[float]) -> str:
    """ "54.9 ± 0.8 (3)"."""
    if not values:
        return NONE
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation} ({len(values)})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows)) + "\n"


def scores_table(results: Results, content: dict) -> str:
    """Rows of variants; for each pair strict F1, the paper's protocol, and the share of the gap. All of the table's seeds."""
    pairs, results = content["pairs"], results.of_seeds(content.get("seeds", results.suite.seeds))
    rows = []
    for variant in content["variants"]:
        row = [results.suite.variants[variant]["title"]]
        for pair in pairs:
            cells = results.get(pair, variant)
            row += [spread([strict(c) for c in cells]), spread([protocol(c) for c in cells]), gap(results, pair, variant)]
        rows.append(row)
    header = ["", *(f"{pair} {name}" for pair in pairs for name in ("F1", "protocol", "gap"))]
    return table(header, rows)


def gap(results: Results, pair: str, variant: str) -> str:
    """The share of the gap between the plain and the supervised model that a variant closes."""
    low, high, here = (results.mean(pair, name, strict) for name in ("plain", "supervised", variant))
    if low is None or high is None or here is None:
        return NONE
    return f"{100 * (here - low) / (high - low):.0f} %" if high > low else "no gap"


def pairs_with(results: Results, *variants: str) -> list[str]:
    """The pairs of which all these variants are measured."""
    return [pair for pair in results.suite.pairs if all(results.get(pair, variant) for variant in variants)]


def differences(results: Results) -> str:
    """GLoDe minus each other variant, cell by cell of one seed: means by pair, over all of them, and on source dev."""
    suite, rows = results.suite, []
    pairs = pairs_with(results, "glode")
    for variant in dict.fromkeys(chain.from_iterable(content["variants"] for content in suite.tables)):
        by_pair = [paired_differences(results, pair, variant, strict) for pair in pairs]
        over_all = list(chain.from_iterable(by_pair))
        if variant == "glode" or not over_all:
            continue
        means = [f"{statistics.mean(values):+.1f} ({len(values)})" if values else "-" for values in by_pair]
        won = f"{sum(value > 0 for value in over_all)} of {len(over_all)}"
        other_dev = suite.variants[variant].get("gold") == "target"  # its checkpoint is chosen by target sentences
        dev = [] if other_dev else chain.from_iterable(paired_differences(results, pair, variant, source_dev) for pair in pairs)
        rows.append([suite.variants[variant]["title"], *means, mean_and_error(over_all), won, mean_and_error(list(dev))])
    return table(["GLoDe minus", *pairs, "all", "GLoDe is better in", "source dev"], rows) if rows else f"{NONE}\n"


def paired_differences(results: Results, pair: str, variant: str, score: Callable[[dict], float]) -> list[float]:
    """The score of GLoDe minus that of a variant, for each seed that both have."""
    theirs = {cell["seed"]: score(cell) for cell in results.get(pair, variant)}
    return [score(cell) - theirs[cell["seed"]] for cell in results.get(pair, "glode") if cell["seed"] in theirs]


def mean_and_error(values: Sequence[float]) -> str:
    """The mean with its standard error: "+1.1 ± 0.4"."""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.1f}{error}" if values else "-"


def significance(results: Results) -> str:
    """GLoDe against no denoising, over the seeds that both have: by pair, and over the sentences of all pairs."""
    rows, sides = [], []
    for pair in pairs_with(results, *COMPARED):
        ours, theirs = ({c["seed"]: np.array(c["test_sentences"]) for c in results.get(pair, v)} for v in COMPARED)
        if seeds := sorted(ours.keys() & theirs.keys()):
            sides.append([sum(side[seed] for seed in seeds) for side in (ours, theirs)])
            rows.append([pair, *difference_and_p(*sides[-1]), str(len(seeds))])
    if len(rows) > 1:
        rows.append(["all", *difference_and_p(*map(np.concatenate, zip(*sides, strict=True))), ""])
    return table(["", "F1 of GLoDe minus F1 w/o denoising", "p", "seeds"], rows) if rows else f"{NONE}\n"


def difference_and_p(ours: np.ndarray, theirs: np.ndarray) -> tuple[str, str]:
    """The difference and p of [`randomisation_test`]."""
    difference, p = randomisation_test(ours, theirs)
    return f"{difference:+.1f}", f"{p:.3f}"


def errors(results: Results) -> str:
    """Kinds of errors and recalls, summed over seeds, of the plain model and both target models."""
    kinds, recalls = [], []
    for pair in results.suite.pairs:
        for variant in ("plain", *COMPARED):
            if not results.get(pair, variant):
                continue
            name = [pair, results.suite.variants[variant]["title"]]
            count = results.summed(pair, variant, "errors")
            found = max(sum(int(count[kind]) for kind in ERRORS[:-1]), 1)
            gold = max(sum(int(row[1]) for row in results.summed(pair, variant, "recall_by_length").values()), 1)
            shares = [f"{100 * int(count[kind]) / found:.1f}" for kind in ERRORS[:-1]]
            kinds.append([*name, *shares, f"{100 * int(count['missed']) / gold:.1f}"])
            groups = results.summed(pair, variant, "recall_by_length") | results.summed(pair, variant, "recall_by_familiarity")
            recalls.append([*name, *(rate(groups.get(group)) for group in (*LENGTHS, "seen", "unseen"))])
    if not kinds:
        return f"{NONE}\n"
    first = table(["", "", *(f"{kind} %" for kind in ERRORS[:-1]), "missed, % of gold"], kinds)
    second = table(["", "", *(f"{n} word{'s' * (n != '1')}" for n in LENGTHS), "seen names", "unseen names"], recalls)
    return (
        "Found entities by what is wrong with them, and gold entities that nothing found touches:\n\n"
        f"{first}\nRecall (number of gold entities) by length, and of names that the training text of either language has or has "
        f"not:\n\n{second}"
    )


def rate(counts: np.ndarray | None) -> str:
    """[found, all] -> "61.0 (200)"."""
    return f"{100 * counts[0] / counts[1]:.1f} ({counts[1]})" if counts is not None and counts[1] else "-"


def refinement(results: Results) -> str:
    """What GLoDe's refinement mended and broke, per type and length, summed over seeds."""
    rows = []
    for pair in pairs_with(results, "glode"):
        for name in ("by_type", "by_length"):
            total: dict[str, np.ndarray] = {}
            for cell in results.get(pair, "glode"):
                for group, counts in cell["changes"][name].items():
                    total[group] = total.get(group, 0) + np.array(counts)
            for group, counts in sorted(total.items()):
                group = f"{group} word{'s' * (group != '1')}" if name == "by_length" else f"gold {group}"
                rows.append([pair, group, *map(str, counts)])
    return table(["", "spans", "stayed right", "mended", "broken", "stayed wrong"], rows) if rows else f"{NONE}\n"


def costs(results: Results) -> str:
    """When, where and how long."""
    cells = [cell for group in results.cells.values() for cell in group]
    if not cells:
        return f"{NONE}\n"
    dates = sorted({cell["date"] for cell in cells})
    machines = sorted({json.dumps({k: v for k, v in c["machine"].items() if k != "date"}, sort_keys=True) for c in cells})
    clock, cpu = (sum(cell[name] for cell in cells) / 3600 for name in ("seconds", "cpu_seconds"))
    cost = f"{cpu:.1f} hours of one core ({clock:.1f} on the clock, beside other work)"
    lines = [f"{len(cells)} of {len(results.suite.cells())} cells, {cost}, {dates[0]} to {dates[-1]}, on:\n"]
    lines += ["- " + ", ".join(f"{k} {v}" for k, v in json.loads(m).items() if v is not None) for m in machines]
    if extra := sorted({" ".join(cell["extra_arguments"]) for cell in cells} - {""}):
        lines.append(f"\nwith the further arguments {', '.join(f'`{part}`' for part in extra)}")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------- pictures

GREYS = ("0.0", "0.35", "0.6", "0.8")
STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx")


def panels(pairs: Sequence[str], **labels: str) -> tuple[Figure, np.ndarray]:
    """A figure with one panel a pair."""
    figure = Figure(figsize=(3.2 * len(pairs), 3.2), layout="constrained")
    axes = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, pair in zip(axes, pairs, strict=True):
        panel.set(title=pair, **labels)
        panel.grid(axis="y", color="0.9")
        panel.set_axisbelow(True)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Software": None})


def plot_by_epoch(results: Results, path: Path) -> bool:
    """Figure 3: F1 of the pseudo labels by epoch, refined by prototypes, neighbours, both."""
    sides = {"both": "glode", "global": "without-local", "local": "without-global"}
    pairs = pairs_with(results, *sides.values())
    if not pairs:
        return False
    figure, axes = panels(pairs, xlabel="epoch of the target stage", ylabel="F1 of the pseudo labels")
    for panel, pair in zip(axes, pairs, strict=True):
        for (label, variant), grey, style in zip(sides.items(), GREYS, STYLES, strict=False):
            curves = [[entry["f1"] for entry in cell["pseudo_labels"]] for cell in results.get(pair, variant)]
            panel.plot(np.mean(curves, axis=0), style, color=grey, marker="o", markersize=4, label=label)
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize="small")
    save(figure, path)
    return True


def plot_types(results: Results, path: Path) -> bool:
    """Figures 4 and 5: shares of the entity types in source gold and target gold, and in what the models without and with MLM
    find in the target's test set."""
    pairs = pairs_with(results, "plain", "mlm")
    if not pairs:
        return False
    figure, axes = panels(pairs, ylabel="share of the entities, %")
    for panel, pair in zip(axes, pairs, strict=True):
        bars = type_shares(results, pair)
        types = sorted({name for shares in bars.values() for name in shares})
        for row, (label, shares) in enumerate(bars.items()):
            places = np.arange(len(types)) + 0.2 * row
            heights = [shares.get(name, 0) for name in types]
            panel.bar(places, heights, 0.2, label=label, color=str(0.3 + 0.2 * row), hatch=HATCHES[row], edgecolor="0.0")
        panel.set_xticks(np.arange(len(types)) + 0.3, types)
    axes[0].legend(fontsize="x-small")
    save(figure, path)
    return True


def type_shares(results: Results, pair: str) -> dict[str, dict[str, float]]:
    """{bars: {type: percent}}, summed over seeds."""

    def per_type(variant: str, count: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for cell in results.get(pair, variant):
            for name, scores in cell["scores"]["test"]["strict"]["per_type"].items():
                total[name] = total.get(name, 0) + scores[count]
        return total

    bars = {
        "source gold": results.get(pair, "plain")[0]["source_types"],
        "target gold": per_type("plain", "gold"),
        "plain": per_type("plain", "predicted"),
        "with MLM": per_type("mlm", "predicted"),
    }
    return {label: {n: 100 * x / max(sum(counts.values()), 1) for n, x in counts.items()} for label, counts in bars.items()}


def plot_calibration(results: Results, path: Path) -> bool:
    """Reliability of the pseudo labels that say an entity, before and after refinement."""
    pairs = pairs_with(results, "glode")
    if not pairs:
        return False
    figure, axes = panels(pairs, xlabel="confidence, %", ylabel="share that is right, %")
    for panel, pair in zip(axes, pairs, strict=True):
        panel.plot([0, 100], [0, 100], color="0.8")
        for (name, label), grey, marker in zip(
            (("first", "source model"), ("last", "refined")), ("0.6", "0.0"), "so", strict=True
        ):
            bins = np.array([cell["calibration"][name] for cell in results.get(pair, "glode")])  # [seeds, bins, 3]
            number = bins[:, :, 0].sum(0)
            sure, right = (100 * (bins[:, :, 0] * bins[:, :, i]).sum(0)[number > 0] / number[number > 0] for i in (1, 2))
            panel.plot(sure, right, color=grey, marker=marker, markersize=4, label=label)
    axes[0].legend(fontsize="small")
    save(figure, path)
    return True


def calibration_error(results: Results) -> str:
    """The expected calibration error before and after."""
    rows = []
    for pair in pairs_with(results, "glode"):
        row = [pair]
        for name in ("first", "last"):
            bins = np.array([cell["calibration"][name] for cell in results.get(pair, "glode")])
            number = bins[:, :, 0]
            gaps = (number * np.abs(bins[:, :, 1] - bins[:, :, 2])).sum(1) / np.maximum(number.sum(1), 1)
            row.append(spread((100 * gaps).tolist()))
        rows.append(row)
    return table(["", "error of the source model's labels", "of the refined ones"], rows) if rows else ""


# --------------------------------------------------------------------------------------------------------------- report


def suite_report(results: Results, root: Path) -> str:
    """A suite's part of RESULTS.md; writes its pictures to docs/."""
    suite = results.suite
    parts = [f"## {suite.title}\n"]
    if not results.cells:
        return f"{parts[0]}\n{NONE} (`python benchmarks/study.py --suite {suite.name}`)\n"
    parts += [suite.notes] if suite.notes else []
    parts += [f"### What it says\n\n{suite.findings}"] if suite.findings else []
    for content in suite.tables:
        parts += [
            f"### {content['title']}\n",
            *([content["notes"]] if "notes" in content else []),
            scores_table(results, content),
        ]
    parts += [
        "### GLoDe beside each of the others\n",
        "Strict F1 of GLoDe minus that of another variant of the same pair and seed: means (number of cells); over all pairs\n"
        "with the standard error of the mean; and the same on source dev, by which checkpoints and recipes are chosen.\n",
        differences(results),
    ]
    parts += [
        "### Is GLoDe better than no denoising?\n",
        "Paired approximate randomisation over test sentences, 10,000 trials, two-sided; counts are summed over seeds.\n",
        significance(results),
    ]
    pictures = (
        ("Figure 3: F1 of the pseudo labels by epoch", "epochs", plot_by_epoch, ""),
        ("Figures 4 and 5: entity types", "types", plot_types, ""),
        ("Calibration of the pseudo labels", "calibration", plot_calibration, calibration_error(results)),
    )
    for title, name, plot, text in pictures:
        path = Path("docs") / f"study-{suite.name}-{name}.png"
        picture = f"![{title}]({path.as_posix()})\n" if plot(results, root / path) else f"{NONE}\n"
        parts += [f"### {title}\n", picture, *([text] if text else [])]
    parts += ["### Errors\n", errors(results)]
    parts += [
        "### What refinement mends and breaks\n",
        "Spans of the unlabelled text that are an entity by gold or by a pseudo label, before and after (GLoDe, all seeds):\n",
        refinement(results),
    ]
    parts += ["### Cost\n", costs(results)]
    return "\n".join(parts)


def write_report(suites: Sequence[Suite], directory: Path, root: Path) -> None:
    """Write RESULTS.md and docs/study-*.png under `root` from the results files in `directory`/SUITE."""
    (root / "docs").mkdir(parents=True, exist_ok=True)
    parts = [HEAD, *(suite_report(Results(suite, directory), root) for suite in suites)]
    (root / "RESULTS.md").write_text("\n".join(parts), encoding="utf-8")
    print(f"written to {root / 'RESULTS.md'}")
