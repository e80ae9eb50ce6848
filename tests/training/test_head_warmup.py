"""Protects the fresh head of a language model: it is fitted before training, alone, the same each time, where it is read."""

import pytest
import torch
from datasets import Dataset
from support.world import tiny_encoder_config

from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from glode.training.head_warmup import fit_head, needs_warmup
from modeling_glode import GlodeConfig, GlodeModel


def tiny_model(vocabulary: int) -> GlodeModel:
    torch.manual_seed(0)
    return GlodeModel(GlodeConfig(tiny_encoder_config("xlm-roberta", vocabulary), max_span_length=2, head_dropout=0.5))


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("options", [{}, {"mlm_vocabulary": "target", "mlm_whole_words": True, "mlm_hide_masked": True}])
def test_only_the_head_is_fitted(options: dict, corpus: Dataset, tokenizer, tmp_path):
    arguments = GlodeTrainingArguments(str(tmp_path), use_cpu=True, mlm_head_warmup_steps=60, **options)
    source, target = (build_features(corpus.select(rows), tokenizer, 64, 2) for rows in (range(10), range(10, 20)))
    fitted = []
    for _ in range(2):
        model = tiny_model(len(tokenizer))
        model.projector.requires_grad_(False)
        torch.rand(1)  # what is drawn elsewhere changes nothing
        state = torch.get_rng_state()
        losses = fit_head(model, tokenizer, source, target, arguments)
        assert torch.equal(torch.get_rng_state(), state) and model.training
        assert len(losses) == 60 and sum(losses[-5:]) < 0.97 * sum(losses[:5])
        fitted.append(model.state_dict())
    before = tiny_model(len(tokenizer)).state_dict()
    assert all(torch.equal(tensor, fitted[1][name]) for name, tensor in fitted[0].items())
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], fitted[0][name])} == {"mlm_head"}
    assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"projector"}


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, {"source", "target"}),
        ({"source_mlm": "off"}, {"target"}),
        ({"mlm_weight": 0.0}, set()),
        ({"auxiliary_task": "none"}, set()),
    ],
)
def test_a_head_that_no_stage_reads_is_not_fitted(options: dict, stages: set[str], tokenizer, tmp_path):
    model, arguments = tiny_model(len(tokenizer)), GlodeTrainingArguments(str(tmp_path), use_cpu=True, **options)
    assert {stage for stage in ("source", "target") if needs_warmup(model, arguments, stage)} == stages
    model.config.mlm_head = {"width": 32, "tied": 32}  # it came with the encoder
    assert not any(needs_warmup(model, arguments, stage) for stage in ("source", "target"))
