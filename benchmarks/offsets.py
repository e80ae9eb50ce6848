"""What becomes of a corpus' words in raw text: python benchmarks/offsets.py --tokenizer glode-demo ar.iob2.gz ru.iob2.gz ...

The words of each sentence are joined as text is written. A model that names every span of one unit an entity tags that text
through the pipeline, in windows of 40 tokens. Reported are, of each file,

- round trip: the share of words all of whose characters (but invisible direction marks) come back, each in one entity, with
  text[start:end] == word;
- words, entities: the share of words and of labelled entities that begin and end where words of the splitter do;
- sentences: the share of sentences which `split_sentences` leaves whole; and, of documents of five sentences, the precision and
  recall of the sentence ends that it finds.

Writes benchmarks/results/offsets.json.
"""

import argparse
import json
import sys
import unicodedata
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from crossner import machine  # noqa: E402

from glode.corpora.reading import read_corpus  # noqa: E402
from glode.corpora.sentences import split_sentences  # noqa: E402
from glode.publishing.token_classifier import running_text  # noqa: E402
from modeling_glode import GlodeConfig, GlodeModel, GlodePipeline, split_words  # noqa: E402


def unit_pipeline(tokenizer) -> GlodePipeline:
    """The pipeline with a model that names each unit an entity."""
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "num_hidden_layers": 0}
    encoder = AutoConfig.for_model("bert", vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    model = GlodeModel(GlodeConfig(encoder, max_span_length=1, max_tokens=40, id2label={0: "O", 1: "UNIT"}))
    torch.nn.init.constant_(model.classifier.linear.bias[0:1], -100.0)
    return GlodePipeline(model=model, tokenizer=tokenizer)


def round_trips(text: str, words: list[tuple[int, int]], entities: list[dict]) -> int:
    """How many of the words come back."""
    times = [0] * len(text)
    for entity in entities:
        for at in range(entity["start"], entity["end"]):
            times[at] += 1 if text[entity["start"] : entity["end"]] == entity["word"] else 2
    return sum(all(times[at] == 1 or unicodedata.category(text[at]) == "Cf" for at in range(a, b)) for a, b in words)


def measure(path: Path, ner: GlodePipeline) -> dict:
    """The figures of one file."""
    corpus = list(read_corpus(str(path), labelled=True))
    texts, offsets = zip(*(running_text(sentence["words"]) for sentence in corpus), strict=True)
    back = found = reachable = entities = whole = 0
    for sentence, text, words, named in zip(corpus, texts, offsets, ner(list(texts), batch_size=32), strict=True):
        back += round_trips(text, words, named)
        split = split_words(text)
        starts, ends = ({span[side] for span in split} for side in (0, 1))
        found += sum(span in split for span in words)
        spans = [(words[b][0], words[b + n - 1][1]) for b, n in zip(sentence["begins"], sentence["lengths"], strict=True)]
        entities, reachable = entities + len(spans), reachable + sum(a in starts and b in ends for a, b in spans)
        whole += len(split_sentences(text)) == 1
    hits = given = expected = 0
    for at in range(0, len(texts), 5):
        document, ends = "", set()
        for text in texts[at : at + 5]:
            document += text if split_words(document[-1:] + text[:1])[1:] and document.endswith("。") else f" {text}"
            ends.add(len(document))
        answer = {end for _, end in split_sentences(document)}
        hits, given, expected = hits + len(answer & ends), given + len(answer), expected + len(ends)
    number = sum(map(len, offsets))
    shares = {"round trip": back / number, "words": found / number, "entities": reachable / entities}
    shares |= {"sentences": whole / len(corpus), "sentence ends P": hits / given, "sentence ends R": hits / expected}
    return {"words in all": number, "entities in all": entities} | {name: round(100 * x, 2) for name, x in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="labelled corpora")
    parser.add_argument("--tokenizer", required=True, help="directory of a model or a tokenizer")
    options = parser.parse_args()
    torch.manual_seed(0)
    ner = unit_pipeline(AutoTokenizer.from_pretrained(options.tokenizer, trust_remote_code=True))
    figures = {}
    for path in options.files:
        figures["/".join(path.parts[-3:])] = measure(path, ner)
        print(json.dumps({path.name: figures["/".join(path.parts[-3:])]}), flush=True)
    path = ROOT / "benchmarks" / "results" / "offsets.json"
    path.write_text(json.dumps({"files": figures, "seed": 0, "machine": machine()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
