"""Protects readers: what README, CONTRIBUTING and docs/ name is there (options, commands, files, headings, names of the code),
Python blocks compile, defaults and results are those of the code and of RESULTS.md, and lines are short."""

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

from glode.command import COMMANDS, main
from glode.training.arguments import GlodeTrainingArguments

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "glode/run/recipes/accelerate/README.md",
]
# Of accelerate launch, torchrun and pip (--no-deps, --index-url).
LAUNCHERS = {"--config_file", "--machine_rank", "--nproc_per_node", "--no", "--index"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


# ---------------------------------------------------------------------------------------------------- what a page consists of


def code_in(text: str) -> Iterator[str]:
    """What stands in code font: the lines of blocks, fenced or indented, and spans within lines."""
    for block in FENCE.findall(text):
        yield from block[1].splitlines()
    rest = FENCE.sub("", text)
    yield from re.findall(r"^    (.+)$", rest, re.M)
    yield from re.findall(r"`([^`\n]+)`", rest)


def headings_of(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    names = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


# --------------------------------------------------------------------------------------------------------- what there really is


@cache
def options_of(command: str) -> set[str]:
    """The options of a subcommand of `glode`, from its help."""
    shown = io.StringIO()
    for question in ("--help", "--help_all") if command == "train" else ("--help",):
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([command, question])
    return set(re.findall(r"--\w+", shown.getvalue()))


@cache
def options_of_benchmark(name: str) -> set[str]:
    files = [path for path in (ROOT / "benchmarks" / f"{name}.py", ROOT / "benchmarks/common.py") if path.exists()]
    return {option for path in files for option in re.findall(r'"(--\w+)"', path.read_text(encoding="utf-8"))}


@cache
def words_of_the_code() -> set[str]:
    files = [*ROOT.glob("*.py"), *(ROOT / "glode").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    files.remove(Path(__file__))
    return set().union(*(re.findall(r"\w+", path.read_text(encoding="utf-8")) for path in files))


# --------------------------------------------------------------------------------------------------------------------- checks
# Each takes a page and its text, and gives what is wrong with it.


def unknown_options(page: Path, text: str) -> list[str]:
    faults = []
    for code in code_in(text):
        command = re.search(r"\bglode (train|tag|export|app)\b", code)
        benchmark = re.search(r"\bbenchmarks/(\w+)\.py", code)
        if benchmark:
            known = options_of_benchmark(benchmark[1])
        elif command or "run_crossner" in code:
            known = options_of(command[1] if command else "train") | LAUNCHERS
        else:
            known = set().union(*map(options_of, COMMANDS)) | LAUNCHERS
        faults += sorted({option for option in re.findall(r"(?<![\w-])--\w+", code)} - known)
    return faults


def unknown_commands(page: Path, text: str) -> list[str]:
    """Subcommands of `glode`, targets of make, recipes of `--config`, extras of the package."""
    code = "\n".join(code_in(text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    known = {
        r"(?:^|-m )glode (\w+)": set(COMMANDS),
        r"^make ([\w-]+)": set(re.findall(r"^([\w-]+):", makefile, re.M)),
        r"--config (\w+)": {path.stem for path in (ROOT / "glode/run/recipes").glob("*.yaml")},
        r"\.\[(\w+)\]": set(extras),
    }
    return [name for pattern, names in known.items() for name in re.findall(pattern, code, re.M) if name not in names]


def dead_links(page: Path, text: str) -> list[str]:
    faults = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (heading and heading not in headings_of(target)):
            faults.append(link)
    return faults


def missing_files(page: Path, text: str) -> list[str]:
    """Paths below this project's directories, and the project's own Python files."""
    names = {re.sub(r"[.,:;]+$", "", name) for code in code_in(text) for name in re.findall(r"(?<![\w./-])[\w.][\w./-]*", code)}
    inside = {name for name in names if re.match(r"(glode|tests|benchmarks|docs|\.ci)/", name)}
    modules = {name for name in names if re.fullmatch(r"\w+\.py", name)}
    return [name for name in inside if not (ROOT / name).exists()] + [name for name in modules if not list(ROOT.rglob(name))]


def unknown_names(page: Path, text: str) -> list[str]:
    """Names in code font that look like those of Python: CamelCase or with an underscore; dotted ones begin with `glode`."""
    faults = []
    for code in re.findall(r"`([\w.]+)`", FENCE.sub("", text)):
        if code.startswith("glode.") and not code.endswith(".py"):
            module, _, name = code.rpartition(".")
            try:
                found = hasattr(importlib.import_module(module), name) or importlib.import_module(code)
            except ImportError:
                found = False
            faults += [] if found else [code]
        elif re.fullmatch(r"[A-Za-z]+(_[A-Za-z]+)+|([A-Z][a-z]+){2,}", code) and code not in words_of_the_code():
            faults.append(code)
    return faults


def broken_python(page: Path, text: str) -> list[str]:
    faults = []
    for language, block in FENCE.findall(text):
        if language != "python":
            continue
        try:
            tree = ast.parse(block)
        except SyntaxError as error:
            faults.append(str(error))
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("glode", "modeling_glode", "trainer_glode"):
                module = importlib.import_module(node.module)
                faults += [f"{node.module}.{name.name}" for name in node.names if not hasattr(module, name.name)]
    return faults


def wrong_defaults(page: Path, text: str) -> list[str]:
    """Rows `| --option, --option | default, default | ...` of a table with a column of defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(GlodeTrainingArguments)}
    faults = []
    for table in re.findall(r"^\| option \| default \|.*\n(?:\|.*\n?)*", text, re.M):
        for row in table.splitlines()[2:]:
            options, values = (cell.strip() for cell in row.split("|")[1:3])
            given = zip(re.findall(r"--(\w+)", options), re.split(r",\s", values), strict=True)
            for name, value in given:
                default = str(defaults[name]).lower()
                if value.replace(",", "") != default and (value[:1].isalpha() or float(value.replace(",", "")) != float(default)):
                    faults.append(f"--{name} {value}")
    return faults


def figures_of_elsewhere(page: Path, text: str) -> list[str]:
    """Rows of the table under `## Results` with a figure that RESULTS.md has not in a row of that name."""
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    faults = []
    for name, figures in re.findall(r"^\| ([^|\n]*\w[^|\n]*) \|((?: [\d.]+ \|)+)$", text.partition("\n## Results")[2], re.M):
        there = " ".join(re.findall(rf"^\| {re.escape(name)} \|(.*)$", results, re.M)).split()
        faults += [f"{name}: {figure}" for figure in re.findall(r"[\d.]+", figures) if figure not in there]
    return faults


def long_lines(page: Path, text: str) -> list[str]:
    lines = text.splitlines()
    faults = [line for line in lines if len(line) > 120]
    return [*faults, f"{len(lines)} lines"] if page.name == "README.md" and len(lines) > 80 else faults


# What each check finds in a text with mistakes.
MISTAKES = {
    unknown_options: ("`glode tag --num_neighbors 3` `--no_such_option` `--threshold`", ["--num_neighbors", "--no_such_option"]),
    unknown_commands: ("`glode fly`, `make tea`, `--config tiny`, `.[moon]`, `glode tag`", ["fly", "tea", "tiny", "moon"]),
    dead_links: ("[a](docs/none.md) [b](README.md#none) [c](README.md#results)", ["docs/none.md", "README.md#none"]),
    missing_files: ("`glode/none.py`, `none.py`, `glode/errors.py`, `handler.py`", ["glode/none.py", "none.py"]),
    unknown_names: ("`glode.errors.Nothing`, `NoSuchModel`, `GlodeModel`, `no_such_name`", None),
    broken_python: ("```python\nfrom glode import nothing\n```\n```python\nx = (\n```\n", None),
    wrong_defaults: ("| option | default | x |\n|-|-|-|\n| `--num_neighbors`, `--beta_end` | 300, 0.9 | |\n", ["--beta_end 0.9"]),
    figures_of_elsewhere: ("\n## Results\n| **GLoDe** | 100.1 |\n", ["**GLoDe**: 100.1"]),
    long_lines: ("short\n" * 81 + "long" * 31, ["long" * 31, "82 lines"]),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.parametrize("check", MISTAKES, ids=lambda check: check.__name__)
def test_pages_are_true(check, page: Path):
    assert check(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("check", MISTAKES, ids=lambda check: check.__name__)
def test_checks_find_mistakes(check):
    text, faults = MISTAKES[check]
    found = check(ROOT / "README.md", text)
    assert found == faults if faults is not None else len(found) in (2, 3), found


def test_every_page_is_reached():
    """From the README, in any number of steps."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
            waiting += [page.parent / link for link in links if not link.startswith("https://")]
    assert [page for page in PAGES if page not in reached] == []
