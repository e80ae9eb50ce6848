"""Protects the benchmark of the demo: a row a language and seed, one that is there goes on, and the report has means."""

import json
from pathlib import Path

import demo
import report


def test_a_row_a_run(tmp_path: Path, monkeypatch):
    kept, commands = [], []

    def run(argv: list[str]) -> None:
        commands.append(argv)
        output = Path(argv[argv.index("--output_dir") + 1])
        output.mkdir(parents=True, exist_ok=True)
        scores = {f"{name}_model": {"test": {"strict": {"f1": f1}}} for name, f1 in (("source", 80.0), ("target", 90.0))}
        cost = {"source_stage": {"seconds": 60}, "target_stage": {"seconds": 90}}
        (output / "metrics.json").write_text(json.dumps(scores | {"cost": cost}))

    monkeypatch.setattr(demo, "write_rows", lambda name, rows: kept.append((name, rows)))
    for _ in range(2):
        demo.main(["--languages", "nl", "--seeds", "0", "3", "--work", str(tmp_path), "--max_steps", "2"], run)
    assert [argv[1:4:2] for argv in commands[:2]] == [["nl", "0"], ["nl", "3"]] and commands[0][-2:] == ["--max_steps", "2"]
    assert all(argv[-2:] == ["--resume_from_checkpoint", "auto"] for argv in commands[2:])
    name, rows = kept[1]
    assert name == "demo"
    assert [tuple(row.values())[:5] for row in rows] == [("nl", 0, "80.00", "90.00", "2.5"), ("nl", 3, "80.00", "90.00", "2.5")]


def test_the_report_has_the_means():
    common = {"language": "zh", "cpu": "c", "versions": "v"}
    rows = [common | {"source": "70", "target": "80", "minutes": "4"}, common | {"source": "74", "target": "80", "minutes": "6"}]
    assert "| zh | 72.0 ± 2.8 (2) | 80.0 ± 0.0 (2) | +8.0 | 5.0 |" in report.demo(rows).splitlines()
