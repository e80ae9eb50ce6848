"""Settings in a file: the recipes that are shipped, which of them fits an encoder, and `--config` files of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from transformers import AutoConfig

from glode.errors import InputError
from glode.run.embedded import DEMO_BACKBONE, DEMO_WIDTH

_NOTHING: tuple = ("", "~", "null", "Null", "NULL", [])  # of YAML: the argument keeps its default
RECIPES = Path(__file__).parent / "recipes"
RECIPE_NAMES = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
SMALL_WIDTH = 768  # an encoder of fewer hidden units is small


def fitting_recipe(argv: Sequence[str]) -> tuple[str | None, str | None]:
    """The recipe of a run that names none, and why: the demo's, or the one for an encoder of this size. None where the encoder
    cannot be read, which ends the run later."""
    if not any(value_of(argv, f"--{name}") for name in ("source_train", "target_unlabeled", "dataset_name")):
        return "demo", None
    backbone = value_of(argv, "--model_name_or_path") or DEMO_BACKBONE
    width = DEMO_WIDTH
    if backbone != DEMO_BACKBONE:
        try:
            width = getattr(AutoConfig.from_pretrained(backbone), "hidden_size", SMALL_WIDTH)
        except (OSError, ValueError, KeyError):
            return None, None
    if width < SMALL_WIDTH:
        return "small", f"the encoder is small ({width} wide): recipe small, not the paper's rates (--config paper)"
    return "paper", f"the encoder is {width} wide: the paper's settings (--config small has those for small encoders)"


def recipe_path(config: str) -> str:
    """A `--config` as a path: a file, or the name of a recipe that is shipped, such as small."""
    shipped = RECIPES / f"{config}.yaml"
    return str(shipped) if shipped.is_file() and not Path(config).is_file() else config


def recipe_name(path: str | None) -> str | None:
    """The name of a recipe that is shipped, None for a file of one's own."""
    return Path(path).stem if path and Path(path).resolve().parent == RECIPES.resolve() else None


def value_of(argv: Sequence[str], option: str) -> str | None:
    """The value of an option, which the parser also takes with dashes for underscores (--source-train); if it is there more than
    once the last counts, as it does for the parser."""
    for position, part in reversed(list(enumerate(argv))):
        name, equals, value = part.partition("=")
        if name.replace("-", "_") == option.replace("-", "_"):
            return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def config_arguments(path: str, known: Mapping[str, int | str | None]) -> list[str]:
    """The arguments of a configuration, as on a command line. Values are text as it stands there: `no` is Norwegian.

    Args:
        known: the arguments that there are, and how many values each takes, as argparse says it.
    Raises:
        InputError: see `parse_arguments`.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check --config; recipes are {RECIPE_NAMES}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start} ({error.reason}). Convert it to UTF-8.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}. Correct it.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `argument: value` lines.")
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{path}: unknown argument {unknown[0]!r}. See --help.")
    for name, value in values.items():
        is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not isinstance(value, str) and not (is_list and (known[name] in ("*", "+") or len(value) < 2)):
            raise InputError(f"{path}: {name} cannot be {value}. Give one value, or a plain list to an option of several.")
        if known[name] == "?" and isinstance(value, str):  # a switch: YAML has two more words for it than argparse
            values[name] = {"on": "true", "off": "false"}.get(value.lower(), value)
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items() if value not in _NOTHING}
    return [part for name, value in lists.items() for part in (f"--{name}", *map(str, value))]
