"""Protects the soft labels of a token classifier: the formula, against plain loops; words by offsets, windows, shared tokens; a
sure classifier says what its pipeline says."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from support.world import tiny_encoder_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast, pipeline

from glode.publishing.token_classifier import find_entities
from glode.teachers.teacher import LEAST, TeacherSettings, likeliest, without_overlap
from glode.teachers.tokens import TokenTeacher, first_tokens, span_scores, tag_parts

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = TeacherSettings(asked={}, batch_size=2)
SENTENCES = [["Anna", "Berg", "(", "42", ")", "lives", "in", "Rome", "."], ["Oslo", ",", "Kiel"] * 60, ["Ida"]]


def save_classifier(path: Path, tokenizer, labels: list[str], scale: float) -> Path:
    """A token classifier with random weights; the larger `scale`, the surer."""
    names = dict(enumerate(labels))
    config = tiny_encoder_config("xlm-roberta", len(tokenizer), id2label=names, label2id={v: k for k, v in names.items()})
    torch.manual_seed(2)
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.mul_(scale)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def expected_scores(begins: np.ndarray, goes_on: np.ndarray) -> dict:
    """The formula of `TokenTeacher`, in plain loops: (first word, length, type) -> score."""
    words, types = begins.shape
    mass = begins + goes_on
    scores = {}
    for first, last, kind in itertools.product(range(words), range(words), range(types)):
        if last < first:
            continue
        before = mass[first - 1, kind] if first else 0.0
        parts = [begins[first, kind] + min(goes_on[first, kind], 1 - before)]
        parts += [goes_on[word, kind] for word in range(first + 1, last + 1)]
        parts += [1 - goes_on[last + 1, kind]] if last + 1 < words else []
        scores[first, last - first + 1, str(kind)] = min(parts)
    return {span: score for span, score in scores.items() if score >= LEAST}


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_formula(seed: int):
    """And of a span they make 1 at most."""
    tags = np.random.default_rng(seed).dirichlet([0.3] * 7, size=6)
    begins, goes_on = tags[:, 1:4], tags[:, 4:]
    found = {span[:3]: span.score for span in span_scores(begins, goes_on, ["0", "1", "2"])}
    assert found == pytest.approx(expected_scores(begins, goes_on))
    for begin, length in {span[:2] for span in found}:
        assert sum(score for span, score in found.items() if span[:2] == (begin, length)) <= 1 + 1e-9


def test_no_word_has_no_span():
    assert span_scores(np.zeros((0, 2)), np.zeros((0, 2)), ["0", "1"]) == []


def test_tags_of_any_scheme():
    types, parts = tag_parts({0: "O", 1: "B-PER", 2: "I-PER", 3: "S-LOC", 4: "E-LOC", 5: "DATE"})
    assert types == ["DATE", "LOC", "PER"]
    begins = [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    goes_on = [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert parts[:, 0].tolist() == begins and parts[:, 1].tolist() == goes_on


def test_the_first_token_that_overlaps_a_word():
    """Special tokens are none of any word, a space before a word may belong to its token, a token may be of several words."""
    words = np.array([(0, 4), (5, 9), (9, 10), (10, 11), (12, 13)])
    tokens = np.array([(0, 0), (0, 2), (2, 4), (4, 9), (9, 11), (0, 0)])
    token, margin = first_tokens(words, tokens)
    assert token.tolist() == [1, 3, 4, 4, -1]
    assert margin[:4].tolist() == [0, 1, 0, 0]
    assert first_tokens(words, tokens[:1])[0].tolist() == [-1] * 5


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each of a few words."""
    words = ["<pad>", "<unk>", *sorted({word for sentence in SENTENCES for word in sentence})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


@pytest.mark.parametrize("labels", [["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], ["O", "PER", "LOC"]])
def test_a_sure_classifier_says_what_its_pipeline_says(tmp_path, labels: list[str]):
    """Where each word is a token."""
    path = save_classifier(tmp_path / "model", word_tokenizer(), labels, 1000.0)
    teacher = TokenTeacher(str(path), SETTINGS)
    assert teacher.kind == "token classifier" and teacher.types == ["LOC", "PER"] and teacher.facts() == {}
    sentences = [SENTENCES[0], SENTENCES[1][:40], SENTENCES[2]]
    found = [sorted(span[:3] for span in without_overlap(likeliest(row))) for row in teacher(sentences, "en")]
    ner = pipeline("token-classification", model=str(path), aggregation_strategy="simple", device="cpu")
    assert found == find_entities(ner, sentences) and sum(map(len, found)) > 5


def test_long_sentences_and_batches_change_nothing(tokenizer, tmp_path):
    """A sentence alone has the spans that it has among others; one of several windows has spans to its end."""
    path = save_classifier(tmp_path / "model", tokenizer, ["O", "B-PER", "I-PER"], 20.0)
    teacher = TokenTeacher(str(path), SETTINGS)
    together = teacher(SENTENCES, "en")
    for words, spans in zip(SENTENCES, together, strict=True):
        (alone,) = teacher([words], "en")
        assert [span[:3] for span in alone] == [span[:3] for span in spans]
        np.testing.assert_allclose([span.score for span in alone], [span.score for span in spans], atol=1e-5)
    assert max(span.begin + span.length for span in together[1]) > 170


def test_a_token_that_began_in_the_word_before_goes_on(tokenizer, tmp_path, monkeypatch):
    path = save_classifier(tmp_path / "model", tokenizer, ["O", "B-PER", "I-PER"], 1.0)
    teacher = TokenTeacher(str(path), SETTINGS)
    probabilities = np.array([[0, 0.9, 0.1], [0, 0.8, 0.2]])
    monkeypatch.setattr(teacher, "_windows", lambda texts: iter([(0, np.array([(0, 2), (2, 3)]), probabilities)]))
    spans = {span[:2]: span.score for span in teacher([["张", "伟", "在"]], "zh")[0]}
    assert spans[0, 2] == pytest.approx(0.8)  # 0.9 begins, all of the same token goes on with it, 1 - 0.2 does not
    assert spans[2, 1] == pytest.approx(0.8 + min(0.2, 1 - 1))
