"""Low-rank adapters in an encoder (LoRA, Hu et al., 2022), by peft: they alone learn, and all else of it stays as it is."""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from glode.errors import InputError
from modeling_glode import GlodeModel

NAME = "default"  # of the adapter in peft's layers
DIRECTORY = "adapter"  # of a model's directory, where its adapters are kept by themselves


def check_peft() -> None:
    """Raises InputError where the package is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise InputError('--lora_rank: adapters are made by peft, which is not installed: pip install "glode[lora]".')


def adapt(encoder: PreTrainedModel, rank: int, alpha: float | None) -> None:
    """Put an adapter into each linear layer of an encoder; from now on nothing else of it learns.

    The state dict has each layer's weights with the adapter's share added, under the names that they have without adapters, and
    the adapters besides. So a checkpoint is loaded as any model is, and training goes on from it exactly: then the weights of
    the layer itself, which do not change, stay those that it has.

    Args:
        rank: of an adapter's two matrices, which are drawn from torch's random state.
        alpha: an adapter's share is scaled by alpha / rank; None is twice the rank.
    Raises:
        InputError: the encoder has no linear layers.
    """
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules="all-linear")
    try:
        peft.inject_adapter_in_model(config, encoder, NAME)
    except ValueError as error:
        raise InputError(
            f"--lora_rank: {type(encoder).__name__} has no linear layers that adapters could go into. Leave it out."
        ) from error
    for _, _, layer in _adapted_layers(encoder):
        layer.register_state_dict_post_hook(_add_share)
        layer.register_load_state_dict_pre_hook(_keep_own_weights)


def is_adapted(encoder: nn.Module) -> bool:
    """Whether the encoder has adapters."""
    return hasattr(encoder, "peft_config")


def merge_adapters(encoder: Any) -> None:
    """Add the adapters to the weights, and take them out: an ordinary encoder."""
    for parent, name, layer in list(_adapted_layers(encoder)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
    del encoder.peft_config


def learning_share(model: nn.Module) -> tuple[int, int]:
    """The number of a model's weights that learn, and of all that it has without adapters."""
    learns = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    return learns, sum(weights.numel() for name, weights in model.named_parameters() if ".lora_" not in name)


@dataclass(frozen=True)
class Adapter:
    """What a model has learnt beside its encoder's own weights, as peft keeps it.

    Args:
        config: peft's LoraConfig.
        weights: of the adapters and of all that is not the encoder's, by peft's names.
    """

    config: Any
    weights: Mapping[str, Tensor]

    def write(self, directory: Path) -> None:
        """For `peft.PeftModel.from_pretrained(GlodeModel.from_encoder(BACKBONE, CONFIG), directory)`."""
        directory.mkdir(exist_ok=True)
        self.config.save_pretrained(directory)
        save_file(dict(self.weights), directory / "adapter_model.safetensors", {"format": "pt"})


def adapter_of(model: GlodeModel, backbone: str) -> Adapter:
    """A copy of what a model with adapters has learnt.

    Args:
        backbone: the name of the encoder that they were trained on.
    """
    peft, own = importlib.import_module("peft"), model.encoder.peft_config[NAME]
    places = "|".join(re.escape(name) for name in sorted(own.target_modules))
    heads = [name for name, part in model.named_children() if name != "encoder" and list(part.parameters())]
    config = peft.LoraConfig(
        r=own.r,
        lora_alpha=own.lora_alpha,
        target_modules=rf"encoder\.(.*\.)?({places})",
        modules_to_save=heads,
        base_model_name_or_path=backbone,
        inference_mode=True,
    )
    learnt = {name: weights for name, weights in model.named_parameters() if ".lora_" in name or name.split(".")[0] in heads}
    copies = {name.replace(f".{NAME}.", "."): weights.detach().cpu().clone() for name, weights in learnt.items()}
    return Adapter(config, {f"base_model.model.{name}": weights for name, weights in copies.items()})


def _adapted_layers(encoder: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """The module around each layer with an adapter, its name there, and the layer."""
    kind = importlib.import_module("peft.tuners.lora").LoraLayer
    for module in list(encoder.modules()):
        yield from ((module, name, child) for name, child in module.named_children() if isinstance(child, kind))


@torch.no_grad()
def _add_share(layer: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """The layer's weights in a state dict as they are without adapters; on the CPU, as a GPU may hold the model once."""
    for name in [name for name in state if name.startswith(f"{prefix}base_layer.")]:
        values = state.pop(name)
        if name.endswith(".weight"):
            values = (values + layer.get_delta_weight(NAME)).cpu()
        state[name.replace(".base_layer.", ".")] = values


def _keep_own_weights(layer: Any, state: dict[str, Tensor], prefix: str, *more: Any) -> None:
    """The layer's own weights in the place of those of a state dict, which have its adapter's share."""
    for name, values in layer.base_layer.named_parameters():
        state.pop(f"{prefix}{name}", None)
        state[f"{prefix}base_layer.{name}"] = values.detach()
