"""From a finished run to a repository on the Hub: the model card, its picture, the files that travel with the model."""

import json
import shutil
from pathlib import Path

from huggingface_hub import create_repo, upload_folder
from huggingface_hub.errors import HFValidationError, HTTPError

import modeling_glode
from glode.errors import InputError
from glode.publishing.card import PICTURE
from glode.serving import handler

# What serves a model and travels with it.
CODE = (Path(modeling_glode.__file__), Path(handler.__file__))


# No connection, a refusal, a name that cannot be, a file that cannot be read.
HUB_ERRORS = (HTTPError, HFValidationError, OSError, ValueError)


# What a repository holds; checkpoints, logs and arguments of a run stay at home.
PUBLISHED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "adapter/adapter_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "modeling_glode.py",
    "handler.py",
    "requirements.txt",
    "README.md",
    "metrics.json",
    PICTURE,
)


UNPUBLISHED = (
    *("pseudo_labels.safetensors", "pseudo_labels_*.safetensors", "*_checkpoints/*", "token_classifier/*"),
    *("source_model/*", "source_model_*/*", "target_model/*", "target_model_*/*", "pretrained/*"),
)


def copy_code(directory: Path) -> None:
    """Put what serves the model beside it: the model's code and the endpoint's handler."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in CODE:
        shutil.copy(path, directory / path.name)


def make_portable(directory: Path) -> None:
    """Name the generic fast tokenizer as transformers 4 knows it too, `PreTrainedTokenizerFast`; `pipeline` there reads it from
    the model's configuration."""
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") != "TokenizersBackend":
        return
    for file in (path, directory / "config.json"):
        values = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_repository(name: str, token: str | None, private: bool | None) -> str:
    """Create the repository, or find it there already.

    Returns:
        Its full name, user/name.
    Raises:
        InputError: the Hub cannot be reached or refuses.
    """
    try:
        return create_repo(name, token=token, private=private, exist_ok=True).repo_id
    except HUB_ERRORS as error:
        raise hub_error(name, error) from None


def publish(directory: Path, name: str, token: str | None, revision: str | None, message: str) -> str:
    """Upload a finished model's directory.

    Returns:
        The address of the commit.
    Raises:
        InputError: the Hub cannot be reached or refuses.
    """
    try:
        return upload_folder(
            repo_id=name,
            folder_path=directory,
            token=token,
            revision=revision,
            commit_message=message,
            allow_patterns=list(PUBLISHED),
            ignore_patterns=list(UNPUBLISHED),
        )
    except HUB_ERRORS as error:
        raise hub_error(name, error) from None


def hub_error(name: str, error: Exception) -> InputError:
    """What a user reads when the Hub is down or refuses."""
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"{name!r} could not be pushed to the Hub: {reason} Check the connection (HF_ENDPOINT), the name "
        "(--hub_model_id user/name) and the token (HF_TOKEN, with write permission)."
    )
