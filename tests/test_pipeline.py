"""Protects what a user of a finished model sees: `pipeline` and `AutoModel` from a directory, in a fresh process and from
another working directory; offsets, batches, windows, thresholds, nesting; the endpoint's handler."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
from torch.utils.data import Dataset
from transformers import AutoTokenizer

from glode.publishing.hub import make_portable
from glode.serving.handler import EndpointHandler
from modeling_glode import GlodeModel, GlodePipeline, resolve

TEXTS = [
    "Anna Berg lives in New York .",
    "",
    "  \n ",
    "Otto von Hagen flew to Oslo, then   to Kiel!",
    "Rome " * 150,
    "在北京",
]


def bare(entities: list[dict]) -> list[tuple]:
    return [(e["entity_group"], e["word"], e["start"], e["end"]) for e in entities]


def test_word_is_the_verbatim_slice_and_entities_are_sorted_and_disjoint(ner):
    found = ner(TEXTS)
    assert sum(map(len, found)) > 10
    for text, entities in zip(TEXTS, found, strict=True):
        assert all(set(e) == {"entity_group", "score", "word", "start", "end"} for e in entities)
        assert all(text[e["start"] : e["end"]] == e["word"] and e["word"].strip() for e in entities)
        assert all(a["end"] <= b["start"] for a, b in pairwise(entities))
    assert found[1] == found[2] == []


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_the_same_entities_alone_in_a_list_in_a_batch_and_from_a_generator(ner, batch_size):
    alone = [bare(ner(text)) for text in TEXTS]
    assert [bare(entities) for entities in ner(TEXTS, batch_size=batch_size)] == alone
    assert [bare(entities) for entities in ner((text for text in TEXTS), batch_size=batch_size)] == alone
    assert [bare(entities) for entities in ner.model.predict(TEXTS, ner.tokenizer, batch_size=batch_size)] == alone


class Texts(Dataset):
    """TEXTS in disorder and many times, as a dataset; `read` is how many of them have been asked for."""

    def __init__(self):
        self.texts, self.read = TEXTS * 9, 0

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, at):
        text = self.texts[at]
        self.read = at + 1
        return text


def test_batches_hold_windows_of_similar_length(ner, monkeypatch):
    shapes, find = [], ner.model.find_candidates

    def record(batch: dict, *rest) -> list:
        shapes.append(batch["input_ids"].shape)
        return find(batch, *rest)

    monkeypatch.setattr(ner.model, "find_candidates", record)
    alone = [bare(ner(text)) for text in TEXTS]
    tokens = 9 * sum(rows * width for rows, width in shapes)
    for inputs in (TEXTS * 9, Texts()):
        shapes.clear()
        assert [bare(entities) for entities in ner(inputs, batch_size=4)] == 9 * alone
        assert max(rows for rows, _ in shapes) == 4
        assert tokens <= sum(rows * width for rows, width in shapes) < 1.1 * tokens


def test_a_generator_is_read_no_further_than_a_batch_needs(ner):
    source = Texts()
    answers = ner((source[at] for at in range(len(source))), batch_size=3)
    for done in range(1, 4):
        next(answers)
        assert done <= source.read <= done + 3


def test_scores_do_not_depend_on_the_batch(ner):
    alone = [e["score"] for text in TEXTS for e in ner(text)]
    batched = [e["score"] for entities in ner(TEXTS, batch_size=6) for e in entities]
    assert alone == pytest.approx(batched, abs=1e-5)


def test_lists_of_words(ner):
    words = [["Anna", "Berg", "lives", "in", "New", "York"], ["Oslo"]]
    found = ner(words, is_split_into_words=True)
    for sentence, entities in zip(words, found, strict=True):
        assert all(" ".join(sentence)[e["start"] : e["end"]] == e["word"] for e in entities)
    assert bare(ner(words, is_split_into_words=True, delimiter="")[0])[0][1] in "AnnaBerglivesinNewYork"
    assert bare(ner(words[0], is_split_into_words=True)[0]) == bare(found[0])
    with pytest.raises(ValueError, match="list of words"):
        ner([["Anna"], "Berg"], is_split_into_words=True)
    with pytest.raises(ValueError, match="expected a string"):
        ner([["Anna", "Berg"]])


def test_threshold_and_ignored_labels(ner):
    every = ner(TEXTS[0])
    assert bare(ner(TEXTS[0], threshold=1.1)) == []
    least = sorted(e["score"] for e in every)[0]
    assert all(e["score"] > least for e in ner(TEXTS[0], threshold=least + 1e-6))
    group = every[0]["entity_group"]
    assert bare(ner(TEXTS[0], ignore_labels=[group])) == bare([e for e in every if e["entity_group"] != group])
    assert ner(TEXTS[0], aggregation_strategy="simple") == every


def test_nested_entities_hold_others_and_never_cross(ner):
    flat, nested = bare(ner(TEXTS[3])), bare(ner(TEXTS[3], nested=True))
    assert len(nested) > len(flat)
    for _, _, a, b in nested:
        for _, _, c, d in nested:
            assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


def test_resolve_nested_keeps_the_best_and_drops_what_crosses():
    entities = [(0, 3, 1, 0.9), (1, 1, 2, 0.8), (2, 3, 1, 0.7), (4, 1, 1, 0.6), (0, 5, 2, 0.5)]
    assert resolve(entities) == [(0, 3, 1, 0.9), (4, 1, 1, 0.6)]
    assert resolve(entities, nested=True) == [(0, 3, 1, 0.9), (0, 5, 2, 0.5), (1, 1, 2, 0.8), (4, 1, 1, 0.6)]


def test_handler_answers_and_refuses(directory, ner):
    handler = EndpointHandler(str(directory))
    assert bare(handler({"inputs": TEXTS[0]})) == bare(ner(TEXTS[0]))
    assert [bare(x) for x in handler({"inputs": TEXTS, "parameters": {"threshold": 0.5, "nested": True}})] == [
        bare(x) for x in ner(TEXTS, threshold=0.5, nested=True)
    ]
    assert handler({"inputs": []}) == []
    for payload, message in (
        ("text", "expected"),
        ({}, 'expected {"inputs": text or list of texts'),
        ({"inputs": 3}, "must be a text or a list of texts"),
        ({"inputs": ["a", 1]}, "text or a list"),
        ({"inputs": "a", "parameters": [1]}, "must be an object"),
        ({"inputs": "a", "parameters": {"top_k": 1}}, "there is no parameter "),
        ({"inputs": "a", "parameters": {"threshold": "high"}}, "must be of type "),
        ({"inputs": "a", "parameters": {"nested": 1}}, "must be of type bool"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            handler(payload)
        assert str(directory) not in str(error.value)


FRESH = """
import json, sys
from transformers import AutoModel, AutoTokenizer, pipeline
path, texts = sys.argv[1], json.loads(sys.argv[2])
ner = pipeline("token-classification", model=path, trust_remote_code=True)
model = AutoModel.from_pretrained(path, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
print(json.dumps([ner(texts), model.predict(texts, tokenizer)]))
"""


def test_the_generic_tokenizer_gets_the_name_that_transformers_4_knows(directory, ner, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "copy")
    make_portable(copy)
    for name in ("tokenizer_config.json", "config.json"):
        assert json.loads((copy / name).read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    again = GlodePipeline(model=GlodeModel.from_pretrained(copy), tokenizer=AutoTokenizer.from_pretrained(copy))
    assert [bare(x) for x in again(TEXTS)] == [bare(x) for x in ner(TEXTS)]


@pytest.mark.slow
def test_a_fresh_process_in_another_directory_loads_it_in_one_line(directory, ner, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", FRESH, str(directory), json.dumps(TEXTS)]
    output = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    for found in json.loads(output.splitlines()[-1]):
        assert [bare(entities) for entities in found] == [bare(entities) for entities in ner(TEXTS)]


# The Inference Endpoints toolkit's version, laid over the environment's packages; what it needs that transformers 5 does not.
TRANSFORMERS_4 = (
    "transformers==4.51.3 tokenizers==0.21.4 huggingface_hub==0.36.0 requests charset_normalizer urllib3 idna certifi"
)


@pytest.mark.slow
def test_transformers_4_51_finds_the_same(directory, ner, tmp_path):
    copy, overlay = shutil.copytree(directory, tmp_path / "copy"), tmp_path / "overlay"
    make_portable(copy)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(overlay), *TRANSFORMERS_4.split()]
    subprocess.run(install, check=True, capture_output=True)
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(overlay)}
    code = "import transformers; assert transformers.__version__ == '4.51.3'\n" + FRESH
    command = [sys.executable, "-c", code, str(copy), json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads(done.stdout.splitlines()[-1]):
        assert [bare(entities) for entities in found] == [bare(entities) for entities in ner(TEXTS)]
