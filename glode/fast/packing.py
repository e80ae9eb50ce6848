"""A batch as one row of tokens, so that an encoder spends nothing on padding.

Rows of different length are joined to a packed row; linear layers, norms and dropout work on the tokens that there are. Attention
alone takes the rows apart again, and what follows it in the last layer works on the tokens that are read alone. Only training and
the Trainer's evaluation know of it: a saved model has no trace of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from glode.fast.dropout import keep_mask

ATTENTION = "glode_packed"


_COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")  # positions begin behind the padding's id


_COUNT_FROM_ZERO = ("bert", "modernbert")


def pack_encoder(encoder: PreTrainedModel) -> int | None:
    """Let an encoder read packed rows beside ordinary batches, where its kind can.

    Returns:
        The number of a row's first position, for [`pack_rows`]; None where this kind of encoder, or an attention other than
        sdpa, needs padded rows.
    """
    kind = encoder.config.model_type
    if kind not in _COUNT_FROM_PADDING + _COUNT_FROM_ZERO or encoder.config._attn_implementation not in ("sdpa", ATTENTION):
        return None
    if kind != "modernbert" and encoder.config._attn_implementation != ATTENTION:  # else it is packed already
        layer = encoder.encoder.layer[-1]
        layer.attention.register_forward_hook(_narrow, with_kwargs=True)
        layer.register_forward_hook(_widen, with_kwargs=True)
    encoder.set_attn_implementation(ATTENTION)
    return encoder.config.pad_token_id + 1 if kind in _COUNT_FROM_PADDING else 0


def _narrow(attention: nn.Module, args: tuple, kwargs: dict, output: tuple) -> tuple | None:
    """The output of the last layer's attention, residuals included, [1, tokens, hidden] -> [1, read, hidden]."""
    if (read := kwargs.get("read_tokens")) is None:
        return None
    return output[0].index_select(1, read), *output[1:]


def _widen(layer: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor | None:
    """The output of the last layer, [1, read, hidden] -> [1, tokens, hidden]; zeros for tokens that are not read."""
    if (read := kwargs.get("read_tokens")) is None:
        return None
    return output.new_zeros(1, len(kwargs["token_places"]), output.shape[-1]).index_copy_(1, read, output)


def pack_rows(batch: dict[str, Tensor], first_position: int, seen: Tensor | None = None) -> dict[str, Tensor]:
    """A padded batch, whose rows are padded on the right, as one packed row of all its `tokens`.

    Args:
        first_position: the number of a row's first position.
        seen: [rows, width], the tokens that the attention sees; all that there are by default.

    Returns:
        The batch with `input_ids` and `mlm_labels` [1, tokens]; `first_token` and `last_token` as positions in that row;
        `attention_mask` [rows, 1, 1, width] bool; `position_ids` [1, tokens]; `token_places` [tokens], where in
        [rows * width] each token stands; and `read_tokens` [read], in rising order, the places in the packed row whose
        output the spans or the language model read: an encoder that [`pack_encoder`] prepared may return zeros for others.
    """
    mask = batch["attention_mask"].bool()
    places, lengths = mask.flatten().nonzero()[:, 0], mask.sum(1)
    starts = (lengths.cumsum(0) - lengths)[: len(batch["first_token"]), None]
    packed: dict[str, Tensor] = {}
    packed |= {name: batch[name].flatten()[places][None] for name in ("input_ids", "mlm_labels") if name in batch}
    packed |= {name: batch[name] + starts for name in ("first_token", "last_token")}
    read = torch.zeros(len(places), dtype=torch.bool)
    read[packed["first_token"]] = read[packed["last_token"]] = True
    if "mlm_labels" in packed:
        read |= packed["mlm_labels"][0] != -100
    seen = mask if seen is None else seen.bool()
    packed |= {"attention_mask": seen[:, None, None], "token_places": places, "read_tokens": read.nonzero()[:, 0]}
    return batch | packed | {"position_ids": (places % mask.shape[1] + first_position)[None]}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    token_places: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention of a packed row, as transformers' AttentionInterface wants it; that of padded rows is sdpa's.

    Args:
        query, key, value: [1, heads, tokens, size].
        attention_mask: bool [rows, 1, 1, width].
        scaling: factor on the products of queries and keys.
        dropout: share of the attention's weights that is dropped.
        sliding_window: tokens that are so far apart, or further, do not see each other.
        token_places: see [`pack_rows`].
    Returns:
        [1, tokens, heads, size], and no weights.
    """
    if token_places is None or attention_mask is None:
        options = {"scaling": scaling, "dropout": dropout, "sliding_window": sliding_window} | kwargs
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows, width = attention_mask.shape[0], attention_mask.shape[-1]
    heads, _, size = query.shape[1:]

    def apart(packed: Tensor) -> Tensor:
        """[1, heads, tokens, size] -> [heads, rows, width, size]"""
        places = packed.new_zeros(heads, rows * width, size).index_copy_(1, token_places, packed[0])
        return places.view(heads, rows, width, size)

    seen = attention_mask[:, 0]
    if sliding_window is not None:
        at = torch.arange(width, device=query.device)
        seen = seen & ((at[:, None] - at).abs() < sliding_window)
    # The least number and not minus infinity: a place without a token may see nobody, and must not become nan.
    bias = torch.zeros(seen.shape, dtype=query.dtype, device=query.device).masked_fill_(~seen, torch.finfo(query.dtype).min)
    query, key, value = apart(query), apart(key), apart(value)
    if dropout > 0 and query.device.type == "cpu":
        weights = torch.softmax((query * scaling) @ key.mT + bias, dim=-1)
        mixed = (weights * keep_mask(weights, dropout)) @ value
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scaling)
    return mixed.flatten(1, 2).index_select(1, token_places).transpose(0, 1)[None], None


AttentionInterface.register(ATTENTION, packed_attention)


AttentionMaskInterface.register(ATTENTION, sdpa_mask)
