"""Trains a named-entity recogniser for a language without labels, from labels in another language.

    accelerate launch run_crossner.py --target_lang zh

trains on the embedded demo corpus with the embedded encoder. Give your own corpora and backbone:

    accelerate launch run_crossner.py --source_train en.iob2 --source_dev en.dev.iob2 --target_unlabeled zh.txt \\
        --target_test zh.iob2 --model_name_or_path xlm-roberta-large --target_lang zh

Two stages: the source model is trained on the source labels and gives soft pseudo labels to the target text; a fresh target
model is trained on both while prototypes and nearest neighbours refine those labels. Target labels, where the corpora have
them, are read for reports only; what is learnt of them stands in --target_train.

`glode train`, `accelerate launch -m run_crossner` and this file are one command. What it is made of stands in glode/run/.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from glode.errors import NothingSaved, run_command
from glode.fast.products import faster_products
from glode.run.arguments import DataArguments, ModelArguments, RunArguments
from glode.run.machine import use_all_cores
from glode.run.parsing import PROGRAM, parse_arguments
from glode.run.pipeline import report, run_stages
from glode.run.preparation import Preparation
from glode.run.publishing import finish
from glode.run.resuming import parts_in, remove_checkpoints
from glode.run.terminal import quieten
from glode.training.arguments import GlodeTrainingArguments


def main(argv: Sequence[str], program: str = PROGRAM) -> None:
    """Run the stages that the arguments ask for.

    Args:
        program: what the help and its errors call the command.
    Raises:
        NothingSaved: Ctrl-C, before there was anything to go on with.
        InputError: something in the input is wrong; what is found before training costs none.
    """
    data, model, training, options = parse_arguments(argv, program)
    try:
        carry_out(data, model, training, options)
    except KeyboardInterrupt:
        if parts_in(Path(training.output_dir), options):
            raise
        raise NothingSaved from None


def carry_out(
    data: DataArguments,
    model: ModelArguments,
    training: GlodeTrainingArguments,
    options: RunArguments,
    memory: Mapping[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Do what the arguments say.

    Args:
        memory: corpora that are no files, see `glode.run.corpora.load_corpora`.
    Returns:
        The directory of the last model, and what metrics.json holds.
    """
    if token := training.hub_token:
        os.environ["HF_TOKEN"] = token  # where huggingface_hub looks, and no file of the run
        training.hub_token = None
    quieten(training.log_level)
    use_all_cores()
    run = Preparation(data, model, training, options, memory)  # reads and checks corpora and backbone, and tokenises
    with faster_products():
        run_stages(run)  # source model, its pseudo labels of the target text, target model, token classifier
    report(run)  # metrics.json, tables
    finish(run)  # the model's card and code; the Hub
    if run.main and not options.keep_checkpoints:
        remove_checkpoints(run.output)
    directory, metrics = run.model_directory, run.metrics
    del run
    gc.collect()  # of the trainers, which hold the group's threads: one that outlives the interpreter at times aborts it
    training.distributed_state.destroy_process_group()
    return directory, metrics


def run(argv: Sequence[str], program: str = "glode train") -> int:
    """The command: `main`, with its exit code."""
    instead = " in place of --overwrite" if any(part.startswith("--overwrite") for part in argv) else ""
    return run_command(partial(main, program=program), argv, resume=f"--resume_from_checkpoint auto{instead}")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], PROGRAM))
