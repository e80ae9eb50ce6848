"""Files of JSON -> records: JSON lines, or a document that is a list of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glode.corpora.files import read_lines, unpacked_suffix
from glode.corpora.options import ReadingOptions
from glode.corpora.records import read_record
from glode.corpora.schema import Raw
from glode.errors import InputError

LONGEST_DOCUMENT = 2**28  # characters of JSON that is not JSON lines and therefore read at once


def read_json(path: Path, options: ReadingOptions, labelled: bool = False) -> Iterator[Raw]:
    """JSON lines, where the name or the first line says so, or else a JSON list of records, see `read_record`."""
    lines_of_file = read_lines(path, options.encoding, options.encoding_errors)
    if has_json_lines(path, options):
        for number, line, replaced in lines_of_file:
            if line.strip():
                yield from read_record(_json(path, number, line), f"{path}, line {number}", number, options, replaced)
        return
    lines, size, replacements = [], 0, 0
    for _, line, replaced in lines_of_file:
        lines.append(line)
        size, replacements = size + len(line) + 1, replacements + replaced
        if size > LONGEST_DOCUMENT:
            raise InputError(
                f"{path}: more than {LONGEST_DOCUMENT >> 20} Mi characters of JSON at once. Write JSON lines, .jsonl."
            )
    records = _json(path, 1, "\n".join(lines))
    del lines
    for number, record in enumerate(records if isinstance(records, list) else [records], 1):
        yield from read_record(record, f"{path}, record {number}", number, options, replacements if number == 1 else 0)


def has_json_lines(path: Path, options: ReadingOptions) -> bool:
    """Whether each line is a record."""
    if unpacked_suffix(path) != ".json":
        return True
    lines = read_lines(path, options.encoding, options.encoding_errors)
    first = next((line for _, line, _ in lines if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _json(path: Path, number: int, text: str) -> Any:
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line, reason = number + error.lineno - 1, f"{error.msg}, column {error.colno}"
    except UnicodeEncodeError:
        line, reason = number, "half of a surrogate pair: \\ud800 to \\udfff come in twos"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        line, reason = number, str(error)
    raise InputError(f"{path}, line {line}: not JSON ({reason}). Correct it; in JSON lines each line is a record.")
