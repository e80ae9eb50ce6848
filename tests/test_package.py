"""Protects the installation: the wheel holds all that runs and nothing else, works from another directory, says which Python and
packages it takes; importing it takes no time."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support import ROOT
from test_architecture import imported_by, modules

import glode
from glode.command import COMMANDS

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
AT_THE_TOP = {"modeling_glode.py", "trainer_glode.py", "run_crossner.py"}
IMPORTS = """
import sys
{code}
loaded = {{"torch", "transformers", "datasets", "accelerate", "faiss", "evaluate"}} & set(sys.modules)
print(*sorted(loaded))
"""


def python(*arguments: str, cwd: Path, path: Path = ROOT) -> str:
    """What a fresh Python prints that finds this project in `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# ------------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source archive, which therefore holds all that it takes."""
    directory = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT), cwd=directory)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """A directory with the wheel's files, as `pip install` lays them out."""
    directory = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-compile", "--no-index", "--disable-pip-version-check")
    python("-m", "pip", "install", *options, "--target", str(directory), str(wheel), cwd=directory)
    return directory


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    assert wheel.name == f"glode-{glode.__version__}-py3-none-any.whl"
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = (path for path in (ROOT / "glode").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {str(path.relative_to(ROOT)) for path in package}
    assert held == expected | AT_THE_TOP | {"glode/publishing/model_card.md"}


def test_what_the_wheel_says_of_itself(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        (points,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "\nRequires-Python: >=3.11\n" in metadata and "\nLicense-Expression: Apache-2.0\n" in metadata
    extras = {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if line.startswith("Provides-Extra: ")}
    assert extras == PROJECT["optional-dependencies"].keys() >= {"app", "onnx", "gpu", "spacy", "dev"}
    assert "[console_scripts]\nglode = glode.command:main\n" in points
    assert "[spacy_factories]\nglode = glode.serving.spacy_component:create\n" in f"{points}\n"


@pytest.mark.slow
def test_used_from_another_directory(installed: Path, tmp_path: Path):
    """The model's code, the endpoint's handler, the card's templates, the demo corpus and the recipes are found."""
    code = """
import json, pathlib, yaml, glode, modeling_glode
from glode.corpora.reading import load_corpus
from glode.publishing.card import CARD, TOKENS_CARD
from glode.publishing.hub import copy_code
from glode.run.embedded import DEMO_DIRECTORY, demo_languages

copy_code(pathlib.Path("model"))
recipes = sorted(pathlib.Path(glode.__file__).parent.glob("run/recipes/*.yaml"))
print(json.dumps({
    "from": [module.__file__ for module in (glode, modeling_glode)],
    "model": glode.GlodeModel.__module__,
    "cards": [path.read_text(encoding="utf-8")[:3] for path in (CARD, TOKENS_CARD)],
    "code": sorted(path.name for path in pathlib.Path("model").iterdir()),
    "languages": demo_languages(),
    "sentences": len(load_corpus(str(DEMO_DIRECTORY / "en" / "dev.iob2"), True)),
    "recipes": {path.stem: sorted(yaml.safe_load(path.read_text())) for path in recipes},
}))
"""
    found = json.loads(python("-c", code, cwd=tmp_path, path=installed).splitlines()[-1])
    assert found["from"] == [str(installed / "glode" / "__init__.py"), str(installed / "modeling_glode.py")]
    assert found["model"] == "modeling_glode" and found["code"] == ["handler.py", "modeling_glode.py"]
    assert found["cards"] == ["---", "---"] and found["languages"] == ["ar", "de", "es", "hi", "nl", "zh"]
    assert found["sentences"] > 50 and {"demo", "small"} <= found["recipes"].keys() and all(found["recipes"].values())


@pytest.mark.slow
def test_trains_and_tags_from_another_directory(installed: Path, backbone: Path, tmp_path: Path):
    """`glode train` and `glode tag` work, and `accelerate launch -m run_crossner` finds its command."""
    (tmp_path / "en.iob2").write_text("Anna\tB-PER\nsings\tO\nin\tO\nOslo\tB-LOC\n\nIda\tB-PER\nmet\tO\nLea\tB-PER\n\n" * 4)
    (tmp_path / "de.txt").write_text("Otto wohnt in Kiel .\nEs regnet .\n")
    options = "--source_train en.iob2 --source_dev en.iob2 --target_unlabeled de.txt --target_lang de --use_cpu true "
    options += f"--model_name_or_path {backbone} --num_train_epochs 1 --per_device_train_batch_size 4 --disable_tqdm true"
    python("-m", "glode", "train", *options.split(), "--output_dir", "model", cwd=tmp_path, path=installed)
    launch = ("-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "-m", "run_crossner", "--help")
    assert "--target_unlabeled" in python(*launch, cwd=tmp_path, path=installed)
    tag = ("-m", "glode", "tag", "--model", "model", "--input", "de.txt", "--output", "tagged.jsonl")
    python(*tag, cwd=tmp_path, path=installed)
    assert [line.count('"text": ') > 0 for line in (tmp_path / "tagged.jsonl").read_text().splitlines()] == [True, True]


# ------------------------------------------------------------------------------------------------ Python and packages


def test_the_python_that_it_takes():
    """One least version, in every place that names one; this Python is in the range."""
    wanted = SpecifierSet(PROJECT["requires-python"])
    (least,) = (part.version for part in wanted)
    assert SETTINGS["tool"]["mypy"]["python_version"] == least
    assert "target-version" not in SETTINGS["tool"]["ruff"]  # ruff takes requires-python
    prefix = "Programming Language :: Python :: 3."
    named = [f"3.{entry.removeprefix(prefix)}" for entry in PROJECT["classifiers"] if entry.startswith(prefix)]
    assert named[0] == least and all(version in wanted for version in named)
    assert ".".join(map(str, sys.version_info[:2])) in named


def requirements(*lines: str) -> dict[str, Requirement]:
    return {found.name: found for found in map(Requirement, lines)}


def lines_of(name: str) -> list[str]:
    """What a requirements file asks for, without comments and this project itself."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-e")]


def test_requirements_files_and_extras_agree():
    """CI pins the torch that it tests, within the package's range; the gpu extra and its file ask for the same."""
    torch = requirements(*PROJECT["dependencies"])["torch"]
    assert lines_of("requirements.txt") == lines_of("requirements-dev.txt")
    (pinned,) = requirements(*lines_of("requirements.txt"))["torch"].specifier
    assert pinned.operator == "==" and pinned.version in torch.specifier
    assert lines_of("requirements-gpu.txt") == PROJECT["optional-dependencies"]["gpu"]


def test_what_the_code_imports_is_asked_for():
    """Each package that the product imports belongs to the install, to an extra, or to an InputError that names it."""
    imported = {name for module in modules() for name in imported_by(module)} - set(sys.stdlib_module_names)
    extras = (entry for extra, entries in PROJECT["optional-dependencies"].items() if extra != "dev" for entry in entries)
    packages = {name.replace("-", "_").lower() for name in requirements(*PROJECT["dependencies"], *extras)}
    modules_of_others = {"backports", "compression", "faiss", "yaml"}  # named otherwise than their packages, or Python's own
    come_along = {"numpy", "pyarrow", "tokenizers", "tqdm"}  # of transformers and datasets
    assert imported - modules().keys() <= packages | modules_of_others | come_along


# ------------------------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import glode; dir(glode); glode.InputError", ""),
        ("from glode.command import main; main(['--help']); print()", ""),
        ("import glode.corpora.reading", "datasets"),
        ("from glode import load_corpus; load_corpus('en.iob2', True)", "datasets"),
    ],
)
def test_what_an_import_loads(code: str, loaded: str, tmp_path: Path):
    (tmp_path / "en.iob2").write_text("Anna\tB-PER\nsings\tO\n")
    assert python("-c", IMPORTS.format(code=code), cwd=tmp_path).splitlines()[-1] == loaded


def test_every_name_is_there():
    for name in glode.__all__:
        assert getattr(glode, name) is not None
    assert dir(glode) == sorted(glode.__all__)
    with pytest.raises(AttributeError, match=" has no attribute ") as raised:
        glode.GlodeTagger  # noqa: B018
    assert str(raised.value) == "module 'glode' has no attribute 'GlodeTagger'"


def test_every_subcommand_has_its_module():
    assert all(importlib.util.find_spec(module) for module, _ in COMMANDS.values())
