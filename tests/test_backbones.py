"""Protects the choice of the encoder: tiny ones of every kind train both stages, are saved, loaded and tag, alone and among longer
texts alike; a checkpoint in half precision gives weights in full precision; the language model's loss is the checkpoint's own; and
byte-level tokenisers see words as running text has them."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from support.world import tiny_encoder_config
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedModel

from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = ["O", "LOC", "PER"]
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
KINDS = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "big_bird": {"attention_type": "original_full"},
    "camembert": {},
    "data2vec-text": {},
    "deberta": DISENTANGLED,
    "deberta-v2": {**DISENTANGLED, "position_buckets": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "eurobert": {"num_key_value_heads": 2, "mask_token_id": 4},
    "flaubert": XLM,
    "ibert": {},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"global_attn_every_n_layers": 1},
    "mpnet": {},
    "nomic_bert": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roberta": {},
    "roformer": {"embedding_size": 16},
    "squeezebert": {"embedding_size": 32},
    "xlm": XLM,
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


def save_language_model(kind: str, directory: Path, vocabulary: int, **options) -> PreTrainedModel:
    """A language model whose weights are large enough that its loss says something, saved in half precision."""
    torch.manual_seed(0)
    config = tiny_encoder_config(kind, vocabulary, **{**KINDS[kind], **options})
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.to(torch.bfloat16).save_pretrained(directory)
    return model.float().eval()


def from_encoder(directory: Path, **options) -> GlodeModel:
    """What a run makes of a checkpoint."""
    torch.manual_seed(0)
    config = GlodeConfig(AutoConfig.from_pretrained(directory), max_span_length=3, max_tokens=64, projection_size=8)
    config.head_dropout, config.id2label = 0.0, dict(enumerate(LABELS))
    return GlodeModel.from_encoder(str(directory), config, attn_implementation="sdpa", **options)


@pytest.fixture(scope="module")
def windows(corpus: Dataset, tokenizer) -> tuple[Dataset, Dataset]:
    """Of labelled and of unlabelled text."""
    return build_features(corpus, tokenizer, 64, 3, LABELS), build_features(corpus, tokenizer, 64, 3)


def train(directory: Path, tokenizer, windows: tuple[Dataset, Dataset], labels=None) -> GlodeTrainer:
    """Two steps of a stage."""
    arguments = GlodeTrainingArguments(
        output_dir=str(directory / "run"),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        refine_start_epoch=1,
        num_neighbors=5,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    source, target = windows
    model = from_encoder(directory)
    trainer = GlodeTrainer(model, arguments, tokenizer, source=source, target=target, pseudo_labels=labels)
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_every_backbone_trains_and_tags(kind: str, tokenizer, windows, tmp_path: Path):
    save_language_model(kind, tmp_path, len(tokenizer))
    source = train(tmp_path, tokenizer, windows)
    trainer = train(tmp_path, tokenizer, windows, source.assign_pseudo_labels(windows[1]))
    for stage, losses in ((source, ["source_loss", "mlm_loss"]), (trainer, ["source_loss", "target_loss", "mlm_loss"])):
        steps = [entry for entry in stage.state.log_history if "source_loss" in entry]
        assert len(steps) == 2
        assert all(step[name] > 0 for step in steps for name in losses)
    model = trainer.model.eval()
    with torch.no_grad():
        model.classifier.linear.weight.mul_(20)  # so that it finds entities
    model.save_pretrained(tmp_path / "model")
    loaded, info = GlodeModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    texts = ["Anna Berg lives in Rome .", "in Oslo it rains " * 5, "Ida", "yesterday Karl Moor flew to New York"]
    found = loaded.predict(texts, tokenizer)
    assert sum(map(len, found)) > 5
    for entities in (model.predict(texts, tokenizer), [loaded.predict(text, tokenizer) for text in texts]):
        for expected, actual in zip(found, entities, strict=True):
            assert [entity | {"score": pytest.approx(entity["score"], abs=1e-4)} for entity in expected] == actual
