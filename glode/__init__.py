"""GLoDe: named entities for a language without labels.

The names below are loaded when they are first used, so that `import glode` takes no time and closes no circle of imports.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_WHERE = {
    "GlodeConfig": "modeling_glode",
    "GlodeModel": "modeling_glode",
    "GlodePipeline": "modeling_glode",
    "GlodeTrainer": "trainer_glode",
    "GlodeTrainingArguments": "glode.training.arguments",
    "InputError": "glode.errors",
    "Tagger": "glode.serving.tagger",
    "load_corpus": "glode.corpora.reading",
    "render": "glode.serving.rendering",
    "train": "glode.api",
}

__all__ = [
    "GlodeConfig",
    "GlodeModel",
    "GlodePipeline",
    "GlodeTrainer",
    "GlodeTrainingArguments",
    "InputError",
    "Tagger",
    "__version__",
    "load_corpus",
    "render",
    "train",
]

if TYPE_CHECKING:
    from glode.api import train
    from glode.corpora.reading import load_corpus
    from glode.errors import InputError
    from glode.serving.rendering import render
    from glode.serving.tagger import Tagger
    from glode.training.arguments import GlodeTrainingArguments
    from modeling_glode import GlodeConfig, GlodeModel, GlodePipeline
    from trainer_glode import GlodeTrainer


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
