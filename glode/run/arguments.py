"""What a run is told: the arguments of the command line and of `--config` files, and the help on them."""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from transformers import AutoConfig, HfArgumentParser, TrainingArguments

from glode.corpora.options import SCHEMES
from glode.errors import InputError
from glode.run.embedded import DEMO_BACKBONE, DEMO_WIDTH
from glode.run.help import ShowHelp
from glode.training.arguments import GlodeTrainingArguments
from glode.training.options import check_trainer_options

PROGRAM = "run_crossner.py"
RECIPES = Path(__file__).parent / "recipes"
_RANGES: dict[str, tuple[tuple[str, ...], Callable[[float], bool]]] = {
    "from 1 on": (
        (
            *("max_source_samples", "max_target_samples", "max_span_length", "projection_size", "num_neighbors"),
            *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "beta_epochs"),
            *("datastore_size", "num_teachers", "rounds"),
        ),
        lambda value: value >= 1,
    ),
    "from 8 on": (("max_tokens",), lambda value: value >= 8),
    "above 0": (
        (
            *("num_train_epochs", "source_num_train_epochs", "token_classifier_epochs", "learning_rate", "head_learning_rate"),
            "target_train_weight",
        ),
        lambda value: 0 < value < math.inf,
    ),
    "from 0 to 1": (
        (
            *("neighbor_share", "prototype_decay", "beta_start", "beta_end", "datastore_outside_share", "mlm_probability"),
            *("confidence_threshold", "dropout", "refine_start"),
        ),
        lambda value: 0 <= value <= 1,
    ),
    "from 0 on": (
        (
            *("mlm_weight", "contrastive_weight", "local_threshold_scale", "weight_decay", "pseudo_labels_in_memory"),
            *("mlm_head_warmup_steps",),
        ),
        lambda value: 0 <= value < math.inf,
    ),
}
SMALL_WIDTH = 768  # an encoder of fewer hidden units is small
RECIPE_NAMES = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
DESCRIPTION = (
    "Trains a named-entity recogniser for a language without labels, from labels in another language. With --target_lang alone "
    "it takes the embedded demo corpus and the embedded encoder. The defaults below are the paper's: without --config the demo's "
    "recipe, or the one that fits the encoder (paper or small), sets other values, and the line `settings` of a run says which."
)
_NOTHING: tuple = ("", "~", "null", "Null", "NULL", [])  # of YAML: the argument keeps its default


@dataclass
class DataArguments:
    """What is read."""

    target_lang: str = field(
        metadata={
            "help": "Language without labels, such as zh; the configuration of a Hub data set. Several make one model: de,es,nl."
        }
    )
    source_lang: str = field(default="en", metadata={"help": "Language with labels."})
    source_train: str | None = field(
        default=None,
        metadata={
            "help": "Labelled source corpus: columns (tag last), .jsonl or .json (tokens and tags, or text and offsets), "
            ".parquet, .spacy or a directory of `datasets`; also as .gz, .bz2, .xz or .zst."
        },
    )
    source_dev: str | None = field(
        default=None,
        metadata={"help": "Labelled source development set, which chooses the checkpoint. Default: a tenth of the training set."},
    )
    source_test: str | None = field(default=None, metadata={"help": "Labelled source test set, for the report."})
    target_unlabeled: list[str] | None = field(
        default=None,
        metadata={
            "help": "Target text, one file or several: .txt of sentences or paragraphs, or a labelled corpus, whose tags only "
            "the report reads. With several target languages: de=FILE es=FILE."
        },
    )
    target_test: list[str] | None = field(
        default=None,
        metadata={"help": "Labelled target test set, for the report. With several target languages: de=FILE es=FILE."},
    )
    target_train: list[str] | None = field(
        default=None,
        metadata={
            "help": "Labelled target sentences, a few or many, that the target stage learns as well; their labels stay as they "
            "are. With several target languages: de=FILE es=FILE."
        },
    )
    label_map: str | None = field(
        default=None,
        metadata={"help": "Renames, merges and drops types of all corpora: FIRST=PER,LAST=PER,MISC=O."},
    )
    encoding: str = field(default="utf-8", metadata={"help": "Encoding of the corpora that are not UTF-8, such as latin-1."})
    encoding_errors: str = field(
        default="strict",
        metadata={
            "help": "What to do where bytes are no text: end with a message, or replace them by U+FFFD and count them.",
            "choices": ["strict", "replace"],
        },
    )
    token_column: str | None = field(
        default=None,
        metadata={"help": "Column of the words, where a file does not show it: 1 is the first, -1 the last; or its name."},
    )
    tag_column: str | None = field(
        default=None, metadata={"help": "Column of the tags, the same; in CoNLL-U also a key of the last column, such as NER."}
    )
    scheme: str | None = field(
        default=None, metadata={"help": "Label scheme of the tags, where they do not show it.", "choices": list(SCHEMES)}
    )
    text_field: str | None = field(default=None, metadata={"help": "Key of the text in JSON records. Default: text."})
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Data set on the Hub in place of files, such as unimelb-nlp/wikiann; one configuration a language. Or a "
            "directory, with one below it for each language."
        },
    )
    max_source_samples: int | None = field(default=None, metadata={"help": "Use only the first source training sentences."})
    max_target_samples: int | None = field(
        default=None, metadata={"help": "Use only the first target training sentences of each language."}
    )

    @property
    def target_languages(self) -> list[str]:
        """The languages of `target_lang`."""
        return list(dict.fromkeys(name.strip() for name in self.target_lang.split(",") if name.strip()))


ATTENTION = ["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]


@dataclass
class ModelArguments:
    """What is trained."""

    model_name_or_path: str = field(
        default=DEMO_BACKBONE,
        metadata={
            "help": "Encoder: a Hub name or a directory. e5-small is the embedded multilingual-e5-small, trimmed to the corpora."
        },
    )
    max_span_length: int | None = field(
        default=None, metadata={"help": "L, the longest entity in words. Default: covers 99.5 % of the source's entities."}
    )
    max_tokens: int = field(
        default=256, metadata={"help": "Tokens a window; longer sentences become several overlapping windows."}
    )
    cut_sentences: bool = field(
        default=False,
        metadata={
            "help": "Lose what of a sentence is beyond max_tokens, in training and in the run's scores; tagging never does."
        },
    )
    dropout: float = field(default=0.2, metadata={"help": "Dropout in the encoder and on its output."})
    projection_size: int = field(default=128, metadata={"help": "Size of the vectors that the denoiser compares."})
    attn_implementation: str = field(
        default="sdpa",
        metadata={"help": "Attention of the encoder. One that it does not know becomes eager.", "choices": ATTENTION},
    )


@dataclass
class RunArguments:
    """What is done."""

    config: str | None = field(
        default=None,
        metadata={
            "help": f"YAML file with any of these arguments, or the name of a recipe: {RECIPE_NAMES}. The command line wins."
        },
    )
    stage: str = field(
        default="all",
        metadata={
            "help": "Train the source model, the target model (with --teachers or --pseudo_labels) or both.",
            "choices": ["all", "source", "target"],
        },
    )
    teachers: list[str] | None = field(
        default=None,
        metadata={
            "help": "Directories of source models that are there already, one or several, whose soft labels are averaged; "
            "--source_model is the same.",
            "aliases": ["--source_model"],
        },
    )
    num_teachers: int = field(
        default=1, metadata={"help": "Source models to train, with the seeds that follow --seed; the first one is reported."}
    )
    rounds: int = field(
        default=1, metadata={"help": "Target stages; from the second on, the target model of the one before is the teacher."}
    )
    calibrate: str = field(
        default="none",
        metadata={
            "help": "How sure pseudo labels are: as the teacher says (none), as it is right on source dev (dev: a temperature), "
            "or as the other teachers agree on the target text (teachers: a temperature and a bias towards O; needs several).",
            "choices": ["none", "dev", "teachers"],
        },
    )
    pseudo_labels: str | None = field(
        default=None,
        metadata={
            "help": "Pseudo labels that are there already: a pseudo_labels.safetensors, or JSON lines of the target text with "
            "entities and their scores, as `glode tag` writes them."
        },
    )
    export_token_classifier: bool = field(
        default=False,
        metadata={
            "help": "Also train a built-in token classifier on the source labels and the refined pseudo labels, for the hosted "
            "widget and ONNX. Goes to token_classifier/ and, with --push_to_hub, to a repository of its own, ID-tokens."
        },
    )
    token_classifier_epochs: float = field(default=2, metadata={"help": "Epochs of the token classifier's training."})
    license: str | None = field(default=None, metadata={"help": "The model's license, for its card, as the Hub names it."})
    widget_examples: list[str] | None = field(
        default=None, metadata={"help": "Sentences for the card and the widget. Default: some of ours in the target language."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete what another run has left in --output_dir. Without it such a run is refused."}
    )
    keep_checkpoints: bool = field(
        default=False,
        metadata={"help": "Keep the stages' checkpoints when the run has ended; neither using nor resuming it needs them."},
    )
    model_cache: str = field(
        default=f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/glode",
        metadata={"help": "Where the embedded encoder is converted to."},
    )
    config_reason: str | None = field(default=None, init=False)  # why this recipe, where the run chose it itself
    warmup_is_given: bool = field(default=False, init=False)  # on the command line or in a file of one's own


KINDS = (DataArguments, RunArguments, ModelArguments, GlodeTrainingArguments)
TRAINING = (
    *("num_train_epochs", "source_num_train_epochs", "learning_rate", "head_learning_rate", "lr_scheduler_type"),
    *("one_cycle", "warmup_steps", "weight_decay", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "activation_checkpointing", "bf16", "fp16", "seed", "eval_strategy", "save_strategy"),
    *("save_total_limit", "load_best_model_at_end", "metric_for_best_model", "early_stopping_patience"),
)
RUN = (
    *("config", "stage", "teachers", "num_teachers", "rounds", "calibrate", "pseudo_labels", "output_dir", "overwrite"),
    "resume_from_checkpoint",
    *("keep_checkpoints", "model_cache", "log_level", "logging_steps", "report_to", "use_cpu"),
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
    config = _value_of(argv, "--config")
    reason = None
    if config is None:
        config, reason = _fitting_recipe(argv)
    path = config and recipe_path(config)
    known = {action.dest: action.nargs for action in parser._actions}
    known |= {alias.removeprefix("--"): parser._option_string_actions[alias].nargs for alias in _aliases()}
    from_file = _config_arguments(path, known) if path else []
    beneath: list[str] = []
    if path and recipe_name(path) is None and not _value_of([*argv, *from_file], "--learning_rate"):
        recipe, why = _fitting_recipe([*argv, *from_file])
        if recipe and why:
            beneath, reason = _config_arguments(recipe_path(recipe), known), f"{path}; {why}"
    given = [*beneath, *from_file, *argv]
    try:
        data, run, model, training, rest = parser.parse_args_into_dataclasses(given, return_remaining_strings=True)
    except ValueError as error:  # what TrainingArguments refuses
        raise InputError(f"{' '.join(str(error).split())} See --help for the arguments.") from error
    _refuse_unknown(parser, rest)
    _check(data, model, training, run)
    check_trainer_options(training)
    run.config, run.config_reason = path, reason
    own = from_file if recipe_name(path) is None else []
    run.warmup_is_given = _value_of([*own, *argv], "--warmup_steps") is not None
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


def _fitting_recipe(argv: Sequence[str]) -> tuple[str | None, str | None]:
    """The recipe of a run that names none, and why: the demo's, or the one for an encoder of this size. None where the encoder
    cannot be read, which ends the run later."""
    if not any(_value_of(argv, f"--{name}") for name in ("source_train", "target_unlabeled", "dataset_name")):
        return "demo", None
    backbone = _value_of(argv, "--model_name_or_path") or DEMO_BACKBONE
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


def _value_of(argv: Sequence[str], option: str) -> str | None:
    """The value of an option, which the parser also takes with dashes for underscores (--source-train)."""
    for position, part in enumerate(argv):
        name, equals, value = part.partition("=")
        if name.replace("-", "_") != option.replace("-", "_"):
            continue
        return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def _config_arguments(path: str, known: Mapping[str, int | str | None]) -> list[str]:
    """The arguments of a configuration, as on a command line. Values are text as it stands there: `no` is Norwegian.

    Args:
        known: the arguments that there are, and how many values each takes, as argparse says it.
    Raises:
        InputError: see `parse_arguments`.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check --config.") from None
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


def _check(data: DataArguments, model: ModelArguments, training: GlodeTrainingArguments, run: RunArguments) -> None:
    """What can be told from the arguments alone.

    Raises:
        InputError: a number is out of range, or arguments contradict each other.
    """
    values = {name: value for arguments in (data, model, training, run) for name, value in vars(arguments).items()}
    for told, (names, fits) in _RANGES.items():
        for name in names:
            if (value := values.get(name)) is not None and not fits(value):
                raise InputError(f"--{name} {value} is out of range: expected a number {told}.")
    if (wanted := training.resume_from_checkpoint) and wanted != "auto":
        stage = Path(wanted).resolve().parent
        if not (Path(wanted).is_dir() and stage.name in _stages(run) and stage.parent == Path(training.output_dir).resolve()):
            raise InputError(
                f"--resume_from_checkpoint {wanted}: no checkpoint of --output_dir {training.output_dir}. Give auto."
            )
    if training.resume_from_checkpoint and run.overwrite:
        raise InputError("--overwrite deletes what --resume_from_checkpoint goes on with. Give one of them.")
    if training.push_to_hub and run.stage == "source" and run.teachers:
        raise InputError("--push_to_hub: --stage source with --teachers trains nothing that could be pushed.")
    if run.export_token_classifier and run.stage == "source":
        raise InputError("--export_token_classifier learns the pseudo labels of the target stage: give --stage all or target.")
    if data.target_train and run.stage == "source":
        raise InputError("--target_train joins the target stage, which --stage source leaves out. Give --stage all or target.")
    _check_teachers(run)


def _check_teachers(run: RunArguments) -> None:
    """Whether what is said of teachers and rounds can be done.

    Raises:
        InputError: it cannot, or would do nothing.
    """
    if run.num_teachers > 1 and (run.teachers or run.pseudo_labels or run.stage == "target"):
        raise InputError(
            "--num_teachers says how many source models are trained; --teachers, --pseudo_labels and --stage target train none. "
            "Leave it out."
        )
    if run.rounds > 1 and run.stage == "source":
        raise InputError("--rounds repeats the target stage, which --stage source leaves out. Give --stage all.")
    if run.calibrate != "none" and (run.stage == "source" or (run.pseudo_labels and run.rounds == 1)):
        raise InputError("--calibrate: no model labels the target text in this run. Leave it out.")
    if run.calibrate == "teachers" and max(run.num_teachers, len(run.teachers or ())) < 2:
        raise InputError(
            "--calibrate teachers asks how far several teachers agree: give --num_teachers 3, or several --teachers."
        )


def _stages(run: RunArguments) -> set[str]:
    """The directories of the checkpoints that a run makes."""
    stages = {"source": run.num_teachers, "target": run.rounds}
    return {checkpoints(stage, number) for stage, most in stages.items() for number in range(1, most + 1)}


def numbered(name: str, number: int) -> str:
    """How the parts of several teachers and rounds are called: source_model, source_model_2, and so on."""
    return name if number == 1 else f"{name}_{number}"


def checkpoints(stage: str, number: int) -> str:
    """The directory of a stage's checkpoints: source_checkpoints, source_2_checkpoints, and so on."""
    return f"{numbered(stage, number)}_checkpoints"
