"""The model card and its picture."""

import re
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


def write_card(directory: Path, facts: dict, template: Path = CARD) -> ModelCard:
    """Write README.md from a template, `model_card.md` or, for the token classifier, `model_card_tokens.md`.

    Args:
        directory: the model's directory.
        facts: what the templates ask for, see `run_crossner.Run.card_facts`.
    Raises:
        ValueError: the card's metadata is not what the Hub accepts.
    """
    results = None
    if (test := facts["test_scores"]) is not None:
        common = {
            "task_type": "token-classification",
            "task_name": "Named entity recognition",
            "dataset_type": facts["target_name"].replace(" ", "-"),
            "dataset_name": f"{facts['target_name']} ({facts['target_lang']} test)",
        }
        results = [
            EvalResult(metric_type=name, metric_name=f"strict {name} over all gold entities", metric_value=test[name], **common)
            for name in ("f1", "precision", "recall")
        ]
    data = ModelCardData(
        language=list(dict.fromkeys(facts["languages"])),
        license=facts["license"],
        library_name="transformers",
        pipeline_tag="token-classification",
        base_model=facts["base_model"],
        datasets=facts["datasets"],
        tags=["glode", "named-entity-recognition", "cross-lingual", *(["custom_code"] if template == CARD else [])],
        inference={"parameters": {"aggregation_strategy": "simple"}} if template == TOKENS_CARD else None,
        widget=[{"text": text, "example_title": f"{facts['target_lang']} {n}"} for n, text in enumerate(facts["examples"], 1)],
        model_name=facts["model_name"] if results else None,
        eval_results=results,
        ignore_metadata_errors=False,
    )
    shown = ("model_name", "backbone", "source_name", "target_name", "source_lang", "target_lang")
    facts = facts | {name: verbatim(facts[name]) for name in shown} | {"labels": list(map(verbatim, facts["labels"]))}
    facts["per_type"] = facts["per_type"] and {verbatim(name): values for name, values in facts["per_type"].items()}
    card = ModelCard.from_template(data, template_path=str(template), **facts)
    card.save(directory / "README.md")
    return card
