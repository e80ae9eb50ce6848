"""Protects what travels to the Hub: words and windows lose nothing, the factorised span scores and their gradients equal the
concatenated form, every encoder family trains, saves and loads, decoding equals sequential greedy choice, and a saved directory
predicts the same in a fresh process that knows nothing of this repository."""

import copy
import json
import math
import os
import random
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from support.world import ENCODERS, make_tokenizer, tiny_encoder_config
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedTokenizerFast

from modeling_glode import (
    UNITS,
    WINDOW_COLUMNS,
    WORD_SHAPES,
    GlodeConfig,
    GlodeModel,
    SpanLinear,
    collate_windows,
    decode,
    encode_words,
    iter_windows,
    resolve,
    select_spans,
    span_grid,
    split_words,
    word_shape,
)

NAMES = ["O", "LOC", "PER"]
VOCABULARY = 60


def tiny_model(kind: str = "xlm-roberta", vocabulary: int = VOCABULARY, seed: int = 0, **options) -> GlodeModel:
    """A random model without dropout whose scores differ enough that it finds entities."""
    torch.manual_seed(seed)
    defaults = {"max_span_length": 3, "projection_size": 8, "head_dropout": 0.0, "initializer_range": 0.5}
    defaults |= {"length_embedding_size": 6, "shape_embedding_size": 5, "id2label": dict(enumerate(NAMES))}
    model = GlodeModel(GlodeConfig(tiny_encoder_config(kind, vocabulary), **{**defaults, **options})).eval()
    nn.init.normal_(model.classifier.linear.bias)
    nn.init.normal_(model.mlm_head.bias)
    return model


def random_inputs(numbers: list[int], seed: int = 0, masked: int = 2) -> dict[str, Tensor]:
    """Rows of these many words, with one or two tokens a word, and masked copies of the last `masked` rows."""
    rng, rows = random.Random(seed), []
    for number in numbers:
        tokens = [rng.randint(1, 2) for _ in range(number)]
        first = [1 + sum(tokens[:i]) for i in range(number)]
        row = {"input_ids": [0, *(rng.randrange(5, VOCABULARY) for _ in range(sum(tokens))), 2], "first_token": first}
        row |= {"last_token": [a + n - 1 for a, n in zip(first, tokens, strict=True)]}
        row |= {"word_shapes": [rng.randrange(1, 6) for _ in range(number)], "own_start": 0, "own_end": number}
        rows.append(row)
    batch = collate_windows([*rows, *rows[len(rows) - masked :]], 1)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    inputs |= {name: batch[name][: len(rows)] for name in ("first_token", "last_token", "word_shapes")}
    if masked:
        inputs["mlm_labels"] = torch.full_like(inputs["input_ids"], -100)
        for row in range(len(rows), len(rows) + masked):
            for at in (1, 2):
                inputs["mlm_labels"][row, at] = inputs["input_ids"][row, at]
                inputs["input_ids"][row, at] = 4
    return inputs


def valid_cells(numbers: list[int], words: int, length: int) -> Tensor:
    """[rows, words, length], by a loop."""
    return torch.tensor([[[b + k + 1 <= n for k in range(length)] for b in range(words)] for n in numbers])


def concatenated(first: Tensor, last: Tensor, length: Tensor, shape: Tensor, word_shapes: Tensor, valid: Tensor) -> Tensor:
    """z = [h_first ; h_last ; length embedding ; sum of the words' shape embeddings] of every valid span: [spans, size]."""
    spans = []
    for row, b, k in valid.nonzero().tolist():
        shapes = sum(shape[word_shapes[row, b + i]] for i in range(k + 1))
        spans.append(torch.cat([first[row, b], last[row, b + k], length[k], shapes]))
    return torch.stack(spans)


# -------------------------------------------------------------------------------------------------------------- span scores


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ("numbers", "length"), [([5, 3, 1], 3), ([2, 1], 6), ([1], 1), ([1, 1], 4), ([12, 7, 12, 2], 5), ([4, 4], 1), ([3], 3)]
)
def test_span_linear_equals_the_concatenated_form(numbers: list[int], length: int, dtype: torch.dtype, tolerance: float):
    torch.manual_seed(0)
    words, hidden, sizes, out = max(numbers) + 1, 7, (4, 3), 5
    valid = valid_cells(numbers, words, length)
    word_shapes = torch.randint(1, 6, (len(numbers), words))
    for row, number in enumerate(numbers):
        word_shapes[row, number:] = 0
    inputs = [torch.randn(len(numbers), words, hidden, dtype=dtype) for _ in range(2)]
    inputs += [torch.randn(length, sizes[0], dtype=dtype), torch.randn(6, sizes[1], dtype=dtype)]
    layer = SpanLinear(hidden, *sizes, out).to(dtype)
    differentiable = [*(x.requires_grad_() for x in inputs), layer.linear.weight, layer.linear.bias]
    logits = layer(*inputs, word_shapes)
    assert logits.shape == (len(numbers), words, length, out)
    expected = F.linear(concatenated(*inputs, word_shapes, valid), layer.linear.weight, layer.linear.bias)
    torch.testing.assert_close(logits[valid], expected, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(expected)
    actual = torch.autograd.grad((logits[valid] * upstream).sum(), differentiable)
    wanted = torch.autograd.grad((expected * upstream).sum(), differentiable)
    for gradient, reference in zip(actual, wanted, strict=True):
        assert reference.abs().max() > 0
        torch.testing.assert_close(gradient, reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_span_linear_is_as_exact_at_the_end_of_a_long_sentence(dtype: torch.dtype):
    """In half precision a sum over hundreds of words must not eat up the difference that a span of a few words makes."""
    torch.manual_seed(0)
    number, length = 400, 3
    inputs = [torch.randn(1, number, 16), torch.randn(1, number, 16), torch.randn(length, 8), torch.randn(6, 8)]
    word_shapes = torch.where(torch.arange(number) % 5 == 0, 3, 2)[None]  # lower case, and a title now and then
    layer = SpanLinear(16, 8, 8, 4)
    expected = layer(*inputs, word_shapes)
    error = (layer.to(dtype)(*(x.to(dtype) for x in inputs), word_shapes).float() - expected).abs()
    assert error[:, 340:-length].max() < 2 * error[:, :60].max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("numbers", [[6, 3, 1], [1], [2, 2]])
def test_the_model_equals_the_concatenated_form(numbers: list[int]):
    model = tiny_model(max_span_length=4, head_dropout=0.3).double()
    inputs = random_inputs(numbers, masked=0)
    output = model(**inputs, return_projection=True)
    rows, words = inputs["first_token"].shape
    assert output.logits.shape == (rows, words, 4, 3)
    assert output.projection.shape == (rows, words, 4, 8)
    valid = valid_cells(numbers, words, 4)
    hidden = model.encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    hidden = F.layer_norm(hidden, hidden.shape[-1:])
    first, last = (
        [[hidden[r, i] for i in row] for r, row in enumerate(inputs[f"{x}_token"].tolist())] for x in ("first", "last")
    )
    first, last = (torch.stack([torch.stack(row) for row in nested]) for nested in (first, last))
    features = (first, last, model.length_embedding.weight, model.shape_embedding.weight, inputs["word_shapes"], valid)
    z = concatenated(*features)
    logits = F.linear(z, model.classifier.linear.weight, model.classifier.linear.bias)
    projection = F.linear(z, model.projector.linear.weight, model.projector.linear.bias)
    projection = projection / (projection * projection).sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(output.logits[valid], logits.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output.projection[valid], projection.float(), rtol=1e-6, atol=1e-6)

    parameters = [p for name, p in model.named_parameters() if not name.startswith("mlm_head")]
    gold = torch.randint(0, 3, (len(z),), generator=torch.Generator().manual_seed(0))
    direction = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.full(valid.shape, -100).masked_scatter(valid, gold)
    loss = model(**inputs, labels=labels).loss
    torch.testing.assert_close(loss.double(), F.cross_entropy(logits, gold), rtol=1e-6, atol=1e-6)
    actual = torch.autograd.grad(loss + (output.projection[valid] @ direction.float()).sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad(F.cross_entropy(logits, gold) + (projection @ direction).sum(), parameters, allow_unused=True)
    for gradient, reference in zip(actual, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone():
    model, inputs = tiny_model(head_dropout=0.5), random_inputs([4, 2], masked=0)
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("seed", range(5))
def test_span_grid(seed: int):
    rng = random.Random(seed)
    numbers = [rng.randint(1, 6) for _ in range(4)]
    starts = [rng.randrange(n) for n in numbers]
    ends = [rng.randint(a + 1, n) for a, n in zip(starts, numbers, strict=True)]
    grid = span_grid(torch.tensor(numbers), torch.tensor(starts), torch.tensor(ends), 7, 3)
    expected = {
        (row, b, length - 1)
        for row in range(4)
        for b in range(starts[row], ends[row])
        for length in range(1, 4)
        if b + length <= numbers[row]
    }
    assert {tuple(cell) for cell in grid.nonzero().tolist()} == expected


# ------------------------------------------------------------------------------------------------- masked language modelling


def test_mlm_loss_equals_the_full_vocabulary_at_the_masked_tokens():
    model, inputs = tiny_model().double(), random_inputs([5, 3, 4])
    output = model(**inputs)
    hidden = model.encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    head = model.mlm_head
    scores = head.norm(F.gelu(head.dense(hidden))) @ model.get_input_embeddings().weight.T + head.bias
    losses = []
    for row, at in (inputs["mlm_labels"] != -100).nonzero().tolist():
        values, wanted = scores[row, at].tolist(), int(inputs["mlm_labels"][row, at])
        losses.append(math.log(sum(math.exp(v) for v in values)) - values[wanted])
    assert len(losses) == 4
    assert output.mlm_loss.item() == pytest.approx(sum(losses) / 4, rel=1e-6)
    alone = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], mlm_labels=inputs["mlm_labels"])
    assert alone.logits is None
    assert alone.mlm_loss.item() == pytest.approx(output.mlm_loss.item(), rel=1e-6)


def test_mlm_among_some_tokens_is_the_softmax_over_these_alone():
    model, inputs = tiny_model().double(), random_inputs([5, 3, 4])
    masked = inputs["mlm_labels"][inputs["mlm_labels"] != -100]
    tokens = torch.cat([masked, torch.arange(0, VOCABULARY, 3)]).unique()
    hidden = model.encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    scores = model.mlm_head(hidden[inputs["mlm_labels"] != -100], model.get_input_embeddings().weight)
    others = torch.ones(VOCABULARY, dtype=torch.bool).index_fill(0, tokens, False)
    expected = F.cross_entropy(scores.masked_fill(others, -torch.inf), masked)
    assert model(**inputs, mlm_tokens=tokens).mlm_loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert model(**inputs, mlm_tokens=torch.arange(VOCABULARY)).mlm_loss.item() == pytest.approx(model(**inputs).mlm_loss.item())


def test_the_mlm_output_matrix_is_the_input_embedding():
    model, inputs = tiny_model(), random_inputs([5, 3])
    embedding = model.get_input_embeddings().weight
    assert sum(p.shape == embedding.shape for p in model.parameters()) == 1
    before = model(**inputs).mlm_loss.item()
    unseen = sorted(set(range(VOCABULARY)) - set(inputs["input_ids"].flatten().tolist()) - set(inputs["mlm_labels"].tolist()[-1]))
    with torch.no_grad():
        embedding[unseen[-1]] += 5 * torch.randn(embedding.shape[1], generator=torch.Generator().manual_seed(0))
    output = model(**inputs)
    assert abs(output.mlm_loss.item() - before) > 1e-4  # a row that no input uses still scores
    output.mlm_loss.backward()
    assert not embedding.grad[unseen].any()  # but is a constant
    assert embedding.grad[inputs["input_ids"][-1, 0]].any()


def test_mlm_loss_without_a_masked_token_is_zero():
    model, inputs = tiny_model(), random_inputs([3, 2])
    inputs["mlm_labels"].fill_(-100)
    loss = model(**inputs).mlm_loss
    loss.backward()
    assert loss.item() == 0


# ----------------------------------------------------------------------------------------------------------------- encoders


def loss_of(model: GlodeModel, inputs: dict[str, Tensor], numbers: list[int]) -> Tensor:
    valid = valid_cells(numbers, inputs["first_token"].shape[1], model.config.max_span_length)
    labels = torch.where(valid, torch.arange(valid.numel()).view(valid.shape) % 3, -100)
    output = model(**inputs, labels=labels, return_projection=True)
    return output.loss + output.mlm_loss + output.projection[valid][:, 0].sum()


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_trains(kind: str):
    numbers = [5, 3, 1, 4]
    model, inputs = tiny_model(kind).train(), random_inputs(numbers)
    loss = loss_of(model, inputs, numbers)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient: several processes would wait for it"
        assert torch.isfinite(parameter.grad).all(), name
    assert sum(bool(p.grad.any()) for p in model.encoder.parameters()) > 10


def test_the_states_that_are_asked_for_are_those_of_the_words():
    model, inputs = tiny_model().eval(), random_inputs([5, 3])
    states = model(**inputs, return_states=True).states
    tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    hidden = F.layer_norm(model.encoder(**tokens).last_hidden_state, (states.shape[-1],))
    for found, places in zip(states, (inputs["first_token"], inputs["last_token"]), strict=True):
        for row in range(len(places)):
            torch.testing.assert_close(found[row], hidden[row, places[row]])
    assert model(**inputs).states is None


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_is_saved_and_loaded(kind: str, tmp_path: Path):
    model, inputs = tiny_model(kind), random_inputs([5, 3, 4])
    model.save_pretrained(tmp_path)
    loaded, info = GlodeModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert not loaded.training
    for name in ("id2label", "max_span_length", "max_tokens", "projection_size", "length_embedding_size", "head_dropout"):
        assert getattr(loaded.config, name) == getattr(model.config, name), name
    assert type(loaded.config.encoder_config) is type(model.config.encoder_config)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    expected, actual = (m(**inputs, return_projection=True) for m in (model, loaded))
    for name in ("logits", "projection", "mlm_loss"):
        # Equal weights that lie elsewhere in memory may still differ in the last bit of a product.
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("kind", ENCODERS)
def test_gradient_checkpointing_gives_the_same_gradients(kind: str):
    numbers = [5, 3, 4]
    plain, inputs = tiny_model(kind).train(), random_inputs(numbers)
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    assert any(getattr(module, "gradient_checkpointing", False) for module in checkpointed.encoder.modules())
    for model in (plain, checkpointed):
        loss_of(model, inputs, numbers).backward()
    for (name, expected), actual in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ENCODERS)
def test_half_precision_is_finite(kind: str, dtype: torch.dtype):
    model, inputs = tiny_model(kind), random_inputs([5, 1, 4])
    expected = model(**inputs, return_projection=True)
    actual = model.to(dtype)(**inputs, return_projection=True)
    for name in ("logits", "projection", "mlm_loss"):
        assert torch.isfinite(actual[name]).all(), name
        assert actual[name].dtype == torch.float32, name
        scale = expected[name].abs().max().item()
        assert (actual[name] - expected[name]).abs().max().item() < 0.25 * scale, name


@pytest.mark.parametrize("kind", ["xlm-roberta", "bert", "modernbert"])
def test_attention_implementations_agree(kind: str, tmp_path: Path):
    tiny_model(kind).save_pretrained(tmp_path)
    inputs, logits = random_inputs([5, 1, 4]), {}
    for name in ("eager", "sdpa"):
        model = GlodeModel.from_pretrained(tmp_path, attn_implementation=name)
        assert model.encoder.config._attn_implementation == name
        logits[name] = model(**inputs).logits
    torch.testing.assert_close(logits["eager"], logits["sdpa"], rtol=1e-4, atol=1e-4)


def test_from_encoder_takes_the_pretrained_weights(backbone: Path):
    encoder = AutoModel.from_pretrained(backbone)
    model = GlodeModel.from_encoder(str(backbone), GlodeConfig(encoder.config, max_span_length=2))
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("pooler")}
    assert model.encoder.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.encoder.state_dict().items())
    again = GlodeModel.from_encoder(str(backbone), GlodeConfig(encoder.config, max_span_length=2))
    assert not torch.equal(again.classifier.linear.weight, model.classifier.linear.weight)  # the head is fresh


FRESH_PROCESS = """
import json, sys
from transformers import AutoModel, AutoTokenizer
directory, inputs = sys.argv[1], json.loads(sys.argv[2])
model = AutoModel.from_pretrained(directory, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules"), type(model)
assert "modeling_glode" not in sys.modules
print(json.dumps([model.predict(x, tokenizer) for x in inputs]))
"""


def test_a_saved_directory_predicts_the_same_in_a_fresh_process(tokenizer, tmp_path: Path):
    directory, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    elsewhere.mkdir()
    model = tiny_model(vocabulary=len(tokenizer))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    inputs = ["Anna Berg lives in 新しい Oslo, near Kiel.", [["nothing", "happened", "in", "Rome"]]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FRESH_PROCESS, str(directory), json.dumps(inputs)]
    done = subprocess.run(
        command, cwd=elsewhere, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected, actual = [model.predict(x, tokenizer) for x in inputs], json.loads(done.stdout.splitlines()[-1])
    assert expected[0]
    assert [without_scores(entities) for entities in (actual[0], *actual[1])] == [
        without_scores(entities) for entities in (expected[0], *expected[1])
    ]
    assert [e["score"] for e in actual[0]] == pytest.approx([e["score"] for e in expected[0]], rel=1e-5)


# -------------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n\u3000\u00a0", []),
        ("Anna Berg, 23, lives.", ["Anna", "Berg", ",", "23", ",", "lives", "."]),
        ("l'Oréal don't e-mail", ["l", "'", "Oréal", "don", "'", "t", "e-mail"]),
        (
            "Jean-Luc -- A- -b 2010-12 x‑y iPhone-手",
            ["Jean-Luc", "-", "-", "A", "-", "-", "b", "2010-12", "x‑y", "iPhone", "-", "手"],
        ),
        ("Ore\u0301al n\u0303", ["Ore\u0301al", "n\u0303"]),
        ("snake_case", ["snake_case"]),
        ("我在北京。", ["我", "在", "北", "京", "。"]),
        ("iPhone15手机3台", ["iPhone15", "手", "机", "3", "台"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("か\u3099く", ["か\u3099", "く"]),
        ("\U00020000\U0002f800", ["\U00020000", "\U0002f800"]),
        ("وُلِدَ في القاهرة، مصر", ["وُلِدَ", "في", "القاهرة", "،", "مصر"]),
        ("नई दिल्ली में हिन्दी।", ["नई", "दिल्ली", "में", "हिन्दी", "।"]),
        ("ที่กรุงเทพ", ["ที่", "ก", "รุ", "ง", "เ", "ท", "พ"]),
        ("ລາວ ភ្នំ", ["ລ", "າ", "ວ", "ភ្", "នំ"]),
        ("서울특별시에", ["서울특별시에"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # the non-joiner belongs to the word
        ("ok👍🏽👩\u200d👩\u200d👧❤\ufe0f!", ["ok", "👍🏽", "👩\u200d👩\u200d👧", "❤\ufe0f", "!"]),
        ("🇩🇪🇫🇷🇮 1️⃣", ["🇩🇪", "🇫🇷", "🇮", "1️⃣"]),
        ("🏴\U000e0067\U000e0062\U000e007f👩🏽\u200d🚀", ["🏴\U000e0067\U000e0062\U000e007f", "👩🏽\u200d🚀"]),
        ("Donau\u00addampf", ["Donau\u00addampf"]),
        ("ـــكـــتاب وبالقاهرة\u061c", ["ـــكـــتاب", "وبالقاهرة"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        (
            "क्\u200dष https://a-b.org/c_d?e=1",
            ["क्\u200dष", "https", ":", "/", "/", "a-b", ".", "org", "/", "c_d", "?", "e", "=", "1"],
        ),
        ("a\ud800b", ["a", "\ud800", "b"]),
        ("a" * 2500, ["a" * 1001, "a" * 1001, "a" * 498]),
        ("a\u200bb\ufeffc \u200e", ["a", "b", "c"]),
        ("$5.00%", ["$", "5", ".", "00", "%"]),
        ("\u0301 a", ["\u0301", "a"]),
    ],
)
def test_split_words(text: str, words: list[str]):
    assert [text[a:b] for a, b in split_words(text)] == words


@pytest.mark.parametrize("seed", range(10))
def test_split_words_covers_every_visible_character(seed: int):
    rng = random.Random(seed)
    alphabet = (
        "aZé9_-.,'\"( \t\n\u00a0\u3000"
        + "中か゛ー"
        + "กิ์ຂ່កា"
        + "हि्ंन"
        + "وُلَ"
        + "👍🏽❤\ufe0f\u200d\u200c"
        + "\u0301\u20dd€½Ⅳ\U0001d54f"
    )
    for _ in range(200):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 12)))
        offsets = split_words(text)
        flat = [x for span in offsets for x in span]
        assert flat == sorted(flat)
        assert all(0 <= a < b <= len(text) for a, b in offsets)
        covered = {i for a, b in offsets for i in range(a, b)}
        for i, character in enumerate(text):
            if character.isspace():
                assert i not in covered, text
            elif unicodedata.category(character)[0] != "C":
                assert i in covered, (text, character)
            if i and unicodedata.category(character)[0] == "M" and not text[i - 1].isspace():
                assert all(a != i for a, _ in offsets), (text, character)


def test_word_shapes():
    words = {"NATO": "upper", "rome": "lower", "Rome": "title", "2024": "digit", "iPhone": "other", "中": "other", ",": "other"}
    assert {word: WORD_SHAPES[word_shape(word)] for word in words} == words
    assert WORD_SHAPES[0] == "padding"


# ------------------------------------------------------------------------------------------------------------------ windows


@pytest.fixture(scope="module")
def wordpiece(corpus) -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer, which drops control characters altogether."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=special)
    tokenizer.train_from_iterator([" ".join(words) for words in corpus["words"]], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


@pytest.fixture(params=["unigram", "wordpiece"])
def any_tokenizer(request) -> PreTrainedTokenizerFast:
    return request.getfixturevalue({"unigram": "tokenizer"}.get(request.param, request.param))


def tokens_of(word: str, tokenizer, room: int) -> list[int]:
    """What one word becomes, by the tokenizer alone."""
    tokens = tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] if word else []
    return tokens[:room] or [tokenizer.unk_token_id]


def window_rows(columns: dict[str, list]) -> list[dict]:
    assert list(columns) == list(WINDOW_COLUMNS)
    assert len({len(column) for column in columns.values()}) == 1
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


WORDS = ["Anna", "lives", "in", "Rome", ".", "Otto", "von", "Hagen", "yesterday", "x", "New", "York", "friend", "happened"]
ODD = ["\u200b", "\x00", "\x07", "\ufeff", " ", "", "unpronounceableyesterdayhappened", "Zzyzx"]


@pytest.mark.parametrize("max_tokens", [12, 17, 128])
@pytest.mark.parametrize("length", [1, 3, 6])
def test_windows_lose_nothing(any_tokenizer, max_tokens: int, length: int):
    rng = random.Random(f"{max_tokens} {length}")
    sentences = [[rng.choice(WORDS if rng.random() < 0.8 else ODD) for _ in range(rng.randint(0, 40))] for _ in range(25)]
    rows = window_rows(encode_words(sentences, any_tokenizer, max_tokens, length))
    room = max_tokens - 2
    prefix, suffix = [any_tokenizer.cls_token_id], [any_tokenizer.sep_token_id]
    owners = [[0] * len(words) for words in sentences]
    fitting = 0
    for row in rows:
        words, begin, number = sentences[row["sentence"]], row["borders"][0], len(row["first_token"])
        mine = [tokens_of(word, any_tokenizer, room) for word in words[begin : begin + number]]
        assert number == len(mine) == len(row["last_token"]) == len(row["word_shapes"])
        assert row["word_shapes"] == [word_shape(word) for word in words[begin : begin + number]]
        assert row["input_ids"] == prefix + [token for tokens in mine for token in tokens] + suffix
        assert len(row["input_ids"]) <= max_tokens
        for tokens, first, last in zip(mine, row["first_token"], row["last_token"], strict=True):
            assert row["input_ids"][first : last + 1] == tokens
        assert row["first_token"] == sorted(set(row["first_token"]))
        for relative in range(row["own_start"], row["own_end"]):
            at = begin + relative
            owners[row["sentence"]][at] += 1
            for n in range(1, min(length, len(words) - at) + 1):
                # A span that is longer than a whole window cannot fit into any.
                if sum(len(tokens_of(word, any_tokenizer, room)) for word in words[at : at + n]) <= room:
                    assert relative + n <= number
                    fitting += n > 1
    assert owners == [[1] * len(words) for words in sentences]
    assert fitting > 100 or length == 1
    assert len(rows) > len(sentences) or max_tokens == 128
    starts = [(row["sentence"], row["borders"][0] + row["own_start"]) for row in rows]
    assert starts == sorted(set(starts))


def test_windows_give_context(tokenizer):
    rows = window_rows(encode_words([["x"] * 300], tokenizer, 34, 2))
    tokens = len(tokens_of("x", tokenizer, 32))
    assert len(rows) > 5
    for row in rows[1:-1]:
        assert row["own_start"] >= 32 // tokens // 8
        assert len(row["first_token"]) - row["own_end"] >= 32 // tokens // 8


@pytest.mark.parametrize("word", ["\u200b", "\x00", "\x07", ""])
def test_a_dropped_word_becomes_the_unknown_token(wordpiece, word: str):
    assert wordpiece([word], is_split_into_words=True, add_special_tokens=False)["input_ids"] == []
    (row,) = window_rows(encode_words([["Anna", word, "lives"], []], wordpiece, 40, 2))
    assert row["input_ids"][row["first_token"][1] : row["last_token"][1] + 1] == [wordpiece.unk_token_id]
    assert [word_shape("Anna"), 5, word_shape("lives")] == row["word_shapes"]
    (alone,) = window_rows(encode_words([[word]], wordpiece, 40, 2))
    assert alone["input_ids"] == [wordpiece.cls_token_id, wordpiece.unk_token_id, wordpiece.sep_token_id]


def test_a_word_longer_than_a_window_keeps_the_tokens_that_fit(wordpiece):
    long = "".join(random.Random(0).choice("anerlivs") for _ in range(60))
    full = wordpiece([long], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    assert len(full) > 10
    rows = window_rows(encode_words([["in", long, "Rome"]], wordpiece, 12, 2))
    holders = [row for row in rows if row["borders"][0] <= 1 < row["borders"][0] + len(row["first_token"])]
    assert holders
    for row in holders:
        at = 1 - row["borders"][0]
        assert row["input_ids"][row["first_token"][at] : row["last_token"][at] + 1] == full[:10]
    owned = [row["borders"][0] + i for row in rows for i in range(row["own_start"], row["own_end"])]
    assert owned == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "borders"),
    [
        (list("在上海北京大学"), [0, 1, 3, 4, 5, 6, 7]),  # one piece for two characters
        (list("在上海大学的"), [0, 1, 3, 6]),
        (["在", "上海", "大学"], [0, 1, 2, 3]),  # words of several characters stay whole
        (["在上", "海大"], [0, 2]),  # a piece across two words joins them
        (["Anna", "在", "黑", "龙", "江", ",", "A", "大"], [0, 1, 2, 5, 6, 7, 8]),
        (["上", "Anna", "海"], [0, 1, 2, 3]),  # not neighbours in the text
        (["黑"], [0, 1]),
        (["", "上", "海", ""], [0, 1, 3, 4]),
    ],
)
def test_scripts_without_spaces_are_read_in_pieces(pieces, words: list[str], borders: list[int]):
    (row,) = window_rows(encode_words([words], pieces, 64, 3))
    assert row["borders"] == borders
    assert len(row["first_token"]) == len(row["last_token"]) == len(row["word_shapes"]) == len(borders) - 1
    text = pieces.convert_ids_to_tokens(row["input_ids"])
    for (a, b), first, last in zip(pairwise(borders), row["first_token"], row["last_token"], strict=True):
        piece = "".join(text[first : last + 1]).replace("▁", "")
        assert piece == "".join(words[a:b]) or pieces.unk_token in piece


@pytest.mark.parametrize("units", UNITS)
def test_units_of_random_texts_tile_the_words(pieces, any_tokenizer, units: str):
    rng = random.Random(3)
    for tokenizer in (pieces, any_tokenizer):
        sentences = [
            [rng.choice([*"在上海北京黑龙江大学的", "上海", "Anna", "A", ",", "京́"]) for _ in range(30)] for _ in range(40)
        ]
        rows = window_rows(encode_words(sentences, tokenizer, 20, 3, units))
        covered = [[] for _ in sentences]
        for row in rows:
            assert all(a < b for a, b in pairwise(row["borders"])) and len(row["input_ids"]) <= 20
            covered[row["sentence"]] += range(row["borders"][row["own_start"]], row["borders"][row["own_end"]])
        assert covered == [list(range(len(words))) for words in sentences]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("block", [1, 7, 60])
def test_a_text_that_is_read_in_blocks_gives_the_same_windows(pieces, any_tokenizer, monkeypatch, block: int, units: str):
    rng = random.Random(block)
    words = [*WORDS, *ODD, *"在上海北京大学的", "上海", "Anna在"]
    sentences = [[rng.choice(words) for _ in range(rng.choice([0, 1, 5, 120]))] for _ in range(12)]
    for tokenizer in (pieces, any_tokenizer):
        expected = encode_words(sentences, tokenizer, 20, 3, units)
        monkeypatch.setattr("modeling_glode._BLOCK", block)
        assert encode_words(sentences, tokenizer, 20, 3, units) == expected
        monkeypatch.undo()


def test_a_long_text_is_read_as_its_windows_are_asked_for(tokenizer):
    read = []

    def words() -> Iterator[str]:
        for word in ["Anna", "在"] * 50_000:
            read.append(word)
            yield word

    windows = iter_windows([words()], tokenizer, 20, 3)
    for _ in range(3):
        next(windows)
    assert len(read) < 20_000


def test_half_characters_and_endless_words_are_read(any_tokenizer):
    for word in ("\ud800", "a\udc00", "x" * 100_000, "在" * 9000, "e" + "\u0301" * 50_000):
        rows = window_rows(encode_words([["in", word, *word[:9000], "Rome"]], any_tokenizer, 20, 2))
        assert sum(row["own_end"] - row["own_start"] for row in rows) > 2
        assert all(len(row["input_ids"]) <= 20 for row in rows)


def test_nothing_to_encode(any_tokenizer):
    for sentences in ([], [[]], [[], []]):
        assert window_rows(encode_words(sentences, any_tokenizer, 12, 2)) == []
    assert [row["sentence"] for row in window_rows(encode_words([[], ["Anna"], []], any_tokenizer, 12, 2))] == [1]


def test_a_slow_tokenizer_is_refused():
    class SlowTokenizer:
        is_fast = False

    with pytest.raises(ValueError, match="SlowTokenizer is not a fast tokenizer") as error:
        encode_words([["Anna"]], SlowTokenizer(), 12, 2)
    assert "Use a backbone whose directory holds a tokenizer.json" in str(error.value)


def test_collate_windows(tokenizer):
    rows = window_rows(encode_words([["Anna", "lives"], ["Rome"], ["in", "New", "York", "."]], tokenizer, 40, 2))
    batch = collate_windows(rows, tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        tokens, words = len(row["input_ids"]), len(row["first_token"])
        width = batch["input_ids"].shape[1]
        assert batch["input_ids"][i].tolist() == row["input_ids"] + [tokenizer.pad_token_id] * (width - tokens)
        assert batch["attention_mask"][i].tolist() == [1] * tokens + [0] * (width - tokens)
        for name in ("first_token", "last_token", "word_shapes"):
            assert batch[name][i].tolist() == row[name] + [0] * (4 - words)
        assert [batch[name][i].item() for name in ("number_of_words", "own_start", "own_end")] == [words, 0, words]


# ----------------------------------------------------------------------------------------------------------------- decoding


def greedy(cells: list[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """The (begin, length) that sequential greedy choice takes of (score, begin, length) candidates."""
    chosen = []
    while cells:
        best = max(cells, key=lambda c: (c[0], -c[1], -c[2]))
        chosen.append(best[1:])
        cells = [c for c in cells if c[1] + c[2] <= best[1] or best[1] + best[2] <= c[1]]
    return sorted(chosen)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("words", "length"), [(1, 1), (1, 4), (3, 5), (6, 1), (6, 3), (9, 4)])
def test_select_spans_is_the_sequential_greedy_choice(words: int, length: int, ties: bool):
    rng, rows = random.Random(f"{words} {length} {ties}"), 60
    scores, candidates = torch.zeros(rows, words, length), torch.zeros(rows, words, length, dtype=torch.bool)
    expected = []
    for row in range(rows):
        number, density, cells = rng.randint(1, words), rng.choice([0.0, 0.2, 0.6, 1.0]), []
        for b in range(words):
            for k in range(length):
                score = rng.choice([0.25, 0.5, 0.75]) if ties else rng.random()
                scores[row, b, k] = score
                if b + k + 1 <= number and rng.random() < density:
                    candidates[row, b, k] = True
                    cells.append((scores[row, b, k].item(), b, k + 1))
        expected.append(greedy(cells))
    chosen = select_spans(scores, candidates)
    for row in range(rows):
        found = [(b, k + 1) for b, k in chosen[row].nonzero().tolist()]
        assert found == expected[row]
        covered = [word for b, n in found for word in range(b, b + n)]
        assert len(covered) == len(set(covered))
    assert torch.equal(select_spans(scores[:1], candidates[:1]), chosen[:1])


@pytest.mark.parametrize("seed", range(5))
def test_decode(seed: int):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(8, 6, 3, 4, dtype=torch.float64)
    logits[::2, :, 1:] = logits[::2, :, :1]  # ties
    rng = random.Random(seed)
    numbers = [rng.randint(1, 6) for _ in range(8)]
    starts = [rng.randrange(n) for n in numbers]
    ends = [rng.randint(a + 1, n) for a, n in zip(starts, numbers, strict=True)]
    found = list(
        zip(*(x.tolist() for x in decode(logits, span_grid(*map(torch.tensor, (numbers, starts, ends)), 6, 3))), strict=True)
    )
    expected = []
    for row in range(8):
        cells, best = [], {}
        for b in range(starts[row], ends[row]):
            for n in range(1, min(3, numbers[row] - b) + 1):
                values = [math.exp(x) for x in logits[row, b, n - 1].tolist()]
                label = values.index(max(values))
                if label:
                    best[b, n] = (label, values[label] / sum(values))
                    cells.append((best[b, n][1], b, n))
        expected += [(row, b, n, *best[b, n]) for b, n in greedy(cells)]
    assert expected
    assert [entity[:4] for entity in found] == [entity[:4] for entity in expected]
    assert [entity[4] for entity in found] == pytest.approx([entity[4] for entity in expected], rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_resolve(seed: int):
    rng = random.Random(seed)
    entities = [
        (rng.randrange(8), rng.randint(1, 4), rng.randrange(1, 4), rng.choice([0.3, 0.6, rng.random()]))
        for _ in range(rng.randint(0, 16))
    ]
    entities = list({entity[:2]: entity for entity in entities}.values())
    by_span = {entity[:2]: entity for entity in entities}
    assert resolve(entities) == [by_span[span] for span in greedy([(e[3], e[0], e[1]) for e in entities])]


# ------------------------------------------------------------------------------------------------------------------- predict

TEXTS = [
    "Anna Berg lives in Rome.",
    "",
    "  yesterday Otto von Hagen flew to New York, in Oslo it rains  ",
    "中国 Kiel\u200b中\n\nBern! 👩\u200d👩\u200d👧",
    "x",
    " ".join(["Karl Moor met a friend in Kiel , Ida lives in Bern ."] * 4),
    "   ",
]


def without_scores(entities: list[dict]) -> list[tuple]:
    return [(e["entity_group"], e["word"], e["start"], e["end"]) for e in entities]


@pytest.fixture(scope="module")
def predictor(tokenizer) -> GlodeModel:
    return tiny_model(vocabulary=len(tokenizer), max_tokens=24)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_predict_does_not_depend_on_the_batch(predictor: GlodeModel, tokenizer, batch_size: int):
    together = predictor.predict(TEXTS, tokenizer, batch_size=batch_size)
    assert len(together) == len(TEXTS)
    assert [bool(entities) for entities in together] == [True, False, True, True, bool(together[4]), True, False]
    for text, entities in zip(TEXTS, together, strict=True):
        alone = predictor.predict(text, tokenizer)
        assert without_scores(alone) == without_scores(entities)
        assert [e["score"] for e in alone] == pytest.approx([e["score"] for e in entities], rel=1e-4)
    backwards = predictor.predict(TEXTS[::-1], tokenizer, batch_size=batch_size)[::-1]
    assert [without_scores(entities) for entities in backwards] == [without_scores(entities) for entities in together]


def test_predicted_offsets_point_into_the_text(predictor: GlodeModel, tokenizer):
    for text, entities in zip(TEXTS, predictor.predict(TEXTS, tokenizer), strict=True):
        borders, end = split_words(text), 0
        rows = window_rows(encode_words([[text[a:b] for a, b in borders]], tokenizer, 24, 3))
        units = {borders[word][0] for row in rows for word in row["borders"][:-1]}  # L counts these; 中国 is one
        for entity in entities:
            assert entity.keys() == {"entity_group", "score", "word", "start", "end"}
            assert entity["word"] == text[entity["start"] : entity["end"]]
            assert entity["start"] in [a for a, _ in borders]
            assert entity["end"] in [b for _, b in borders]
            assert 1 <= sum(entity["start"] <= unit < entity["end"] for unit in units) <= 3
            assert entity["start"] >= end
            assert entity["entity_group"] in NAMES[1:]
            assert 1 / 3 <= entity["score"] <= 1
            end = entity["end"]
        json.dumps(entities)


def test_predict_joins_the_windows(predictor: GlodeModel, tokenizer):
    text = TEXTS[5]
    offsets = split_words(text)
    words = [text[a:b] for a, b in offsets]
    rows = window_rows(encode_words([words], tokenizer, 24, 3))
    assert len(rows) > 3
    found = []
    for row in rows:
        batch = collate_windows([row], tokenizer.pad_token_id)
        own = [batch.pop(name) for name in ("number_of_words", "own_start", "own_end")]
        logits = predictor(**batch).logits
        for _, b, n, label, score in zip(
            *(x.tolist() for x in decode(logits, span_grid(*own, len(row["first_token"]), 3), nested=True)), strict=True
        ):
            found.append((b + row["borders"][0], n, label, score))
    spans = greedy([(score, b, n) for b, n, _, score in found])
    labels = {(b, n): label for b, n, label, _ in found}
    expected = [
        (NAMES[labels[b, n]], text[offsets[b][0] : offsets[b + n - 1][1]], offsets[b][0], offsets[b + n - 1][1]) for b, n in spans
    ]
    assert without_scores(predictor.predict(text, tokenizer)) == expected
    assert expected[-1][3] > 0.8 * len(text)


@pytest.mark.parametrize("nested", [False, True])
def test_it_does_not_matter_where_the_windows_fall(nested: bool):
    """A model that looks at nothing but the span itself finds the same with windows of any size.

    No two spans that overlap look the same (no word is unknown or stands beside itself), and their scores differ by 0.007 at
    least: rounding decides a tie, and on some processors it depends on the shape of the batch.
    """
    words = random.Random(4).choices([*WORDS, "in上海", "Karl-Heinz"], k=430)
    text = " ".join(word for word, _ in groupby(words))
    tokenizer = make_tokenizer([text])
    found = []
    for max_tokens in (128, 61, 40, 33):
        options = {"max_tokens": max_tokens, "max_span_length": 2, "initializer_range": 0.2}
        model = tiny_model(vocabulary=len(tokenizer), seed=1, **options)
        model.encoder.encoder.layer = nn.ModuleList()
        nn.init.zeros_(model.encoder.embeddings.position_embeddings.weight)
        found.append(model.predict(text, tokenizer, nested=nested))
    assert len(found[0]) > 100
    for other in found[1:]:
        assert without_scores(other) == without_scores(found[0])
        assert [e["score"] for e in other] == pytest.approx([e["score"] for e in found[0]], abs=1e-5)


def test_predict_takes_a_text_texts_or_words(predictor: GlodeModel, tokenizer):
    assert predictor.predict("", tokenizer) == []
    assert predictor.predict([], tokenizer) == []
    assert predictor.predict([[]], tokenizer) == [[]]
    for text in TEXTS:
        offsets = split_words(text)
        words = [text[a:b] for a, b in offsets]
        single = predictor.predict(text, tokenizer)
        assert [without_scores(x) for x in predictor.predict([text], tokenizer)] == [without_scores(single)]
        ((*by_words,),) = predictor.predict([words], tokenizer)
        in_characters = [
            (
                e["entity_group"],
                text[offsets[e["start"]][0] : offsets[e["end"] - 1][1]],
                offsets[e["start"]][0],
                offsets[e["end"] - 1][1],
            )
            for e in by_words
        ]
        assert in_characters == without_scores(single)
        assert all(e["word"] == " ".join(words[e["start"] : e["end"]]) for e in by_words)


@pytest.mark.parametrize("training", [False, True])
def test_predict_leaves_the_mode_of_the_model(tokenizer, training: bool):
    model = tiny_model(vocabulary=len(tokenizer), head_dropout=0.5).train(training)
    first, second = (model.predict(TEXTS[0], tokenizer) for _ in range(2))
    assert first == second
    assert model.training is training
