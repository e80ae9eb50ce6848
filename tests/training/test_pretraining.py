"""Protects continued pretraining: encoder and head learn to fill in masked words, and a span model starts from both."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from support.world import tiny_encoder_config
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from glode.errors import InputError
from glode.features.windows import build_features
from glode.training.adapters import adapt, merge_adapters
from glode.training.arguments import GlodeTrainingArguments
from glode.training.pretraining import LanguageModelTrainer
from modeling_glode import GlodeConfig, GlodeModel, load_language_model

pytestmark = pytest.mark.usefixtures("one_thread", "datasets_cache")
KINDS = {"xlm-roberta": {}, "bert": {}, "modernbert": {}, "deberta-v2": {}, "albert": {"embedding_size": 16}, "electra": {}}


@pytest.fixture
def windows(corpus: Dataset, tokenizer) -> list[Dataset]:
    return [build_features(corpus.select(rows), tokenizer, 64, 2) for rows in (range(12), range(8, 20))]


def trainer_of(model, tokenizer, windows: list[Dataset], directory: Path, **options) -> LanguageModelTrainer:
    defaults = {"learning_rate": 5e-3, "warmup_steps": 0, "per_device_train_batch_size": 4, "num_train_epochs": 10, "seed": 1}
    defaults |= {"report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True}
    defaults |= {"load_best_model_at_end": False, "metric_for_best_model": "loss", "eval_on_start": True}
    return LanguageModelTrainer(model, GlodeTrainingArguments(str(directory), **defaults | options), tokenizer, *windows)


def tiny(kind: str, vocabulary: int, auto=AutoModelForMaskedLM, **options):
    torch.manual_seed(0)
    return auto.from_config(tiny_encoder_config(kind, vocabulary, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_model_starts_from_encoder_and_head(kind: str, tokenizer, windows, tmp_path: Path):
    trainer = trainer_of(tiny(kind, len(tokenizer), **KINDS[kind]), tokenizer, windows, tmp_path)
    trainer.train()
    trainer.save_model()
    losses = trainer.held_out_losses()
    assert len(losses) == 11 and losses[-1] < losses[0] - 0.2
    config = GlodeConfig(AutoConfig.from_pretrained(tmp_path), max_span_length=2)
    model = GlodeModel.from_encoder(str(tmp_path), config).eval()
    batch = trainer.data_collator(trainer.train_dataset.__getitems__(range(8)))
    trainer.model.eval()
    assert model.has_pretrained_mlm_head
    assert torch.allclose(model(**batch).mlm_loss, trainer.compute_loss(trainer.model, dict(batch)), atol=1e-4)
    for auto in (AutoModel, AutoModelForMaskedLM):
        loaded = auto.from_pretrained(tmp_path).get_input_embeddings().weight
        assert torch.equal(loaded, trainer.model.get_input_embeddings().weight)


def test_a_fresh_head_is_fitted_alone(tokenizer, windows, tmp_path: Path):
    tiny("xlm-roberta", len(tokenizer), AutoModel).save_pretrained(tmp_path)
    config = tiny_encoder_config("xlm-roberta", len(tokenizer))
    model, head = load_language_model(str(tmp_path), config)
    trainer = trainer_of(model, tokenizer, windows, tmp_path, mlm_head_warmup_steps=40)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    losses = trainer.fit_head()
    changed = {name.split(".")[0] for name, weights in model.state_dict().items() if not torch.equal(weights, before[name])}
    assert head is None and changed == {"lm_head"} and len(losses) == 40 and losses[-1] < losses[0]
    assert torch.equal(model.lm_head.decoder.weight, before["roberta.embeddings.word_embeddings.weight"])


def test_word_embeddings_stay_where_they_are_frozen(tokenizer, windows, tmp_path: Path):
    model = tiny("xlm-roberta", len(tokenizer))
    before = model.get_input_embeddings().weight.clone()
    trainer_of(model, tokenizer, windows, tmp_path, freeze_embeddings=True, num_train_epochs=1).train()
    assert torch.equal(model.get_input_embeddings().weight, before)
    model = tiny("xlm-roberta", len(tokenizer))
    trainer_of(model, tokenizer, windows, tmp_path, num_train_epochs=1).train()
    assert not torch.equal(model.get_input_embeddings().weight, before)


def test_adapters_learn_in_the_encoder_alone_and_are_merged(tokenizer, windows, tmp_path: Path):
    model = tiny("xlm-roberta", len(tokenizer))
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    adapt(model.base_model, 4, None)
    trainer = trainer_of(model, tokenizer, windows, tmp_path, num_train_epochs=2)
    trainer.train()
    merge_adapters(model.base_model)
    changed = {name for name, weights in model.state_dict().items() if not torch.equal(weights, before[name])}
    assert model.state_dict().keys() == before.keys()
    assert {name.split(".")[0] for name in changed} == {"roberta", "lm_head"} and not [n for n in changed if "embeddings" in n]


def test_the_head_has_its_rate(tokenizer, windows, tmp_path: Path):
    trainer = trainer_of(tiny("xlm-roberta", len(tokenizer)), tokenizer, windows, tmp_path, head_learning_rate=0.5)
    groups = trainer.create_optimizer().param_groups
    assert {id(p) for group in groups if group["lr"] == 0.5 for p in group["params"]} == {
        id(p) for name, p in trainer.model.lm_head.named_parameters() if name != "decoder.weight"
    }


def test_masks_and_order_follow_from_seed_and_epoch_alone(tokenizer, windows, tmp_path: Path):
    """Whatever is drawn meanwhile; another epoch has others."""
    batches = []
    for epoch in (1, 1, 2):
        trainer = trainer_of(tiny("xlm-roberta", len(tokenizer)), tokenizer, windows, tmp_path)
        torch.rand(1)
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        batches.append([batch["mlm_labels"] for batch in loader])
    same, also, other = (torch.cat([labels.flatten() for labels in each]) for each in batches)
    assert torch.equal(same, also) and not torch.equal(same, other)
    assert len(batches[0]) == 3 and all(len(labels) == 8 for labels in batches[0])


def test_a_batch_without_a_masked_token_teaches_nothing(tokenizer, windows, tmp_path: Path):
    trainer = trainer_of(tiny("xlm-roberta", len(tokenizer)), tokenizer, windows, tmp_path, mlm_probability=0.001)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(trainer.train_dataset.__getitems__(range(4))))
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in trainer.model.parameters() if p.grad is not None)


def test_a_loss_that_is_no_number_ends_the_run(tokenizer, windows, tmp_path: Path):
    model = tiny("xlm-roberta", len(tokenizer))
    model.lm_head.bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"loss is nan at step 1\. Lower"):
        trainer_of(model, tokenizer, windows, tmp_path, logging_steps=1, eval_on_start=False).train()


@pytest.mark.parametrize(("sentences", "learnt"), [(1, [0]), (2, [0]), (30, [*range(1), *range(2, 21), *range(22, 30)])])
def test_every_twentieth_sentence_is_held_out(sentences: int, learnt: list[int], corpus, tokenizer, tmp_path: Path):
    """Long sentences are several windows, which stay together."""
    rows = [{"words": ["Oslo"] * (30 if i == 1 else 1)} for i in range(sentences)]
    texts = [build_features(Dataset.from_list(rows), tokenizer, 12, 2) for _ in range(2)]
    trainer = trainer_of(tiny("xlm-roberta", len(tokenizer)), tokenizer, texts, tmp_path)
    assert trainer.train_dataset.source["sentence"][:] == learnt
    assert len(trainer.eval_dataset) > 0
    assert sorted({*trainer.eval_dataset.target["sentence"][:], *learnt}) == list(range(sentences))
