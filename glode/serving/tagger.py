"""Tags tables of texts, for engines that spread them over processes and machines: `datasets`, Ray Data.

    tagged = texts.with_format("arrow").map(Tagger("glode-demo"), batched=True, num_proc=2)

The engine reads, cuts into tables, starts processes and writes; docs/scaling.md has what to write for each.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from glode.errors import InputError
from glode.serving.tag import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from modeling_glode import GlodeModel

# A table in which nothing was found has the same columns as any other.
ENTITY = {"entity_group": pa.string(), "score": pa.float64(), "word": pa.string(), "start": pa.int64(), "end": pa.int64()}
ENTITIES = pa.list_(pa.struct(ENTITY))


class Tagger:
    """A table with a column of texts -> the same with a column `entities`, a list a text as the pipeline returns it.

    The model is loaded with the first table, so in the process that tags; what travels there is its name.

    Args:
        model: directory of a model or its repository on the Hub, where each process finds it.
        text_field: the column of texts; a null has no entities.
        threshold: the least score of an entity.
        nested: also entities within entities.
        batch_size: windows at a time.
        device: such as "cuda:1"; without it the GPU of the process' rank, where there are any.
        num_threads: of torch in each process. More than one hang in a process that was forked after torch has computed.
    """

    def __init__(
        self,
        model: str,
        text_field: str = "text",
        threshold: float = 0.0,
        nested: bool = False,
        batch_size: int = 32,
        device: str | None = None,
        num_threads: int = 1,
    ):
        self.model, self.text_field, self.batch_size = str(model), text_field, batch_size
        self.threshold, self.nested, self.device, self.num_threads = threshold, nested, device, num_threads
        # `datasets` takes a result from its cache where the function is the same: with another model in the directory it is not.
        files = sorted(Path(model).iterdir()) if Path(model).is_dir() else []
        self.files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        self._loaded: tuple[GlodeModel, PreTrainedTokenizerBase] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __call__(self, table: pa.Table, rank: int | None = None) -> pa.Table:
        """Tag a table.

        Args:
            rank: of the process among those of the machine (`with_rank=True` of `datasets`), which says which GPU it takes.
        Raises:
            InputError: the model cannot be loaded, or the table has no such column, or entities already.
        """
        if self.text_field not in table.schema.names:
            raise InputError(f"Tagger: there is no column {self.text_field!r} in {table.schema.names}. Name it by text_field.")
        if "entities" in table.schema.names:
            raise InputError("Tagger: the table has a column 'entities' already. Rename it or take it out.")
        model, tokenizer = self._loaded or self._load(rank)
        texts = [text or "" for text in table.column(self.text_field).to_pylist()]
        found = cast(list[list[dict]], model.predict(texts, tokenizer, self.batch_size, self.threshold, self.nested))
        return table.append_column("entities", pa.array(found, ENTITIES))

    def _load(self, rank: int | None) -> "tuple[GlodeModel, PreTrainedTokenizerBase]":
        import torch

        torch.set_num_threads(self.num_threads)
        device = self.device
        if device is None and rank is not None and torch.cuda.is_available():
            device = f"cuda:{rank % torch.cuda.device_count()}"
        self._loaded = load_model(self.model, device)
        return self._loaded
