"""Records as annotation tools and services export them -> a text and its spans, or what to export instead."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from glode.errors import InputError

Spans = list[dict[str, Any]] | None  # {"start", "end", "label"} and, where the tool says it, the "text" between; None: no labels
Texts = Iterator[tuple[str, Spans]]


class Export(NamedTuple):
    """A tool's name, how its records are known, and how their texts and spans are found."""

    tool: str
    wrote: Callable[[dict], bool]
    texts: Callable[[dict, Counter[str]], Texts]


def read_export(record: dict, where: str, notes: Counter[str]) -> list[tuple[str, Spans]] | None:
    """The texts and spans of a record that a tool writes otherwise than most; None where it is none of these.

    Raises:
        InputError: it cannot be read, or its parts are not where they should be.
    """
    for name, (keys, mend) in _NOT_READ.items():
        if keys <= record.keys() and "text" not in record:
            raise InputError(f"{where}: this looks like {name}, which no reader here takes. {mend}")
    export = next((each for each in _EXPORTS if each.wrote(record)), None)
    if export is None:
        return None
    try:
        return list(export.texts(record, notes))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{where}: this looks like an export of {export.tool}, but its texts or spans are not where they should be "
            f"({type(error).__name__}: {error}). Write a text and its entities."
        ) from None


def _dataturks(record: dict, notes: Counter[str]) -> Texts:
    """The last character is inside."""
    if record["annotation"] is None:
        yield record["content"], None
        return
    yield (
        record["content"],
        [
            {"start": point["start"], "end": point["end"] + 1, "label": each["label"], "text": point["text"]}
            for each in record["annotation"]
            for point in each["points"]
        ],
    )


def _vertex(record: dict, notes: Counter[str]) -> Texts:
    spans = record.get("textSegmentAnnotations", [])
    yield (
        record["textContent"],
        [{"start": int(e["startOffset"]), "end": int(e["endOffset"]), "label": e["displayName"]} for e in spans],
    )


def _automl(record: dict, notes: Counter[str]) -> Texts:
    segments = [(e["text_extraction"]["text_segment"], e["display_name"]) for e in record.get("annotations", [])]
    spans = [{"start": s.get("start_offset", 0), "end": s["end_offset"], "label": name} for s, name in segments]
    yield record["text_snippet"]["content"], spans


def _lighttag(record: dict, notes: Counter[str]) -> Texts:
    for example in record["examples"]:
        yield (
            example["content"],
            [
                {"start": e["start"], "end": e["end"], "label": e["tag"], "text": e.get("value")}
                for e in example.get("annotations") or []
            ],
        )


def _ground_truth(record: dict, notes: Counter[str]) -> Texts:
    """SageMaker's manifest: the job's name is the key of the labels."""
    found = [value["annotations"]["entities"] for value in record.values() if isinstance(value, dict) and "annotations" in value]
    if len(found) > 1:
        raise ValueError("labels of several jobs")
    spans = [{"start": e["startOffset"], "end": e["endOffset"], "label": e["label"]} for e in found[0]] if found else None
    yield record["source"], spans


def _bioc(record: dict, notes: Counter[str]) -> Texts:
    """BioC's collection or document: offsets count from the document's begin."""
    for document in record.get("documents", [record]):
        for passage in document["passages"]:
            for part in passage.get("sentences") or [passage]:
                spans = []
                for each in part.get("annotations", []):
                    if len(each["locations"]) > 1:
                        notes["entities with gaps left out"] += 1
                        continue
                    place = each["locations"][0]
                    start = place["offset"] - part["offset"]
                    end, label = start + place["length"], each["infons"]["type"]
                    spans.append({"start": start, "end": end, "label": label, "text": each["text"]})
                yield part.get("text", ""), spans


def _argilla(record: dict, notes: Counter[str]) -> Texts:
    """Argilla 2: a list of spans an annotator under the name of the question, and what became of each under another key."""
    key = next(key for key in record if key.endswith(_RESPONSES))
    given = record[key] or []
    status = record.get(f"{key}.status") or ["submitted"] * len(given)
    done = [spans for spans, state in zip(given, status, strict=True) if state == "submitted"]
    notes["further annotations of a task left out"] += max(len(done) - 1, 0)
    texts = [value for name, value in record.items() if isinstance(value, str) and name not in ("id", "status", "_server_id")]
    (text,) = [record["text"]] if "text" in record else texts
    yield text, done[0] if done else None


_RESPONSES = ".responses"
_EXPORTS = (
    Export("Dataturks", lambda record: {"content", "annotation"} <= record.keys(), _dataturks),
    Export("Vertex AI", lambda record: "textContent" in record, _vertex),
    Export("AutoML", lambda record: "text_snippet" in record, _automl),
    Export("LightTag", lambda record: "examples" in record, _lighttag),
    Export("Ground Truth", lambda record: "source" in record and any(k.endswith("-metadata") for k in record), _ground_truth),
    Export("BioC", lambda record: "passages" in record or ("documents" in record and "key" in record), _bioc),
    Export("Argilla", lambda record: any(key.endswith(_RESPONSES) for key in record), _argilla),
)
_NO_OFFSETS = "It says what is in a text, and not where. Write a text and the offsets of its entities."
_NO_TEXT = "The texts lie in other files. Write each with its entities into one record."
_NOT_READ = {
    "a CAS of UIMA in JSON (INCEpTION)": ({"%FEATURE_STRUCTURES"}, "Export it as CoNLL 2002."),
    "a file of tagtog's annotations": ({"annotatable", "anncomplete"}, _NO_TEXT),
    "an Azure project": ({"projectFileVersion", "assets"}, _NO_TEXT),
    "an answer of Azure": ({"documents", "modelVersion"}, _NO_TEXT),
    "an answer of Comprehend": ({"Entities", "File"}, _NO_TEXT),
    "a conversation with a language model": ({"conversations"}, _NO_OFFSETS),
    "a chat with a language model": ({"messages"}, _NO_OFFSETS),
    "an instruction to a language model": ({"instruction", "output"}, _NO_OFFSETS),
    "a document of DocRED": ({"sents", "vertexSet"}, "Write each sentence with a tag a word."),
}
