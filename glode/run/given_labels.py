"""Pseudo labels that are there already: a run's own file, or spans with scores that any tagger has written."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.words import split_words
from glode.denoising.pseudo_labels import PseudoLabels
from glode.errors import InputError
from glode.features.reach import in_units
from glode.files import write_whole
from glode.run.fingerprint import Fingerprint, read_fingerprint
from glode.training.calibration import Scaling

_TYPE_KEYS = ("entity_group", "label", "type", "entity")


def are_records(path: Path) -> bool:
    """Whether a file of pseudo labels is JSON lines, as its name says."""
    return unpacked_suffix(path) in (".jsonl", ".ndjson")


def write_labels(labels: PseudoLabels, path: Path, calibration: Mapping[str, Scaling]) -> None:
    """A run's file of pseudo labels; how the teachers were calibrated, where they were, stands in its header."""
    state = {"offsets": labels.offsets.cpu(), "probabilities": labels.probabilities.cpu()}
    with write_whole(path) as partial:
        save_file(state, partial, {"calibration": json.dumps(calibration)} if calibration else None)


def read_calibration(path: Path) -> dict[str, Scaling]:
    """How the teachers that have made a file of pseudo labels were calibrated; empty where they were not."""
    if are_records(path):
        return {}
    with safe_open(path, framework="pt") as file:
        found = json.loads((file.metadata() or {}).get("calibration", "{}"))
    return {name: Scaling(*values) for name, values in found.items()}


def read_labels(path: Path, labels: PseudoLabels, fingerprint: Fingerprint) -> None:
    """Fill `labels` from a run's file.

    Args:
        fingerprint: of the run that reads it.
    Raises:
        InputError: the file is missing or broken, or of another text, span length or set of types.
    """
    if not path.is_file():
        raise InputError(f"--pseudo_labels {path} is not there. Check the path.")
    try:
        state = load_file(path)
        offsets, probabilities = state["offsets"], state["probabilities"]
    except (OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"--pseudo_labels {path}: not a file of pseudo labels ({error}). Give a pseudo_labels.safetensors, or a .jsonl file."
        ) from error
    whose = read_fingerprint(path.parent)  # of the run that made them, where it is known
    same_text = not whose or all(whose.values.get(name) == fingerprint.values[name] for name in ("target text", "types"))
    same_windows = torch.equal(offsets.to(labels.offsets.device), labels.offsets)
    if not same_text or not same_windows or probabilities.shape != labels.probabilities.shape:
        raise InputError(f"--pseudo_labels {path} was made for another target text, span length or set of types. Make it new.")
    labels.probabilities.copy_(probabilities)


# ------------------------------------------------------------------------------------------------------------------- records

Span = tuple[int, int, tuple[int, float]]  # first word, length in words (0: a border within a word), (type, score)


def read_records(path: Path, corpus: Dataset, names: Sequence[str], mapping: Mapping[str, str]) -> list[list[Span]]:
    """The spans of each target sentence in JSON lines of the target text, in its order: {"text": ..., "entities": [{"start",
    "end", "entity_group", "score"}]} with offsets in characters, as `glode tag` writes them, or {"tokens": [words], ...} with
    offsets in words, of which the last is not inside. A record holds one sentence of the target text, or several that follow one
    another. A span without a score has the score 1.

    Args:
        corpus: the target text.
        names: the types, "O" first.
        mapping: other names of types -> ours, or "O".
    Raises:
        InputError: the file is broken, or not of this text and these types.
    """
    return _spans_of_sentences(path, corpus, {name: i for i, name in enumerate(names)}, mapping)


def write_mean(labels: PseudoLabels, of_teachers: Sequence[Sequence[Sequence[Span]]], windows: Dataset) -> tuple[int, int]:
    """Fill `labels` with the mean of several teachers' spans, see `read_records`. A span's soft label is its mean score for each
    type, 0 of a teacher that does not name it, and the rest for "O".

    Args:
        windows: of the target text.
    Returns:
        How many spans the labels hold, and how many there are: some may be longer than L, or have a border within a word.
    """
    sentences = [_mean_spans(spans) for spans in zip(*of_teachers, strict=True)]
    length = labels.probabilities.shape[1]
    cells: list[tuple[int, int, int]] = []
    scores: list[float] = []
    columns = (windows[name] for name in ("sentence", "borders", "own_start", "own_end"))
    for offset, sentence, borders, start, end in zip(labels.offsets[:-1].tolist(), *columns, strict=True):
        for unit, units, (kind, score) in in_units(sentences[sentence], borders, start, end, length):
            cells.append((offset + unit - start, units - 1, kind))
            scores.append(score)
    if cells:
        row, column, kind = torch.tensor(cells, device=labels.probabilities.device).T
        labels.probabilities[row, column, kind] = torch.tensor(scores).to(labels.probabilities)
        outside = 1 - labels.probabilities[row, column, 1:].float().sum(-1)
        labels.probabilities[row, column, 0] = outside.clamp(min=0).to(labels.probabilities)
    return len(cells), sum(map(len, sentences))


def _mean_spans(of_teachers: Sequence[Sequence[Span]]) -> list[Span]:
    """The spans of one sentence with their mean scores."""
    sums: dict[tuple[int, int, int], float] = {}
    for spans in of_teachers:
        for begin, length, (kind, score) in spans:
            sums[begin, length, kind] = sums.get((begin, length, kind), 0.0) + score
    return [(begin, length, (kind, total / len(of_teachers))) for (begin, length, kind), total in sums.items()]


def types_in_records(path: Path) -> set[str]:
    """The names of the types of such a file."""
    entities = (entity for _, record in _records(path) for entity in record["entities"])
    return {name for name in map(_type_of, entities) if name is not None}


def _type_of(entity: object) -> str | None:
    values = entity if isinstance(entity, dict) else {}
    return next((values[key] for key in _TYPE_KEYS if isinstance(values.get(key), str)), None)


def _spans_of_sentences(path: Path, corpus: Dataset, ids: Mapping[str, int], mapping: Mapping[str, str]) -> list[list[Span]]:
    """The spans of each sentence of the target text."""
    words, found = corpus["words"], list[list[Span]]()
    for where, record in _records(path):
        text, places = _characters(record)
        spans = list(_spans(record["entities"], places, ids, mapping, where))
        begin = 0
        while begin < len(text):
            sentence = words[len(found)] if len(found) < len(words) else []
            borders = list(accumulate(map(len, sentence), initial=begin))
            if not sentence or text[begin : borders[-1]] != "".join(sentence):
                there = repr(" ".join(sentence)[:60]) if sentence else f"none: there are {len(words)}"
                raise InputError(
                    f"{where}: {text[begin:][:60]!r} does not begin with target sentence {len(found) + 1}, which is {there}. "
                    "Give the records of this very target text, in its order."
                )
            found.append([_in_words(span, borders) for span in spans if begin <= span[0] < borders[-1]])
            begin = borders[-1]
    if len(found) < len(words):
        raise InputError(f"{path} ends after {len(found)} of {len(words)} target sentences. Label all of them.")
    return found


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """Where each record of a file stands, and the record."""
    for number, line, _ in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        record = record if isinstance(record, dict) else {}
        tokens = record.get("tokens")
        has_words = isinstance(tokens, list) and all(isinstance(word, str) for word in tokens)
        if not (has_words or isinstance(record.get("text"), str)) or not isinstance(record.get("entities"), list):
            raise InputError(
                f'{where}: no record of pseudo labels, {{"text": "...", "entities": [{{"start", "end", "entity_group", "score"}}]'
                '}, or "tokens" in place of the text.'
            )
        yield where, record


def _characters(record: dict) -> tuple[str, list[int]]:
    """The characters of a record's words, and how many of them stand before each of its offsets."""
    if not isinstance(record.get("text"), str):
        return "".join(record["tokens"]), list(accumulate(map(len, record["tokens"]), initial=0))
    text, inside = record["text"], bytearray(len(record["text"]))
    words = split_words(text)
    for start, end in words:
        inside[start:end] = b"\1" * (end - start)
    return "".join(text[start:end] for start, end in words), list(accumulate(inside, initial=0))


def _spans(
    entities: list, places: Sequence[int], ids: Mapping[str, int], mapping: Mapping[str, str], where: str
) -> Iterator[Span]:
    """(first character, end, (type, score)) of a record's entities, in the characters of its words."""
    certainty: dict[tuple[int, int], float] = {}
    for entity in entities:
        values = entity if isinstance(entity, dict) else {}
        start, end, score = (values.get(key, usual) for key, usual in (("start", -1), ("end", -1), ("score", 1.0)))
        name = _type_of(entity)
        inside = isinstance(start, int) and isinstance(end, int) and 0 <= start < end < len(places)
        if not inside or name is None or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InputError(
                f"{where}: {str(entity)[:80]} is no entity of this text: expected start, end, entity_group, a score from 0 to 1."
            )
        if (kind := ids.get(mapping.get(name, name))) is None:
            raise InputError(
                f"{where}: the type {name!r} is none of the source's {', '.join(list(ids)[1:])}. Rename it by --label_map."
            )
        place = (places[start], places[end])
        certainty[place] = certainty.get(place, 0.0) + (score if kind else 0)
        if certainty[place] > 1 + 1e-6:
            raise InputError(f"{where}: the scores of the entities from {start} to {end} make more than 1. Correct them.")
        if kind:
            yield *place, (kind, float(score))


def _in_words(span: Span, borders: Sequence[int]) -> Span:
    """A span in characters as one in words, between the words' borders."""
    first, last = (bisect_left(borders, place) for place in span[:2])
    exact = last < len(borders) and (borders[first], borders[last]) == span[:2]
    return (first, last - first if exact else 0, span[2])
