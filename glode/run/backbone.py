"""The encoder that a run starts from."""

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from glode.errors import InputError
from glode.run.arguments import ModelArguments
from glode.run.corpora import Corpora
from glode.run.embedded import convert_e5
from glode.training.adapters import adapt
from modeling_glode import GlodeConfig, GlodeModel, encoder_capacity, is_language_model, join_unspaced

Model = TypeVar("Model", bound=torch.nn.Module)

_TRIED_TOKENS = 16
_ROUNDING = 1e-6  # of the largest state: what is less is rounding
_PADDING = 0.5  # of what a word changes; kernels over neighbours bring a hundredth of it to the far end


def load_backbone(path: str) -> tuple[str, PreTrainedTokenizerBase]:
    """Path and tokenizer of the encoder.

    Raises:
        InputError: it cannot be loaded, its tokenizer is not a fast one, or it has no mask token or vocabulary.
    """
    try:
        encoder = AutoConfig.from_pretrained(path)  # fails sooner where the Hub is not there
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _backbone_error(path, error) from error
    if not tokenizer.is_fast:
        raise InputError(f"backbone {path!r} has no fast tokenizer, and word alignment needs one. Use one with a tokenizer.json.")
    if tokenizer.mask_token_id is None:
        raise InputError(f"backbone {path!r} has no mask token. Use an encoder that was trained as a masked language model.")
    if not getattr(encoder, "vocab_size", None):
        raise InputError(f"backbone {path!r} ({encoder.model_type}) has no vocabulary of tokens. Use an encoder that has one.")
    return path, tokenizer


def check_language_model(path: str) -> None:
    """Raises InputError where transformers has no masked language model of this encoder, which --pretrain_epochs needs."""
    config = AutoConfig.from_pretrained(path)
    if not is_language_model(config):
        raise InputError(
            f"--pretrain_epochs: transformers has no masked language model of backbone {path!r} ({config.model_type}). Leave it "
            "out, or use another encoder, such as xlm-roberta-base."
        )


def embedded_backbone(corpora: Corpora, cache: str) -> str:
    """Path of the embedded encoder with the part of its vocabulary that the corpora need.

    Raises:
        InputError: the cache cannot be written.
    """
    parts = [corpora.source, corpora.dev, corpora.target]
    parts += [corpora.taken_out] if corpora.taken_out else []  # labelling more sentences keeps the vocabulary
    texts = (" ".join(join_unspaced(words)[0]) for part in parts for words in part["words"])
    try:
        return str(convert_e5(Path(cache).expanduser(), texts))
    except OSError as error:
        raise InputError(f"--model_cache {cache} cannot be written ({error.strerror}). Choose another directory.") from error


def _backbone_error(path: str, error: Exception) -> InputError:
    return InputError(
        f"backbone {path!r} cannot be loaded: {' '.join(str(error).split())[:200]} Check the name, the connection to the Hub "
        "(HF_ENDPOINT, HF_TOKEN), or give a local directory."
    )


def glode_config(arguments: ModelArguments, path: str, tokenizer, labels: list[str], max_span_length: int) -> GlodeConfig:
    """The configuration of a fresh model on a backbone, with the wanted dropout in the encoder."""
    encoder = AutoConfig.from_pretrained(path)
    for name, value in encoder.to_dict().items():
        if "drop" in name and isinstance(value, (int, float)) and not isinstance(value, bool) and "classifier" not in name:
            setattr(encoder, name, arguments.dropout)
    return GlodeConfig(
        encoder,
        max_span_length=max_span_length,
        max_tokens=encoder_capacity(tokenizer, encoder, arguments.max_tokens),
        units=arguments.units,
        projection_size=arguments.projection_size,
        head_dropout=arguments.dropout,
        id2label=dict(enumerate(labels)),
    )


def fresh_model(path: str, config: GlodeConfig, arguments: ModelArguments) -> GlodeModel:
    """A model on the encoder's pretrained weights, with adapters where they are asked for; everything else is drawn from torch's
    random state.

    Raises:
        InputError: the weights are not there or damaged, the encoder has no such attention, or it does not read as it must.
    """
    try:
        model = aligned(GlodeModel.from_encoder(path, config, attn_implementation=arguments.attn_implementation))
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise _backbone_error(path, error) from error
    check_reading(model, path)
    if arguments.lora_rank:
        adapt(model.encoder, arguments.lora_rank, arguments.lora_alpha)
    return model


@torch.no_grad()
def check_reading(model: GlodeModel, path: str) -> None:
    """Whether each word is read with the words on both sides of it, and whatever padding follows: by what another token, and
    padding, change in the states of the tokens before.

    Raises:
        InputError: the encoder does not read tokens alone, or reads them otherwise.
    """
    encoder, length = model.config.encoder_config, min(_TRIED_TOKENS, model.config.max_tokens // 2)
    tokens = encoder.vocab_size - torch.arange(1, length + 1)[None]
    other, padded = tokens.clone(), torch.nn.functional.pad(tokens, (0, length), value=encoder.pad_token_id or 0)
    other[0, -1] = tokens[0, 0]
    mask = torch.ones_like(padded)
    mask[:, length:] = 0
    was_training, attention = model.encoder.training, model.encoder.config._attn_implementation
    model.encoder.eval()
    if attention not in (None, "eager", "sdpa"):
        model.encoder.config._attn_implementation = "eager"  # a flash attention computes on a GPU alone, and in half precision
    try:
        with torch.random.fork_rng(devices=[]):
            states, changed, beside = (
                model.encoder(input_ids=row, attention_mask=mask[:, : row.shape[1]]).last_hidden_state[0, : length - 1]
                for row in (tokens, other, padded)
            )
    except Exception as error:  # whatever an encoder raises that needs more than tokens, or tokens of a certain number
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InputError(
            f"backbone {path!r} cannot read tokens alone ({reason}). Use an encoder of text, such as xlm-roberta-base."
        ) from error
    finally:
        model.encoder.config._attn_implementation = attention
        model.encoder.train(was_training)
    by_word = float((changed - states).abs().max())
    by_padding = float((beside - states)[: length // 2].abs().max())
    if by_word <= _ROUNDING * float(states.abs().max()):
        raise InputError(
            f"backbone {path!r} reads each word without those behind it, as decoders do: neither entities nor masked words can "
            "be told so. Use an encoder, which reads in both directions."
        )
    if by_padding > _PADDING * by_word:
        raise InputError(
            f"backbone {path!r} mixes words with the padding behind them: a sentence would read otherwise beside longer ones. "
            "Use an encoder that masks its padding."
        )


def aligned(model: Model) -> Model:
    """The model with weights where torch puts its own. Those of a file lie at any address, on which the last bits of a product of
    matrices depend: a model that was loaded would not give the scores of the one that was saved."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model
