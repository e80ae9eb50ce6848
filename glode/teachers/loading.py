"""Which kind of teacher a name is, and the teacher of that name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PretrainedConfig

from glode.teachers.chat import ChatTeacher
from glode.teachers.endpoint import is_endpoint
from glode.teachers.gliner import FILE, GlinerTeacher
from glode.teachers.teacher import Teacher, TeacherSettings
from glode.teachers.tokens import TokenTeacher, tag_parts

KINDS: Mapping[str, Callable[[str, TeacherSettings], Teacher]] = {
    "tokens": TokenTeacher,
    "gliner": GlinerTeacher,
    "chat": ChatTeacher,
}


def kind_of(name: str) -> str | None:
    """The kind of a teacher, see `KINDS`; None of a model of ours, and of what cannot be told."""
    if is_endpoint(name):
        return "chat"
    if _has_gliner(name):
        return "gliner"
    try:
        kinds = PretrainedConfig.get_config_dict(name)[0].get("architectures") or []
    except (OSError, ValueError):
        return None
    return "tokens" if any(kind.endswith("ForTokenClassification") for kind in kinds) else None


def own_types(name: str) -> set[str] | None:
    """The types that a teacher has, None where it can be asked for any."""
    if kind_of(name) != "tokens":
        return None
    config = PretrainedConfig.from_dict(PretrainedConfig.get_config_dict(name)[0])
    return set(tag_parts(config.id2label)[0])


def load_teacher(name: str, settings: TeacherSettings) -> Teacher:
    """The teacher of a name that has a kind.

    Raises:
        InputError: it does not load.
    """
    return KINDS[kind_of(name) or "tokens"](name, settings)


def _has_gliner(name: str) -> bool:
    """Whether a directory or a repository on the Hub has a GLiNER model."""
    if Path(name).exists():
        return Path(name, FILE).is_file()
    try:
        return bool(hf_hub_download(name, FILE))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return False
