"""benchmarks/results/README.md and docs/speed.png, from the results files: python benchmarks/tables.py"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from report import NONE, table
from speed import CHECKS, GROWTH, ROOT, Setting, bars

RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "datastore": "stored vectors",
    "length": "L, words",
    "batch": "batch, sentences",
    "types": "types",
    "joined": "sentence length, times",
}


def load(name: str) -> dict | None:
    """A results file; None where it has not been written."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def where(content: dict) -> str:
    """The machine and the versions, in a line."""
    facts = content["machine"]
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None) + ".\n"


def by_setting(content: dict) -> dict[Setting, dict]:
    """The rows of a file of benchmarks/speed.py; sizes that a row does not name are the setting's defaults."""
    fields = Setting.__dataclass_fields__
    return {Setting(**{name: row[name] for name in fields if name in row}): row for row in content["rows"]}


def steps(rows: dict[Setting, dict]) -> str:
    """Seconds and ratios, a row a setting."""
    parts = ("step", "encoder", "packed", "sequential", "denoiser", "head", "optimizer")
    ratios = ["step / encoder", "step / packed", "sequential / step", "denoiser / encoder", "head / encoder"]
    ratios += ["step in fp32 / step"] * any("step in fp32 / step" in row["ratios"] for row in rows.values())
    header = ["", *(f"{part}, s" for part in parts), *ratios, "peak of a step, MB", "recall@K", "directions changed", "index, s"]
    lines = []
    for setting, row in rows.items():
        cells = [row["median"].get(part) for part in parts] + [row["ratios"].get(name) for name in ratios]
        cells = [NONE if cell is None else f"{cell:.3f}" for cell in cells]
        cells += [f"{row['peak_mb']:.0f}" if "peak_mb" in row else NONE, f"{row['recall']:.3f}"]
        cells += [
            f"{row[name]:{form}}" if name in row else NONE for name, form in (("directions changed", ".4f"), ("index", ".2f"))
        ]
        lines.append([str(setting), *cells])
    return table(header, lines)


def asked(content: dict | None) -> str:
    """What is asked of a step, and the settings that it was measured in."""
    rows = by_setting(content) if content else {}
    found = {name: [name, NONE, "", f"{relation} {bar}"] for name, *_, relation, bar in CHECKS}
    for name, figure, quartiles, relation, bar, _ in bars(rows):
        scatter = " to ".join(f"{quartile:.3f}" for quartile in quartiles)
        found[name] = [name, f"{figure:.3f}", scatter, f"{relation} {bar}"]
    parts = [where(content) if content else "", table(["", "figure", "quartiles", "bar"], list(found.values()))]
    return "\n".join(part for part in [*parts, steps(rows) if rows else ""] if part)


def growth(rows: dict[Setting, dict], name: str) -> tuple[list[int], dict[str, list[float]]]:
    """Sizes, and the step's seconds, the denoiser's and the memory at each, with all other settings as they are by default."""
    sizes = [size for size in GROWTH[name] if Setting(**{name: size}) in rows]
    found = [rows[Setting(**{name: size})] for size in sizes]
    seconds = {part: [row["median"][part] for row in found] for part in ("step", "encoder", "denoiser", "sequential")}
    return sizes, seconds | {"memory": [row["peak_mb"] for row in found]}


def exponent(sizes: list[int], values: list[float]) -> str:
    """The slope of log(values) over log(sizes)."""
    return f"{np.polyfit(np.log(sizes), np.log(values), 1)[0]:.2f}"


def exponents(rows: dict[Setting, dict]) -> str:
    """How the step grows: the exponent of each size."""
    lines = []
    for name, title in NAMES.items():
        sizes, values = growth(rows, name)
        lines.append([title, ", ".join(f"{size:,}" for size in sizes), *(exponent(sizes, column) for column in values.values())])
    return table(["", "sizes", "step", "encoder", "denoiser", "sequential step", "memory of a step"], lines)


def plot(rows: dict[Setting, dict], path: Path) -> None:
    """Seconds and MB over each size; lines differ in mark and dash, not in color alone."""
    figure = Figure(figsize=(15, 5.5), layout="constrained")
    axes = figure.subplots(2, len(NAMES))
    styles = {"step": "o-", "encoder": "s--", "denoiser": "^:", "sequential": "x-."}
    for column, (name, title) in enumerate(NAMES.items()):
        sizes, values = growth(rows, name)
        for part, style in styles.items():
            axes[0, column].plot(sizes, values[part], style, color="black", markerfacecolor="white", label=part)
        axes[1, column].plot(sizes, values["memory"], "o-", color="black", markerfacecolor="white")
        for row, label in enumerate(("seconds", "MB at the peak of a step")):
            axis = axes[row, column]
            axis.set(xscale="log", yscale="linear" if row else "log", xlabel=title, ylabel="" if column else label)
            axis.set_xticks(sizes, [f"{size // 1000}k" if size >= 1000 else str(size) for size in sizes], rotation=30)
            axis.minorticks_off()
        axes[1, column].set_ylim(0, 1.1 * max(values["memory"]))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(styles))
    figure.savefig(path, dpi=100, metadata={"Software": None})


def reading(content: dict) -> str:
    """What reading and evaluating cost."""
    first, again, evaluation = content["first"], content["from the cache"], content["evaluation"]
    bars = [
        ["reading, tokenising, labelling, s", f"{sum(first['seconds'].values()):.1f}", "<= 10"],
        ["memory above the start, MB", f"{first['mb']:.0f}", "<= 300"],
        ["the same from the cache, s", f"{sum(again['seconds'].values()):.1f}", "<= 2"],
        ["decoding, share of an evaluation", f"{100 * evaluation['share']:.1f} %", "<= 10 %"],
    ]
    title = f"{first['sentences']:,} sentences read, {evaluation['sentences']:,} evaluated. {where(content)}"
    return f"{title}\n{table(['', 'figure', 'bar'], bars)}"


def tagging(content: dict) -> str:
    """Words a second, latency and memory beside other recognisers."""
    keys = ("words a second", "ms of one sentence", "MB loaded", "MB at the peak")
    systems = content["systems"].items()
    rows = [[name, *(f"{figures[key]:.0f}" if key in figures else NONE for key in keys)] for name, figures in systems]
    bars = [[f"{bar['system']} / {bar['other']}", f"{bar['ratio']:.2f}", f">= {bar['bar']:g}"] for bar in content["bars"]]
    return f"{where(content)}\n{table(['', *keys], rows)}\n{table(['', 'ratio', 'bar'], bars)}"


def on_gpu(content: dict | None) -> str:
    """The rows of benchmarks/gpu.py."""
    names = ("step / encoder", "sequential / step")
    rows = [[name, f"{content['ratios'][name]:.3f}" if content else NONE] for name in names]
    rows.append(["model FLOP utilisation", f"{content['model FLOP utilisation']}" if content else NONE])
    rows.append(["host synchronisations in a step", f"{sum(content['synchronisations'].values())}" if content else NONE])
    return (where(content) + "\n" if content else "") + table(["", "XLM-R-large-shaped, bf16"], rows)


def page() -> str:
    """All tables, from the results files."""
    parts = ["# Speed\n", "Written by `python benchmarks/tables.py` from the files beside it; what they mean: docs/speed.md.\n"]
    sweep, data, inference, gpu = (load(name) for name in ("speed", "data", "inference", "gpu"))
    parts += ["## Bars (`python benchmarks/speed.py --quick`)\n", asked(load("speed-quick"))]
    parts += ["## The same in mixed precision (`python benchmarks/speed.py --quick --bf16`)\n", asked(load("speed-quick-bf16"))]
    for content in map(load, sorted(path.stem for path in RESULTS.glob("speed-quick-*-*-*.json"))):
        asks = f"--pair {content['settings']['corpora']}" + " --bf16" * content["settings"]["bf16"]
        parts += [
            f"## On sentences of real corpora (`python benchmarks/speed.py --quick --corpora DIR {asks}`)\n",
            asked(content),
        ]
    parts += ["## A step as it grows (`python benchmarks/speed.py`)\n"]
    if sweep:
        rows = by_setting(sweep)
        parts += [where(sweep), steps(rows), "Exponents, from straight lines through the logarithms:\n", exponents(rows)]
        parts += ["![Growth](../../docs/speed.png)\n"]
    else:
        parts += [f"{NONE}\n"]
    parts += ["## Reading and evaluating (`python benchmarks/data.py`)\n", reading(data) if data else f"{NONE}\n"]
    parts += ["## Tagging (`python benchmarks/inference.py`)\n", tagging(inference) if inference else f"{NONE}\n"]
    parts += ["## On a GPU (`python benchmarks/gpu.py`)\n", on_gpu(gpu)]
    return "\n".join(part for part in parts if part)


def main() -> None:
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
    if sweep := load("speed"):
        plot(by_setting(sweep), ROOT / "docs" / "speed.png")


if __name__ == "__main__":
    main()
