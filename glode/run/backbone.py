"""The encoder that a run starts from."""

from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from glode.errors import InputError
from glode.run.arguments import ModelArguments
from glode.run.corpora import Corpora
from glode.run.embedded import DEMO_BACKBONE, convert_e5
from glode.training.adapters import adapt
from modeling_glode import GlodeConfig, GlodeModel, encoder_capacity, join_unspaced


def load_backbone(arguments: ModelArguments, corpora: Corpora, cache: str) -> tuple[str, PreTrainedTokenizerBase]:
    """Path and tokenizer of the encoder.

    Raises:
        InputError: it cannot be loaded, or its tokenizer is not a fast one.
    """
    path = arguments.model_name_or_path
    if path == DEMO_BACKBONE:
        parts = [corpora.source, corpora.dev, corpora.target]
        parts += [corpora.taken_out] if corpora.taken_out else []  # labelling more sentences keeps the vocabulary
        texts = (" ".join(join_unspaced(words)[0]) for part in parts for words in part["words"])
        try:
            path = str(convert_e5(Path(cache).expanduser(), texts))
        except OSError as error:
            raise InputError(f"--model_cache {cache} cannot be written ({error.strerror}). Choose another directory.") from error
    try:
        encoder = AutoConfig.from_pretrained(path)  # fails sooner where the Hub is not there
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise _backbone_error(path, error) from error
    if encoder.model_type == "fnet":
        raise InputError(
            f"backbone {path!r} is an FNet, which mixes words with the padding behind them: a sentence would read otherwise "
            "beside longer ones. Use an encoder with attention."
        )
    if not tokenizer.is_fast:
        raise InputError(f"backbone {path!r} has no fast tokenizer, and word alignment needs one. Use one with a tokenizer.json.")
    if tokenizer.mask_token_id is None:
        raise InputError(f"backbone {path!r} has no mask token. Use an encoder that was trained as a masked language model.")
    return path, tokenizer


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
        projection_size=arguments.projection_size,
        head_dropout=arguments.dropout,
        id2label=dict(enumerate(labels)),
    )


def fresh_model(path: str, config: GlodeConfig, arguments: ModelArguments) -> GlodeModel:
    """A model on the encoder's pretrained weights, with adapters where they are asked for; everything else is drawn from torch's
    random state.

    Raises:
        InputError: the weights are not there or damaged, or the encoder has no such attention.
    """
    try:
        model = aligned(GlodeModel.from_encoder(path, config, attn_implementation=arguments.attn_implementation))
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise _backbone_error(path, error) from error
    if arguments.lora_rank:
        adapt(model.encoder, arguments.lora_rank, arguments.lora_alpha)
    return model


def aligned(model: GlodeModel) -> GlodeModel:
    """The model with weights where torch puts its own. Those of a file lie at any address, on which the last bits of a product of
    matrices depend: a model that was loaded would not give the scores of the one that was saved."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model
