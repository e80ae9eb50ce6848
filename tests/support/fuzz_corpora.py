"""Feeds the readers of corpora with damaged files and prints what came of them; run by hand, it is no test:

    python tests/fuzz_corpora.py 50000 [SEED]

Every input ends in sentences or in an InputError; anything else is printed with the input and ends the run with status 1.
"""

import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from datasets import Dataset, disable_progress_bars  # noqa: E402

from glode.corpora.files import OPENERS  # noqa: E402
from glode.corpora.options import ReadingOptions  # noqa: E402
from glode.corpora.reading import read_corpus  # noqa: E402
from glode.corpora.words import iter_words  # noqa: E402
from glode.errors import InputError  # noqa: E402

TAGGED = [
    (["Anna", "Berg", "wohnt", "in", "北", "京"], ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]),
    (["#", "🙂"], ["O", "S-X"]),
]
PIECES = [
    "\t",
    " ",
    "\n",
    "\r",
    "\n\n",
    "#",
    "# O",
    "1-2",
    "B-",
    "I-PER",
    "E-PER",
    "U-X",
    "O",
    "-DOCSTART- O\n",
    "\0",
    "\ufeff",
    "\u2028",
]
PIECES += [
    "\u3000",
    "\u200d",
    "[",
    "]",
    "{",
    "}",
    '"',
    ",",
    ":",
    "\\ud800",
    "\\u0000",
    "null",
    "true",
    "-1",
    "9" * 5000,
    "1e999",
    "NaN",
]
PIECES += [
    '"text"',
    '"tokens"',
    '"entities"',
    '"data"',
    '"annotations"',
    '"labels"',
    '"context"',
    "[" * 3000,
    "a" * 3000,
    "NER=B-X|",
]
BYTES = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xff\xfe", b"\x00", b"\xf0\x9f\x99", b"\x1f\x8b", b"PAR1"]


def seeds(directory: Path) -> dict[str, list[bytes]]:
    """Files that are right, by the end of their name."""
    columns = ["\n".join("".join(f"{w}{by}{t}\n" for w, t in zip(*pair, strict=True)) for pair in TAGGED) for by in "\t "]
    columns.append("".join(f"{n}\t{w}\t_\t{t}\n" for n, (w, t) in enumerate(zip(*TAGGED[0], strict=True), 1)))
    text = "Anna Berg wohnt in 北京."
    records = [
        {"tokens": TAGGED[0][0], "tags": TAGGED[0][1]},
        {"text": text, "entities": [[0, 9, "PER"], [19, 21, "LOC"]]},
        {"text": text, "spans": [{"start": 0, "end": 9, "label": "PER", "text": "Anna Berg"}], "answer": "accept"},
        {"data": {"text": text}, "annotations": [{"result": [{"value": {"start": 0, "end": 4, "labels": ["PER", "X"]}}]}]},
        {"context": "Anna Berg wohnt", "span_posLabel": {"0;1": "PER"}},
        [text, {"entities": [[0, 9, "PER"]]}],
    ]
    lines = ["\n".join(json.dumps(r, ensure_ascii=False) for r in part) for part in (records, records[:1], records[3:4])]
    Dataset.from_list([{"tokens": w, "ner_tags": t} for w, t in TAGGED]).to_parquet(directory / "seed.parquet")
    documents = [json.dumps(records, ensure_ascii=False, indent=1), json.dumps(records[3:4])]
    contents = {".conll": columns, ".jsonl": lines, ".json": documents, ".txt": [text, "\n".join([text] * 3)]}
    return {suffix: [part.encode() for part in parts] for suffix, parts in contents.items()} | {
        ".parquet": [(directory / "seed.parquet").read_bytes()]
    }


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The input, changed at none to four places."""
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        a, b = sorted(rng.randint(0, len(data)) for _ in range(2))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:a] + data[b:]
        elif kind == 1:
            data = data[:b] + data[a:b] + data[b:]
        elif kind == 2:
            data = data[:a] + rng.choice(BYTES) + data[a:]
        elif kind == 3:
            data = data[:a] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 4))) + data[a + 2 :]
        else:
            data = data[:a] + rng.choice(PIECES).encode("utf-8") + data[a if kind == 4 else min(b, a + 6) :]
    return data


def check(rows: list[dict]) -> None:
    """Words are there and can be stored, entities lie inside of their sentence."""
    for row in rows:
        assert row["words"] and all(row["words"])
        json.dumps(row, ensure_ascii=False).encode()
        for begin, length, name in zip(row["begins"], row["lengths"], row["types"], strict=True):
            assert 0 <= begin < begin + length <= len(row["words"]) and name not in ("", "O")


def main(number: int, seed: int) -> int:
    disable_progress_bars()
    next(iter_words("a"))  # imports torch
    rng, outcomes, start, slowest = random.Random(seed), Counter(), time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        contents = seeds(directory)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(number):
            suffix = rng.choice([*contents, *contents, ".conll", ".jsonl"])
            data = damaged(rng, rng.choice(contents[suffix]))
            packing = rng.choice(["", "", "", *OPENERS]) if suffix != ".parquet" else ""
            path = directory / f"corpus{suffix}{packing}"
            with OPENERS.get(packing, open)(path, "wb") as file:
                file.write(data)
            if packing and rng.random() < 0.3:
                path.write_bytes(damaged(rng, path.read_bytes()))
            labelled = rng.random() < 0.7
            options = ReadingOptions(rng.choice(["utf-8", "utf-8", "latin-1", "gbk"]), rng.choice(["strict", "replace"]))
            began = time.perf_counter()
            try:
                check(list(read_corpus(str(path), labelled, options)))
                outcomes[suffix, "read"] += 1
            except InputError as error:
                outcomes[suffix, "refused"] += 1
                assert str(path) in str(error) and "\n" not in str(error), error
            except Exception:
                print(f"{path.name} {labelled} {options}: {path.read_bytes()[:2000]!r}")
                traceback.print_exc()
                return 1
            slowest = max(slowest, time.perf_counter() - began)
            path.unlink()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for suffix in contents:
        print(f"{suffix:9} {outcomes[suffix, 'read']:7} read {outcomes[suffix, 'refused']:7} refused")
    print(f"{number} inputs, seed {seed}, {time.perf_counter() - start:.0f} s, slowest {1000 * slowest:.0f} ms")
    print(f"peak memory {after / 1024:.0f} MB, {(after - before) / 1024:.0f} MB above that of the start; no other exception")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
