"""Generated hostile texts, run by hand: PYTHONPATH=.:tests python tests/support/fuzz_text.py 50000

Each text goes through the splitter, the sentences, the pipeline, the handler and, as a line of bytes and as a field
of JSON lines, `glode tag`, with a tiny random model. What does not hold stops it; at the end it prints how much held.
"""

import json
import random
import resource
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers.utils import logging

from glode.corpora.files import read_lines
from glode.corpora.sentences import split_sentences
from glode.serving import tag
from glode.serving.handler import EndpointHandler
from modeling_glode import GlodeModel, GlodePipeline, split_words
from support.entities import check
from support.world import make_tokenizer, save_random_model

SCRIPTS = (
    "AZaz09 中国 กิ์ ຂ່ ក្ម မြ ابـ هُ हिन् 한 かナ゛ 👩🏽🇩🇪❤ .!?。।-'\"<>/_▁"
    " \t\n\r\x00\x1c\x85\u2028\ufeff\u0301\u200d\u200c\u200b\u202e\ufe0f\u00ad"
)
WORDS = ["Anna Berg", "New York", "</s>", "[MASK]", "<unk>", "https://a.b/?c=d", "\ud83d\ude00", "Dr.", "上海大学", "e-mail"]


def generate(rng: random.Random) -> str:
    """A text of one of several kinds, mostly short."""
    length = rng.choice([0, 1, 3, 10, 10, 30, 30, 200])
    kind = rng.randrange(6)
    if kind == 0:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(length))
    if kind == 1:
        return rng.choice(SCRIPTS) * rng.choice([1, 10, 50, 1000])
    if kind == 2:
        return rng.randbytes(length).decode("utf-8", rng.choice(["replace", "surrogateescape"]))
    if kind == 3:
        return " ".join(rng.choices(WORDS, k=length // 4))
    pool = SCRIPTS if kind == 4 else rng.sample(SCRIPTS, 3)
    return "".join(rng.choice(WORDS) if rng.random() < 0.1 else rng.choice(pool) for _ in range(length))


def main(number: int) -> None:
    logging.set_verbosity_error()
    rng, counts = random.Random(0), Counter()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "model")
        tokenizer = make_tokenizer(["Anna Berg lives in New York", "上海大学 在北京", "नई दिल्ली"])
        save_random_model(directory, tokenizer)
        ner = GlodePipeline(model=GlodeModel.from_pretrained(directory), tokenizer=tokenizer)
        handler = EndpointHandler(str(directory))
        while counts["texts"] < number:
            texts, nested = [generate(rng) for _ in range(min(1000, number - counts["texts"]))], rng.random() < 0.3
            for text in texts:
                words, sentences = split_words(text), split_sentences(text)
                assert all(a < b for a, b in words) and all(b <= c for (_, b), (c, _) in pairwise(words)), text
                assert "".join(text.split()) == "".join("".join(text[a:b].split()) for a, b in sentences), text
                counts.update(words=len(words), sentences=len(sentences), characters=len(text), texts=1)
            found = ner(texts, batch_size=32, nested=nested)
            counts["entities"] += sum(check(*pair, nested) for pair in zip(texts, found, strict=True))
            answered = handler({"inputs": texts, "parameters": {"nested": nested}})
            json.dumps(answered)
            counts["entities of the handler"] += sum(check(*pair, nested) for pair in zip(texts, answered, strict=True))
            for name, content in (
                ("in.txt", b"".join(text.encode("utf-8", "surrogatepass") + b"\n" for text in texts)),
                ("in.jsonl", "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()),
            ):
                source, target = Path(folder, name), Path(folder, "out.jsonl.zst")
                source.write_bytes(content)
                target.unlink(missing_ok=True)
                tag.main([*f"--model {directory} --input {source} --output {target} --encoding_errors replace".split()])
                records = [json.loads(line) for _, line, _ in read_lines(target)]
                assert len(records) == len(texts) if name == "in.jsonl" else len(records) >= len(texts)
                counts["lines tagged"] += len(records)
                counts["entities of these lines"] += sum(check(record["text"], record["entities"]) for record in records)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(counts | {"peak memory, MB": peak}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]))
