"""Protects what a user of a finished model sees: `pipeline` and `AutoModel` from a directory, in a fresh process and from
another working directory; offsets, batches, windows, thresholds, nesting; what callers of the built-in pipeline give."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from support.entities import places
from torch.utils.data import Dataset
from transformers import AutoTokenizer, pipeline
from transformers.pipelines.token_classification import AggregationStrategy

from glode.publishing.hub import make_portable
from modeling_glode import GlodeModel, GlodePipeline, resolve

TEXTS = [
    "Anna Berg lives in New York .",
    "",
    "  \n ",
    "Otto von Hagen flew to Oslo, then   to Kiel!",
    "Rome " * 150,
    "在北京",
]


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
    alone = [places(ner(text)) for text in TEXTS]
    assert [places(entities) for entities in ner(TEXTS, batch_size=batch_size)] == alone
    assert [places(entities) for entities in ner((text for text in TEXTS), batch_size=batch_size)] == alone
    assert [places(entities) for entities in ner.model.predict(TEXTS, ner.tokenizer, batch_size=batch_size)] == alone


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
    alone = [places(ner(text)) for text in TEXTS]
    tokens = 9 * sum(rows * width for rows, width in shapes)
    for inputs in (TEXTS * 9, Texts()):
        shapes.clear()
        assert [places(entities) for entities in ner(inputs, batch_size=4)] == 9 * alone
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
    assert places(ner(words, is_split_into_words=True, delimiter="")[0])[0][1] in "AnnaBerglivesinNewYork"
    assert places(ner(words[0], is_split_into_words=True)[0]) == places(found[0])
    with pytest.raises(ValueError, match="expects a list of words, or a list"):
        ner([["Anna"], "Berg"], is_split_into_words=True)
    with pytest.raises(ValueError, match="expected a string"):
        ner([["Anna", "Berg"]])


def test_threshold_and_ignored_labels(ner):
    every = ner(TEXTS[0])
    assert places(ner(TEXTS[0], threshold=1.1)) == []
    least = sorted(e["score"] for e in every)[0]
    assert all(e["score"] > least for e in ner(TEXTS[0], threshold=least + 1e-6))
    group = every[0]["entity_group"]
    assert places(ner(TEXTS[0], ignore_labels=[group])) == places([e for e in every if e["entity_group"] != group])
    assert ner(TEXTS[0], aggregation_strategy="simple") == every


def test_nested_entities_hold_others_and_never_cross(ner):
    flat, nested = places(ner(TEXTS[3])), places(ner(TEXTS[3], nested=True))
    assert len(nested) > len(flat)
    for _, _, a, b in nested:
        for _, _, c, d in nested:
            assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


def test_resolve_nested_keeps_the_best_and_drops_what_crosses():
    entities = [(0, 3, 1, 0.9), (1, 1, 2, 0.8), (2, 3, 1, 0.7), (4, 1, 1, 0.6), (0, 5, 2, 0.5)]
    assert resolve(entities) == [(0, 3, 1, 0.9), (4, 1, 1, 0.6)]
    assert resolve(entities, nested=True) == [(0, 3, 1, 0.9), (0, 5, 2, 0.5), (1, 1, 2, 0.8), (4, 1, 1, 0.6)]


# ----------------------------------------------------------------------------------------- as the built-in pipeline is called


@pytest.mark.parametrize("task", ["ner", "token-classification", None])
def test_either_name_of_the_task_loads_it_and_none_does(directory, ner, task: str | None):
    loaded = pipeline(task, model=str(directory), trust_remote_code=True)
    assert type(loaded).__name__ == "GlodePipeline"
    assert [places(x) for x in loaded(TEXTS)] == [places(x) for x in ner(TEXTS)]


def test_there_is_no_other_task(directory):
    tasks = GlodeModel.from_pretrained(directory).config.custom_pipelines
    assert list(tasks) == ["token-classification"] and "ner" in tasks and "fill-mask" not in tasks
    assert tasks["ner"] == tasks["token-classification"]
    with pytest.raises(KeyError):
        tasks["fill-mask"]


@pytest.mark.parametrize("more", [{}, {"aggregation_strategy": "simple", "stride": 4}])
def test_a_loaded_model_in_the_built_in_pipeline_says_what_to_call(ner, monkeypatch, more: dict):
    for names in (["input_ids", "attention_mask"], ["input_ids", "attention_mask", "token_type_ids"]):
        monkeypatch.setattr(ner.tokenizer, "model_input_names", names)
        built_in = pipeline("ner", model=ner.model, tokenizer=ner.tokenizer, **more)
        with pytest.raises(ValueError, match="scores spans of words, not tokens") as error:
            built_in(TEXTS[0])
        assert "GlodePipeline(model=model, tokenizer=tokenizer), or, with the name" in str(error.value)


@pytest.mark.parametrize(
    "parameters",
    [
        *[{"aggregation_strategy": name} for name in ("simple", "first", "average", "max", "SIMPLE", AggregationStrategy.FIRST)],
        {"aggregation_strategy": None, "stride": None, "offset_mapping": None, "ignore_labels": None, "threshold": None},
        {"stride": 0},
        {"stride": 16, "aggregation_strategy": "max"},
        {"grouped_entities": True},
        {"ignore_labels": ["O"]},
    ],
)
def test_what_asks_for_whole_entities_is_met(ner, parameters: dict):
    wanted = [places(entities) for entities in ner(TEXTS)]
    assert [places(entities) for entities in ner(TEXTS, **parameters)] == wanted
    at_the_start = GlodePipeline(model=ner.model, tokenizer=ner.tokenizer, **parameters)
    assert [places(entities) for entities in at_the_start(TEXTS)] == wanted


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, not "),
        ({"batch_size": -3}, ValueError, "batch_size must be a positive integer, not "),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a positive integer, not "),
        ({"aggregation_strategy": "none"}, ValueError, "asks for labels of tokens"),
        (
            {"aggregation_strategy": AggregationStrategy.NONE},
            ValueError,
            "asks for labels of tokens, and this model labels spans",
        ),
        ({"grouped_entities": False}, ValueError, "asks for labels of tokens"),
        ({"aggregation_strategy": "majority"}, ValueError, "there is no aggregation_strategy "),
        ({"aggregation_strategy": 3}, ValueError, "give simple, first, average or max, here all the same"),
        ({"stride": 32}, ValueError, "stride must be an integer from 0 to "),
        ({"stride": "long"}, ValueError, "stride must be an integer from 0 to "),
        ({"offset_mapping": [[(0, 4)]] * len(TEXTS)}, ValueError, "offset_mapping is of tokens, spans have none"),
        ({"threshold": float("nan")}, ValueError, "threshold must be a number, the least score of an entity"),
        ({"threshold": "0.5"}, ValueError, "threshold must be a number, the least score of an entity"),
        ({"ignore_labels": "PER"}, ValueError, "ignore_labels must be a list of types"),
        ({"top_k": 3}, TypeError, "its docstring names those it takes"),
    ],
)
def test_what_cannot_be_met_is_refused_and_no_text_dropped(ner, parameters: dict, kind: type[Exception], message: str):
    for inputs in (TEXTS, Texts(), (text for text in TEXTS)):
        if isinstance(inputs, list) or "offset_mapping" not in parameters:
            with pytest.raises(kind, match=message):
                ner(inputs, **parameters)
    if "batch_size" in parameters or "threshold" in parameters:
        with pytest.raises(kind, match=message):
            ner.model.predict(TEXTS, ner.tokenizer, **parameters)


@pytest.mark.filterwarnings("ignore")  # torch is about to move it to another package
def test_a_dynamically_quantized_model_tags(directory, ner):
    model = GlodeModel.from_pretrained(directory)
    small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert sum(type(module).__module__.startswith("torch.ao") for module in small.encoder.modules()) >= 12
    quantized = GlodePipeline(model=small, tokenizer=ner.tokenizer)
    found, exact = ([{*places(entities)} for entities in pipe(TEXTS)] for pipe in (quantized, ner))
    assert found == [{*places(entities)} for entities in small.predict(TEXTS, ner.tokenizer)]
    assert sum(len(a & b) for a, b in zip(found, exact, strict=True)) > 0.8 * sum(map(len, exact)) > 10


FRESH = """
import json, sys
from transformers import AutoModel, AutoTokenizer, pipeline
path, texts = sys.argv[1], json.loads(sys.argv[2])
ner = pipeline("token-classification", model=path, trust_remote_code=True)
model = AutoModel.from_pretrained(path, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
ner_too, no_task = pipeline("ner", model=path, trust_remote_code=True), pipeline(model=path, trust_remote_code=True)
print(json.dumps([ner(texts), ner_too(texts), no_task(texts), model.predict(texts, tokenizer)]))
"""


def test_the_generic_tokenizer_gets_the_name_that_transformers_4_knows(directory, ner, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "copy")
    make_portable(copy)
    for name in ("tokenizer_config.json", "config.json"):
        assert json.loads((copy / name).read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    again = GlodePipeline(model=GlodeModel.from_pretrained(copy), tokenizer=AutoTokenizer.from_pretrained(copy))
    assert [places(x) for x in again(TEXTS)] == [places(x) for x in ner(TEXTS)]


@pytest.mark.slow
def test_a_fresh_process_in_another_directory_loads_it_in_one_line(directory, ner, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", FRESH, str(directory), json.dumps(TEXTS)]
    output = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    for found in json.loads(output.splitlines()[-1]):
        assert [places(entities) for entities in found] == [places(entities) for entities in ner(TEXTS)]


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
        assert [places(entities) for entities in found] == [places(entities) for entities in ner(TEXTS)]
