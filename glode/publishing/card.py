"""The model card and its picture."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from matplotlib.figure import Figure

PICTURE = "pseudo_labels.png"
HERE = Path(__file__).parent
# The template of the span model's card lies at the top of a checkout; an installed package has its copy here.
CARD = next(path for path in (HERE / "model_card.md", HERE.parents[1] / "model_card.md") if path.is_file())
TOKENS_CARD = HERE / "model_card_tokens.md"

# Sentences for the card and the widget, written for it: a user's own text is not published unasked.
EXAMPLES = {
    "ar": ["تعمل ليلى حداد في بنك النيل في القاهرة.", "سافر كريم المصري إلى باريس يوم الاثنين."],
    "de": ["Petra Lindner arbeitet seit März bei Siemens in München.", "Der Zug aus Wien kam spät, sagte Jonas Keller."],
    "en": ["Maria Keller works for Siemens in Munich.", "The train from Vienna was late, said John Baker."],
    "es": ["Lucía Romero trabaja para Telefónica en Madrid.", "El tren de Sevilla llegó tarde, dijo Pablo Ortega."],
    "fr": ["Claire Moreau travaille chez Renault à Paris.", "Le train de Lyon est arrivé en retard, a dit Paul Girard."],
    "hi": ["अनीता शर्मा मुंबई में टाटा मोटर्स के लिए काम करती हैं।", "रवि कुमार सोमवार को दिल्ली पहुँचे।"],
    "it": ["Giulia Ferri lavora per la Fiat a Torino.", "Il treno da Milano era in ritardo, ha detto Luca Conti."],
    "ja": ["田中花子は東京のソニーで働いている。", "山本健は月曜日に大阪へ行った。"],
    "ko": ["김민지는 서울의 삼성전자에서 일한다.", "박준호는 월요일에 부산에 갔다."],
    "nl": ["Sanne de Vries werkt bij Philips in Eindhoven.", "De trein uit Utrecht was te laat, zei Bram Jansen."],
    "pt": ["Ana Ribeiro trabalha na Petrobras no Rio de Janeiro.", "O comboio de Lisboa chegou tarde, disse Rui Alves."],
    "ru": ["Анна Петрова работает в компании «Газпром» в Москве.", "Иван Смирнов приехал в Казань в понедельник."],
    "tr": ["Ayşe Yılmaz İstanbul'da Arçelik için çalışıyor.", "Mehmet Kaya pazartesi günü Ankara'ya gitti."],
    "uk": ["Олена Коваль працює в компанії «Нафтогаз» у Києві.", "Іван Бондар приїхав до Львова в понеділок."],
    "zh": ["王丽在北京的中国银行工作。", "张伟星期一去了上海。"],
}


@dataclass(frozen=True)
class CardFacts:
    """What a card tells; the templates read it by these names.

    Args:
        repo: where the model is loaded from, a repository or a directory; `main_repo` is the span model's, `tokens_repo` the
            token classifier's.
        base_model: the backbone's name on the Hub, None where it is not there; `backbone` is its name for readers.
        languages: codes for the Hub, target languages first.
        source_name, target_name: what the corpora are called.
        scores: "de test" -> `strict` and `paper`, see `glode.metrics.both_protocols`; `token_scores` likewise.
        test_scores: `strict` of the target test set, None where there is none.
        unreachable: the share of the test set's entities that the grid cannot hold.
        last_stage: "source" or "target".
        source_epochs, target_epochs: those that were trained.
        source_is_given: whether the source model, or its pseudo labels, were there before this run.
        teachers: the source models whose pseudo labels are averaged; `calibrated`, whether their confidence was.
        labels_are_given: whether somebody else has made the pseudo labels.
        rounds: the target stages, each of which learns from the target model of the one before.
        refined: whether the pseudo labels were refined, which begins with `first_refining_epoch`.
        best_checkpoint: whether the source development F1 chose the checkpoint.
        history: whether the pseudo labels' picture is there; `history_f1`, whether it has F1.
    """

    model_name: str
    repo: str
    license: str | None
    base_model: str | None
    backbone: str
    datasets: Sequence[str] | None
    labels: Sequence[str]
    source_lang: str
    target_lang: str
    languages: Sequence[str]
    source_name: str
    target_name: str
    source_sentences: int
    target_sentences: int
    examples: Sequence[str]
    scores: Mapping[str, dict]
    test_scores: dict | None
    unreachable: float | None
    max_span_length: int
    max_tokens: int
    last_stage: str
    source_epochs: float
    target_epochs: float
    source_mlm: bool
    source_is_given: bool
    denoising: str
    refined: bool
    first_refining_epoch: int
    best_checkpoint: bool
    learning_rate: float
    batch_size: int
    seed: int
    teachers: int = 1
    calibrated: bool = False
    labels_are_given: bool = False
    rounds: int = 1
    history: bool = False
    history_f1: bool = False
    main_repo: str | None = None
    tokens_repo: str | None = None
    token_scores: Mapping[str, dict] = dataclasses.field(default_factory=dict)
    token_epochs: float = 0.0


def examples_in(languages: Sequence[str]) -> list[str]:
    """Sentences in these languages by turns; English ones where we have none."""
    known = [EXAMPLES[code] for code in (language.split("-")[0] for language in languages) if code in EXAMPLES]
    return [text for texts in zip(*known or [EXAMPLES["en"]], strict=True) for text in texts]


def plot_pseudo_labels(history: list[dict], path: Path) -> None:
    """Draw confidence and, where the text has gold entities, precision, recall and F1 of the pseudo labels by epoch."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch of the target stage", ylabel="%", title="Pseudo labels of the unlabelled text")
    epochs = [entry["epoch"] for entry in history]
    curves = {"mean confidence": ([100 * entry["confidence"] for entry in history], ":", "0.6")}
    for name, style, grey in (("precision", "--", "0.5"), ("recall", "-.", "0.5"), ("f1", "-", "0.0")):
        if name in history[0]:
            label = "F1 (all gold entities)" if name == "f1" else name
            curves[label] = ([entry[name] for entry in history], style, grey)
    for label, (values, style, grey) in curves.items():
        axes.plot(epochs, values, linestyle=style, color=grey, marker="o", markersize=4, label=label)
    axes.set_xticks(epochs)
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def verbatim(text: str) -> str:
    """Markdown that shows a text as it is: the names of types and files come with corpora, whoever made these."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def write_card(directory: Path, facts: CardFacts, template: Path = CARD) -> ModelCard:
    """Write README.md from a template, `model_card.md` or, for the token classifier, `model_card_tokens.md`.

    Raises:
        ValueError: the card's metadata is not what the Hub accepts.
    """
    shown = dataclasses.asdict(facts)
    for name in ("model_name", "backbone", "source_name", "target_name", "source_lang", "target_lang"):
        shown[name] = verbatim(shown[name])
    shown["labels"] = list(map(verbatim, facts.labels))
    shown["per_type"] = {verbatim(name): values for name, values in (facts.test_scores or {}).get("per_type", {}).items()}
    shown["example"] = json.dumps(facts.examples[0], ensure_ascii=False)
    card = ModelCard.from_template(_metadata(facts, template), template_path=str(template), **shown)
    card.save(directory / "README.md")
    return card


def _metadata(facts: CardFacts, template: Path) -> ModelCardData:
    """What the Hub reads of a card."""
    results = None
    if (test := facts.test_scores) is not None:
        results = [
            EvalResult(
                task_type="token-classification",
                task_name="Named entity recognition",
                dataset_type=facts.target_name.replace(" ", "-"),
                dataset_name=f"{facts.target_name} ({facts.target_lang} test)",
                metric_type=name,
                metric_name=f"strict {name} over all gold entities",
                metric_value=test[name],
            )
            for name in ("f1", "precision", "recall")
        ]
    return ModelCardData(
        language=list(dict.fromkeys(facts.languages)),
        license=facts.license,
        library_name="transformers",
        pipeline_tag="token-classification",
        base_model=facts.base_model,
        datasets=list(facts.datasets) if facts.datasets else None,
        tags=["glode", "named-entity-recognition", "cross-lingual", *(["custom_code"] if template == CARD else [])],
        inference={"parameters": {"aggregation_strategy": "simple"}} if template == TOKENS_CARD else None,
        widget=[{"text": text, "example_title": f"{facts.target_lang} {n}"} for n, text in enumerate(facts.examples, 1)],
        model_name=facts.model_name if results else None,
        eval_results=results,
        ignore_metadata_errors=False,
    )
