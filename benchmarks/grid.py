"""Suites as grids of cells: what benchmarks/suites/*.yaml ask for."""

from dataclasses import dataclass
from pathlib import Path

import yaml

SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True)
class Cell:
    """One run: names of the pair, the variant and the seed."""

    pair: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.pair}/{self.variant}/{self.seed}"

    def file(self, directory: Path) -> Path:
        """Where the result lies."""
        return directory / self.pair / f"{self.variant}-{self.seed}.json"


class Suite:
    """A suite's file, with the variants of all suites."""

    def __init__(self, name: str):
        self.name = name
        content = yaml.safe_load((SUITES / f"{name}.yaml").read_text(encoding="utf-8"))
        self.title, self.corpora = content["title"], content.get("corpora")
        self.notes, self.findings = content.get("notes", ""), content.get("findings", "")  # how, and what came of it, in words
        self.arguments, self.teacher, self.sizes = content["arguments"], content["teacher"], content["sizes"]
        self.pairs, self.tables, self.seeds = content["pairs"], content["tables"], content["seeds"]
        self.variants = yaml.safe_load((SUITES / "variants.yaml").read_text(encoding="utf-8"))

    def cells(self) -> list[Cell]:
        """All cells: the first seed of every table, then the next; a source model before the variants that need it."""
        found: dict[Cell, None] = {}
        for seed in self.seeds:
            for table in (table for table in self.tables if seed in table.get("seeds", self.seeds)):
                for pair in table["pairs"]:
                    for variant in table["variants"]:
                        if teacher := self.teacher_of(variant):
                            found[Cell(pair, teacher, seed)] = None
                        found[Cell(pair, variant, seed)] = None
        return list(found)

    def teacher_of(self, variant: str) -> str | None:
        """The variant whose pseudo labels a variant starts from; None for source models."""
        settings = self.variants[variant]
        return settings.get("teacher", self.teacher) if settings["stage"] == "target" else None

    def settings(self, cell: Cell) -> dict:
        """The arguments that are a cell's own, without those that name its files."""
        variant = {k: v for k, v in self.variants[cell.variant].items() if k not in ("title", "teacher", "gold")}
        return self.arguments | variant | self.pairs[cell.pair].get("arguments", {}) | {"seed": cell.seed}
