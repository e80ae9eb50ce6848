"""One of several processes that train a target model on a slice of the demo, in double precision: started by test_processes.py.

torchrun ... tests/process_worker.py \\
    BACKBONE OUTPUT BATCH SOURCE_SENTENCES TARGET_SENTENCES memory|mapped HEAD_SCALE step|epoch [CHECKPOINT]

HEAD_SCALE multiplies the classifier's first weights: at 1 the tiny model finds no entity in so few steps, not even among the
twenty training sentences that the scores are of."""

import gc
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, set_seed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from glode.corpora.reading import load_corpus  # noqa: E402
from glode.denoising.pseudo_labels import PseudoLabels  # noqa: E402
from glode.features.reach import gold_entities  # noqa: E402
from glode.features.strings import string_ids  # noqa: E402
from glode.features.windows import build_features  # noqa: E402
from glode.run.embedded import DEMO_DIRECTORY  # noqa: E402
from glode.training.arguments import GlodeTrainingArguments  # noqa: E402
from modeling_glode import GlodeConfig, GlodeModel  # noqa: E402
from trainer_glode import GlodeTrainer  # noqa: E402

LABELS = ["O", "LOC", "NEVER", "ORG", "PER"]  # a type without an entity


def main(
    backbone: str,
    output: str,
    batch: str,
    source: str,
    target: str,
    labels_in: str,
    head_scale: str,
    refine: str,
    checkpoint: str | None = None,
) -> None:
    tokenizer, length = AutoTokenizer.from_pretrained(backbone), 3
    corpora = [load_corpus(str(DEMO_DIRECTORY / name), True) for name in ("en/train.iob2", "de/test.iob2", "en/train.iob2")]
    corpora = [corpus.select(range(int(number))) for corpus, number in zip(corpora, (source, target, 20), strict=True)]
    windows = [build_features(corpus, tokenizer, 64, length, LABELS) for corpus in corpora]
    windows[1] = windows[1].remove_columns(["begins", "lengths", "types"])
    set_seed(0)
    config = GlodeConfig(
        AutoConfig.from_pretrained(backbone), max_span_length=length, head_dropout=0.0, id2label=dict(enumerate(LABELS))
    )
    model = GlodeModel.from_encoder(backbone, config).double()
    model.classifier.linear.weight.data *= float(head_scale)
    words = [end - start for start, end in zip(windows[1]["own_start"], windows[1]["own_end"], strict=True)]
    arguments = GlodeTrainingArguments(
        output_dir=output,
        learning_rate=1e-3,
        per_device_train_batch_size=int(batch),
        num_train_epochs=4,
        warmup_steps=2,
        save_strategy="steps",
        save_steps=0.4,  # in the middle of an epoch, and later
        save_total_limit=9,
        eval_strategy="no",
        load_best_model_at_end=False,
        logging_steps=3,
        use_cpu=True,
        disable_tqdm=True,
        center_vectors=True,
        refine=refine,
        agreement=refine == "epoch",
        self_direction=refine == "epoch",
        per_device_eval_batch_size=7,
        datastore_outside_share=0.5,
    )
    Path(output).mkdir(exist_ok=True)
    labels = PseudoLabels(words, length, len(LABELS), file=Path(output, "labels") if labels_in == "mapped" else None)
    noise = torch.randn(labels.probabilities.shape, generator=torch.Generator().manual_seed(0))
    labels.probabilities.copy_((noise + F.one_hot(torch.tensor(0), len(LABELS))).softmax(-1))
    arguments.distributed_state.wait_for_everyone()
    before = labels.probabilities.clone()
    trainer = GlodeTrainer(
        model,
        arguments,
        tokenizer,
        source=windows[0],
        target=windows[1],
        dev=windows[2],
        dev_references=gold_entities(corpora[2]),
        pseudo_labels=labels,
        target_strings=string_ids(corpora[1], windows[1], length),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    state, scores = trainer.denoiser.state_dict(), trainer.evaluate()
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, f"{output}/rank{arguments.process_index}.safetensors"
    )
    if arguments.process_index == 0:
        parts = ("source_loss", "target_loss", "mlm_loss")
        scores["losses"] = [[entry[name] for name in parts] for entry in trainer.state.log_history if "loss" in entry]
        scores["changed"] = float((labels.probabilities - before).abs().max())
        Path(output, "scores.json").write_text(json.dumps(scores))
    del trainer
    gc.collect()  # as run_crossner.py ends
    arguments.distributed_state.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
