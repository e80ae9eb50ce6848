"""The recogniser on real corpora: source model without and with MLM, target model without and with denoising.

    python benchmarks/crossner.py --corpora DIR --pair wikiann-en-ru

reads DIR/wikiann/en/{train,dev}.iob2.gz and DIR/wikiann/ru/{train,test}.iob2.gz, shuffles the sentences by
random.Random(1), takes the first of each, and trains the four variants one after the other, with one seed; the target
models start from the pseudo labels of (a), which is what the recipe small trains. What is finished is not run again.
The figures go to benchmarks/results/crossner-PAIR.json and are printed as a table.
"""

import argparse
import gzip
import json
import platform
import random
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
PAIRS = {
    # name: corpus, source, target, sentences of source train, source dev, target train, target test
    "wikiann-en-ru": ("wikiann", "en", "ru", 2000, 300, 2000, 1000),
    "conll-en-de": ("conll", "en", "de", 1000, 300, 1000, 1000),
}
VARIANTS = {
    "a: source, no MLM": ["--stage", "source"],
    "b: source with MLM": ["--stage", "source", "--source_mlm", "on", "--mlm_weight", "1e-3"],
    "c: target, no denoising": ["--stage", "target", "--denoising", "none"],
    "d: target": ["--stage", "target"],
}


def sample(corpora: Path, name: str, number: int | None, target: Path, skip: int = 0) -> Path:
    """The first `number` sentences (None: all) of a shuffled column file, NAME.iob2.gz or NAME.iob2, after those that are
    skipped; written to `target`."""
    path = target / f"{name.replace('/', '.')}.{skip}-{'end' if number is None else skip + number}.iob2"
    if path.exists():
        return path
    packed = corpora / f"{name}.iob2.gz"
    data = gzip.decompress(packed.read_bytes()) if packed.exists() else (corpora / f"{name}.iob2").read_bytes()
    sentences = [block.strip("\n") for block in data.decode().split("\n\n") if block.strip()]
    random.Random(1).shuffle(sentences)
    end = None if number is None else skip + number
    path.write_text("\n\n".join(sentences[skip:end]) + "\n", encoding="utf-8")
    return path


def machine() -> dict:
    """Where and with what a figure was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    packages = ("torch", "transformers", "datasets", "accelerate", "faiss-cpu")
    return {"cpu": cpu, "python": platform.python_version(), "date": str(date.today())} | {
        name: version(name) for name in packages
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="directory of CORPUS/LANGUAGE/SPLIT.iob2.gz")
    parser.add_argument("--pair", choices=PAIRS, default="wikiann-en-ru")
    parser.add_argument("--work", type=Path, default=Path("glode-bench"), help="where samples and models go")
    parser.add_argument("--seed", type=int, default=0)
    options, extra = parser.parse_known_args()
    corpus, source, target, *numbers = PAIRS[options.pair]
    work = options.work / f"{options.pair}-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    names = (f"{corpus}/{source}/train", f"{corpus}/{source}/dev", f"{corpus}/{target}/train", f"{corpus}/{target}/test")
    paths = [sample(options.corpora, name, number, work) for name, number in zip(names, numbers, strict=True)]
    common = [
        part
        for name, path in zip(("source_train", "source_dev", "target_unlabeled", "target_test"), paths, strict=True)
        for part in (f"--{name}", str(path))
    ]
    common += ["--config", str(ROOT / "glode/run/recipes" / "small.yaml"), "--target_lang", target, "--source_lang", source]
    common += ["--seed", str(options.seed), *extra]
    results = {}
    for variant, arguments in VARIANTS.items():
        directory = work / variant[0]
        if not (directory / "metrics.json").is_file():
            command = [sys.executable, str(ROOT / "run_crossner.py"), *common, *arguments, "--output_dir", str(directory)]
            if variant[0] in "cd":
                command += ["--source_model", str(work / "a" / "source_model")]
            print("running", variant, flush=True)
            subprocess.run(command, check=True)
        results[variant] = json.loads((directory / "metrics.json").read_text())
    report(options.pair, options.seed, extra, results)


def report(pair: str, seed: int, extra: list[str], results: dict) -> None:
    """Print the table and write the results file."""
    rows, table = {}, Table(title=f"{pair}, seed {seed}")
    for column in (
        "variant",
        "dev F1",
        "P",
        "R",
        "F1 (all gold)",
        "F1 (paper's protocol)",
        "pseudo labels first",
        "last",
        "seconds",
    ):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for variant, metrics in results.items():
        stage = "source" if variant[0] in "ab" else "target"
        scores, history = metrics[f"{stage}_model"], metrics.get("pseudo_labels", [])
        strict = scores["test"]["strict"]
        rows[variant] = {
            "dev_f1": scores["dev"]["strict"]["f1"],
            **{name: strict[name] for name in ("precision", "recall", "f1", "gold")},
            "paper_f1": scores["test"]["paper"]["f1"],
            "pseudo_label_f1": [entry.get("f1") for entry in history],
            "max_span_length": metrics["max_span_length"],
            "seconds": metrics["cost"][f"{stage}_stage"]["seconds"],
            "peak_memory_mb": metrics["cost"][f"{stage}_stage"]["peak_memory_mb"],
        }
        cells = [rows[variant][name] for name in ("dev_f1", "precision", "recall", "f1", "paper_f1")]
        ends = [rows[variant]["pseudo_label_f1"][i] for i in (0, -1)] if history else ["", ""]
        table.add_row(variant, *(f"{x:.1f}" if x != "" else "" for x in [*cells, *ends]), f"{rows[variant]['seconds']:.0f}")
    Console().print(table)
    path = ROOT / "benchmarks" / "results" / f"crossner-{pair}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"machine": machine(), "seed": seed, "extra_arguments": extra, "variants": rows}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
