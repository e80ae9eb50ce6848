"""Protects the models that a run begins with: where their weights lie does not depend on the file they come from."""

from pathlib import Path

import pytest
from support.world import tiny_encoder_config
from transformers import AutoModel

from glode.errors import InputError
from glode.run.arguments import ModelArguments
from glode.run.backbone import aligned, fresh_model, glode_config, load_backbone
from modeling_glode import GlodeModel


def test_weights_lie_where_torch_puts_its_own(backbone: Path, tokenizer, tmp_path: Path):
    config = glode_config(ModelArguments(), str(backbone), tokenizer, ["O", "PER"], 3)
    fresh = fresh_model(str(backbone), config, ModelArguments())
    fresh.save_pretrained(tmp_path)
    for model in (fresh, aligned(GlodeModel.from_pretrained(tmp_path))):
        assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())


def test_an_encoder_that_reads_the_padding_is_refused(tokenizer, tmp_path: Path):
    AutoModel.from_config(tiny_encoder_config("fnet", len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is an FNet, which mixes words with the padding behind them"):
        load_backbone(ModelArguments(model_name_or_path=str(tmp_path)), None, "")
