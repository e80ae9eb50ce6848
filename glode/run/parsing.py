"""The command line of a run: its parser, its help by groups, and how it joins with a `--config` file."""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from glode.errors import InputError
from glode.run.arguments import KINDS, DataArguments, ModelArguments, RunArguments
from glode.run.checks import check_arguments
from glode.run.config import config_arguments, fitting_recipe, recipe_name, recipe_path, value_of
from glode.run.help import ShowHelp
from glode.training.arguments import GlodeTrainingArguments
from glode.training.options import check_trainer_options

PROGRAM = "run_crossner.py"
DESCRIPTION = (
    "Trains a named-entity recogniser for a language without labels, from labels in another language. With --target_lang alone "
    "it takes the embedded demo corpus and the embedded encoder. The defaults below are the paper's: without --config the demo's "
    "recipe, or the one that fits the encoder (paper or small), sets other values, and the line `settings` of a run says which."
)
TRAINING = (
    *("num_train_epochs", "source_num_train_epochs", "learning_rate", "head_learning_rate", "lr_scheduler_type"),
    *("one_cycle", "warmup_steps", "weight_decay", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "activation_checkpointing", "bf16", "fp16", "tf32", "seed"),
    *("eval_strategy", "save_strategy"),
    *("save_total_limit", "load_best_model_at_end", "metric_for_best_model", "early_stopping_patience"),
)
RUN = (
    *(
        "config",
        "stage",
        "teachers",
        "teacher_price",
        "teacher_requests",
        "pretrain_epochs",
        "num_teachers",
        "rounds",
        "calibrate",
        "pseudo_labels",
        "output_dir",
        "overwrite",
    ),
    "resume_from_checkpoint",
    *("keep_checkpoints", "save_adapter", "model_cache", "log_level", "logging_steps", "report_to", "use_cpu"),
)
PUBLISHING = (
    *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_token", "hub_revision", "license"),
    *("widget_examples", "export_token_classifier", "token_classifier_epochs"),
)


def argument_groups() -> dict[str, list[str]]:
    """The arguments under each heading of the help, each in one of them; the last group has what every Trainer has."""
    settings = _names(GlodeTrainingArguments)
    groups = {
        "data": _names(DataArguments),
        "model": _names(ModelArguments),
        "method": [],
        "training": list(TRAINING),
        "run": list(RUN),
        "publishing": list(PUBLISHING),
    }
    named = {name for group in groups.values() for name in group}
    inherited = {*_names(TrainingArguments)}
    groups["method"] = [name for name in settings if name not in inherited | named]
    return groups | {"every Trainer's": [name for name in settings if name in inherited - named]}


def _names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init]


def _aliases() -> list[str]:
    return [alias for kind in KINDS for f in dataclasses.fields(kind) for alias in f.metadata.get("aliases", ())]


def make_parser(program: str = PROGRAM) -> HfArgumentParser:
    """The parser of the command line, with its help; `program` is what that calls the command."""
    parser = HfArgumentParser(
        KINDS,
        description=DESCRIPTION,
        prog=program,
        usage="%(prog)s --target_lang LANGUAGE [--config NAME|FILE] [OPTION VALUE ...]",
        allow_abbrev=False,
        add_help=False,
    )
    for action in parser._actions:
        if action.type is string_to_bool:  # --bf16 alone is --bf16 true, also where the default is neither
            action.nargs, action.const = "?", True
    groups = argument_groups()
    usual = dict(list(groups.items())[:-1])
    parser.add_argument("-h", "--help", action=ShowHelp, groups=usual, help="Show this help.")
    parser.add_argument("--help_all", action=ShowHelp, groups=groups, help="Show what every Trainer has as well.")
    return parser


def parse_arguments(
    argv: Sequence[str], program: str = PROGRAM
) -> tuple[DataArguments, ModelArguments, GlodeTrainingArguments, RunArguments]:
    """Command line over `--config` file over defaults. Without a corpus of one's own, the recipe of the demo is the file; a file
    of one's own that leaves the learning rate open stands over the recipe that fits the encoder.

    Raises:
        InputError: the file is missing or is not a flat YAML mapping of known arguments; arguments contradict each other.
    """
    parser = make_parser(program)
    _refuse_unknown(parser, [part for part in argv if _is_unknown(parser, part)])
    config = value_of(argv, "--config")
    reason = None
    if config is None:
        config, reason = fitting_recipe(argv)
    path = config and recipe_path(config)
    known = {action.dest: action.nargs for action in parser._actions}
    known |= {alias.removeprefix("--"): parser._option_string_actions[alias].nargs for alias in _aliases()}
    from_file = config_arguments(path, known) if path else []
    beneath: list[str] = []
    if path and recipe_name(path) is None and not value_of([*from_file, *argv], "--learning_rate"):
        recipe, why = fitting_recipe([*from_file, *argv])
        if recipe and why:
            beneath, reason = config_arguments(recipe_path(recipe), known), f"{path}; {why}"
    given = [*beneath, *from_file, *argv]
    try:
        data, run, model, training, rest = parser.parse_args_into_dataclasses(given, return_remaining_strings=True)
    except ValueError as error:  # what TrainingArguments refuses
        raise InputError(f"{' '.join(str(error).split())} See --help for the arguments.") from error
    _refuse_unknown(parser, rest)
    check_arguments(data, model, training, run)
    check_trainer_options(training)
    run.config, run.config_reason = path, reason
    own = from_file if recipe_name(path) is None else []
    run.warmup_is_given = value_of([*own, *argv], "--warmup_steps") is not None
    return data, model, training, run


def _is_unknown(parser: HfArgumentParser, part: str) -> bool:
    """Whether a part of the command line looks like an option and is none."""
    return re.match(r"--\w", part) is not None and part.partition("=")[0] not in parser._option_string_actions


def _refuse_unknown(parser: HfArgumentParser, unknown: Sequence[str]) -> None:
    """End with a usage error that names the option that was meant, where there are unknown arguments."""
    if not unknown:
        return
    known = [f"--{action.dest}" for action in parser._actions]
    wanted = (part.partition("=")[0].lstrip("-").replace("-", "_") for part in unknown)
    likes = [like for name in wanted for like in difflib.get_close_matches(f"--{name}", known, n=1)]
    meant = f" Did you mean {likes[0]}?" if likes else ""
    parser.error(f"there is no argument {' '.join(unknown)}.{meant}")
