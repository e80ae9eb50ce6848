"""Protects training with adapters: they alone learn in the encoder, a checkpoint is a model like any other, and the result is one
too, with adapters that peft loads."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from support.world import tiny_encoder_config
from test_trainer import arguments, fresh_model
from torch import nn
from transformers import AutoModel, AutoModelForTokenClassification, pipeline

import run_crossner
from glode.errors import InputError
from glode.fast.preparing import speed_up
from glode.features.windows import build_features
from glode.run.parsing import parse_arguments
from glode.training.adapters import adapt, is_adapted, learning_share, merge_adapters
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
LINE = ["--target_lang", "de", "--source_train", "en.iob2", "--target_unlabeled", "de.txt"]


@pytest.fixture
def windows(corpus, tokenizer):
    return build_features(corpus, tokenizer, 64, 3, ["O", "LOC", "PER"])


def trained(backbone: Path, tokenizer, windows, directory: Path, **options) -> GlodeTrainer:
    """A source model whose encoder has adapters."""
    model = fresh_model(backbone)
    adapt(model.encoder, 4, None)
    trainer = GlodeTrainer(model, arguments(directory, num_train_epochs=2, **options), tokenizer, source=windows, target=windows)
    trainer.train()
    return trainer


def scores_of(model: GlodeModel) -> torch.Tensor:
    """What a model makes of a row of tokens."""
    tokens = torch.arange(5, 11)[None]
    model.eval()
    with torch.no_grad():
        return model(tokens, torch.ones_like(tokens), tokens - 5, tokens - 5, torch.ones_like(tokens)).logits


@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert", "deberta-v2", "albert"])
def test_every_linear_layer_of_an_encoder_has_an_adapter_and_nothing_else_of_it_learns(kind: str):
    torch.manual_seed(0)
    options = {"embedding_size": 16} if kind == "albert" else {}
    model = GlodeModel(GlodeConfig(tiny_encoder_config(kind, 60, **options), max_span_length=3, head_dropout=0.0))
    before, plain = scores_of(model), {name for name, part in model.encoder.named_modules() if type(part) is nn.Linear}
    speed_up(model)
    adapt(model.encoder, 2, 3.0)
    assert is_adapted(model.encoder)
    learns = {name for name, weights in model.encoder.named_parameters() if weights.requires_grad}
    assert learns == {f"{name}.lora_{side}.default.weight" for name in plain for side in "AB"}
    assert scores_of(model).equal(before)  # an adapter begins at nothing
    learn, total = learning_share(model)
    assert total == sum(p.numel() for p in GlodeModel(model.config).parameters()) and learn < total
    for name in learns:
        nn.init.normal_(model.encoder.get_parameter(name))
    adapted = scores_of(model)
    assert not adapted.allclose(before, atol=1e-4)
    merge_adapters(model.encoder)
    assert not is_adapted(model.encoder) and {n for n, part in model.encoder.named_modules() if type(part) is nn.Linear} == plain
    torch.testing.assert_close(scores_of(model), adapted, rtol=0, atol=1e-5)


def test_an_encoder_without_linear_layers_is_refused():
    model = GlodeModel(GlodeConfig(tiny_encoder_config("squeezebert", 60, embedding_size=32)))
    with pytest.raises(InputError, match="has no linear layers that adapters could go into"):
        adapt(model.encoder, 2, None)


def test_what_learns_and_that_a_checkpoint_is_a_model(backbone, tokenizer, windows, tmp_path, caplog):
    trainer = trained(backbone, tokenizer, windows, tmp_path, save_strategy="steps", save_steps=4)
    model, first = trainer.model, fresh_model(backbone).state_dict()
    adapted = scores_of(model)
    saved = load_file(tmp_path / "checkpoint-8" / "model.safetensors")
    loaded = GlodeModel.from_pretrained(tmp_path / "checkpoint-8")
    torch.testing.assert_close(scores_of(loaded), adapted, rtol=0, atol=1e-5)
    assert "lora" not in caplog.text
    merge_adapters(model.encoder)
    assert {name for name in saved if ".lora_" not in name} == model.state_dict().keys() == first.keys()
    for name, weights in model.state_dict().items():
        assert weights.equal(saved[name]), name
    changed = {name for name, weights in model.state_dict().items() if not weights.equal(first[name])}
    linear = {f"encoder.{name}.weight" for name, part in model.encoder.named_modules() if type(part) is nn.Linear}
    heads = {name for name in first if name.split(".")[0] in ("classifier", "length_embedding", "shape_embedding", "mlm_head")}
    assert linear < changed <= linear | heads  # no bias, norm or word of the encoder


def test_adapters_learn_where_activations_are_computed_anew(backbone, tokenizer, windows, tmp_path):
    """Nothing before the first layer asks for a gradient, for which checkpointing of the older kind gives none."""
    plain = trained(backbone, tokenizer, windows, tmp_path / "a").model.state_dict()
    anew = trained(backbone, tokenizer, windows, tmp_path / "b", activation_checkpointing=True).model.state_dict()
    first = next(name for name in plain if "layer.0" in name and "lora_B" in name)
    assert plain[first].abs().sum() > 0
    for name, weights in plain.items():
        torch.testing.assert_close(anew[name], weights, rtol=0, atol=1e-4)


def test_what_is_said_of_adapters_makes_sense(monkeypatch):
    for more in (["--lora_alpha", "8"], ["--save_adapter", "true"]):
        with pytest.raises(InputError, match="say something of adapters"):
            parse_arguments([*LINE, *more])
    for more in (["--lora_rank", "0"], ["--lora_rank", "4", "--lora_alpha", "0"]):
        with pytest.raises(InputError, match="is out of range: expected a number"):
            parse_arguments([*LINE, *more])
    assert parse_arguments([*LINE, "--lora_rank", "4"])[1].lora_rank == 4
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="adapters are made by peft, which is not installed: pip install"):
        parse_arguments([*LINE, "--lora_rank", "4"])


SMALL = (
    "--config demo --target_lang de --use_cpu true --disable_tqdm true --report_to none --max_source_samples 30 "
    "--max_target_samples 12 --max_span_length 3 --per_device_train_batch_size 10 --num_train_epochs 2 --refine_start 0 "
    "--source_num_train_epochs 2 --lora_rank 4 --max_tokens 64"
)


@pytest.mark.usefixtures("datasets_cache")
def test_a_run_with_adapters(backbone: Path, tmp_path: Path, capsys, caplog):
    """Both stages and the token classifier: models like any others, and adapters that peft puts onto the encoder."""
    output = tmp_path / "model"
    argv = [*SMALL.split(), "--model_name_or_path", str(backbone), "--output_dir", str(output)]
    run_crossner.main([*argv, "--learning_rate", "1e-2", "--save_adapter", "true", "--export_token_classifier", "true"])
    said = " ".join(capsys.readouterr().out.split())
    counted = json.loads((output / "metrics.json").read_text())["parameters"]
    assert said.count(f"adapters of rank 4: {counted['learn']:,} of {counted['all']:,} weights learn") == 1
    assert "is one for whole weights" not in caplog.text
    for directory in (output, output / "source_model"):
        model = GlodeModel.from_pretrained(directory)
        assert not [name for name in load_file(directory / "model.safetensors") if "lora" in name]
        base = GlodeModel.from_encoder(str(backbone), GlodeConfig.from_pretrained(directory))
        loaded = peft.PeftModel.from_pretrained(base, directory / "adapter")
        torch.testing.assert_close(scores_of(loaded), scores_of(model), rtol=0, atol=1e-5)
        assert scores_of(loaded.merge_and_unload()).equal(scores_of(model))
        fresh = AutoModel.from_pretrained(backbone).get_input_embeddings().weight
        assert model.get_input_embeddings().weight.equal(fresh)
    assert "adapters of rank 4 were trained (LoRA), and are merged" in (output / "README.md").read_text()
    assert isinstance(pipeline("token-classification", model=str(output), trust_remote_code=True)("Anna lives in Rome ."), list)
    tokens = load_file(output / "token_classifier" / "model.safetensors")
    assert not [name for name in tokens if "lora" in name] and not (output / "token_classifier" / "adapter").exists()
    AutoModelForTokenClassification.from_pretrained(output / "token_classifier")


@pytest.mark.usefixtures("datasets_cache")
def test_a_rate_for_whole_weights_and_spread_weights_are_told(backbone: Path, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr("trainer_glode.GlodeTrainer.train", lambda *_, **__: (_ for _ in ()).throw(InputError("enough of it")))
    argv = [*SMALL.split(), "--model_name_or_path", str(backbone), "--learning_rate", "1e-5"]
    with pytest.raises(InputError, match="enough of it"):
        run_crossner.main([*argv, "--output_dir", str(tmp_path / "a")])
    assert "--learning_rate 1e-05 is one for whole weights: adapters want about ten times as much" in caplog.text
    monkeypatch.setattr("trainer_glode.GlodeTrainer.is_fsdp_enabled", True, raising=False)
    monkeypatch.setattr("trainer_glode.GlodeTrainer.create_accelerator_and_postprocess", spread(GlodeTrainer), raising=False)
    with pytest.raises(InputError, match="adapters are merged into weights that lie on one device, and FSDP and"):
        run_crossner.main([*argv, "--output_dir", str(tmp_path / "b")])


def spread(kind: type):
    """The Trainer's way to its accelerator, which then says that weights are spread."""
    create = kind.create_accelerator_and_postprocess

    def created(trainer) -> None:
        create(trainer)
        trainer.is_deepspeed_enabled = True

    return created
