"""RESULTS.md and the pictures in docs/, from benchmarks/results/*.csv alone: python benchmarks/report.py

The same tables give the same bytes.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import inference
import speed
from common import ROOT, Row, read_rows, table
from matplotlib.figure import Figure
from study import Suite

UNKNOWN = "-"
HEAD = """# Results

Written by `python benchmarks/report.py` from the tables in [benchmarks/results](benchmarks/results); do not edit. Seconds of one
machine mean little on another: compare ratios.
"""
STUDY = """F1 is strict, in percent of the target's test set: every gold entity counts. Each figure is the mean over seeds,
whose number stands in brackets, ± their standard deviation. "Of the way" is the share of the way from the plain model to the
one that is supervised by target labels. Checkpoints are chosen by source dev; target labels are read for these reports alone,
except by the supervised model. p: paired approximate randomisation over test sentences against {baseline}, 10,000 trials,
two-sided, counts summed over seeds.
"""
PAPER = """F1 of "Improving Pseudo Labels with Global-Local Denoising Framework for Cross-lingual Named Entity Recognition"
(Ding et al., IJCAI 2024), means of three runs: paper, XLM-R-large, in the paper's protocol, which leaves out gold entities that
the span grid cannot hold. Nothing here was measured by this project, and nothing of ours is measured with that encoder yet.
"""
STYLES = ("o-", "s--", "^:", "x-.", "d-", "v--", "P:")  # lines differ in mark and dash, not in color alone


# --------------------------------------------------------------------------------------------------------------- the study


class Cells:
    """The rows of a suite in study.csv, and its tests."""

    def __init__(self, suite: Suite, rows: Iterable[Row], tests: Iterable[Row]):
        self.suite, self.rows = suite, [row for row in rows if row["suite"] == suite.name]
        self.tests = {(row["pair"], row["variant"]): row for row in tests if row["suite"] == suite.name}

    def f1(self, pair: str, variant: str, column: str = "f1") -> dict[str, float]:
        """{seed: F1} of a variant."""
        found = (row for row in self.rows if (row["pair"], row["variant"]) == (pair, variant))
        return {row["seed"]: float(row[column]) for row in sorted(found, key=lambda row: int(row["seed"]))}

    def mean(self, pair: str, variant: str) -> float | None:
        return statistics.mean(values) if (values := self.f1(pair, variant).values()) else None

    def labels(self, pair: str, variant: str) -> list[float]:
        """F1 of the pseudo labels, before the first epoch and after each, means over seeds."""
        rows = [row["label_f1"].split() for row in self.rows if (row["pair"], row["variant"]) == (pair, variant)]
        return [statistics.mean(map(float, values)) for values in zip(*rows, strict=False)]

    @property
    def between(self) -> list[str]:
        """The methods between the source's labels alone and the target's."""
        return [name for name in self.suite.tables[0]["variants"] if name not in ("plain", "supervised")]

    @property
    def has_gap(self) -> bool:
        """Whether of some pair the share of a method is known."""
        return any(self.share([pair], variant) is not None for pair in self.suite.pairs for variant in self.between)

    @property
    def has_labels(self) -> bool:
        """Whether a target model is measured."""
        return any(row["label_f1"] for row in self.rows)

    def share(self, pairs: Sequence[str], variant: str) -> float | None:
        """The share of the way from plain to supervised, in percent, over pairs; None where one of the three is not measured."""
        means = [[self.mean(pair, name) for pair in pairs] for name in ("plain", variant, "supervised")]
        if any(mean is None for side in means for mean in side):
            return None
        low, here, high = (sum(filter(None, side)) for side in means)
        return 100 * (here - low) / (high - low) if high > low else None

    def differences(self, variant: str, other: str) -> list[float]:
        """F1 of a variant minus that of another, cell by cell of the pairs and seeds that both have."""
        found = []
        for pair in self.suite.pairs:
            ours, theirs = self.f1(pair, variant), self.f1(pair, other)
            found += [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return found

    def title(self, variant: str) -> str:
        return self.suite.variants[variant]["title"]


def spread(values: Iterable[float]) -> str:
    """ "54.9 ± 0.8 (3)"."""
    if not (values := list(values)):
        return UNKNOWN
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation} ({len(values)})"


def shown(value: float | None, form: str = ".1f") -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def over_pairs(cells: Cells) -> str:
    """One row a method, over all pairs."""
    rows, pairs, baseline = [], list(cells.suite.pairs), cells.suite.baseline
    for variant in cells.suite.tables[0]["variants"]:
        means = [cells.mean(pair, variant) for pair in pairs]
        known = [mean for mean in means if mean is not None]
        test = cells.tests.get(("all", variant))
        ends = [labels for pair in pairs if (labels := cells.labels(pair, variant))]
        rise = statistics.mean(labels[-1] - labels[0] for labels in ends) if len(ends) == len(pairs) else None
        share = cells.share(pairs, variant)
        over = [cells.differences(variant, other) for other in ("plain", baseline)]
        rows.append(
            [
                cells.title(variant),
                shown(statistics.mean(known) if len(known) == len(pairs) else None),
                *(shown(statistics.mean(values) if values else None, "+.1f") for values in over),
                test["p"] if test else UNKNOWN,
                UNKNOWN if share is None else f"{share:.0f} %",
                shown(rise, "+.1f"),
                str(sum(len(cells.f1(pair, variant)) for pair in pairs)),
            ]
        )
    header = [
        "",
        "mean F1",
        "above plain",
        f"above {cells.title(baseline)}",
        "p",
        "of the way",
        "rise of the labels' F1",
        "cells",
    ]
    return table(header, rows)


def by_pair(cells: Cells, content: dict) -> str:
    """F1 of each pair and, where the table has a supervised model, the share of the way with p."""
    scores, shares = [], []
    for variant in content["variants"]:
        found = [(cells.share([pair], variant), cells.tests.get((pair, variant))) for pair in content["pairs"]]
        scores.append([cells.title(variant), *(spread(cells.f1(pair, variant).values()) for pair in content["pairs"])])
        ends = [f" (p {test['p']})" if test else "" for _, test in found]
        texts = [UNKNOWN if share is None else f"{share:.0f} %" for share, _ in found]
        shares.append([cells.title(variant), *(text + end for text, end in zip(texts, ends, strict=True))])
    parts = [table(["F1", *content["pairs"]], scores)]
    if "supervised" in content["variants"]:
        parts.append(table(["of the way", *content["pairs"]], shares))
    return "\n".join(parts)


def labels_by_epoch(cells: Cells) -> str:
    rows = []
    for variant in cells.suite.tables[0]["variants"]:
        for pair in cells.suite.pairs:
            if labels := cells.labels(pair, variant):
                rows.append([f"{cells.title(variant)}, {pair}", *(f"{value:.1f}" for value in labels)])
    longest = max((len(row) for row in rows), default=1)
    return table(["", *(f"epoch {at}" for at in range(longest - 1))], [row + [UNKNOWN] * (longest - len(row)) for row in rows])


def study(cells: Cells) -> str:
    """All tables of a suite."""
    name = cells.suite.name
    parts = [f"## The method: {cells.suite.title} (suite `{name}`)\n", STUDY.format(baseline=cells.title(cells.suite.baseline))]
    sizes, all_cells = cells.suite.sizes, cells.suite.cells()
    if sizes["source"]:
        parts.append(
            f"{sizes['source']:,} source and {sizes['target']:,} target training sentences (all there are where fewer), "
            f"{sizes['dev']:,} of source dev, {sizes['test']:,} of the target's test set.\n"
        )
    command = f"`python benchmarks/study.py --suite {name} --corpora DIR`"
    if not cells.rows:
        return "\n".join([*parts, f"**Not measured yet**: none of {len(all_cells)} cells ({command}).\n"])
    if len(cells.rows) < len(all_cells):
        parts.append(f"{len(cells.rows)} of {len(all_cells)} cells are measured ({command}).\n")
    parts += ["### Over all pairs\n", over_pairs(cells)]
    for content in cells.suite.tables:
        parts += [f"### {content['title']}\n", by_pair(cells, content)]
    if cells.has_labels:
        pictures = [f"![{PICTURES[kind]}](docs/study-{name}-{kind}.png)\n" for kind in drawn(cells)]
        parts += ["### F1 of the pseudo labels by epoch\n", labels_by_epoch(cells), *pictures]
    minutes = sum(float(row["minutes"]) for row in cells.rows)
    precisions = ", ".join(sorted({row["precision"] for row in cells.rows}))
    parts.append(f"{minutes / 60:.1f} hours of cells, {precisions}. {where(cells.rows)}")
    return "\n".join(parts)


PICTURES = {"labels": "How right the pseudo labels are", "gap": "Share of the gap that is closed"}


def drawn(cells: Cells) -> dict[str, Callable[[Cells], Figure]]:
    """The pictures that have something to show, by kind."""
    kinds = {"labels": (cells.has_labels, picture_of_labels), "gap": (cells.has_gap, picture_of_gap)}
    return {kind: draw for kind, (shows, draw) in kinds.items() if shows}


def picture_of_labels(cells: Cells) -> Figure:
    """F1 of the pseudo labels by epoch, a panel a pair that is measured."""
    variants = cells.suite.tables[0]["variants"]
    pairs = [pair for pair in cells.suite.pairs if any(cells.labels(pair, variant) for variant in variants)]
    figure = Figure(figsize=(max(3.2 * len(pairs), 5), 3.4), layout="constrained")
    for pair, axis in zip(pairs, figure.subplots(1, len(pairs), squeeze=False)[0], strict=True):
        for variant, style in zip(variants, STYLES * 2, strict=False):
            if labels := cells.labels(pair, variant):
                axis.plot(labels, style, markerfacecolor="white", label=cells.title(variant).replace("**", ""))
        axis.set(title=pair, xlabel="epochs of the target model")
        axis.locator_params(axis="x", integer=True)
        axis.legend(frameon=False)
    figure.supylabel("F1 of the pseudo labels, %", fontsize="medium")
    return figure


def picture_of_gap(cells: Cells) -> Figure:
    """How far each method goes from no target labels at all (0 %) to training on them (100 %), a row a pair."""
    pairs, figure = list(cells.suite.pairs), Figure(figsize=(8, 3.5), layout="constrained")
    axis = figure.subplots()
    for variant, style in zip(cells.between, STYLES * 2, strict=False):
        shares = [cells.share([pair], variant) for pair in pairs]
        known = [(share, at) for at, share in enumerate(shares) if share is not None]
        if known:
            axis.plot(*zip(*known, strict=True), style[0], markerfacecolor="none", label=cells.title(variant).replace("**", ""))
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(pairs)), pairs)
    axis.invert_yaxis()
    axis.set(xlabel="0 %: source labels only    -    share of the gap closed    -    100 %: target labels")
    figure.legend(loc="outside right upper")
    return figure


# --------------------------------------------------------------------------------------------------------------- the paper


def paper(rows: Sequence[Row]) -> str:
    """The paper's Tables 1 to 4."""
    languages, means = ("de", "es", "nl", "ar", "hi", "zh"), ("CoNLL mean", "WikiANN mean")

    def part(name: str, columns: Sequence[str]) -> list[list[str]]:
        mine = [row for row in rows if row["table"] == name]
        return [[row["method"], *(row[column] or UNKNOWN for column in columns)] for row in mine]

    main = (*languages[:3], means[0], *languages[3:], means[1])
    heads = [f"CoNLL {name}" for name in languages[:3]] + [f"WikiANN {name}" for name in languages[3:]]
    needs = {row["method"]: row["needs"] for row in rows if row["table"] == "main"}
    return "\n".join(
        [
            "## The paper's own figures (paper, XLM-R-large)\n",
            PAPER,
            "### Tables 1 and 2: methods\n",
            table(
                ["", *heads[:3], means[0], *heads[3:], means[1], "what it needs"],
                [[*row, needs[row[0]]] for row in part("main", main)],
            ),
            "\\* as printed; the mean of the three is 57.01. AdvPicker's ar was run by the paper's authors.\n",
            "### Table 3: ablation\n",
            table(["", *heads], part("ablation", languages)),
            "### Table 4: the auxiliary task\n",
            table(["", *heads], part("auxiliary", languages)),
        ]
    )


# ------------------------------------------------------------------------------------------------------------------- speed


def judged(text: str, figure: float, sign: str, bar: float) -> str:
    """A figure's text, with a word where its bar is missed."""
    return text if (figure <= bar if sign == "<=" else figure >= bar) else f"{text} **missed**"


def where(rows: Sequence[Row]) -> str:
    """The machines and the versions, in a line."""
    return "; ".join(sorted({f"{row['cpu']}, {row['versions']}" for row in rows})) + ".\n"


def speed_bars(rows: Sequence[Row]) -> str:
    """What is asked of a step, a column a run."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    lines = []
    for name, key, setting, sign, bar in speed.CHECKS:
        cells = []
        for run in runs:
            found = [row for row in rows if row["run"] == run and speed.setting_of(row) == setting and row[key]]
            quartiles = found[0].get(f"{key}, quartiles") if found else None
            figure = float(found[0][key]) if found else None
            text = shown(figure, ".3f") + (f" ({quartiles})" if quartiles else "")
            cells.append(text if figure is None else judged(text, figure, sign, bar))
        lines.append([name, *cells, f"{sign} {bar}"])
    return table(["", *runs, "bar"], lines)


def steps(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not measured yet.\n"
    return "\n".join(
        [
            where(rows),
            "Medians, quartiles in brackets, in fp32 (`python benchmarks/speed.py --quick`) and in bf16 (`--bf16`):\n",
            speed_bars(rows),
        ]
    )


def tagging(rows: Sequence[Row]) -> str:
    keys = ("words a second", "ms of one sentence", "MB loaded", "MB at the peak")
    lines = [[row["system"], *(f"{float(row[key]):.0f}" for key in keys), row["versions"]] for row in rows]
    bars = [
        [name, judged(f"{figure:.2f}", figure, sign, bar), f"{sign} {bar:g}"] for name, figure, sign, bar in inference.bars(rows)
    ]
    first = (
        f"{rows[0]['texts']} sentences of {rows[0]['words']} words, batches of {rows[0]['batch']}, {rows[0]['threads']} threads, "
    )
    first += f"{rows[0]['cpu']}; what differs between the systems: benchmarks/inference.py.\n"
    return "\n".join([first, table(["", *keys, "with"], lines), table(["", "words a second, ratio", "bar"], bars)])


def several_workers(rows: Sequence[Row]) -> str:
    """Each engine beside one process of the same model."""
    alone = {row["model"]: float(row["words a second"]) for row in rows if row["engine"] == "one process"}
    lines = []
    for row in rows:
        speed = float(row["words a second"])
        ratio = f"{speed / alone[row['model']]:.2f}"
        lines.append([f"{row['model']}, {row['engine']}", row["workers"], f"{speed:.0f}", ratio, row["seconds to start"]])
    header = ["", "workers", "words a second", "of one process", "seconds to start"]
    return "\n".join([f"A thread a process; {where(rows)}\n", table(header, lines)])


def growing_corpus(rows: Sequence[Row]) -> str:
    names = [name for name in rows[0] if name not in ("sentences", "cpu", "versions")]
    lines = [
        [name, *(f"{float(row[name]):.3g}" if float(row[name]) < 100 else f"{float(row[name]):,.0f}" for row in rows)]
        for name in names
    ]
    header = ["unlabelled sentences", *(f"{int(row['sentences']):,}" for row in rows)]
    return "\n".join([where(rows), table(header, lines)])


def on_gpu(rows: Sequence[Row]) -> str:
    names = ("step / encoder", "sequential / step", "model FLOP utilisation", "synchronisations", "peak MB", "words a second")
    lines = [[name, rows[0][name] if rows and rows[0][name] else "not measured"] for name in names]
    return (f"{rows[0]['gpu']}; {where(rows)}\n" if rows else "") + table(["XLM-R-large-shaped, bf16", ""], lines)


# -------------------------------------------------------------------------------------------------------------------- page


def page(suites: Sequence[Suite], directory: Path | None = None) -> str:
    """RESULTS.md, from the tables in a directory (None: the project's)."""
    study_rows, tests = read_rows("study", directory), read_rows("study-tests", directory)
    parts = [HEAD, *(study(Cells(suite, study_rows, tests)) for suite in suites), paper(read_rows("paper"))]
    sections: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
        "A step of the target stage": ("speed", steps),
        "Tagging (`python benchmarks/inference.py`)": ("inference", tagging),
        "Tagging by several workers (`python benchmarks/workers.py`)": ("workers", several_workers),
        "A corpus as it grows (`python benchmarks/scale.py`)": ("scale", growing_corpus),
        "On a GPU (`python benchmarks/gpu.py`)": ("gpu", on_gpu),
    }
    for title, (name, write) in sections.items():
        rows = read_rows(name, directory)
        parts += [f"## {title}\n", write(rows) if rows or name == "gpu" else "Not measured yet.\n"]
    return "\n".join(parts)


def pictures(suites: Sequence[Suite], directory: Path | None = None) -> dict[str, Figure]:
    """The pictures of what is measured, by file name."""
    found = {}
    for suite in suites:
        cells = Cells(suite, read_rows("study", directory), read_rows("study-tests", directory))
        found |= {f"study-{suite.name}-{kind}.png": draw(cells) for kind, draw in drawn(cells).items()}
    return found


def write_report(target: Path, suites: Sequence[Suite], directory: Path | None = None) -> None:
    """Write RESULTS.md and docs/*.png below `target`."""
    (target / "docs").mkdir(parents=True, exist_ok=True)
    (target / "RESULTS.md").write_text(page(suites, directory), encoding="utf-8")
    for name, figure in pictures(suites, directory).items():
        figure.savefig(target / "docs" / name, dpi=100, metadata={"Software": None})


def main(argv: list[str], target: Path = ROOT) -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    write_report(target, [Suite("cpu")])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
