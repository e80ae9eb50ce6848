"""Protects packed batches: scores, losses and gradients are those of padded rows for every kind of encoder that reads them, also
across a sliding window; others stay padded; a saved model knows nothing of it."""

import json

import pytest
import torch
from datasets import Dataset
from support.world import tiny_encoder_config
from torch import Tensor, nn

from glode.fast.dropout import replace_dropout
from glode.fast.packing import ATTENTION, pack_encoder, packed_attention
from glode.features.collator import GlodeCollator
from glode.features.streams import TwoStreams
from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel
from trainer_glode import GlodeTrainer

KINDS = ("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "modernbert")
LABELS = ["O", "LOC", "PER"]
NARROW = {"global_attn_every_n_layers": 2, "local_attention": 4}  # in every second layer a token sees two on either side


def tiny_model(kind: str, vocabulary: int, dropout: float = 0.0) -> GlodeModel:
    """Random weights; `dropout` in the encoder alone."""
    torch.manual_seed(0)
    encoder = tiny_encoder_config(kind, vocabulary, **(NARROW if kind == "modernbert" else {}))
    for name in encoder.to_dict():
        if "dropout" in name and isinstance(getattr(encoder, name), float):
            setattr(encoder, name, dropout)
    options = {"max_span_length": 2, "head_dropout": 0.0, "initializer_range": 0.5, "id2label": dict(enumerate(LABELS))}
    return GlodeModel(GlodeConfig(encoder, **options))


@pytest.fixture
def streams(corpus: Dataset, tokenizer) -> TwoStreams:
    labelled = build_features(corpus, tokenizer, 64, 2, LABELS)
    return TwoStreams(labelled, build_features(corpus.select(range(15)), tokenizer, 64, 2))


def results(model: GlodeModel, batch: dict[str, Tensor]) -> list[Tensor]:
    """Scores and vectors of the spans, the loss of the language model, and all gradients."""
    unread = ("is_target", "window", "key", "own_start", "target_spans")
    batch = {name: value for name, value in batch.items() if name not in unread}
    spans = batch.pop("span_mask")
    output = model(**batch, return_projection=True)
    (output.loss + output.mlm_loss).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 20
    model.zero_grad()
    return [output.logits[spans], output.projection[spans], output.mlm_loss, *gradients]


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # with any dropout the weights are computed by hand; this one drops nothing
@pytest.mark.parametrize(("kind", "hide"), [*((kind, False) for kind in KINDS), ("bert", True), ("xlm-roberta", True)])
def test_packed_rows_are_as_padded_rows(kind: str, dropout: float, hide: bool, streams: TwoStreams, tokenizer):
    model = tiny_model(kind, len(tokenizer), dropout).train().double()
    rows = streams.__getitems__([0, 4, 7, 11, 23, 30, 34])
    assert len({len(row["input_ids"]) for row in rows}) > 2
    padded = GlodeCollator(tokenizer, 2, mlm_probability=0.5, mlm_hide_masked=hide)(rows)
    tokens = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(rows)["attention_mask"].sum()
    assert (padded["attention_mask"].sum() < tokens) == hide
    expected = results(model, padded)
    replace_dropout(model)
    first = pack_encoder(model.encoder)
    packed = GlodeCollator(tokenizer, 2, mlm_probability=0.5, mlm_hide_masked=hide, first_position=first)(rows)
    assert packed["input_ids"].shape == (1, tokens) and tokens < padded["input_ids"].numel()
    for before, after in zip(expected, results(model, packed), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-8)
    for before, after in zip(expected, results(model, padded), strict=True):  # padded rows pass as before
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-8)


def test_packed_rows_may_be_checkpointed(streams: TwoStreams, tokenizer):
    model = tiny_model("bert", len(tokenizer)).train().double()
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5, first_position=pack_encoder(model.encoder))(
        streams.__getitems__([0, 4, 7, 11, 23, 30, 34])
    )
    expected = results(model, batch)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    for before, after in zip(expected, results(model, batch), strict=True):
        torch.testing.assert_close(after, before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "modernbert"])
def test_the_last_feed_forward_sees_the_tokens_that_are_read(kind: str, streams: TwoStreams, tokenizer):
    """However often the encoder is prepared; the outputs of the others are zero."""
    model = tiny_model(kind, len(tokenizer)).eval()
    pack_encoder(model.encoder)
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.3, first_position=pack_encoder(model.encoder))(
        streams.__getitems__([0, 4, 7, 23, 30])
    )
    tokens, read = batch["input_ids"].numel(), batch["read_tokens"]
    wanted = {*batch["first_token"].flatten().tolist(), *batch["last_token"].flatten().tolist()}
    wanted |= set((batch["mlm_labels"][0] != -100).nonzero()[:, 0].tolist())
    assert read.tolist() == sorted(wanted) and len(read) < tokens
    seen = []
    for layer in model.encoder.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:2]))
    packed = ("input_ids", "attention_mask", "position_ids", "token_places", "read_tokens")
    hidden = model.encoder(**{name: batch[name] for name in packed}).last_hidden_state
    assert seen == [(1, tokens)] * (len(seen) - 1) + [(1, len(read))]
    unread = torch.ones(tokens, dtype=torch.bool).index_fill_(0, read, False)
    assert hidden.shape[:2] == (1, tokens) and (hidden[0, unread] == 0).all() and (hidden[0, read] != 0).any(1).all()


def test_the_sliding_window_is_narrow_enough_to_tell(streams: TwoStreams, tokenizer):
    """ModernBERT's case above protects nothing where all tokens see each other."""
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(streams.__getitems__([0, 4, 23]))
    narrow, wide = tiny_model("modernbert", len(tokenizer)), tiny_model("modernbert", len(tokenizer))
    assert "sliding_attention" in narrow.encoder.config.layer_types
    for layer in wide.encoder.layers:
        layer.attn.sliding_window = None
        layer.attention_type = "full_attention"
    assert not torch.allclose(results(narrow, batch)[0], results(wide, batch)[0], atol=1e-3)


def test_packed_attention_drops_weights(streams: TwoStreams):
    """Of equal weights over four tokens a share is dropped, and the others make up for it."""
    torch.manual_seed(0)
    rows, width, heads = 500, 4, 8
    mask = torch.ones(rows, 1, 1, width, dtype=torch.bool)
    query = torch.zeros(1, heads, rows * width, width)
    value = torch.eye(width).repeat(rows, 1).expand(1, heads, -1, -1)  # shows the weights themselves
    places = torch.arange(rows * width)
    mixed, _ = packed_attention(nn.Module(), query, query, value, mask, scaling=1.0, dropout=0.2, token_places=places)
    assert mixed.shape == (1, rows * width, heads, width)
    assert set(mixed.unique().tolist()) == {0.0, mixed.max().item()}
    assert (mixed == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert mixed.mean().item() == pytest.approx(1 / width, rel=0.01)


def test_other_encoders_and_other_attentions_stay_padded(tokenizer, corpus, tmp_path):
    assert pack_encoder(tiny_model("deberta-v2", len(tokenizer)).encoder) is None
    model = tiny_model("bert", len(tokenizer))
    model.encoder.set_attn_implementation("eager")
    windows = build_features(corpus, tokenizer, 64, 2, LABELS)
    arguments = GlodeTrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", eval_strategy="no", load_best_model_at_end=False
    )
    trainer = GlodeTrainer(model, arguments, tokenizer, source=windows)
    assert trainer.data_collator.first_position is None
    rows = trainer.train_dataset.__getitems__([0, 1, 2])
    assert trainer.data_collator(rows)["input_ids"].shape == (3, max(len(row["input_ids"]) for row in rows))


def test_a_saved_model_knows_nothing_of_packing(tokenizer, streams: TwoStreams, tmp_path):
    model = tiny_model("xlm-roberta", len(tokenizer), dropout=0.1).eval()
    assert pack_encoder(model.encoder) == tokenizer.pad_token_id + 1
    replace_dropout(model)
    model.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    assert ATTENTION not in config and json.loads(config)["encoder_config"]["hidden_dropout_prob"] == 0.1
    loaded = GlodeModel.from_pretrained(tmp_path)
    assert loaded.encoder.config._attn_implementation == "sdpa"
    batch = GlodeCollator(tokenizer, 2, mlm_probability=0.5)(streams.__getitems__([0, 4, 23]))
    for before, after in zip(results(model, batch), results(loaded.eval(), batch), strict=True):
        torch.testing.assert_close(after, before)
