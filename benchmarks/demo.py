"""What the demo scores: python benchmarks/demo.py [--languages de zh] [--seeds 0 1 2] [--work DIR]

The default run of each language and seed, as a user starts it; one that is finished in --work is not run again. Its settings were
chosen on es and nl. Results: benchmarks/results/demo.csv.
"""

import json
import sys
from itertools import product
from pathlib import Path

from common import ROOT, machine, options_of, write_rows

import run_crossner


def as_row(language: str, seed: int, metrics: dict) -> dict:
    """What a run's row holds: F1 on the test set of both models, and the minutes of all stages."""
    scores = {name: f"{metrics[f'{name}_model']['test']['strict']['f1']:.2f}" for name in ("source", "target")}
    minutes = sum(part["seconds"] for part in metrics["cost"].values()) / 60
    return {"language": language, "seed": seed, **scores, "minutes": f"{minutes:.1f}"} | machine()


def main(argv: list[str], run=run_crossner.main) -> None:
    parser = options_of(__doc__)
    parser.add_argument("--languages", nargs="+", default=["de", "zh"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=ROOT / "glode-demos", help="where the models stay")
    options, extra = parser.parse_known_args(argv)
    rows = []
    for language, seed in product(options.languages, options.seeds):
        output = options.work / f"{language}-{seed}"
        command = ["--target_lang", language, "--seed", str(seed), "--output_dir", str(output), *extra]
        run([*command, *(["--resume_from_checkpoint", "auto"] if output.exists() else [])])
        rows.append(as_row(language, seed, json.loads((output / "metrics.json").read_text(encoding="utf-8"))))
    write_rows("demo", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
