"""Protects the models that a run begins with: where their weights lie does not depend on the file they come from."""

from pathlib import Path

from glode.run.arguments import ModelArguments
from glode.run.backbone import aligned, fresh_model, glode_config
from modeling_glode import GlodeModel


def test_weights_lie_where_torch_puts_its_own(backbone: Path, tokenizer, tmp_path: Path):
    config = glode_config(ModelArguments(), str(backbone), tokenizer, ["O", "PER"], 3)
    fresh = fresh_model(str(backbone), config, "sdpa")
    fresh.save_pretrained(tmp_path)
    for model in (fresh, aligned(GlodeModel.from_pretrained(tmp_path))):
        assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())
