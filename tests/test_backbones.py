"""Protects the choice of the encoder: tiny ones of every kind train both stages, are saved, loaded and tag, alone and among
longer texts alike; a checkpoint in half precision gives weights in full precision; the language model's loss is the checkpoint's
own; and byte-level tokenisers see words as running text has them."""

import gc
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from support.world import tiny_encoder_config
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from glode.fast.packing import pack_encoder
from glode.features.collator import GlodeCollator
from glode.features.windows import build_features
from glode.training.arguments import GlodeTrainingArguments
from modeling_glode import GlodeConfig, GlodeModel, iter_windows, load_language_model
from trainer_glode import GlodeTrainer

pytestmark = pytest.mark.usefixtures("one_thread", "short_collections")

LABELS = ["O", "LOC", "PER"]
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
KINDS = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "big_bird": {"attention_type": "original_full"},
    "camembert": {},
    "data2vec-text": {},
    "deberta": DISENTANGLED,
    "deberta-v2": {**DISENTANGLED, "position_buckets": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "eurobert": {"num_key_value_heads": 2, "mask_token_id": 4},
    "flaubert": XLM,
    "ibert": {},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "megatron-bert": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"global_attn_every_n_layers": 1},
    "mpnet": {},
    "nomic_bert": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "roberta": {},
    "roformer": {"embedding_size": 16},
    "squeezebert": {"embedding_size": 32},
    "xlm": XLM,
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
CONVOLVED = {"convbert": {"embedding_size": 32, "conv_kernel_size": 3}}  # whose last tokens see the padding after them
ENCODER_DECODERS = {
    "mbart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    }
}


def save_language_model(kind: str, directory: Path, vocabulary: int, **options) -> PreTrainedModel:
    """A language model whose weights are large enough that its loss says something, saved in half precision."""
    torch.manual_seed(0)
    config = tiny_encoder_config(kind, vocabulary, **{**(KINDS | CONVOLVED | ENCODER_DECODERS)[kind], **options})
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.get_input_embeddings().weight[1].zero_()  # MobileBERT reads the padding after the last token
    model.to(torch.bfloat16).save_pretrained(directory)
    return model.float().eval()


def from_encoder(directory: Path, **options) -> GlodeModel:
    """What a run makes of a checkpoint."""
    torch.manual_seed(0)
    config = GlodeConfig(AutoConfig.from_pretrained(directory), max_span_length=3, max_tokens=64, projection_size=8)
    config.head_dropout, config.id2label = 0.0, dict(enumerate(LABELS))
    return GlodeModel.from_encoder(str(directory), config, attn_implementation="sdpa", **options)


@pytest.fixture(scope="module")
def short_collections() -> Iterator[None]:
    """Each training ends with a collection of garbage, which would visit all that was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def windows(corpus: Dataset, tokenizer) -> tuple[Dataset, Dataset]:
    """Of labelled and of unlabelled text."""
    return build_features(corpus, tokenizer, 64, 3, LABELS), build_features(corpus, tokenizer, 64, 3)


def train(directory: Path, tokenizer, windows: tuple[Dataset, Dataset], labels=None, **options) -> GlodeTrainer:
    """A few steps of a stage."""
    arguments = GlodeTrainingArguments(
        output_dir=str(directory / "run"),
        per_device_train_batch_size=4,
        **{"max_steps": 2, "learning_rate": 1e-3, **options},
        refine_start=0.0,
        num_neighbors=5,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    source, target = windows
    model = from_encoder(directory)
    trainer = GlodeTrainer(model, arguments, tokenizer, source=source, target=target, pseudo_labels=labels)
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", [*KINDS, *ENCODER_DECODERS])
def test_every_backbone_trains_and_tags(kind: str, tokenizer, windows, tmp_path: Path):
    save_language_model(kind, tmp_path, len(tokenizer))
    source = train(tmp_path, tokenizer, windows)
    trainer = train(tmp_path, tokenizer, windows, source.assign_pseudo_labels(windows[1]))
    for stage, losses in ((source, ["source_loss", "mlm_loss"]), (trainer, ["source_loss", "target_loss", "mlm_loss"])):
        steps = [entry for entry in stage.state.log_history if "source_loss" in entry]
        assert len(steps) == 2
        assert all(step[name] > 0 for step in steps for name in losses)
    model = trainer.model.eval()
    with torch.no_grad():
        model.classifier.linear.weight.mul_(20)  # so that it finds entities
    model.save_pretrained(tmp_path / "model")
    loaded, info = GlodeModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    texts = ["Anna Berg lives in Rome .", "in Oslo it rains " * 5, "Ida", "yesterday Karl Moor flew to New York"]
    found = loaded.predict(texts, tokenizer)
    assert sum(map(len, found)) > 5
    for entities in (model.predict(texts, tokenizer), [loaded.predict(text, tokenizer) for text in texts]):
        for expected, actual in zip(found, entities, strict=True):
            assert [entity | {"score": pytest.approx(entity["score"], abs=1e-4)} for entity in expected] == actual


# ------------------------------------------------------------------------------------------------------- the checkpoint's head

OWN_NAMES = {"deberta": {"legacy": False}, "deberta-v2": {"legacy": False}}  # as DeBERTa's authors name the head's weights
LOSSES = [*((kind, {}) for kind in (*KINDS, *CONVOLVED)), *OWN_NAMES.items()]


def masked_batch(vocabulary: int) -> dict[str, torch.Tensor]:
    """Three rows, of which the last is padded, with four tokens to predict in each."""
    torch.manual_seed(1)
    tokens = torch.randint(5, vocabulary, (3, 12))
    labels = torch.full_like(tokens, -100)
    labels[:, 2:6] = tokens[:, 2:6]
    tokens[:, 2:6], tokens[2, 9:] = 4, 1
    return {"input_ids": tokens, "attention_mask": (tokens != 1).long(), "labels": labels}


def mlm_loss(model: GlodeModel, batch: dict[str, torch.Tensor], **options) -> torch.Tensor:
    return model.eval()(batch["input_ids"], batch["attention_mask"], mlm_labels=batch["labels"], **options).mlm_loss


@pytest.mark.parametrize(("kind", "options"), LOSSES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_language_models_loss_is_the_checkpoints(kind: str, options: dict, tmp_path: Path, caplog):
    checkpoint, batch = save_language_model(kind, tmp_path, 60, **options), masked_batch(60)
    if options:  # a checkpoint of the authors does not say so
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in options}))
    with caplog.at_level(logging.INFO, "modeling_glode"):
        model = from_encoder(tmp_path)
    assert "the language model predicts with the checkpoint's own head" in caplog.text
    assert model.has_pretrained_mlm_head
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    with torch.no_grad():
        expected = checkpoint(**batch)
        assert mlm_loss(model, batch).item() == pytest.approx(expected.loss.item(), rel=1e-4)
        among = batch["labels"][batch["labels"] >= 0].unique()
        scores = expected.logits[batch["labels"] >= 0][:, among]
        wanted = torch.searchsorted(among, batch["labels"][batch["labels"] >= 0])
        loss = torch.nn.functional.cross_entropy(scores, wanted)
        assert mlm_loss(model, batch, mlm_tokens=among).item() == pytest.approx(loss.item(), rel=1e-4)
        model.save_pretrained(tmp_path / "model")
        loaded = GlodeModel.from_pretrained(tmp_path / "model")
        assert loaded.has_pretrained_mlm_head
        assert mlm_loss(loaded, batch).item() == pytest.approx(expected.loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    "kind", ["bert", "xlm-roberta", "electra", "albert", "mobilebert", "rembert", "xlm", "eurobert", "deberta-v2"]
)
def test_an_encoder_without_a_head_gets_a_fresh_one(kind: str, tmp_path: Path, caplog):
    AutoModel.from_config(tiny_encoder_config(kind, 60, **KINDS[kind])).save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "modeling_glode"):
        model = from_encoder(tmp_path)
    assert "the checkpoint has no head of a language model, so that a fresh one has to be learnt" in caplog.text
    assert not model.has_pretrained_mlm_head
    assert set(model.mlm_head.state_dict()) == {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}
    mlm_loss(model, masked_batch(60)).backward()
    assert all(parameter.grad is not None for parameter in model.mlm_head.parameters())


def test_a_discriminator_has_no_head_of_a_language_model(tmp_path: Path):
    torch.manual_seed(0)
    checkpoint = AutoModelForPreTraining.from_config(tiny_encoder_config("electra", 60, embedding_size=16))
    assert type(checkpoint).__name__ == "ElectraForPreTraining"
    checkpoint.save_pretrained(tmp_path)
    model = from_encoder(tmp_path)
    assert not model.has_pretrained_mlm_head
    assert torch.equal(model.get_input_embeddings().weight, checkpoint.get_input_embeddings().weight)


def test_a_head_that_computes_otherwise_is_not_taken(tmp_path: Path):
    """ESM names its head as RoBERTa does, but has its bias elsewhere."""
    torch.manual_seed(0)
    checkpoint = AutoModelForMaskedLM.from_config(tiny_encoder_config("esm", 60, mask_token_id=4))
    torch.nn.init.normal_(checkpoint.lm_head.bias)
    checkpoint.save_pretrained(tmp_path)
    assert not from_encoder(tmp_path).has_pretrained_mlm_head


def test_an_output_matrix_that_was_saved_as_the_embedding_is_the_embedding(tmp_path: Path):
    """LUKE's checkpoints leave the decoder out, and transformers 5 would make it a random one."""
    torch.manual_seed(0)
    checkpoint = AutoModelForMaskedLM.from_config(tiny_encoder_config("luke", 60, **KINDS["luke"]))
    checkpoint.lm_head.decoder.weight = checkpoint.get_input_embeddings().weight
    kept = {name: tensor.clone() for name, tensor in checkpoint.state_dict().items() if name != "lm_head.decoder.weight"}
    checkpoint.save_pretrained(tmp_path, state_dict=kept)
    model, batch = from_encoder(tmp_path), masked_batch(60)
    assert model.config.mlm_head["tied"] == 32
    assert mlm_loss(model, batch).item() == pytest.approx(checkpoint.eval()(**batch).loss.item(), rel=1e-4)
    pretrained = load_language_model(str(tmp_path), AutoConfig.from_pretrained(tmp_path))[0]
    pretrained.save_pretrained(tmp_path / "again")  # as continued pretraining does
    assert from_encoder(tmp_path / "again").config.mlm_head["tied"] == 32


def test_two_models_of_one_configuration_have_their_own_heads(tmp_path: Path):
    """A run makes the models of both stages of one configuration; what the first one took must not change the second."""
    for kind in ("xlm", "mobilebert"):
        save_language_model(kind, tmp_path / kind, 60)
        config = GlodeConfig(AutoConfig.from_pretrained(tmp_path / kind), max_span_length=3)
        models = []
        for _ in range(2):
            torch.manual_seed(0)
            models.append(GlodeModel.from_encoder(str(tmp_path / kind), config).state_dict())
        assert config.mlm_head is None
        assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_a_model_that_was_saved_before_heads_had_shapes_still_loads(tmp_path: Path):
    save_language_model("bert", tmp_path / "bert", 60)
    AutoModel.from_pretrained(tmp_path / "bert").save_pretrained(tmp_path / "encoder")
    model = from_encoder(tmp_path / "encoder")
    model.save_pretrained(tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    del config["mlm_head"]
    (tmp_path / "old/config.json").write_text(json.dumps(config))
    loaded, info = GlodeModel.from_pretrained(tmp_path / "old", output_loading_info=True)
    assert not any(info.values()), info
    assert mlm_loss(loaded, masked_batch(60)).item() == pytest.approx(mlm_loss(model, masked_batch(60)).item())


def test_a_pretrained_head_learns_from_the_first_step(tokenizer, windows, tmp_path: Path):
    """A small XLM-R that knows its corpus: its loss falls from the checkpoint's value under the paper's weight."""
    torch.manual_seed(0)
    checkpoint = AutoModelForMaskedLM.from_config(tiny_encoder_config("xlm-roberta", len(tokenizer)))
    optimizer = torch.optim.AdamW(checkpoint.parameters(), lr=3e-3)
    rows = [windows[1][i] | {"index": i, "window": i} for i in range(len(windows[1]))]

    def batch(seed: int) -> dict[str, torch.Tensor]:
        made = GlodeCollator(tokenizer, 3, mlm_probability=0.25, keep_target=False, seed=seed)
        inputs = made.masked(rows, [row["index"] for row in rows])
        return {"labels": inputs.pop("mlm_labels")} | inputs

    for step in range(60):
        loss = checkpoint(**batch(step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    checkpoint.save_pretrained(tmp_path)
    held = [batch(1000 + i) for i in range(8)]
    with torch.no_grad():
        before = sum(checkpoint.eval()(**inputs).loss.item() for inputs in held)
    assert before / len(held) < 0.7 * math.log(len(tokenizer))  # it has learnt something
    trainer = train(tmp_path, tokenizer, windows, max_steps=20, learning_rate=1e-4, mlm_weight=1e-3, warmup_steps=0)
    with torch.no_grad():
        model = from_encoder(tmp_path)
        assert sum(mlm_loss(model, inputs).item() for inputs in held) == pytest.approx(before, rel=1e-4)
        assert sum(mlm_loss(trainer.model, inputs).item() for inputs in held) < before


# --------------------------------------------------------------------------------------------------------- weights, attention


def test_a_checkpoint_in_half_precision_gives_full_precision(tmp_path: Path):
    for dtype in (torch.bfloat16, torch.float16):
        checkpoint = AutoModel.from_config(tiny_encoder_config("xlm-roberta", 60)).to(dtype)
        checkpoint.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
        model = from_encoder(tmp_path)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        weight = checkpoint.encoder.layer[0].output.dense.weight
        assert torch.equal(model.encoder.encoder.layer[0].output.dense.weight, weight.float())
        model.save_pretrained(tmp_path / "model")
        assert GlodeModel.from_pretrained(tmp_path / "model").dtype == torch.float32


def test_an_unknown_attention_is_said_and_replaced(tmp_path: Path, caplog):
    save_language_model("mpnet", tmp_path, 60)
    logging.getLogger().warning_once.cache_clear()
    model = from_encoder(tmp_path)
    assert model.encoder.config._attn_implementation == "eager"
    from_encoder(tmp_path)
    assert caplog.text.count("MPNetModel does not know sdpa attention; it computes eager") == 1
    assert pack_encoder(model.encoder) is None
    model.save_pretrained(tmp_path / "model")
    for wanted in (None, "sdpa", "eager"):
        loaded = GlodeModel.from_pretrained(tmp_path / "model", attn_implementation=wanted)
        assert loaded.encoder.config._attn_implementation == "eager"


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_said(tmp_path: Path, caplog):
    checkpoint = AutoModel.from_config(tiny_encoder_config("bert", 60))
    kept = {name: tensor for name, tensor in checkpoint.state_dict().items() if "layer.1." not in name}
    checkpoint.save_pretrained(tmp_path, state_dict=kept)
    from_encoder(tmp_path)
    assert "of the encoder's 37 weights" in caplog.text
    assert "weights are not in the checkpoint and start at random" in caplog.text
    assert "encoder.layer.1.attention" in caplog.text


# --------------------------------------------------------------------------------------------------- the space before a word


def byte_level(corpus: Dataset, prefix: bool, split: bool) -> PreTrainedTokenizerFast:
    """As RoBERTa's and ModernBERT's, or with a pattern of its own, as later ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if split:
        pattern = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?[^\s\p{L}]+|\s+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pattern, pre_tokenizers.ByteLevel(prefix, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(words) for words in corpus["words"]] * 3 + ["北京 上海"] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def as_roberta(tokenizer: PreTrainedTokenizerFast, directory: Path) -> PreTrainedTokenizerFast:
    tokenizer.save_pretrained(directory)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config.pop("backend", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "RobertaTokenizerFast"}))
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("kind", ["no space", "space", "pattern", "roberta"])
def test_byte_level_tokenizers_see_words_as_in_running_text(kind: str, corpus: Dataset, tmp_path: Path):
    tokenizer = byte_level(corpus, kind == "space", kind == "pattern")
    if kind == "roberta":
        tokenizer = as_roberta(tokenizer, tmp_path)
        assert "Roberta" in type(tokenizer).__name__
    text = "yesterday Anna Berg flew to New York ."
    words = text.split()
    running = tokenizer(text)["input_ids"]
    assert "ĠYork" in tokenizer.convert_ids_to_tokens(running)
    tokenizer.save_pretrained(tmp_path / "saved")
    for reader in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        row = next(iter_windows([words], reader, 64, 4))
        assert row["input_ids"] == running
        assert [
            len(reader.decode(running[a : b + 1]).strip()) for a, b in zip(row["first_token"], row["last_token"], strict=True)
        ] == [*map(len, words)]
        assert reader(words, is_split_into_words=True)["input_ids"] == tokenizer(words, is_split_into_words=True)["input_ids"]


def test_byte_level_tokenizers_find_the_characters_of_a_script_without_spaces(corpus: Dataset):
    for prefix in (False, True):
        tokenizer = byte_level(corpus, prefix, False)
        row = next(iter_windows([["in", "北", "京", "，", "上", "海", "", "Ida"]], tokenizer, 64, 4))
        pieces = [
            tokenizer.decode(row["input_ids"][a : b + 1]).strip()
            for a, b in zip(row["first_token"], row["last_token"], strict=True)
        ]
        assert row["borders"] == [0, 1, 3, 4, 6, 7, 8], pieces
        assert pieces == ["in", "北京", "，", "上海", "<unk>", "Ida"]
