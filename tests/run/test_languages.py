"""Protects the training for several target languages at once: each keeps its own scores, thresholds and pseudo-label report, in
one model; nobody has to guess which language a file is in; the Hub's card names them all."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support import ROOT

import run_crossner
from glode.errors import InputError
from glode.run.arguments import DataArguments
from glode.run.corpora import files_by_language, load_corpora

pytestmark = pytest.mark.usefixtures("datasets_cache")


def arguments(backbone: Path, output: Path) -> list[str]:
    files = {language: ROOT / "glode/run/demo" / language / "test.iob2" for language in ("de", "es")}
    argv = "--config glode/run/recipes/demo.yaml --target_lang es,de --denoising both --refine step --self_direction false "
    argv += "--source_train glode/run/demo/en/train.iob2 --source_dev glode/run/demo/en/dev.iob2 "
    argv += f"--target_unlabeled de={files['de']} es={files['es']} --target_test es={files['es']} de={files['de']} "
    argv += (
        f"--model_name_or_path {backbone} --output_dir {output} --max_source_samples 60 --max_target_samples 20 --use_cpu true "
    )
    argv += "--num_train_epochs 3 --source_num_train_epochs 12 --max_span_length 3 --learning_rate 3e-3 --report_to none "
    return (argv + "--disable_tqdm true --keep_checkpoints --per_device_train_batch_size 10").split()


def test_one_model_with_scores_thresholds_and_labels_of_each_language(backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run_crossner.main(arguments(backbone, tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    scores = {name: part["strict"] for name, part in metrics["target_model"].items()}
    assert scores.keys() == {"dev", "test", "test_es", "test_de"}
    for count in ("gold", "predicted", "correct"):
        assert scores["test"][count] == scores["test_es"][count] + scores["test_de"][count]
    assert scores["test_de"]["gold"] == (ROOT / "glode/run/demo/de/test.iob2").read_text().count("\tB-")
    for entry in metrics["pseudo_labels"]:
        languages = entry["languages"]
        assert list(languages) == ["es", "de"] and all("f1" in report for report in languages.values())
        for name, number in entry["spans"].items():
            assert number == sum(report["spans"][name] for report in languages.values())
    first, last = (metrics["pseudo_labels"][i]["languages"] for i in (0, -1))
    assert first["es"]["confidence"] != last["es"]["confidence"]
    newest = max(tmp_path.glob("target_checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = load_file(newest / "denoising_state.safetensors")
    assert state["thresholds.global.values"].shape == (2, 4)
    spanish, german = state["thresholds.global.values"][:, 0]
    assert spanish.isfinite() and german.isfinite() and spanish != german
    assert metrics["corpora"]["target es"]["sentences"] == 20 and "target_test de" in metrics["corpora"]
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.language == ["es", "de", "en"] and "**es, de** text" in card.text and "| de test |" in card.text
    table = capsys.readouterr().out
    assert "de test" in table and "es + de test" in " ".join(table.split()).replace("│", "")

    run_crossner.main([*arguments(backbone, tmp_path), "--resume_from_checkpoint", "auto"])
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["pseudo_labels"] == metrics["pseudo_labels"] and again["target_model"] == metrics["target_model"]


@pytest.mark.parametrize(
    ("values", "languages", "expected"),
    [
        (["a.txt"], ["de"], {"de": ["a.txt"]}),
        (["de=a.txt", "b=c.txt"], ["de"], {"de": ["a.txt", "b=c.txt"]}),
        (["es=a", "de=b", "es=c"], ["de", "es", "nl"], {"de": ["b"], "es": ["a", "c"]}),
        (None, ["de", "es"], {}),
    ],
)
def test_whose_files_they_are(values, languages, expected):
    found = files_by_language("target_test", values, languages)
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize(
    ("options", "message", "kind"),
    [
        ({"target_unlabeled": ["a.txt"]}, "--target_unlabeled a.txt: in which of de, es? Give de=a.txt,", ", for example."),
        ({"target_unlabeled": ["fr=a.txt"]}, "--target_unlabeled fr=a.txt: in which of de, es?", ": in which of "),
        ({"target_unlabeled": ["de={text}"]}, "--target_unlabeled es=FILE too.", " names no file in "),
    ],
)
def test_a_language_without_a_file(tmp_path, options, message, kind):
    text = tmp_path / "text.txt"
    text.write_text("Otto wohnt in Kiel .\n")
    options = {name: [value.format(text=text) for value in values] for name, values in options.items()}
    data = DataArguments("de,es", source_train=[str(ROOT / "glode/run/demo/en/dev.iob2")], **options)
    with pytest.raises(InputError) as error:
        load_corpora(data)
    assert message in str(error.value) and kind in str(error.value)


@pytest.mark.parametrize(("given", "message"), [("de,fr", "no text in 'fr'"), (",", "expected a language, such as zh")])
def test_a_language_that_is_not_there(given, message):
    with pytest.raises(InputError, match=message):
        load_corpora(DataArguments(given))
