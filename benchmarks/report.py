"""RESULTS.md and the pictures in docs/, from benchmarks/results/*.csv alone: python benchmarks/report.py

The same tables give the same bytes.
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import inference
import speed
from common import ROOT, Row, is_met, options_of, read_rows, table
from matplotlib.figure import Figure
from study import Suite

UNKNOWN = "-"
STYLES = ("o-", "s--", "^:", "x-.", "d-", "v--", "P:")  # lines differ in mark and dash, not in color alone
HEAD = """# Results

Written by `python benchmarks/report.py` from the tables in [benchmarks/results](benchmarks/results); do not edit. Seconds of one
machine mean little on another: compare ratios.
"""
STUDY = """F1 is strict, in percent of the target's test set: every gold entity counts. The F1 of a pair is the mean over seeds,
whose number stands in brackets, ± their standard deviation. "Above" is the mean difference over the pairs and seeds that both
have. "Of the way" is the share of the way from the plain model to the one that is supervised by target labels. Checkpoints are
chosen by source dev; target labels are read for these reports alone, except by the supervised model. p: paired approximate
randomisation over test sentences against {baseline}, 10,000 trials, two-sided, counts summed over seeds.
"""
PAPER = """F1 of "Improving Pseudo Labels with Global-Local Denoising Framework for Cross-lingual Named Entity Recognition"
(Ding et al., IJCAI 2024), means of three runs: paper, XLM-R-large, in the paper's protocol, which leaves out gold entities that
the span grid cannot hold. Nothing here was measured by this project, and nothing of ours is measured with that encoder yet.
\\* is as printed, where the mean of the three is 57.01; AdvPicker's ar was run by the paper's authors.
"""


# --------------------------------------------------------------------------------------------------------------- the study


class Cells:
    """The rows of a suite in study.csv, and its tests."""

    def __init__(self, suite: Suite, rows: Iterable[Row], tests: Iterable[Row]):
        self.suite, self.rows = suite, [row for row in rows if row["suite"] == suite.name]
        self.tests = {(row["pair"], row["variant"]): row for row in tests if row["suite"] == suite.name}

    def of(self, pair: str, variant: str) -> dict[str, Row]:
        """The rows of a variant, by seed."""
        return {row["seed"]: row for row in self.rows if (row["pair"], row["variant"]) == (pair, variant)}

    def f1(self, pair: str, variant: str) -> list[float]:
        return [float(row["f1"]) for row in self.of(pair, variant).values()]

    def labels(self, pair: str, variant: str) -> list[float]:
        """F1 of the pseudo labels, before the first epoch and after each, means over seeds."""
        rows = [map(float, row["label_f1"].split()) for row in self.of(pair, variant).values()]
        return [statistics.mean(values) for values in zip(*rows, strict=False)]

    def mean(self, variant: str, pairs: Sequence[str] = ()) -> float | None:
        """F1 over pairs, all by default; None where one is not measured."""
        values = [self.f1(pair, variant) for pair in pairs or self.suite.pairs]
        return statistics.mean(map(statistics.mean, values)) if all(values) else None

    def share(self, variant: str, pairs: Sequence[str] = ()) -> float | None:
        """The share of the way from plain to supervised, in percent; None where one of the three is not measured."""
        low, here, high = (self.mean(name, pairs) for name in ("plain", variant, "supervised"))
        if low is None or here is None or high is None or high <= low:
            return None
        return 100 * (here - low) / (high - low)

    def rise(self, variant: str) -> float | None:
        """What the labels' F1 gains from the first to the last epoch, the mean over all pairs; None where one is not measured."""
        ends = [self.labels(pair, variant) for pair in self.suite.pairs]
        return statistics.mean(labels[-1] - labels[0] for labels in ends) if all(ends) else None

    def above(self, variant: str, other: str) -> float | None:
        """F1 of a variant minus that of another, the mean over the pairs and seeds that both have."""
        found = []
        for pair in self.suite.pairs:
            ours, theirs = self.of(pair, variant), self.of(pair, other)
            found += [float(ours[seed]["f1"]) - float(theirs[seed]["f1"]) for seed in ours if seed in theirs]
        return statistics.mean(found) if found else None

    def p(self, pair: str, variant: str) -> str:
        return self.tests[pair, variant]["p"] if (pair, variant) in self.tests else UNKNOWN

    def title(self, variant: str) -> str:
        return self.suite.variants[variant]["title"]


def shown(value: float | None, form: str = ".1f") -> str:
    return UNKNOWN if value is None else f"{value:{form}}"


def over_pairs(cells: Cells) -> str:
    """A row a method, over all pairs."""
    baseline, rows = cells.suite.baseline, []
    for variant in cells.suite.tables[0]["variants"]:
        columns = [
            shown(cells.mean(variant)),
            shown(cells.above(variant, "plain"), "+.1f"),
            shown(cells.above(variant, baseline), "+.1f"),
            cells.p("all", variant),
            shown(cells.share(variant), ".0f"),
            shown(cells.rise(variant), "+.1f"),
            str(sum(len(cells.of(pair, variant)) for pair in cells.suite.pairs)),
        ]
        rows.append([cells.title(variant), *columns])
    above = ["above plain", f"above {cells.title(baseline)}"]
    return table(["", "mean F1", *above, "p", "of the way, %", "rise of the labels' F1", "cells"], rows)


def mean_of(values: Sequence[float]) -> str:
    """ "54.9 ± 0.8 (3)", the mean over seeds with their deviation and number."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation} ({len(values)})"


def by_pair(cells: Cells, variants: Sequence[str], pairs: Sequence[str]) -> str:
    """ "54.9 ± 0.8 (3), p 0.012" of each pair and method and, where the supervised model is one, the shares of the way."""
    scores, shares = [], []
    for variant in variants:
        texts = []
        for pair in pairs:
            values, p = cells.f1(pair, variant), cells.p(pair, variant)
            text = mean_of(values) if values else UNKNOWN
            texts.append(text if p == UNKNOWN else f"{text}, p {p}")
        scores.append([cells.title(variant), *texts])
        shares.append([cells.title(variant), *(shown(cells.share(variant, [pair]), ".0f") for pair in pairs)])
    tables = [table(["F1", *pairs], scores)]
    if "supervised" in variants:
        tables.append(table(["of the way, %", *pairs], shares))
    return "\n".join(tables)


def labels_by_epoch(cells: Cells) -> str:
    cases = [(variant, pair) for variant in cells.suite.tables[0]["variants"] for pair in cells.suite.pairs]
    found = {f"{cells.title(variant)}, {pair}": cells.labels(pair, variant) for variant, pair in cases}
    longest = max(map(len, found.values()))
    rows = [[name, *map(shown, labels), *[UNKNOWN] * (longest - len(labels))] for name, labels in found.items() if labels]
    return table(["", *(f"epoch {number}" for number in range(longest))], rows)


def study(cells: Cells) -> str:
    """All tables of a suite."""
    suite, sizes, number = cells.suite, cells.suite.sizes, len(cells.suite.cells())
    command = f"`python benchmarks/study.py --suite {suite.name} --corpora DIR`"
    parts = [f"## The method: {suite.title} (suite `{suite.name}`)\n", STUDY.format(baseline=cells.title(suite.baseline))]
    if sizes["source"]:
        parts.append(
            f"{sizes['source']:,} source and {sizes['target']:,} target training sentences (all there are where fewer), "
            f"{sizes['dev']:,} of source dev, {sizes['test']:,} of the target's test set.\n"
        )
    if not cells.rows:
        return "\n".join([*parts, f"**Not measured yet**: none of {number} cells ({command}).\n"])
    if len(cells.rows) < number:
        parts.append(f"{len(cells.rows)} of {number} cells are measured ({command}).\n")
    parts += ["### Over all pairs\n", over_pairs(cells)]
    for content in suite.tables:
        parts += [f"### {content['title']}\n", by_pair(cells, content["variants"], content["pairs"])]
    if any(row["label_f1"] for row in cells.rows):
        parts += ["### F1 of the pseudo labels by epoch\n", labels_by_epoch(cells)]
    parts += [f"![{PICTURES[kind]}](docs/study-{suite.name}-{kind}.png)\n" for kind in pictures(cells)]
    minutes = sum(float(row["minutes"]) for row in cells.rows)
    precisions = ", ".join(sorted({row["precision"] for row in cells.rows}))
    parts.append(f"{minutes / 60:.1f} hours of cells, {precisions}. {where(cells.rows)}")
    return "\n".join(parts)


PICTURES = {"labels": "How right the pseudo labels are", "gap": "Share of the gap that is closed"}


def pictures(cells: Cells) -> dict[str, Figure]:
    """The pictures that have something to show, by kind."""
    found = {"labels": picture_of_labels(cells), "gap": picture_of_gap(cells)}
    return {kind: figure for kind, figure in found.items() if figure is not None}


def picture_of_labels(cells: Cells) -> Figure | None:
    """F1 of the pseudo labels by epoch, a panel a pair that is measured."""
    variants = cells.suite.tables[0]["variants"]
    pairs = [pair for pair in cells.suite.pairs if any(cells.labels(pair, variant) for variant in variants)]
    if not pairs:
        return None
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


def picture_of_gap(cells: Cells) -> Figure | None:
    """How far each method goes from no target labels at all (0 %) to training on them (100 %), a row a pair."""
    pairs, figure = list(cells.suite.pairs), Figure(figsize=(8, 3.5), layout="constrained")
    axis = figure.subplots()
    between = [name for name in cells.suite.tables[0]["variants"] if name not in ("plain", "supervised")]
    for variant, style in zip(between, STYLES * 2, strict=False):
        shares = {at: cells.share(variant, [pair]) for at, pair in enumerate(pairs)}
        if known := [(share, at) for at, share in shares.items() if share is not None]:
            axis.plot(*zip(*known, strict=True), style[0], markerfacecolor="none", label=cells.title(variant).replace("**", ""))
    if not axis.lines:
        return None
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(pairs)), pairs)
    axis.invert_yaxis()
    axis.set(xlabel="0 %: source labels only    -    share of the gap closed    -    100 %: target labels")
    figure.legend(loc="outside right upper")
    return figure


# ------------------------------------------------------------------------------------------------- the paper, and the speed


def paper(rows: Sequence[Row]) -> str:
    """The paper's Tables 1 to 4."""
    parts = ["## The paper's own figures (paper, XLM-R-large)\n", PAPER]
    for title in dict.fromkeys(row["table"] for row in rows):
        mine = [row for row in rows if row["table"] == title]
        columns = [name for name in mine[0] if name not in ("table", "method") and any(row[name] for row in mine)]
        lines = [[row["method"], *(row[name] or UNKNOWN for name in columns)] for row in mine]
        parts += [f"### {title}\n", table(["", *columns], lines)]
    return "\n".join(parts)


def where(rows: Sequence[Row]) -> str:
    """The machines and the versions, in a line."""
    return "; ".join(sorted({f"{row['cpu']}, {row['versions']}" for row in rows})) + ".\n"


def judged(text: str, figure: float, sign: str, bar: float) -> str:
    """A figure's text, with a word where its bar is missed."""
    return text if is_met(figure, sign, bar) else f"{text} **missed**"


def demo(rows: Sequence[Row]) -> str:
    """The demo's scores, a line a language: source model, target model, and how far one is above the other."""
    lines = []
    for language in dict.fromkeys(row["language"] for row in rows):
        runs = [row for row in rows if row["language"] == language]
        source, target = ([float(row[name]) for row in runs] for name in ("source", "target"))
        gain = statistics.mean(target) - statistics.mean(source)
        minutes = statistics.mean(float(row["minutes"]) for row in runs)
        lines.append([language, mean_of(source), mean_of(target), f"{gain:+.1f}", f"{minutes:.1f}"])
    header = ["F1 on the demo's test set", "source model", "target model", "difference", "minutes"]
    how = "The default run; means over seeds (their number), ± standard deviation. Settings were chosen on es and nl.\n"
    return "\n".join([how, where(rows), table(header, lines)])


def steps(rows: Sequence[Row]) -> str:
    """What is asked of a step, a column a run."""
    runs = {name: {row["setting"]: row for row in rows if row["run"] == name} for name in ("fp32", "bf16")}
    lines = []
    for figure, setting, sign, bar in speed.CHECKS:
        values = [float(run[setting][figure]) for run in runs.values() if run]
        texts = [judged(f"{value:.3f}", value, sign, bar) for value in values]
        lines.append([f"{figure}, {setting}", *texts, f"{sign} {bar}"])
    how = "Medians in fp32 (`python benchmarks/speed.py --quick`) and in bf16 (`--bf16`):\n"
    return "\n".join([where(rows), how, table(["", *(name for name, run in runs.items() if run), "bar"], lines)])


def tagging(rows: Sequence[Row]) -> str:
    how = "{sentences} sentences, {words} words, batches of {batch_size}, {threads} threads, {cpu}; see docs/speed.md.\n"
    lines = [[row["system"], f"{float(row['words a second']):.0f}", row["MB at the peak"], row["versions"]] for row in rows]
    bars = [[name, judged(f"{ratio:.2f}", ratio, *bar), "{} {:g}".format(*bar)] for name, ratio, *bar in inference.bars(rows)]
    tables = [table(["", "words a second", "MB at the peak", "with"], lines), table(["", "words a second, ratio", "bar"], bars)]
    return "\n".join([how.format(**rows[0]), *tables])


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
    values = {name: [float(row[name]) for row in rows] for name in names}
    lines = [[name, *(f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in values[name])] for name in names]
    return "\n".join([where(rows), table(["unlabelled sentences", *(f"{int(row['sentences']):,}" for row in rows)], lines)])


def on_gpu(rows: Sequence[Row]) -> str:
    names = ("step / encoder", "sequential / step", "model FLOP utilisation", "synchronisations", "peak MB", "words a second")
    lines = [[name, rows[0][name] if rows else "not measured"] for name in names]
    return (f"{rows[0]['gpu']}; {where(rows)}\n" if rows else "") + table(["XLM-R-large-shaped, bf16", ""], lines)


# -------------------------------------------------------------------------------------------------------------------- page


def page(suites: Sequence[Suite], directory: Path | None = None) -> str:
    """RESULTS.md, from the tables in a directory (None: the project's)."""
    rows, tests = read_rows("study", directory), read_rows("study-tests", directory)
    parts = [HEAD, *(study(Cells(suite, rows, tests)) for suite in suites), paper(read_rows("paper"))]
    sections: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
        "The demo (`python benchmarks/demo.py`)": ("demo", demo),
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


def write_report(target: Path, suites: Sequence[Suite], directory: Path | None = None) -> None:
    """Write RESULTS.md and docs/*.png below `target`."""
    (target / "docs").mkdir(parents=True, exist_ok=True)
    (target / "RESULTS.md").write_text(page(suites, directory), encoding="utf-8")
    for suite in suites:
        cells = Cells(suite, read_rows("study", directory), read_rows("study-tests", directory))
        for kind, figure in pictures(cells).items():
            figure.savefig(target / "docs" / f"study-{suite.name}-{kind}.png", dpi=100, metadata={"Software": None})


def main(argv: list[str], target: Path = ROOT) -> int:
    options_of(__doc__).parse_args(argv)
    write_report(target, [Suite("cpu")])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
