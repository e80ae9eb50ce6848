"""A span model as an ONNX file, with numbers of 32 or 8 bits, in a directory that is used as the model's own is."""

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers.utils import cached_file

import modeling_glode
from glode.corpora.labels import types_of
from glode.corpora.reading import load_corpus
from glode.errors import InputError
from glode.features.reach import gold_entities
from glode.metrics import Entity, entities_of, entity_scores, of_known_types
from glode.serving import handler
from glode.serving.tag import load_model, no_bars
from modeling_glode import ONNX_FILE, GlodeModel, GlodeOnnxModel, collate_windows, encode_words, load_glode

INPUTS = ("input_ids", "attention_mask", "first_token", "last_token", "word_shapes")
ENCODER = "encoder/"  # what the names of the encoder's nodes begin with
LARGEST_FILE = 1.9e9  # bytes; weights beyond it, which no protobuf holds, go into a file of their own
SENTENCES = [["Maria", "Keller", "works", "for", "Siemens", "in", "Munich", "."], list("王丽在北京的中国银行工作。"), ["ok"]]
TURNS = 3  # over the gold file, by turns; the first warms up


class _Scores(nn.Module):
    """What is exported: the logits alone."""

    def __init__(self, model: GlodeModel):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, first_token: Tensor, last_token: Tensor, word_shapes: Tensor
    ) -> Tensor:
        return self.model(input_ids, attention_mask, first_token, last_token, word_shapes).logits


@dataclass(frozen=True)
class Measured:
    """What a model did on the gold file: F1 in percent, and words a second."""

    f1: float
    speed: float


class SpanExport:
    """The export of a span model.

    Args:
        name: directory of the model or its repository on the Hub.
        directory: to write.
    Raises:
        InputError: the model cannot be loaded, or is exported already.
    """

    def __init__(self, name: str, directory: Path):
        self.name, self.directory = name, directory
        self.model, self.tokenizer = load_model(name, "cpu")
        if isinstance(self.model, GlodeOnnxModel):
            raise InputError(f"--model {name} is an export already. Give the model that it was made of.")
        self.is_int8 = False
        held = sum(p.numel() for name, p in self.model.named_parameters() if not name.startswith(("mlm_head", "projector")))
        self.has_data_file = 4 * held > LARGEST_FILE

    @property
    def path(self) -> Path:
        return self.directory / ONNX_FILE

    def write(self) -> float:
        """Write the directory: graph, configuration, tokenizer, code and card.

        Returns:
            The largest difference of the logits, ONNX Runtime against PyTorch, over batches of several shapes, as a share of the
            largest logit where that is over 1.
        Raises:
            InputError: torch cannot export this encoder.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_graph()
        config = type(self.model.config).from_dict(self.model.config.to_dict())
        config.architectures = [GlodeOnnxModel.__name__]
        config.auto_map = {"AutoConfig": "modeling_glode.GlodeConfig", "AutoModel": "modeling_glode.GlodeOnnxModel"}
        config.save_pretrained(self.directory)
        self.tokenizer.save_pretrained(self.directory)
        for module in (modeling_glode, handler):
            source = Path(cast(str, module.__file__))
            shutil.copy(source, self.directory / source.name)
        self._write_card()
        return self.largest_difference()

    def _write_graph(self) -> None:
        # Attention that is written out becomes products and a softmax, which ONNX Runtime knows how to fuse.
        with no_bars():
            model = load_glode(self.name, attn_implementation="eager")
        batch = self._batch(SENTENCES)
        rows, tokens, words = (torch.export.Dim(name, min=2, max=2**15) for name in ("batch", "tokens", "words"))
        width = {"input_ids": tokens, "attention_mask": tokens}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Scores(model),
                    kwargs=batch,
                    f=str(self.path),
                    input_names=list(INPUTS),
                    output_names=["logits"],
                    dynamic_shapes={name: {0: rows, 1: width.get(name, words)} for name in INPUTS},
                    dynamo=True,
                    external_data=self.has_data_file,
                    verbose=False,
                )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = " ".join(str(error).split())[:200]
            kind = type(model.encoder).__name__
            raise InputError(f"torch's exporter does not know all that {kind} does: {reason} Use the model as it is.") from error
        self._tidy()

    def _tidy(self) -> None:
        """Name the encoder's nodes, and leave out what the exporter notes of each: paths of this machine are among it."""
        exported = onnx.load(str(self.path), load_external_data=False)
        for node in exported.graph.node:
            scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "")
            if "'model.encoder'" in scopes:
                node.name = ENCODER + node.name
        graph = exported.graph
        for part in (exported, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del part.metadata_props[:]
        onnx.save(exported, str(self.path))

    def _batch(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        config = self.model.config
        columns = encode_words(sentences, self.tokenizer, config.max_tokens, config.max_span_length, config.units)
        windows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        batch = collate_windows(windows, self.tokenizer.pad_token_id)
        return {name: batch[name] for name in INPUTS}

    @torch.no_grad()
    def largest_difference(self) -> float:
        """See `write`."""
        exported, worst = load_glode(str(self.directory)), 0.0
        for sentences in (SENTENCES, [SENTENCES[0] * 3, SENTENCES[1]], *([words] for words in SENTENCES)):
            batch = self._batch(sentences)
            expected, found = (model(**batch).logits.numpy() for model in (self.model, exported))
            worst = max(worst, float(np.abs(expected - found).max()) / max(1.0, float(np.abs(expected).max())))
        return worst

    def quantize(self) -> None:
        """Give the encoder's weight matrices 8 bits, each column a scale of its own; what is multiplied by them is quantised
        as it comes, and the head stays as it is."""
        graph = onnx.load(str(self.path), load_external_data=False).graph
        constants = {constant.name for constant in graph.initializer}
        products = (node for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants)
        nodes = [node.name for node in products if node.name.startswith(ENCODER)]
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            quantize_dynamic(
                self.path,
                Path(directory) / ONNX_FILE,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=nodes,
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=self.has_data_file,
            )
            for path in Path(directory).iterdir():
                os.replace(path, self.directory / path.name)
        self.is_int8 = True
        self._write_card()
        print(f"{self.path}: {len(nodes)} weight matrices of the encoder have 8 bits")

    def read_gold(self, path: str) -> None:
        """Read the labelled file on which `compare` measures.

        Raises:
            InputError: it cannot be read, or has none of the model's types.
        """
        self.gold, self.gold_name = load_corpus(path, labelled=True), Path(path).name
        known = list(self.model.config.id2label.values())[1:]
        if (types := types_of(self.gold)).isdisjoint(known):
            raise InputError(
                f"--gold {path} has the types {', '.join(sorted(types)) or 'of nothing'}, and none is one of the model's "
                f"{', '.join(known)}. Give a file that has."
            )

    def compare(self, batch_size: int) -> None:
        """Print F1 and words a second beside PyTorch's, and write them to the card."""
        models = {"PyTorch": self.model, self._title: load_glode(str(self.directory))}
        found = measure(models, self.tokenizer, self.gold, batch_size)
        lines = [f"| {name} | {row.f1:.2f} | {row.speed:.0f} |" for name, row in found.items()]
        table = "\n".join(["| | F1 | words a second |", "|---|---|---|", *lines])
        threads = torch.get_num_threads()
        where = f"{len(self.gold)} sentences of {self.gold_name}, on the CPU with {threads} thread{'s' if threads > 1 else ''}"
        text = f"Strict F1 over all gold entities, and speed, on {where}:\n\n{table}"
        print(text)
        self._write_card(text)

    @property
    def _title(self) -> str:
        return f"ONNX Runtime{', int8' if self.is_int8 else ''}"

    def _write_card(self, scores: str = "") -> None:
        """The model's own card, where it has one, with a section on the export."""
        path = cached_file(self.name, "README.md", _raise_exceptions_for_missing_entries=False)
        card = ModelCard.load(path) if path else ModelCard(f"---\nlibrary_name: transformers\n---\n# {Path(self.name).name}\n")
        card.data["tags"] = sorted({*(card.data.get("tags") or []), "onnx"})
        bits = (
            "The encoder's weights have 8 bits, those of the span classifier 32." if self.is_int8 else "Its weights have 32 bits."
        )
        how = (
            "`model.onnx` has the weights of the model described here, for ONNX Runtime on a CPU (`pip install onnxruntime`). "
            f"{bits} The directory is used as the model's own, in the same words: "
            '`pipeline("token-classification", model=DIRECTORY, trust_remote_code=True)`.'
        )
        card.text = "\n\n".join(part for part in (card.text.rstrip(), f"## {self._title}", how, scores) if part) + "\n"
        card.save(self.directory / "README.md")


def measure(models: dict[str, GlodeModel], tokenizer, corpus: Dataset, batch_size: int = 32) -> dict[str, Measured]:
    """Tag a labelled corpus with each model, by turns; a model's time is that of its fastest turn."""
    words, gold = list(corpus["words"]), gold_entities(corpus)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    found: dict[str, list[list[Entity]]] = {}
    for _ in range(TURNS):
        for name, model in models.items():
            start = time.perf_counter()
            tagged = cast(list[list[dict]], model.predict(words, tokenizer, batch_size))
            seconds[name].append(time.perf_counter() - start)
            found[name] = entities_of(tagged)
    scores = {name: entity_scores(gold, of_known_types(gold, entities)) for name, entities in found.items()}
    number = sum(map(len, words))
    return {name: Measured(scores[name]["f1"], number / min(seconds[name])) for name in models}
