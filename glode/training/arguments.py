"""The arguments of training."""

from dataclasses import dataclass, field, fields, replace

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_xla_available

from glode.denoising.baselines import BASELINES, denoiser_class
from glode.denoising.settings import DenoisingSettings
from glode.errors import InputError


@dataclass
class GlodeTrainingArguments(TrainingArguments):
    """The method's settings, beside those of every Trainer. Defaults are the paper's."""

    output_dir: str = field(default="glode-model", metadata={"help": "Where the model, checkpoints and metrics.json go."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    head_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of the span head and the MLM head. Default: learning_rate, as in the paper."},
    )
    num_train_epochs: float = field(
        default=8, metadata={"help": "Epochs of the target stage: passes over the longer of the two corpora."}
    )
    source_num_train_epochs: float | None = field(
        default=None, metadata={"help": "Epochs of the source stage. Default: num_train_epochs."}
    )
    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "Source sentences a step and device; as many target sentences come beside them."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentences a step and device in evaluation."})
    warmup_steps: float = field(
        default=50,
        metadata={
            "help": "Steps until the learning rate peaks; it falls linearly afterwards. If not given: a tenth of a stage at most."
        },
    )
    one_cycle: bool = field(
        default=False,
        metadata={
            "help": "One linear cycle in the place of --lr_scheduler_type: the rate rises from a 25th for warmup_steps and falls "
            "to nearly nothing, while AdamW's beta1 goes from 0.95 to 0.85 and back."
        },
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's decay, not on biases and layer norms."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to score the source development set."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints that are kept, the best one among them; two, should one be damaged."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the model of the best source development F1."})
    metric_for_best_model: str | None = field(default="f1", metadata={"help": "What selects the model: strict F1 on source dev."})
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "End a stage after so many evaluations in a row without a better source development F1. Default: never."
        },
    )
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Leave a loss that is no number out of the log; that waits for a GPU twice a step."}
    )
    accelerator_config: dict | str | None = field(
        default=None, metadata={"help": "Settings of Accelerate, as JSON or a file. Default: pinned batches travel unawaited."}
    )
    dataloader_pin_memory: bool = field(default=torch.cuda.is_available(), metadata={"help": "Pin batches in memory for a GPU."})
    dataloader_num_workers: int = field(
        default=2 if torch.cuda.is_available() else 0,
        metadata={"help": "Processes that make batches ahead, so that a GPU finds them ready; on a CPU they take its cores."},
    )
    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "Mixed precision in bf16. Default: as a run begins a step is measured, and bf16 is taken where it is at "
            "least 1.3 times as fast as fp32; with --fp16 or --tf32 it is not."
        },
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep False: the collator needs every column."})

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "auto goes on with the run in --output_dir, whatever stage it was stopped in; or a checkpoint's directory."
        },
    )

    denoising: str = field(
        default="both",
        metadata={
            "help": "Which side refines the pseudo labels: prototypes (global), neighbours (local), both; with none no label "
            "moves. Or a baseline, see docs/baselines.md.",
            "choices": ["both", "global", "local", "none", *BASELINES],
        },
    )
    refine: str = field(
        default="step",
        metadata={
            "help": "Refine the labels of each batch as training meets it, as the paper does (step), or all at once at the "
            "beginning of an epoch, from one pass of the present model without dropout over its own states (epoch).",
            "choices": ["step", "epoch"],
        },
    )
    agreement: bool = field(
        default=False,
        metadata={
            "help": "A third direction beside the sides: what the labels say of the same string elsewhere in the target text. "
            "With --refine epoch."
        },
    )
    self_direction: bool = field(
        default=False,
        metadata={"help": "Beside the sides, labels move towards the present model's own prediction, too. With --refine epoch."},
    )
    directions: str = field(
        default="multiple",
        metadata={
            "help": "A label moves towards every type above its threshold, or to the most similar alone (eq. 8).",
            "choices": ["multiple", "single"],
        },
    )
    normalize_directions: bool = field(
        default=False, metadata={"help": "Give the global and the local direction equal weight before they are added (eq. 10)."}
    )
    center_vectors: bool = field(
        default=False,
        metadata={
            "help": "Compare spans without the center of their language's vectors: where the encoder learns fast (a small one, "
            "rates far above the paper's), the vectors of all spans move together."
        },
    )
    prototype_decay: float = field(default=0.99, metadata={"help": "alpha, the moving average of the prototypes (eq. 6)."})
    num_neighbors: int = field(default=300, metadata={"help": "K, the neighbours that vote (eq. 9)."})
    neighbor_share: float = field(
        default=0.05,
        metadata={"help": "The most neighbours as a share of the datastore: all of a small one would tell every span the same."},
    )
    local_threshold_scale: float = field(default=0.9, metadata={"help": "Factor on the thresholds of the local side."})
    refine_start: float = field(
        default=0.25,
        metadata={
            "help": "The share of the training after which the next epoch begins to refine: 0.25 is the third of eight epochs. "
            "Thresholds of both sides exist after the second epoch."
        },
    )
    beta_start: float = field(default=0.95, metadata={"help": "Weight of the old label at the start of training (eq. 11)."})
    beta_end: float = field(default=0.80, metadata={"help": "The same at the end; linear in between."})
    beta_epochs: int = field(
        default=8,
        metadata={
            "help": "The epochs for which the two are meant: a run of fewer refines the more in each, so that as much is left of "
            "the first labels. The number of a run's own epochs keeps them as they are."
        },
    )
    beta_schedule: str = field(
        default="step",
        metadata={
            "help": "That weight falls with every step, or stays for an epoch: from the first epoch's to the last one's.",
            "choices": ["step", "epoch"],
        },
    )
    refine_every_visit: bool = field(
        default=False,
        metadata={"help": "Refine a label each time its sentence is in a batch, where that is more than once an epoch."},
    )
    datastore_outside_share: float = field(default=0.03, metadata={"help": "Share of the O spans that the datastore keeps."})
    datastore_size: int = field(
        default=200_000,
        metadata={
            "help": "The most span vectors that the datastore holds. Of more, a sample: K of each type, then in proportion to "
            "what the epoch brought."
        },
    )
    datastore_exact_size: int = field(
        default=4_000,
        metadata={
            "help": "Beyond so many vectors, spans whose directions are certain without it are not searched, and where vectors "
            "cluster the search is approximate; its recall and the error of the shares are logged."
        },
    )
    target_train_weight: float = field(
        default=10.0,
        metadata={"help": "What a sentence of --target_train weighs in the loss; a source sentence weighs 1."},
    )
    pseudo_labels_in_memory: int = field(
        default=1024,
        metadata={
            "help": "MB of pseudo labels that are held in memory, by each process. More lie in a file in the output directory, "
            "in half precision, which the processes of a machine share."
        },
    )
    confidence_threshold: float = field(
        default=0.9, metadata={"help": "The least probability of a pseudo label that counts, with --denoising confidence."}
    )
    auxiliary_task: str = field(
        default="mlm",
        metadata={
            "help": "What is learnt beside the labels: the masked language model (mlm), or supervised contrastive learning on "
            "source gold and target pseudo labels (scl).",
            "choices": ["mlm", "scl", "none"],
        },
    )
    contrastive_weight: float = field(default=1.0, metadata={"help": "The weight of the contrastive loss."})
    mlm_weight: float = field(default=1e-3, metadata={"help": "w, the weight of the language model's loss (paper: 1e-5 for es)."})
    mlm_probability: float = field(default=0.25, metadata={"help": "r_m, the share of target tokens that are masked (eq. 2)."})
    mlm_vocabulary: str = field(
        default="all",
        metadata={
            "help": "Predict masked tokens among the whole vocabulary, as the paper does, or among those that the target text "
            "has: the others are never right, and with a large vocabulary they cost a tenth of the step.",
            "choices": ["all", "target"],
        },
    )
    mlm_text: str = field(
        default="target",
        metadata={"help": "What the masked language model reads: target text or both.", "choices": ["target", "both"]},
    )
    mlm_whole_words: bool = field(
        default=False, metadata={"help": "Mask all tokens of a word together; of words that the tokenizer joins, each piece."}
    )
    mlm_hide_masked: bool = field(default=False, metadata={"help": "Hide masked tokens from the encoder's attention as well."})
    mlm_head_warmup_steps: int = field(
        default=0,
        metadata={
            "help": "Where the encoder comes without a language model's head: steps that fit a fresh one on both languages' "
            "text, with the encoder as it is, before a stage begins."
        },
    )
    source_mlm: str = field(
        default="on",
        metadata={"help": "Whether the source stage reads target text with the masked language model.", "choices": ["on", "off"]},
    )
    freeze_embeddings: bool = field(
        default=False,
        metadata={"help": "Keep the encoder's word embeddings as they are; for little text and large rates."},
    )
    loss_reduction: str = field(
        default="span",
        metadata={
            "help": "Average over the spans of the corpus, over those of each batch, or within each sentence first (eq. 1, 4).",
            "choices": ["span", "batch", "sentence"],
        },
    )
    double_softmax: bool = field(
        default=False, metadata={"help": "Compute L_tgt on probabilities passed through log-softmax once more."}
    )
    initial_labels: str = field(
        default="soft",
        metadata={
            "help": "The source model's labels as they are (soft), or with only entities soft: a span is O without doubt where O "
            "is its most probable type, and where it loses against an overlapping entity (hard_outside).",
            "choices": ["soft", "hard_outside"],
        },
    )
    prune_pseudo_labels: bool = field(
        default=True,
        metadata={"help": "Among overlapping entities in the pseudo labels only the most probable counts in the loss."},
    )
    train_projection: bool = field(
        default=False,
        metadata={"help": "Train the denoiser's projection: source spans are classified by their similarity to the prototypes."},
    )

    def __post_init__(self):
        """Raises InputError where arguments of denoising do not go together."""
        if self.accelerator_config is None:  # from pinned memory the host need not wait until a batch is on the GPU
            self.accelerator_config = {"non_blocking": self.dataloader_pin_memory}
        if not torch.accelerator.is_available() and not is_torch_xla_available():
            self.use_cpu = True  # the Trainer wants to be told, for bf16 and for several processes
        super().__post_init__()
        if self.refine == "step" and (self.agreement or self.self_direction):
            raise InputError(
                "--agreement and --self_direction judge all labels at once: they need --refine epoch. With --refine step set "
                "both to false."
            )
        if self.refine == "epoch" and self.train_projection:
            raise InputError(
                "--train_projection trains the vectors of --refine step; --refine epoch compares the model's own states. "
                "Leave one of them out."
            )
        compared = replace(self.denoising_settings, **denoiser_class(self.denoising).own_settings)
        if self.train_projection and not compared.sides:
            raise InputError(
                "--train_projection trains the vectors that the sides of denoising compare, and "
                f"--denoising {self.denoising} has none. Leave one of them out."
            )
        if self.one_cycle and self.lr_scheduler_type != "linear":
            raise InputError(
                f"--one_cycle is a schedule of its own, as is --lr_scheduler_type {self.lr_scheduler_type.value}. Leave one out."
            )

    @property
    def denoising_settings(self) -> DenoisingSettings:
        """What the denoiser has to know of these."""
        return DenoisingSettings(**{setting.name: getattr(self, setting.name) for setting in fields(DenoisingSettings)})
