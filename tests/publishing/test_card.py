"""Protects the card's text: it tells what the facts say, for both models, and shows names from corpora as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from glode.publishing.card import CARD, EXAMPLES, PICTURE, TOKENS_CARD, CardFacts, examples_in, plot_pseudo_labels, write_card

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
    scores={"de test": SCORES},
    test_scores=SCORES["strict"],
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


def test_the_card_says_who_gave_the_labels(tmp_path: Path):
    several = write_card(tmp_path, replace(FACTS, teachers=3, calibrated=True, rounds=2)).text
    assert "Stage 1, 3 source models of consecutive seeds, each 3 epochs on the en labels" in several
    assert "the mean of the source models' soft pseudo labels of the de text, calibrated on en development text" in several
    assert "in 2 rounds: from the second on, the labels are those of the target model" in several
    given = write_card(tmp_path, replace(FACTS, teachers=2, source_is_given=True)).text
    assert "Stage 1, 2 source models: trained before this run." in given and "rounds" not in given and "calibrated" not in given
    others = write_card(tmp_path, replace(FACTS, source_is_given=True, labels_are_given=True)).text
    assert "Stage 1: the pseudo labels were made by others." in others and "and on these soft pseudo labels" in others


def test_examples_come_by_turns():
    assert examples_in(["de-AT", "es"]) == [text for pair in zip(EXAMPLES["de"], EXAMPLES["es"], strict=True) for text in pair]
    assert examples_in(["xx"]) == EXAMPLES["en"]


def test_the_picture_is_drawn_with_and_without_gold(tmp_path: Path):
    plain = [{"epoch": epoch, "confidence": 0.9} for epoch in range(3)]
    plot_pseudo_labels(plain, tmp_path / "plain.png")
    plot_pseudo_labels([entry | {"precision": 1, "recall": 2, "f1": 3} for entry in plain], tmp_path / PICTURE)
    assert 5_000 < (tmp_path / "plain.png").stat().st_size < (tmp_path / PICTURE).stat().st_size
