"""What a run is told: the arguments of the command line and of `--config` files."""

import os
from dataclasses import dataclass, field

from glode.corpora.options import SCHEMES
from glode.run.config import RECIPE_NAMES
from glode.run.embedded import DEMO_BACKBONE
from glode.training.arguments import GlodeTrainingArguments

ATTENTION = ["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]


@dataclass
class DataArguments:
    """What is read."""

    target_lang: str = field(
        metadata={
            "help": "Language without labels, such as zh; the configuration of a Hub data set. Several make one model: de,es,nl."
        }
    )
    source_lang: str = field(
        default="en",
        metadata={"help": "Language with labels. Several teach one model, each as much as the others: en,es."},
    )
    source_train: list[str] | None = field(
        default=None,
        metadata={
            "help": "Labelled source corpus, one file or several: columns (tag last), .jsonl or .json (tokens and tags, or text "
            "and offsets), .parquet, .spacy or a directory of `datasets`; also as .gz, .bz2, .xz or .zst. With several source "
            "languages: en=FILE es=FILE."
        },
    )
    source_dev: list[str] | None = field(
        default=None,
        metadata={
            "help": "Labelled source development set, which chooses the checkpoint. Default: a tenth of the training set, of "
            "each language that has none. With several source languages: en=FILE es=FILE."
        },
    )
    source_test: list[str] | None = field(
        default=None,
        metadata={"help": "Labelled source test set, for the report. With several source languages: en=FILE es=FILE."},
    )
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
    max_source_samples: int | None = field(
        default=None, metadata={"help": "Use only the first source training sentences of each language."}
    )
    max_target_samples: int | None = field(
        default=None, metadata={"help": "Use only the first target training sentences of each language."}
    )

    @property
    def source_languages(self) -> list[str]:
        """The languages of `source_lang`."""
        return _named(self.source_lang)

    @property
    def target_languages(self) -> list[str]:
        """The languages of `target_lang`."""
        return _named(self.target_lang)


def _named(languages: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in languages.split(",") if name.strip()))


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
    units: str = field(
        default="piece",
        metadata={
            "help": "How scripts without spaces are cut: by the tokenizer's pieces of running text, where an entity cannot end "
            "within a piece, or each character by itself. It stands in the model's configuration.",
            "choices": ["piece", "character"],
        },
    )
    dropout: float = field(default=0.2, metadata={"help": "Dropout in the encoder and on its output."})
    projection_size: int = field(default=128, metadata={"help": "Size of the vectors that the denoiser compares."})
    attn_implementation: str = field(
        default="sdpa",
        metadata={"help": "Attention of the encoder. One that it does not know becomes eager.", "choices": ATTENTION},
    )
    lora_rank: int | None = field(
        default=None,
        metadata={
            "help": "Train adapters of this rank in the encoder's linear layers in place of its weights, such as 16, for large "
            "encoders; the result has them merged. Needs the extra lora, and rates of about ten times those of whole weights."
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "An adapter's share is scaled by lora_alpha / lora_rank. Default: twice the rank."}
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
            "help": "Who labels the target text, one or several, whose soft labels are averaged: directories of source models; "
            "token classifiers and GLiNER models, on disk or on the Hub; chat models as ADDRESS#MODEL, such as "
            "https://api.openai.com/v1#gpt-4o-mini, with the key in OPENAI_API_KEY; .jsonl files as in --pseudo_labels. "
            "--source_model is the same.",
            "aliases": ["--source_model"],
        },
    )
    teacher_price: str | None = field(
        default=None,
        metadata={"help": "Price of a million tokens that a chat model reads, and that it writes, which is shown: 0.15,0.60."},
    )
    teacher_requests: int = field(default=8, metadata={"help": "Requests to a chat model at the same time."})
    pretrain_epochs: float = field(
        default=0,
        metadata={
            "help": "Before the stages, let the encoder read the text of both languages as a masked language model for so many "
            "epochs; the stages start from what comes of it. As --mlm_probability, --mlm_whole_words and --mlm_hide_masked say."
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
    save_adapter: bool = field(
        default=False,
        metadata={"help": "Beside each model of --lora_rank, keep in adapter/ what peft.PeftModel loads onto the encoder."},
    )
    model_cache: str = field(
        default=f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/glode",
        metadata={"help": "Where the embedded encoder is converted to, and the answers of chat models are kept."},
    )
    config_reason: str | None = field(default=None, init=False)  # why this recipe, where the run chose it itself
    warmup_is_given: bool = field(default=False, init=False)  # on the command line or in a file of one's own


KINDS = (DataArguments, RunArguments, ModelArguments, GlodeTrainingArguments)
