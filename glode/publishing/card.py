"""The model card and its picture."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PICTURE = "pseudo_labels.png"
LEAST_POINTS, MOST_CURVES = 10, 8  # of the picture: its axis in percent, and types that have a curve of their own
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
        source_name, target_name, test_name: what the source corpus, the target text and the target test set are called.
        scores: "de test" -> `strict` and `paper`, see `glode.metrics.both_protocols`; `token_scores` likewise.
        source_scores: the same of the source model, on target test sets alone.
        test_scores: `strict` of the target test set, None where there is none.
        target_train_sentences: labelled target sentences that the target stage has learnt, with the weight `target_train_weight`.
        test_sentences, repeated: sentences of the target test set, and how many of them the unlabelled text has too.
        unreachable: the share of the test set's entities that the grid cannot hold.
        last_stage: "source" or "target".
        source_epochs, target_epochs: those that were trained.
        source_is_given: whether the source model, or its pseudo labels, were there before this run.
        teachers: the source models whose pseudo labels are averaged; `calibrated`, on what their confidence was (`--calibrate`).
        labels_are_given: whether somebody else has made the pseudo labels.
        other_teachers: those of `teachers` that are no source models.
        rounds: the target stages, each of which learns from the target model of the one before.
        refined: whether the pseudo labels were refined, which begins with `first_refining_epoch`.
        best_checkpoint: whether the source development F1 chose the checkpoint.
        pretraining: `epochs` in which the backbone read both texts before, and the losses; None where it did not.
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
    calibrated: str = "none"
    labels_are_given: bool = False
    other_teachers: Sequence[str] = ()
    rounds: int = 1
    lora_rank: int | None = None
    target_train_sentences: int = 0
    target_train_weight: float = 1.0
    pretraining: Mapping[str, float] | None = None
    history: bool = False
    history_f1: bool = False
    test_name: str = ""
    test_sentences: int = 0
    repeated: int = 0
    source_scores: Mapping[str, dict] = dataclasses.field(default_factory=dict)
    main_repo: str | None = None
    tokens_repo: str | None = None
    token_scores: Mapping[str, dict] = dataclasses.field(default_factory=dict)
    token_epochs: float = 0.0


def examples_in(languages: Sequence[str]) -> list[str]:
    """Sentences in these languages by turns; English ones where we have none."""
    known = [EXAMPLES[code] for code in (language.split("-")[0] for language in languages) if code in EXAMPLES]
    return [text for texts in zip(*known or [EXAMPLES["en"]], strict=True) for text in texts]


def plot_pseudo_labels(history: list[dict], path: Path, refined_from: int | None = None) -> None:
    """Draw the pseudo labels by epoch: F1, precision and recall where the text has gold entities, else how many spans there are
    of each type.

    Args:
        refined_from: the epoch, counted from 0, with which refinement begins; None where it does not.
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs of the target stage", title="Pseudo labels of the unlabelled text")
    epochs = [entry["epoch"] for entry in history]
    if "f1" in history[0]:
        axes.set_ylabel("% (strict, all gold entities)")
        curves = {"F1" if name == "f1" else name: [entry[name] for entry in history] for name in ("f1", "precision", "recall")}
        axes.set_ylim(*_percent_limits([value for values in curves.values() for value in values]))
    else:
        axes.set_ylabel("entity spans")
        curves = _spans_by_type(history)
        axes.set_ylim(0, 1.1 * max([1, *(value for values in curves.values() for value in values)]))
    for number, (label, values) in enumerate(curves.items()):
        style = ("-", "--", "-.")[number // 3 % 3 if "f1" not in history[0] else number]
        axes.plot(epochs, values, linestyle=style, marker="osD"[number % 3], markersize=4, label=label)
    if refined_from is not None and refined_from <= epochs[-1]:
        axes.axvline(refined_from, color="0.4", linestyle=":", label="refinement begins")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


def _percent_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis in percent around values: at least `LEAST_POINTS` apart, so that noise looks like noise."""
    low, high = min(values) - 1, max(values) + 1
    spare = max(LEAST_POINTS - (high - low), 0) / 2
    low = min(max(low - spare, 0), 100 - LEAST_POINTS)
    return low, max(min(high + spare, 100), low + LEAST_POINTS)


def _spans_by_type(history: list[dict]) -> dict[str, list[int]]:
    """The number of spans of each type by epoch, the most frequent types first; rare ones are one curve."""
    counts = {name: [entry["spans"][name] for entry in history] for name in history[0]["spans"] if name != "O"}
    names = sorted(counts, key=lambda name: -max(counts[name]))
    shown, rest = names[:MOST_CURVES], names[MOST_CURVES:]
    curves = {name: counts[name] for name in shown}
    if rest:
        curves[f"{len(rest)} more types"] = [sum(row) for row in zip(*(counts[name] for name in rest), strict=True)]
    return curves


def verbatim(text: str) -> str:
    """Markdown that shows a text as it is: the names of types and files come with corpora, whoever made these."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def write_card(directory: Path, facts: CardFacts, template: Path = CARD) -> ModelCard:
    """Write README.md from a template, `model_card.md` or, for the token classifier, `model_card_tokens.md`.

    Raises:
        ValueError: the card's metadata is not what the Hub accepts.
    """
    shown = dataclasses.asdict(facts)
    for name in ("model_name", "backbone", "source_name", "target_name", "test_name", "source_lang", "target_lang"):
        shown[name] = verbatim(shown[name])
    shown["labels"] = list(map(verbatim, facts.labels))
    shown["per_type"] = {verbatim(name): values for name, values in (facts.test_scores or {}).get("per_type", {}).items()}
    gold = {name for name, values in (facts.test_scores or {}).get("per_type", {}).items() if values["gold"]}
    shown["untested"] = [verbatim(name) for name in facts.labels if facts.test_scores and name not in gold]
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
                dataset_type=facts.test_name.replace(" ", "-"),
                dataset_name=f"{facts.test_name} ({facts.target_lang} test)",
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
