"""Protects `--units`: how scripts without spaces are cut stands in a model's configuration, and training and every way to use the
model cut alike; with `character` every entity can be expressed."""

import json
from pathlib import Path

import pytest
from support.entities import places
from support.sentences import make_corpus, sentence
from support.world import save_random_model
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, TrainingArguments, pipeline

import run_crossner
from glode.evaluation.finders import FinderSettings, SpanFinder
from glode.evaluation.review import main as review
from glode.features.reach import gold_entities, unreachable_share
from glode.features.windows import build_features
from glode.publishing.token_classifier import by_character, train_token_classifier
from glode.serving.handler import EndpointHandler
from glode.serving.tag import main as tag
from modeling_glode import UNITS, GlodeConfig, GlodeModel, GlodePipeline, encode_words, split_words

TEXT = "Anna在上海北京，A大学的 Anna 在黑龙江。"


def tokens_of_units(words: list[str], tokenizer: PreTrainedTokenizerFast, units: str) -> list[tuple[str, ...]]:
    """The tokens of each unit of a sentence that is one window."""
    columns = encode_words([words], tokenizer, 64, 3, units)
    (ids,), (first,), (last,) = (columns[name] for name in ("input_ids", "first_token", "last_token"))
    return [tuple(tokenizer.convert_ids_to_tokens(ids[a : b + 1])) for a, b in zip(first, last, strict=True)]


@pytest.mark.parametrize(
    ("words", "piece", "character"),
    [
        (list("在上海北京"), "▁ 在|上海|北|京", "▁ 在|▁ <unk>|▁ <unk>|▁ 北|▁ 京"),
        (list("大学的"), "▁ 大学的", "▁ 大|▁ 学|▁ 的"),
        (["大学", "的"], "▁ 大学的", "▁ 大 ▁ 学|▁ 的"),  # a word of several characters is read as these, and is one unit
        (["Anna", "在", "北", "A", "京"], "▁Anna|▁ 在|北|▁ A|▁ 京", "▁Anna|▁ 在|▁ 北|▁ A|▁ 京"),
        (["Anna在", "北京A"], "▁Anna 在|北 京 A", "▁Anna ▁ 在|▁ 北 ▁ 京 ▁ A"),
        (["", "大", "学", "的"], "<unk>|▁ 大学的", "<unk>|▁ 大|▁ 学|▁ 的"),
        (["Anna", "A"], "▁Anna|▁ A", "▁Anna|▁ A"),
    ],
)
def test_a_sentence_is_cut(pieces, words: list[str], piece: str, character: str):
    for units, expected in zip(UNITS, (piece, character), strict=True):
        assert "|".join(" ".join(unit) for unit in tokens_of_units(words, pieces, units)) == expected


def test_characters_are_read_as_a_list_of_words(pieces):
    """As the authors' code gives them to the tokenizer; and the tokens are those of the text, however a corpus cuts it."""
    characters = [TEXT[a:b] for a, b in split_words(TEXT)]
    expected = pieces(characters, is_split_into_words=True)["input_ids"]
    for words in (characters, ["Anna", "在上海北京", "，", "A", "大学", "的", "Anna", "在黑龙江。"]):
        assert encode_words([words], pieces, 64, 3, "character")["input_ids"] == [expected]


@pytest.mark.usefixtures("datasets_cache")
def test_an_entity_within_a_piece_is_out_of_reach_of_pieces_alone(pieces):
    within, whole = [(1, 1, "LOC"), (3, 2, "ORG")], [(1, 2, "LOC"), (3, 3, "ORG")]
    corpus = make_corpus(*(sentence(list("在上海大学的"), entities) for entities in (within, whole)))
    shares, begins = {}, {}
    for units in UNITS:
        windows = build_features(corpus, pieces, 64, 3, ["O", "LOC", "ORG"], units=units)
        shares[units], begins[units] = unreachable_share(corpus, windows, 3), list(windows["begins"])
    assert shares == {"piece": 0.5, "character": 0.0}
    assert begins == {"piece": [[], [1, 2]], "character": [[1, 3], [1, 3]]}


def test_the_configuration_has_it(tmp_path: Path):
    for units in UNITS:
        GlodeConfig(units=units).save_pretrained(tmp_path)
        assert GlodeConfig.from_pretrained(tmp_path).units == units
    values = json.loads((tmp_path / "config.json").read_text())
    del values["units"]  # as older models are
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert GlodeConfig.from_pretrained(tmp_path).units == "piece"
    with pytest.raises(ValueError, match="units must be ") as error:
        GlodeConfig(units="word")
    assert str(error.value) == "units must be piece or character, not 'word'."


@pytest.fixture(scope="module")
def models(pieces, tmp_path_factory) -> dict[str, Path]:
    """The same weights with each of the units."""
    directories = {units: tmp_path_factory.mktemp("models") / units for units in UNITS}
    for units, directory in directories.items():
        save_random_model(directory, pieces, units=units)
    return directories


def place_in_text(words: list[tuple[int, int]], entity: tuple[int, int, str]) -> tuple:
    """An entity in words as [`places`] has those in characters."""
    begin, length, kind = entity
    start, end = words[begin][0], words[begin + length - 1][1]
    return kind, TEXT[start:end], start, end


@pytest.mark.usefixtures("datasets_cache", "one_thread")
def test_every_door_cuts_alike(models, tmp_path: Path):
    offsets, found = split_words(TEXT), {}
    words, file = [TEXT[a:b] for a, b in offsets], tmp_path / "in.txt"
    file.write_text(f"{TEXT}\n", encoding="utf-8")
    for units, directory in models.items():
        model, tokenizer = GlodeModel.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        found[units] = places(model.predict(TEXT, tokenizer))
        assert len(found[units]) > 2
        assert places(GlodePipeline(model=model, tokenizer=tokenizer)(TEXT)) == found[units]
        hub = {"pretrained_model_name_or_path": directory, "trust_remote_code": True}  # with the code beside the model
        assert places(AutoModel.from_pretrained(**hub).predict(TEXT, AutoTokenizer.from_pretrained(**hub))) == found[units]
        assert places(pipeline("ner", model=str(directory), trust_remote_code=True)(TEXT)) == found[units]
        assert places(EndpointHandler(str(directory))({"inputs": TEXT})) == found[units]
        (entities,) = SpanFinder(str(directory), FinderSettings(device="cpu"))([words])  # of glode evaluate
        assert [place_in_text(offsets, entity) for entity in entities] == found[units]
        tagged, tasks = tmp_path / f"{units}.jsonl", tmp_path / f"{units}.json"
        tag(["--model", str(directory), "--input", str(file), "--output", str(tagged), "--device", "cpu"])
        assert places(json.loads(tagged.read_text(encoding="utf-8"))["entities"]) == found[units]
        review(["--model", str(directory), "--text", str(file), "--output", str(tasks), "--device", "cpu"])
        reviewed = [result["value"] for result in json.loads(tasks.read_text())[0]["predictions"][0]["result"]]
        assert [(value["labels"][0], value["text"].replace(" ", "")) for value in reviewed] == [
            (kind, word.replace(" ", "")) for kind, word, *_ in found[units]
        ]
    assert found["piece"] != found["character"]


def test_a_token_classifier_reads_characters_in_any_text(pieces, tmp_path: Path):
    """Its tokenizer cuts them, as a built-in pipeline knows no units; and it is still so when it is loaded again."""
    byte_level = Tokenizer(BPE())
    byte_level.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    byte_level.train_from_iterator(["上海 北京 Anna"] * 9, trainer)
    names = {"unk_token": "a", "pad_token": "b", "model_input_names": ["input_ids", "attention_mask"]}
    for tokenizer in (pieces, PreTrainedTokenizerFast(tokenizer_object=byte_level, **names)):
        by_character(tokenizer).save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.model_input_names == tokenizer.model_input_names
        for text in ("Anna 在", "Anna 在 Anna", "上 海", "Anna"):
            assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert len(loaded("上海")["input_ids"]) > len(tokenizer("上海")["input_ids"])
    text = "Anna 在北京 A 大学的"
    words = [text[a:b] for a, b in split_words(text)]
    assert by_character(pieces).tokenize(text) == [t for unit in tokens_of_units(words, pieces, "character") for t in unit]


@pytest.mark.usefixtures("datasets_cache")
def test_a_token_classifier_is_trained_as_the_model_reads(models, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("glode.publishing.token_classifier.TokenClassifierTrainer.train", lambda self: None)
    corpus, tokens = make_corpus(sentence(list("在上海"), [(1, 1, "LOC")])), {}
    for units, directory in models.items():
        model, tokenizer = GlodeModel.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
        model.config.encoder_config.save_pretrained(tmp_path)
        arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
        data = (corpus, corpus, corpus, gold_entities(corpus))
        trainer = train_token_classifier(str(tmp_path), model, tokenizer, arguments, *data)
        tokens[units] = trainer.processing_class.convert_ids_to_tokens(trainer.train_dataset[0]["input_ids"])
    assert tokens == {"piece": ["▁", "在", "上海"], "character": ["▁", "在", "▁", "<unk>", "▁", "<unk>"]}


TINY_RUN = (
    "--target_lang zh --source_train en.iob2 --source_dev en.iob2 --target_unlabeled zh.txt --target_test zh.iob2 "
    "--config paper --stage source --output_dir out --max_steps 1 "
    "--per_device_train_batch_size 2 --use_cpu true --bf16 false --disable_tqdm true --report_to none --units character"
)


@pytest.mark.usefixtures("datasets_cache", "one_thread")
def test_a_run_trains_and_saves_it(backbone: Path, tmp_path: Path, monkeypatch):
    """The backbone knows no Chinese: all of a run of it is one piece, within which the entity ends."""
    monkeypatch.chdir(tmp_path)
    Path("en.iob2").write_text("Anna\tB-PER\nin\tO\nRome\tB-LOC\n\nIda\tB-PER\nsings\tO\n")
    Path("zh.txt").write_text("在上海的大学\n在北京\n", encoding="utf-8")
    Path("zh.iob2").write_text("在\tO\n上\tB-LOC\n海\tI-LOC\n的\tO\n", encoding="utf-8")
    run_crossner.main([*TINY_RUN.split(), "--model_name_or_path", str(backbone)])
    assert GlodeConfig.from_pretrained("out/source_model").units == "character"
    assert json.loads(Path("out/metrics.json").read_text())["unreachable"]["target test"] == 0
