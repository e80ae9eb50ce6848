"""Protects the training: the loss falls and a small corpus is learnt, pseudo labels are really replaced inside compute_loss,
target labels never reach the loss, a resumed run is the run that was never stopped, accumulation keeps the loss' scale, and mixed
precision holds wherever the model computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from optuna.samplers import GridSampler
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, TrainerCallback, set_seed

from glode.corpora.labels import label_names
from glode.denoising.pseudo_labels import PseudoLabels, harden_outside
from glode.errors import InputError
from glode.features.collator import GlodeCollator
from glode.features.reach import gold_entities
from glode.features.streams import TwoStreams
from glode.features.strings import string_ids
from glode.features.windows import build_features
from glode.metrics import entity_scores
from glode.training.adapters import adapt
from glode.training.arguments import GlodeTrainingArguments
from glode.training.callbacks import InterruptCallback
from glode.training.denoising_state import load_denoising
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import DENOISING_STATE, GlodeTrainer

LABELS = ["O", "LOC", "PER"]


def fresh_model(backbone: Path) -> GlodeModel:
    set_seed(0)
    encoder = AutoConfig.from_pretrained(backbone)
    config = GlodeConfig(encoder, max_span_length=3, projection_size=16, head_dropout=0.0, id2label=dict(enumerate(LABELS)))
    return GlodeModel.from_encoder(str(backbone), config)


def arguments(directory: Path, **options) -> GlodeTrainingArguments:
    defaults = {"output_dir": str(directory), "learning_rate": 3e-3, "per_device_train_batch_size": 5, "num_train_epochs": 5}
    defaults |= {
        "warmup_steps": 2,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 2,
    }
    defaults |= {
        "use_cpu": True,
        "disable_tqdm": True,
        "refine_start": 0.4,
        "num_neighbors": 10,
        "report_to": "none",
        "seed": 0,
    }
    return GlodeTrainingArguments(**{**defaults, **options})


@pytest.fixture
def windows(corpus: Dataset, tokenizer) -> Dataset:
    assert label_names(corpus) == LABELS
    return build_features(corpus, tokenizer, 64, 3, LABELS)


@pytest.fixture
def unlabeled(corpus: Dataset, tokenizer) -> Dataset:
    return build_features(corpus, tokenizer, 64, 3)


def soft_labels(windows: Dataset, gold: Dataset, confidence: float = 0.9, file: Path | None = None) -> PseudoLabels:
    """Gold labels as soft labels; what is left of the probability goes to the other types."""
    labels = PseudoLabels(np.array(windows["own_end"]) - np.array(windows["own_start"]), 3, len(LABELS), file=file)
    rest = (1 - confidence) / (len(LABELS) - 1)
    hard = torch.zeros(labels.probabilities.shape[:2], dtype=torch.long)
    for row, entities in enumerate(gold_entities(gold)):
        for begin, length, name in entities:
            hard[labels.offsets[row] + begin, length - 1] = LABELS.index(name)
    labels.probabilities.copy_(F.one_hot(hard, len(LABELS)).float() * (confidence - rest) + rest)
    return labels


def test_overfits_twenty_sentences(backbone, tokenizer, corpus, windows, tmp_path):
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(tmp_path, num_train_epochs=25),
        tokenizer,
        source=windows,
        dev=windows,
        dev_references=gold_entities(corpus),
    )
    trainer.train()
    losses = [entry["source_loss"] for entry in trainer.state.log_history if "source_loss" in entry]
    assert losses[-1] < 0.05 * losses[0]
    found = trainer.predict_entities(windows, len(corpus))
    assert entity_scores(gold_entities(corpus), found)["f1"] >= 95
    assert trainer.evaluate()["eval_f1"] == entity_scores(gold_entities(corpus), found)["f1"]


def test_a_planted_wrong_label_is_corrected(backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    """Neighbours and prototypes vote against one wrong label; compute_loss must see the refined labels."""
    labels = soft_labels(unlabeled, corpus)
    sentence = next(i for i, entities in enumerate(gold_entities(corpus)) if entities)
    begin, length, name = gold_entities(corpus)[sentence][0]
    cell = (int(labels.offsets[sentence]) + begin, length - 1)
    right, wrong = LABELS.index(name), 3 - LABELS.index(name)
    labels.probabilities[cell] = F.one_hot(torch.tensor(wrong), 3).float() * 0.4 + 0.2
    start = GlodeTrainer(fresh_model(backbone), arguments(tmp_path / "s", num_train_epochs=15), tokenizer, source=windows)
    start.train()
    options = {"num_train_epochs": 5, "learning_rate": 1e-4, "beta_start": 0.9, "beta_end": 0.8, "beta_epochs": 5}
    options["datastore_outside_share"] = 0.3
    trainer = GlodeTrainer(
        start.model,
        arguments(tmp_path / "t", **options),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=labels,
        target_references=gold_entities(corpus),
    )
    seen = []
    step = trainer.denoiser.step

    def spy(*args, **kwargs):
        soft = step(*args, **kwargs)
        seen.append(soft.clone())
        return soft

    trainer.denoiser.step = spy
    before = labels.probabilities.clone()
    trainer.train()
    assert labels.probabilities[cell].argmax() == right
    assert not torch.equal(before, labels.probabilities)
    assert len({float(soft.sum((0, 1, 2))[0]) for soft in seen}) > 10
    history = trainer.pseudo_label_history
    assert [entry["epoch"] for entry in history] == list(range(6))
    assert history[2]["f1"] == history[0]["f1"] < history[-1]["f1"] == 100


def test_refining_at_once_needs_no_dropout_and_no_random_number(backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    """The labels that a step gets are those of the beginning of the epoch; a planted wrong label is corrected."""
    labels = soft_labels(unlabeled, corpus)
    sentence = next(i for i, entities in enumerate(gold_entities(corpus)) if entities)
    begin, length, name = gold_entities(corpus)[sentence][0]
    cell = (int(labels.offsets[sentence]) + begin, length - 1)
    labels.probabilities[cell] = F.one_hot(torch.tensor(3 - LABELS.index(name)), 3).float() * 0.4 + 0.2
    start = GlodeTrainer(fresh_model(backbone), arguments(tmp_path / "s", num_train_epochs=15), tokenizer, source=windows)
    start.train()
    start.model.dropout.p = 0.5
    options = {"refine": "epoch", "self_direction": True, "datastore_outside_share": 0.3, "num_train_epochs": 4}
    trainer = GlodeTrainer(
        start.model,
        arguments(tmp_path / "t", **options, learning_rate=1e-4),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=labels,
        target_references=gold_entities(corpus),
    )
    before = labels.probabilities.clone()
    trainer.model.train()
    random = torch.get_rng_state()
    assert trainer.refine_labels(1) == {} and torch.equal(labels.probabilities, before)
    logged = trainer.refine_labels(2)
    assert torch.equal(torch.get_rng_state(), random) and trainer.model.training
    assert logged["datastore_size"] > 50 and not torch.equal(labels.probabilities, before)
    again = GlodeTrainer(
        start.model,
        arguments(tmp_path / "u", **options, per_device_eval_batch_size=3),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=soft_labels(unlabeled, corpus),
    )
    again.denoiser.pseudo_labels.probabilities.copy_(before)
    again.refine_labels(2)
    torch.testing.assert_close(again.denoiser.pseudo_labels.probabilities, labels.probabilities, rtol=0, atol=1e-5)
    labels.probabilities.copy_(before)
    labels.refined_in.fill_(-1)
    seen = []
    step = trainer.denoiser.step

    def spy(projection, **kwargs):
        assert projection is None
        seen.append(labels.probabilities.clone())
        return step(projection, **kwargs)

    trainer.denoiser.step = spy
    trainer.train()
    epochs = [seen[4 * epoch] for epoch in range(4)]
    assert all(torch.equal(labels, epochs[number // 4]) for number, labels in enumerate(seen))
    assert torch.equal(epochs[1], before) and not torch.equal(epochs[2], before) and not torch.equal(epochs[3], epochs[2])
    assert labels.probabilities[cell].argmax() == LABELS.index(name)
    assert [entry["epoch"] for entry in trainer.pseudo_label_history] == list(range(5))


def test_without_denoising_the_labels_stay(backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    labels = soft_labels(unlabeled, corpus)
    before = labels.probabilities.clone()
    options = {"denoising": "none", "num_train_epochs": 4}
    GlodeTrainer(
        fresh_model(backbone), arguments(tmp_path, **options), tokenizer, source=windows, target=unlabeled, pseudo_labels=labels
    ).train()
    assert torch.equal(labels.probabilities, before)


def test_the_loss_is_on_the_labels_that_the_denoiser_gives(backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(tmp_path, mlm_weight=0.0, prune_pseudo_labels=False),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=soft_labels(unlabeled, corpus),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["is_target"].tolist() == [False] * 5 + [True] * 5
    replaced = torch.rand(5, *batch["span_mask"].shape[1:], 3).softmax(-1)
    trainer.denoiser.step = lambda *args, **kwargs: replaced
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    log_p = outputs.logits.log_softmax(-1)
    source = -log_p[:5].gather(-1, batch["labels"][:5].clamp(min=0)[..., None])[..., 0][batch["span_mask"][:5]].sum()
    target = -(replaced * log_p[5:]).sum(-1)[batch["span_mask"][5:]].sum()
    expected = source / (5 * trainer.mean_spans[0]) + target / (5 * trainer.mean_spans[1])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("reduction", ["span", "batch"])
def test_the_language_model_reads_both_texts(backbone, tokenizer, corpus, windows, unlabeled, tmp_path, reduction: str):
    """Masked tokens of ten windows, among the tokens of both texts: over the corpora's mean number, or over the batch's own."""
    some = unlabeled.select([4, 9])
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(tmp_path, loss_reduction=reduction, mlm_text="both", mlm_vocabulary="target", mlm_weight=1.0),
        tokenizer,
        source=windows,
        target=some,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["attention_mask"].shape[0] == 5 + 10  # source alone is scored in the source stage
    assert set(trainer.mlm_tokens.tolist()) == {token for row in windows["input_ids"] for token in row}
    masked = int((batch["mlm_labels"] != -100).sum())
    trainer.model.eval()
    trainer.compute_loss(trainer.model, dict(batch))
    names = ("labels", "is_target", "window", "key", "own_start", "span_mask", "target_spans")
    inputs = {name: value for name, value in batch.items() if name not in names}
    mean = trainer.model(**inputs, mlm_tokens=trainer.mlm_tokens).mlm_loss
    tokens = sum(np.mean([len(row) - 2 for row in texts["input_ids"]]) for texts in (windows, some))
    weight = 1.0 if reduction == "batch" else masked / (5 * tokens * 0.25)
    assert trainer.loss_means.take()["mlm_loss"] == pytest.approx(weight * mean.item(), rel=1e-5)


def test_target_labels_never_reach_the_training(backbone, tokenizer, corpus, windows, tmp_path):
    """Poison the target's gold entities: the trained weights and the pseudo labels stay the same, bit by bit."""
    poison = corpus.map(lambda row: {"begins": [0], "lengths": [1], "types": ["PER"]})
    results = []
    for name, target in (("true", corpus), ("poisoned", poison)):
        features = build_features(target, tokenizer, 64, 3)
        source = GlodeTrainer(fresh_model(backbone), arguments(tmp_path / name / "s"), tokenizer, source=windows, target=features)
        source.train()
        labels = source.assign_pseudo_labels(features)
        trainer = GlodeTrainer(
            fresh_model(backbone),
            arguments(tmp_path / name / "t"),
            tokenizer,
            source=windows,
            target=features,
            dev=windows,
            dev_references=gold_entities(corpus),
            pseudo_labels=labels,
            target_references=gold_entities(target),
        )
        trainer.train()
        results.append((trainer.model.state_dict(), labels.probabilities))
    assert all(torch.equal(value, results[1][0][key]) for key, value in results[0][0].items())
    assert torch.equal(results[0][1], results[1][1])


def test_operations_are_counted_for_the_tokens_that_there_are(backbone, tokenizer, windows, unlabeled, tmp_path):
    streams = {"source": windows, "target": unlabeled}
    trainer = GlodeTrainer(fresh_model(backbone), arguments(tmp_path, mlm_weight=1e-3), tokenizer, **streams)
    rows = trainer.train_dataset.__getitems__([0, 1, len(windows), len(windows) + 1])
    expected = 6 * sum(len(row["input_ids"]) for row in rows) * trainer.model.num_parameters(exclude_embeddings=True)
    assert trainer.floating_point_ops(trainer.data_collator(rows)) == expected


@pytest.mark.parametrize("initial_labels", ["soft", "hard_outside"])
def test_pseudo_labels_are_the_source_models_probabilities(
    backbone, tokenizer, windows, unlabeled, tmp_path, initial_labels: str
):
    options = {"per_device_eval_batch_size": 7, "initial_labels": initial_labels}
    trainer = GlodeTrainer(fresh_model(backbone), arguments(tmp_path, **options), tokenizer, source=windows)
    labels = trainer.assign_pseudo_labels(unlabeled)
    batch = GlodeCollator(tokenizer, trainer.model.config.max_span_length)([TwoStreams(unlabeled, None)[3]])
    names = ("input_ids", "attention_mask", "first_token", "last_token", "word_shapes")
    with torch.no_grad():
        expected = trainer.model.eval()(**{name: batch[name] for name in names}).logits.softmax(-1)[0]
    if initial_labels == "hard_outside":
        expected = harden_outside(expected[None], batch["span_mask"])[0]
    stored = labels.probabilities[labels.offsets[3] : labels.offsets[4]]
    mask = batch["span_mask"][0]
    torch.testing.assert_close(stored[mask], expected[mask], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("stop", "mapped", "bf16", "refine"),
    [
        (5, False, False, "step"),
        (8, False, False, "step"),
        (10, False, False, "step"),
        (10, True, False, "step"),
        (5, False, True, "step"),
        (8, False, False, "epoch"),
        (10, True, True, "epoch"),
        (5, False, False, "authors"),
        (5, False, True, "adapters"),
    ],
)
def test_resuming_gives_the_run_that_was_never_stopped(
    backbone, tokenizer, corpus, windows, unlabeled, tmp_path, stop, mapped, bf16, refine
):
    """Weights, pseudo labels, prototypes, thresholds and datastore, bit by bit; stopped inside and at the end of an epoch; with
    a datastore that is full, pseudo labels in memory and in a file, in mixed precision, as the authors' code trains, and with
    adapters."""

    def train(name: str, resume: str | None = None) -> GlodeTrainer:
        options = {"save_strategy": "steps", "save_steps": stop, "num_train_epochs": 4, "save_total_limit": None}
        options |= {"datastore_size": 60, "bf16": bf16, "refine": "epoch" if refine == "epoch" else "step"}
        if refine == "authors":
            options |= {"one_cycle": True, "adam_beta2": 0.98, "refine_every_visit": True, "beta_schedule": "epoch"}
            options |= {"loss_reduction": "batch", "mlm_hide_masked": True, "double_softmax": True}
        if refine == "epoch":
            options |= {"agreement": True, "self_direction": True, "refine_start": 0.5}
        model = fresh_model(backbone)
        if refine == "adapters":
            adapt(model.encoder, 4, None)
        trainer = GlodeTrainer(
            model,
            arguments(tmp_path / name, **options),
            tokenizer,
            source=windows,
            target=unlabeled,
            pseudo_labels=soft_labels(unlabeled, corpus, file=tmp_path / f"{name}.labels" if mapped else None),
            target_strings=string_ids(corpus, unlabeled, 3),
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = train("whole")
    resumed = train("resumed", str(tmp_path / "whole" / f"checkpoint-{stop}"))
    states = [trainer.denoiser.state_dict() for trainer in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    saved = load_file(tmp_path / "whole" / f"checkpoint-{stop}" / DENOISING_STATE)
    assert saved["pseudo_labels.probabilities"].shape == whole.denoiser.pseudo_labels.probabilities.shape
    assert saved["pseudo_labels.probabilities"].dtype == (torch.float16 if mapped else torch.float32)
    first = soft_labels(unlabeled, corpus).probabilities
    assert not torch.equal(whole.denoiser.pseudo_labels.probabilities.float(), first)
    if refine != "epoch":
        assert len(whole.denoiser.datastore) == 60
    else:
        assert set(whole.denoiser.pseudo_labels.refined_in.tolist()) == {3}
    assert [entry["epoch"] for entry in whole.pseudo_label_history] == list(range(5))
    assert resumed.pseudo_label_history == whole.pseudo_label_history


def test_workers_change_nothing(backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    """Batches that other processes have made, in training and in evaluation, are the same; so are those of other windows than
    the development set's, for which the workers stay."""
    found = []
    for number in (0, 2):
        options = {"num_train_epochs": 2, "dataloader_num_workers": number, "eval_strategy": "epoch", "refine_start": 0.0}
        options |= {"dataloader_persistent_workers": number > 0}
        streams = {"source": windows, "target": unlabeled, "dev": windows.select(range(6))}
        streams |= {"dev_references": gold_entities(corpus)[:6]}
        given = arguments(tmp_path / str(number), **options)
        trainer = GlodeTrainer(fresh_model(backbone), given, tokenizer, pseudo_labels=soft_labels(unlabeled, corpus), **streams)
        trainer.train()
        found.append(trainer.model.state_dict() | trainer.denoiser.state_dict())
        found[-1]["assigned"] = trainer.assign_pseudo_labels(unlabeled).probabilities
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (5, {"max_steps": 5, "one_cycle": True}),
        (6, {"num_train_epochs": 1.5}),
        (8, {"learning_rate": 1e-12, "early_stopping_patience": 1}),
    ],
)
def test_a_training_that_has_ended_takes_no_further_step(
    backbone, tokenizer, corpus, windows, unlabeled, tmp_path, steps: int, options: dict
):
    """In the midst of an epoch of four steps, or out of patience: what is resumed from the last checkpoint is at its end. The
    history has what the labels are then."""
    ends = []
    for resume in (None, str(tmp_path / f"checkpoint-{steps}")):
        trainer = GlodeTrainer(
            fresh_model(backbone),
            arguments(tmp_path, save_strategy="epoch", eval_strategy="epoch", refine_start=0.0, **options),
            tokenizer,
            source=windows,
            target=unlabeled,
            dev=windows.select(range(6)),
            dev_references=gold_entities(corpus)[:6],
            pseudo_labels=soft_labels(unlabeled, corpus),
        )
        trainer.train(resume_from_checkpoint=resume)
        ends.append(trainer)
    assert [trainer.state.global_step for trainer in ends] == [steps, steps]
    states = [trainer.model.state_dict() | trainer.denoiser.state_dict() for trainer in ends]
    assert [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])] == []
    assert ends[0].pseudo_label_history == ends[1].pseudo_label_history
    last = ends[0].pseudo_label_history[-1]
    assert last == {"epoch": 2} | ends[0].report.summary()


def test_a_training_that_was_interrupted_goes_on_in_the_same_process(backbone, tokenizer, windows, tmp_path):
    """Its optimizer, which has groups of its own for the head, takes up the checkpoint's state."""
    trainer = GlodeTrainer(
        fresh_model(backbone), arguments(tmp_path, num_train_epochs=1, head_learning_rate=5e-3), tokenizer, source=windows
    )
    trainer.add_callback(InterruptedOnce(trainer.interrupt))
    trainer.train()
    assert trainer.interrupt.interrupted and trainer.state.global_step == 2
    groups = len(trainer.optimizer.param_groups)
    trainer.train(resume_from_checkpoint=True)
    assert not trainer.interrupt.interrupted and trainer.state.global_step == 4
    assert len(trainer.optimizer.param_groups) == groups


class InterruptedOnce(TrainerCallback):
    """Stands for Ctrl-C in the second step of the first training."""

    def __init__(self, interrupt: InterruptCallback):
        self.interrupt = interrupt

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.interrupt.interrupted = self.interrupt.interrupted or (state.global_step == 1)


def test_a_checkpoint_without_the_history_is_refused(tmp_path):
    """As an older version wrote it."""
    save_file({"epoch": torch.tensor(1)}, tmp_path / DENOISING_STATE)
    with pytest.raises(InputError, match="lacks the history of the pseudo labels: an older version wrote it"):
        load_denoising(tmp_path / DENOISING_STATE)


def test_large_pseudo_labels_go_to_a_file_that_leaves_nothing(backbone, tokenizer, windows, unlabeled, tmp_path, caplog):
    found = []
    for limit in (1024, 0):
        options = arguments(tmp_path / "out", pseudo_labels_in_memory=limit)
        trainer = GlodeTrainer(fresh_model(backbone), options, tokenizer, source=windows)
        found.append(trainer.assign_pseudo_labels(unlabeled).probabilities)
    assert [labels.dtype for labels in found] == [torch.float32, torch.float16]
    assert torch.equal(found[0].half(), found[1])
    assert list((tmp_path / "out").iterdir()) == []
    assert f" MB lie in a file in {tmp_path / 'out'}, in half precision." in caplog.text


@pytest.mark.parametrize("reduction", ["span", "sentence"])
@pytest.mark.parametrize("steps", [1, 4])
def test_accumulation_does_not_change_the_scale_of_the_loss(backbone, tokenizer, windows, tmp_path, reduction, steps):
    options = {"gradient_accumulation_steps": steps, "per_device_train_batch_size": 20 // steps, "num_train_epochs": 1, "seed": 1}
    options |= {"loss_reduction": reduction, "logging_steps": 1, "max_grad_norm": 1e9}
    trainer = GlodeTrainer(fresh_model(backbone), arguments(tmp_path, **options), tokenizer, source=windows)
    trainer.train()
    norm = next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)
    reference = fresh_model(backbone)
    whole = GlodeTrainer(
        reference, arguments(tmp_path, loss_reduction=reduction, per_device_train_batch_size=20), tokenizer, source=windows
    )
    reference.train()
    whole.compute_loss(reference, next(iter(whole.get_train_dataloader()))).backward()
    expected = torch.stack([p.grad.norm() for p in reference.parameters() if p.grad is not None]).norm()
    assert norm == pytest.approx(float(expected), rel=1e-4)


def test_the_head_has_its_own_learning_rate(backbone, tokenizer, windows, tmp_path):
    options = {"learning_rate": 1e-3, "head_learning_rate": 5e-3, "num_train_epochs": 1, "warmup_steps": 0}
    trainer = GlodeTrainer(fresh_model(backbone), arguments(tmp_path, **options), tokenizer, source=windows)
    trainer.train()
    groups = trainer.optimizer.param_groups
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    rates = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == (1e-3 if name.startswith("encoder.") else 5e-3), name


def test_a_loss_that_is_no_number_ends_in_a_message(backbone, tokenizer, windows, tmp_path):
    model = fresh_model(backbone)
    with torch.no_grad():
        model.classifier.linear.weight.fill_(float("nan"))
    trainer = GlodeTrainer(model, arguments(tmp_path, logging_steps=1), tokenizer, source=windows)
    with pytest.raises(InputError, match="source_loss is nan at step 1") as error:
        trainer.train()
    assert "Lower --learning_rate or train in full precision" in str(error.value)


def test_mixed_precision_assigns_and_refines(backbone, tokenizer, windows, unlabeled, tmp_path):
    def assign(**options) -> PseudoLabels:
        model = fresh_model(backbone)
        model.classifier.linear.weight.data *= 50  # probabilities that are not all alike
        trainer = GlodeTrainer(model, arguments(tmp_path, **options), tokenizer, source=windows)
        return trainer.assign_pseudo_labels(unlabeled)

    exact, rounded = assign().probabilities, assign(bf16=True)
    error = (rounded.probabilities - exact).abs()
    assert 0 < error.max() < 0.1 and error.mean() < 0.01
    before = rounded.probabilities.clone()
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(tmp_path, bf16=True, num_train_epochs=3),
        tokenizer,
        source=windows,
        target=unlabeled,
        pseudo_labels=rounded,
    )
    trainer.train()
    assert not torch.equal(rounded.probabilities, before)
    torch.testing.assert_close(rounded.probabilities.sum(-1), torch.ones(before.shape[:2]))
    assert trainer.denoiser.prototypes.vectors.norm(dim=-1).allclose(torch.ones(len(LABELS)))
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("stage", ["source", "target"])
def test_patience_ends_either_stage(stage, backbone, tokenizer, corpus, windows, unlabeled, tmp_path):
    """At a rate of nearly nothing no evaluation is better than the first: two more, and the stage ends."""
    options = {"learning_rate": 1e-12, "eval_strategy": "epoch", "early_stopping_patience": 2, "num_train_epochs": 6}
    target = {"target": unlabeled, "pseudo_labels": soft_labels(unlabeled, corpus)} if stage == "target" else {}
    references = gold_entities(corpus)
    trainer = GlodeTrainer(
        fresh_model(backbone),
        arguments(tmp_path, **options),
        tokenizer,
        source=windows,
        dev=windows,
        dev_references=references,
        **target,
    )
    trainer.train()
    assert trainer.state.epoch == 3


def test_a_search_trains_a_fresh_model_each_trial(backbone, tokenizer, corpus, windows, tmp_path):
    """docs/training.md, Searching for settings: the rate that learns nothing loses."""
    begun = []

    def model_init() -> GlodeModel:
        begun.append(fresh_model(backbone))
        return begun[-1]

    trainer = GlodeTrainer(
        None,
        arguments(tmp_path, num_train_epochs=12),
        tokenizer,
        source=windows,
        dev=windows,
        dev_references=gold_entities(corpus),
        model_init=model_init,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-12, 3e-3])},
        compute_objective=lambda metrics: metrics["eval_f1"],
        direction="maximize",
        n_trials=2,
        backend="optuna",
        sampler=GridSampler({"learning_rate": [1e-12, 3e-3]}, seed=0),
    )
    assert best.hyperparameters == {"learning_rate": 3e-3} and best.objective > 0
    assert len(begun) == 3  # the first is what the trainer is made with
    assert not any(weight.requires_grad for weight in begun[2].mlm_head.parameters())
    with pytest.raises(InputError, match=" cannot differ between trials; a search may only vary "):
        trainer.hyperparameter_search(
            hp_space=lambda trial: {"per_device_train_batch_size": trial.suggest_int("per_device_train_batch_size", 2, 3)},
            n_trials=1,
            backend="optuna",
        )


def test_a_model_or_what_makes_it(backbone, tokenizer, corpus, unlabeled, tmp_path):
    with pytest.raises(InputError, match="takes either a model or a model_init, and one of them"):
        GlodeTrainer(None, arguments(tmp_path), tokenizer)
    with pytest.raises(InputError, match="a target stage changes its pseudo labels as it goes"):
        GlodeTrainer(
            None,
            arguments(tmp_path),
            tokenizer,
            target=unlabeled,
            pseudo_labels=soft_labels(unlabeled, corpus),
            model_init=lambda: fresh_model(backbone),
        )
