"""Protects the models that a run begins with: where their weights lie does not depend on the file they come from."""

from pathlib import Path

import pytest
import torch
from support.world import tiny_encoder_config
from transformers import AutoModel

from glode.errors import InputError
from glode.run.arguments import ModelArguments
from glode.run.backbone import aligned, check_reading, fresh_model, glode_config, load_backbone
from modeling_glode import GlodeModel


def test_weights_lie_where_torch_puts_its_own(backbone: Path, tokenizer, tmp_path: Path):
    config = glode_config(ModelArguments(), str(backbone), tokenizer, ["O", "PER"], 3)
    fresh = fresh_model(str(backbone), config, ModelArguments())
    fresh.save_pretrained(tmp_path)
    for model in (fresh, aligned(GlodeModel.from_pretrained(tmp_path))):
        assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())


REFUSED = {
    "fnet": ({}, "mixes words with the padding behind them: a sentence would read otherwise beside longer ones"),
    "nystromformer": ({}, "mixes words with the padding behind them"),
    "modernbert-decoder": ({}, "reads each word without those behind it, as decoders do"),
    "gpt2": ({}, "reads each word without those behind it"),
    "bert": ({"is_decoder": True}, "reads each word without those behind it"),
    "bros": ({}, "cannot read tokens alone ("),
    "canine": ({"vocab_size": None}, "has no vocabulary of tokens. Use an encoder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_encoders_that_do_not_read_as_they_must(kind: str, tokenizer, tmp_path: Path):
    options, message = REFUSED[kind]
    AutoModel.from_config(tiny_encoder_config(kind, len(tokenizer), **options)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError) as error:
        path, _ = load_backbone(str(tmp_path))
        fresh_model(path, glode_config(ModelArguments(), path, tokenizer, ["O", "PER"], 3), ModelArguments())
    assert message in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("kind", ["convbert", "lilt", "t5", "xlm-roberta"])
def test_encoders_that_read_as_they_must(kind: str, tokenizer, tmp_path: Path):
    """Also where a kernel brings a little of the padding to the words before it; and trying it draws nothing from torch."""
    options = {"hidden_size": 48} if kind == "lilt" else {"d_model": 32, "d_kv": 16, "num_heads": 2, "embedding_size": 32}
    AutoModel.from_config(tiny_encoder_config(kind, len(tokenizer), **options)).save_pretrained(tmp_path)
    config = glode_config(ModelArguments(), str(tmp_path), tokenizer, ["O", "PER"], 3)
    model = GlodeModel.from_encoder(str(tmp_path), config)
    state = torch.get_rng_state()
    check_reading(model, str(tmp_path))
    assert torch.equal(torch.get_rng_state(), state) and model.training


def test_encoders_are_tried_without_an_attention_that_needs_a_gpu(tokenizer, tmp_path: Path):
    AutoModel.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer))).save_pretrained(tmp_path)
    model = GlodeModel.from_encoder(str(tmp_path), glode_config(ModelArguments(), str(tmp_path), tokenizer, ["O", "PER"], 3))
    model.encoder.config._attn_implementation = "flash_attention_2"
    check_reading(model, str(tmp_path))
    assert model.encoder.config._attn_implementation == "flash_attention_2"
