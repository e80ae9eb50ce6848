"""Protects the card's text: it tells what the facts say, for both models, and shows names from corpora as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from matplotlib.figure import Figure

from glode.publishing.card import (
    CARD,
    EXAMPLES,
    PICTURE,
    TOKENS_CARD,
    CardFacts,
    _percent_limits,
    examples_in,
    plot_pseudo_labels,
    write_card,
)

RATES = {"precision": 81.25, "recall": 62.5, "f1": 70.65, "gold": 16}
SCORES = {"strict": RATES | {"per_type": {"a_b": RATES}}, "paper": RATES | {"f1": 75.5}}
FACTS = CardFacts(
    model_name="glode-xx",
    repo="user/glode-xx",
    license="mit",
    base_model=None,
    backbone="some-encoder",
    datasets=None,
    labels=["a_b", "LOC"],
    source_lang="en",
    target_lang="de",
    languages=["de", "en"],
    source_name="<b>.conll",
    target_name="text.txt",
    source_sentences=1234,
    target_sentences=567,
    examples=["Otto wohnt in „Kiel“."],
    scores={"en dev": SCORES, "de test": SCORES},
    test_scores=SCORES["strict"],
    test_name="gold_de.conll",
    test_sentences=90,
    unreachable=0.0123,
    max_span_length=7,
    max_tokens=256,
    last_stage="target",
    source_epochs=3.0,
    target_epochs=4.0,
    source_mlm=True,
    source_is_given=False,
    denoising="both",
    refined=True,
    best_checkpoint=True,
    first_refining_epoch=3,
    learning_rate=2e-4,
    batch_size=16,
    seed=5,
)


@pytest.mark.parametrize("template", [CARD, TOKENS_CARD], ids=lambda path: path.name)
def test_the_card_says_the_facts(tmp_path: Path, template: Path):
    facts = replace(FACTS, token_scores={"de test": SCORES}, token_epochs=2.0, main_repo="user/main")
    write_card(tmp_path, facts, template)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.language == ["de", "en"] and card.data.license == "mit" and card.data.base_model is None
    assert [result.metric_value for result in card.data.eval_results] == [70.65, 81.25, 62.5]
    assert card.data.widget == [{"text": FACTS.examples[0], "example_title": "de 1"}]
    assert ("custom_code" in card.data.tags) == (template == CARD)
    for text in ("# glode-xx", r"a\_b, LOC", r"\<b\>.conll, 1234 en", "567 de", '"Otto wohnt in „Kiel“."', "| 70.7 |", "seed 5"):
        assert text in card.text, text
    assert "{{" not in card.text and "{%" not in card.text
    if template == CARD:
        assert "| 75.5 |" in card.text and r"| a\_b | 81.2" in card.text and "1.2 % of the test set" in card.text
        assert (
            "3 epochs" in card.text and "4 epochs" in card.text and "(refined by `--denoising both` from epoch 3 on)" in card.text
        )


def test_a_source_model_has_no_second_stage_and_no_scores_are_said(tmp_path: Path):
    facts = replace(FACTS, last_stage="source", source_mlm=False, scores={}, test_scores=None, unreachable=None)
    text = write_card(tmp_path, facts).text
    assert "Stage 1" in text and "Stage 2" not in text and "masked language model on" not in text and "Not measured on de" in text


def test_the_card_says_only_what_happened(tmp_path: Path):
    text = write_card(tmp_path, replace(FACTS, source_is_given=True, refined=False, best_checkpoint=False)).text
    assert "Stage 1, source model: trained before this run. Stage 2," in text and "The checkpoint is the last one." in text
    assert "epochs on the en labels, with" not in text
    assert "(`--denoising both`; no label was refined)" in text and "refined by" not in text


def test_the_card_says_what_the_backbone_has_read(tmp_path: Path):
    facts = replace(FACTS, pretraining={"epochs": 2.0, "loss_before": 3.21, "loss_after": 2.5})
    text = " ".join(write_card(tmp_path, facts).text.split())
    assert "- Backbone: some-encoder. It first read both texts as a masked language model, 2 epochs: its loss" in text
    assert "was 3.21 before and 2.50 after. - Labelled text" in text
    assert "It first read" not in write_card(tmp_path, FACTS).text


def test_the_card_says_who_gave_the_labels(tmp_path: Path):
    several = write_card(tmp_path, replace(FACTS, teachers=3, calibrated="dev", rounds=2)).text
    assert "Stage 1, 3 source models of consecutive seeds, each 3 epochs on the en labels" in several
    assert "the mean of the source models' soft pseudo labels of the de text, calibrated on en development text" in several
    assert "in 2 rounds: from the second on, the labels are those of the target model" in several
    given = write_card(tmp_path, replace(FACTS, teachers=2, source_is_given=True)).text
    assert "Stage 1, 2 source models: trained before this run." in given and "rounds" not in given and "calibrated" not in given
    others = write_card(tmp_path, replace(FACTS, source_is_given=True, labels_are_given=True)).text
    assert "Stage 1: the pseudo labels were made by others." in others and "and on these soft pseudo labels" in others


@pytest.mark.parametrize("template", [CARD, TOKENS_CARD], ids=lambda path: path.name)
def test_the_test_set_is_described(tmp_path: Path, template: Path):
    facts = replace(FACTS, token_scores={"de test": SCORES})
    write_card(tmp_path, facts, template)
    card = ModelCard.load(tmp_path / "README.md")
    assert {result.dataset_name for result in card.data.eval_results} == {"gold_de.conll (de test)"}
    assert r"de test is gold\_de.conll, 90 sentences. It has no entity of the type LOC: how well" in card.text
    text = write_card(tmp_path, replace(facts, repeated=3, labels=["a_b"]), template).text
    assert "90 sentences. 3 of them are in the unlabelled training text too." in text and "It has no entity" not in text


def test_the_source_model_stands_beside_the_target_model(tmp_path: Path):
    before = {"strict": RATES | {"f1": 33.3}, "paper": RATES | {"f1": 44.4}}
    lines = write_card(tmp_path, replace(FACTS, source_scores={"de test": before})).text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("| en dev"))
    assert [line.split(" | ")[0] for line in lines[first : first + 4]] == ["| en dev", "| de test", "| de test, source model", ""]
    assert lines[first + 2].endswith("| 33.3 | 44.4 |") and not lines[first - 2].startswith("| de")
    assert "source model |" not in write_card(tmp_path, FACTS).text


def test_examples_come_by_turns():
    assert examples_in(["de-AT", "es"]) == [text for pair in zip(EXAMPLES["de"], EXAMPLES["es"], strict=True) for text in pair]
    assert examples_in(["xx"]) == EXAMPLES["en"]


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The axes of pictures that were drawn."""
    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure.axes[0]), save(figure, *a, **k)))
    return kept


PLAIN = [{"epoch": at, "confidence": 0.9, "spans": {"O": 900, "PER": 20 + at, "LOC": 9, "X": 0}} for at in range(4)]


def test_the_picture_with_gold_has_scores_on_an_axis_that_does_not_magnify(tmp_path: Path, drawn: list):
    history = [entry | {"precision": 71.0, "recall": 70.0, "f1": 70.5} for entry in PLAIN]
    plot_pseudo_labels(history, tmp_path / PICTURE, refined_from=2)
    low, high = drawn[0].get_ylim()
    assert high - low >= 10 and low < 70 and high > 71
    lines = {line.get_label(): line for line in drawn[0].lines}
    assert lines.keys() == {"F1", "precision", "recall", "refinement begins"}
    assert set(lines["refinement begins"].get_xdata()) == {2} and (tmp_path / PICTURE).stat().st_size > 5_000


def test_the_picture_without_gold_has_the_spans_of_each_type(tmp_path: Path, drawn: list):
    plot_pseudo_labels(PLAIN, tmp_path / PICTURE)
    assert {line.get_label(): list(line.get_ydata()) for line in drawn[0].lines} == {
        "PER": [20, 21, 22, 23],
        "LOC": [9] * 4,
        "X": [0] * 4,
    }
    assert drawn[0].get_ylim()[0] == 0 and drawn[0].get_ylabel() == "entity spans"
    many = [{"epoch": 0, "spans": {"O": 9} | {f"T{number}": number for number in range(12)}}]
    plot_pseudo_labels(many, tmp_path / PICTURE)
    assert [line.get_label() for line in drawn[1].lines][-2:] == ["T4", "4 more types"]
    assert list(drawn[1].lines[-1].get_ydata()) == [0 + 1 + 2 + 3]


@pytest.mark.parametrize(("values", "expected"), [([99.5], (90, 100)), ([0.0], (0, 10)), ([20.0, 60.0], (19, 61))])
def test_the_axis_stays_in_percent(values: list[float], expected: tuple[float, float]):
    assert _percent_limits(values) == pytest.approx(expected)
