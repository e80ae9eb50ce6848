"""The one door of this room: what a model is given before it is trained."""

from glode.fast.dropout import replace_dropout
from glode.fast.packing import pack_encoder
from modeling_glode import GlodeModel


def speed_up(model: GlodeModel) -> int | None:
    """Give a model dropout that costs less and, where its encoder's kind can, packed rows.

    Returns:
        The number of a packed row's first position, for the collator; None where rows have to be padded.
    """
    replace_dropout(model)
    return pack_encoder(model.encoder)
