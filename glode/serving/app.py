"""A demo page for a trained model, for a browser here or for a Gradio Space.

    pip install "glode[app]"
    glode app --model glode-demo

It needs nothing else of this project, for a model brings modeling_glode.py with it: on a Space put
it as app.py beside a requirements.txt, and set the variable GLODE_MODEL to the model's repository.
"""

import argparse
import html
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # else loaded with a model: --help needs none of them
    import gradio as gr

    from modeling_glode import GlodePipeline


RIGHT_TO_LEFT = {"ar", "fa", "he", "ur", "yi", "ps", "sd", "ug", "dv"}


# Dark enough for the white type names on them.
COLORS = ["#d97706", "#2563eb", "#16a34a", "#db2777", "#7c3aed", "#dc2626", "#0891b2", "#57534e"]


COLUMNS = ["type", "text", "score", "start", "end"]


def import_gradio() -> ModuleType:
    """Gradio, which nothing else here needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError('the page is made by Gradio, which is not installed: pip install "glode[app]"') from error
    return gradio


def load(name: str) -> "tuple[GlodePipeline, Path]":
    """The pipeline of a model and its directory; a name that is no directory is downloaded.

    Raises:
        ValueError: there is no such model, here or on the Hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError
    from safetensors import SafetensorError
    from transformers import pipeline

    try:
        directory = Path(name) if Path(name).is_dir() else Path(snapshot_download(name))
        return pipeline("token-classification", model=str(directory), trust_remote_code=True), directory
    except (OSError, ValueError, HTTPError, HFValidationError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"model {name!r} cannot be loaded: {reason} Give a directory or a repository with --model.") from error


def tag(ner: "GlodePipeline", text: str, threshold: float, nested: bool) -> tuple[list[tuple[str, str | None]], list[list]]:
    """Entities of a text, for the highlighted view and for the table.

    Returns:
        (piece of the text, "TYPE score" or None), which together are the text, with outer entities only; and a row of
        `COLUMNS` for every entity.
    """
    entities = ner(text or "", threshold=threshold, nested=nested)
    pieces: list[tuple[str, str | None]] = []
    at = 0
    for entity in sorted(entities, key=lambda e: (e["start"], -e["end"])):
        if entity["start"] < at:
            continue  # lies within the one before; the table has it
        if entity["start"] > at:
            pieces.append((text[at : entity["start"]], None))
        pieces.append((text[entity["start"] : entity["end"]], f"{entity['entity_group']} {entity['score']:.2f}"))
        at = entity["end"]
    if text[at:]:
        pieces.append((text[at:], None))
    rows = [[e["entity_group"], e["word"], round(e["score"], 3), e["start"], e["end"]] for e in entities]
    return pieces, rows


def colored(pieces: list[tuple[str, str | None]], types: list[str]) -> dict:
    """The pieces with a color for each label: entities of a type share one, whatever their score."""
    labels = {label for _, label in pieces if label}
    return {label: COLORS[types.index(label.rsplit(" ", 1)[0]) % len(COLORS)] for label in labels}


def read_report(directory: Path) -> tuple[list[list], list[list], list[str]]:
    """From metrics.json: rows (type, P, R, F1, gold), rows (epoch, confidence, spans of each type), and their types; all empty
    where the model came without it."""
    path = directory / "metrics.json"
    if not path.is_file():
        return [], [], []
    metrics = json.loads(path.read_text(encoding="utf-8"))
    scores = metrics.get("target_model", metrics.get("source_model", {}))
    per_type = scores.get("test", scores.get("dev", {})).get("strict", {}).get("per_type", {})
    rows = [[name, *(round(s[k], 1) for k in ("precision", "recall", "f1")), s["gold"]] for name, s in per_type.items()]
    history = metrics.get("pseudo_labels", [])
    types = list(history[0]["spans"]) if history else []
    return rows, [[e["epoch"], round(e["confidence"], 4), *(e["spans"][name] for name in types)] for e in history], types


def build(ner: "GlodePipeline", directory: Path) -> "gr.Blocks":
    """The page."""
    from huggingface_hub import ModelCard

    gr = import_gradio()
    card = ModelCard.load(directory / "README.md") if (directory / "README.md").is_file() else None
    data = card.data.to_dict() if card else {}
    language = data.get("language", ["en"])
    language = language[0] if isinstance(language, list) else language
    examples = [example["text"] for example in data.get("widget", [])]
    types = [name for name in ner.model.config.id2label.values() if name != "O"]
    rtl = language.split("-")[0] in RIGHT_TO_LEFT

    def show(text: str, threshold: float, form: str):
        pieces, rows = tag(ner, text, threshold, form == "nested")
        return gr.HighlightedText(value=pieces, color_map=colored(pieces, types)), rows

    with gr.Blocks(title=f"GLoDe: entities in {language}") as page:
        gr.HTML(
            f"<h1>Entities in {html.escape(language)}</h1><p>{html.escape(', '.join(types))} in running text, found "
            "without a label of this language in training.</p>",
            elem_id="title",
        )
        with gr.Tab("Try it"):
            text = gr.Textbox(label="Text", lines=3, rtl=rtl, value=examples[0] if examples else "", elem_id="text")
            with gr.Row():
                threshold = gr.Slider(0, 1, value=0, step=0.05, label="Least score")
                form = gr.Radio(["flat", "nested"], value="flat", label="Entities within entities")
            find = gr.Button("Find entities", variant="primary", elem_id="find")
            found = gr.HighlightedText(label="Entities", rtl=rtl, elem_id="entities")
            table = gr.Dataframe(headers=COLUMNS, label="All entities, with characters", interactive=False)
            if examples:
                gr.Examples([[example] for example in examples], inputs=[text], label="Examples")
            for event in (find.click, text.submit, threshold.release, form.change):
                event(show, [text, threshold, form], [found, table])
        with gr.Tab("Training report"):
            scores, history, spans = read_report(directory)
            picture = directory / "pseudo_labels.png"
            if not scores and not history:
                gr.Markdown("This model came without `metrics.json`.")
            if picture.is_file():
                gr.Image(str(picture), label="Pseudo labels by epoch", show_label=True, height=320)
            if scores:
                gr.Dataframe(scores, headers=["type", "precision", "recall", "F1", "gold"], label="Strict scores by type")
            if history:
                gr.Dataframe(history, headers=["epoch", "confidence", *spans], label="Spans of each type in the pseudo labels")
    return page


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="glode app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("GLODE_MODEL", "glode-demo"), help="directory or repository")
    parser.add_argument("--port", type=int, default=7860, help="port of the page")
    options = parser.parse_args(argv)
    import_gradio()  # before a model is loaded for nothing
    build(*load(options.model)).launch(server_port=options.port)


def run(argv: Sequence[str]) -> int:
    """The command: `main`, with its exit code."""
    try:
        main(argv)
    except (ValueError, OSError) as error:  # what `load` raises; a port that is taken
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
