"""Protects a chat model as a teacher, against a server that speaks its protocol: the prompt is in the text's language, names are
found again, what fails is tried again, and nothing is asked or paid for twice."""

import time
from pathlib import Path

import pytest
from support.chat_server import ChatServer, chat_server, says

from glode.errors import InputError
from glode.publishing.token_classifier import running_text
from glode.teachers.chat import ChatTeacher, find_names, parse_answer
from glode.teachers.endpoint import KEY, TRIES, BrokenAnswer, Endpoint
from glode.teachers.prompts import choose_examples, make_prompt, prompts, type_names
from glode.teachers.teacher import Example, SoftSpan, TeacherSettings

EXAMPLE = Example(["Ida", "lives", "in", "Rome", "."], [(0, 1, "PER"), (3, 1, "LOC")])
SENTENCES = [["Otto", "wohnt", "in", "Kiel", "."], ["Es", "regnet", "."], ["张", "伟", "在", "Kiel"]]


def names_in(prompt: str) -> str:
    """What the made-up model finds in the last line of a prompt."""
    text = prompt.splitlines()[-2]
    return says(*[(name, kind) for name, kind in (("Otto", "Person"), ("Kiel", "Ort"), ("张伟", "PER")) if name in text])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv(KEY, "secret")
    with chat_server(names_in) as running:
        yield running


def teacher_of(server: ChatServer, directory: Path, **changes) -> ChatTeacher:
    options = {"asked": {"PER": "PER", "LOC": "LOC"}, "examples": (EXAMPLE,), "requests": 1, "backoff": 0.01}
    settings = TeacherSettings(**{**options, "cache": directory / "cache" / "answers.sqlite", **changes})
    return ChatTeacher(f"{server.address}#tiny", settings)


def test_sentences_become_spans(server, tmp_path):
    teacher = teacher_of(server, tmp_path, price=(1.0, 10.0), requests=3)
    expected = [
        [SoftSpan(0, 1, "PER", 1.0), SoftSpan(3, 1, "LOC", 1.0)],
        [],
        [SoftSpan(0, 2, "PER", 1.0), SoftSpan(3, 1, "LOC", 1.0)],
    ]
    assert teacher(SENTENCES, "de") == expected and teacher.kind == "chat model" and teacher.types == ["PER", "LOC"]
    facts = teacher.facts()
    assert facts["asked"] == 3 and facts["tokens_written"] > 0 and facts["no_answer"] == facts["not_in_text"] == 0
    assert facts["price"] == round((facts["tokens_read"] + 10 * facts["tokens_written"]) / 1e6, 4)
    body = server.requests[0]
    assert body["path"] == "/v1/chat/completions" and body["model"] == "tiny" and body["temperature"] == 0
    assert body["headers"]["Authorization"] == "Bearer secret"
    again = teacher_of(server, tmp_path)
    assert again(SENTENCES, "de") == expected and len(server.requests) == 3
    assert again.facts()["from_cache"] == 3 and again.facts()["tokens_read"] == 0 and "price" not in again.facts()


def test_a_sentence_that_stands_in_a_text_again_is_asked_about_once(server, tmp_path):
    teacher = teacher_of(server, tmp_path, price=(1.0, 1.0), requests=3)
    first, rain, again = teacher([SENTENCES[0], SENTENCES[1], SENTENCES[0]], "de")
    assert first == again != rain and len(server.requests) == 2
    assert teacher.facts()["asked"] == 2 and teacher.facts()["from_cache"] == 1


def test_what_a_second_text_will_cost(server, tmp_path, monkeypatch):
    """What the first one has cost does not grow with the second."""
    shown = []
    monkeypatch.setattr("glode.teachers.chat.tqdm.set_postfix_str", lambda bar, text: shown.append(text))
    teacher = teacher_of(server, tmp_path, price=(10_000.0, 10_000.0))
    teacher(SENTENCES[:2], "de")
    first = teacher.facts()["price"]
    teacher([["Ida", "singt", str(number)] for number in range(10)], "de")
    told = [float(text.split(" of about ")[1]) for text in shown[2:]]
    assert len(told) == 10 and all(price == pytest.approx(teacher.facts()["price"], rel=0.1) for price in told)
    assert told[0] < 10 * first


def test_a_prompt_is_in_the_language_of_the_text():
    asked = type_names({"PER": "PER", "city": "LOC"}, "de")
    assert asked == {"Person": "PER", "city": "city"}
    example = Example(EXAMPLE.words, [(0, 1, "PER"), (3, 1, "city"), (4, 1, "else")])
    prompt = make_prompt(SENTENCES[0], asked, [example], "de-AT")
    assert prompt.startswith("Finde alle Eigennamen im Text. Erlaubte Typen: Person, city.\n")
    assert 'Antwort: {"entities": [{"text": "Ida", "type": "Person"}, {"text": "Rome", "type": "city"}]}\n' in prompt
    assert prompt.endswith("\nText: Otto wohnt in Kiel.\nAntwort:")
    assert make_prompt(["a"], type_names({"PER": "PER"}, "xx"), [], "xx").startswith("Find all named entities in the text.")


def test_all_languages_have_all_parts():
    for language, told in prompts().items():
        assert set(told) == {"instructions", "answer", "text", "result", "types"}, language
        assert "{types}" in told["instructions"] and set(told["types"]) == {"PER", "LOC", "ORG", "MISC", "DATE"}
        assert len(set(told["types"].values())) == 5 and '"text"' in told["answer"] and '"type"' in told["answer"]


def test_examples_show_all_types_and_a_sentence_without_names():
    short, plain = Example(["Ida"], [(0, 1, "PER")]), Example(["It", "rains", "here", "."], [])
    person = Example(["Ida", "sings", "a", "song"], [(0, 1, "PER")])
    place = Example(["Rome", "is", "a", "town"], [(0, 1, "LOC")])
    assert choose_examples([short, plain, person, person, place, plain]) == [person, place, plain]
    other = Example(["Lea", "met", "a", "friend"], [(0, 1, "PER")])
    assert choose_examples([person, other]) == [person, other]


@pytest.mark.parametrize(
    "text",
    [
        says(("Otto", "PER")),
        f"<think>A name is {{...}}</think>\n```json\n{says(('Otto', 'PER'))}\n```",
        f"```\n{says(('Otto', 'PER'))}```",
        f"It began in the prompt.</think>{says(('Otto', 'PER'))}",
    ],
)
def test_an_answer_is_read(text: str):
    assert parse_answer(text) == [("Otto", "PER")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Otto is a person.",
        "{",
        "[]",
        '{"entities": 3}',
        '{"entities": [["Otto", "PER"]]}',
        says((" ", "PER")),
        '{"entities": [{"text": 1, "type": "PER"}]}',
    ],
)
def test_what_is_no_answer(text: str):
    with pytest.raises(BrokenAnswer):
        parse_answer(text)


@pytest.mark.parametrize(
    ("words", "names", "spans", "lost"),
    [
        ("Anna met Anna", [("Anna", "P")], [(0, 1, "P"), (2, 1, "P")], 0),
        ("Paris likes Paris", [("Paris", "P"), ("Paris", "L")], [(0, 1, "P"), (2, 1, "L")], 0),
        ("Paris likes Paris", [("Paris", "P"), ("Paris", "L"), ("Paris", "O")], [(0, 1, "P"), (2, 1, "L")], 1),
        ("New York Times in York", [("York", "L"), ("New York Times", "O")], [(0, 3, "O"), (4, 1, "L")], 0),
        ("NEW  YORK", [("New York", "L")], [(0, 2, "L")], 0),
        ("us and US", [("US", "L")], [(2, 1, "L")], 0),
        ("Annabel", [("Anna", "P"), ("Otto", "P"), ("Otto", "P")], [], 3),
        ("a ( b ) c", [("(b)", "X")], [(1, 3, "X")], 0),
        ("a.b axb", [("a.b", "X")], [(0, 1, "X")], 0),
    ],
)
def test_names_are_found_again(words: str, names: list, spans: list, lost: int):
    found = find_names(names, *running_text(words.split()))
    assert ([span[:3] for span in found[0]], found[1]) == (spans, lost)


def test_what_cannot_be_used_is_counted(tmp_path, server):
    server.answer = lambda prompt: says(("Otto", "person"), ("Kiel", "ORT"), ("Hamburg", "Ort"), ("in", "Tier"))
    teacher = teacher_of(server, tmp_path)
    assert [span[:3] for span in teacher(SENTENCES[:1], "de")[0]] == [(0, 1, "PER"), (3, 1, "LOC")]
    assert teacher.facts()["not_in_text"] == teacher.facts()["of_no_type"] == 1


FAULTS = {
    "too many": (429, "slow down", {"Retry-After": "0"}),
    "broken": (500, "oops", {}),
    "html": (200, "<html>", {}),
    "no text": (200, '{"choices": []}', {}),
    "cut": (200, "x", {"Content-Length": "99"}),
    "parts": (200, '{"choices": [{"message": {"content": [{"type": "text", "text": "Otto"}]}}]}', {}),
    "no json": "I would say Otto.",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_asked_again(server, tmp_path, fault: str):
    server.faults = [FAULTS[fault]] * 2
    teacher = teacher_of(server, tmp_path)
    assert len(teacher(SENTENCES[:1], "de")[0]) == 2 and len(server.requests) == 3
    assert [request["temperature"] for request in server.requests] == ([0, 0.5, 0.5] if fault == "no json" else [0, 0, 0])


def test_half_a_character_in_an_answer_is_kept_as_another(server, tmp_path):
    server.faults = [says(("Otto", "PER"), ("Kiel\ud83d", "LOC"))]
    for _ in range(2):
        assert [span[:3] for span in teacher_of(server, tmp_path)(SENTENCES[:1], "de")[0]] == [(0, 1, "PER")]
    assert len(server.requests) == 1


@pytest.mark.parametrize(("key", "path"), [("sec\nret", ""), ("secr\u2026", ""), ("secret", "/\xe9"), ("secret", "/a b")])
def test_what_no_request_can_have(server, monkeypatch, key: str, path: str):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(InputError, match="has characters that no request can have") as raised:
        Endpoint(server.address + path, "tiny").ask("", parse_answer, Endless())
    assert key not in str(raised.value) and not server.requests


def test_white_space_around_a_key_is_none_of_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, " secret\r\n")
    assert teacher_of(server, tmp_path)(SENTENCES[:1], "de")
    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret"


def test_a_cache_that_is_none(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "answers.sqlite").write_text("no database, but a text that is long enough " * 9)
    with pytest.raises(InputError, match="Take it away, or give another directory by --model_cache"):
        teacher_of(server, tmp_path)(SENTENCES, "de")
    assert not server.requests


def test_an_endpoint_says_how_long_to_wait(server):
    server.faults = [(429, "", {"Retry-After": "1"})]
    start = time.monotonic()
    endpoint = Endpoint(server.address, "tiny", backoff=0.0)
    assert endpoint.ask("Text: Kiel\nAntwort:", parse_answer, Endless()).text == says(("Kiel", "Ort"))
    assert time.monotonic() - start >= 1


class Endless:
    """As an event that nobody sets."""

    def wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False


def test_a_model_of_one_temperature(server, tmp_path):
    server.faults = [(400, "Unsupported value: 'temperature' does not support 0", {})]
    assert teacher_of(server, tmp_path)(SENTENCES[:1], "de")[0]
    assert ["temperature" in request for request in server.requests] == [True, False]


def test_an_endpoint_that_fails_again_and_again(server, tmp_path):
    """What was answered before is kept."""
    server.faults = [names_in("Text: Otto\nAntwort:"), *[(503, "over loaded", {})] * TRIES]
    with pytest.raises(InputError) as raised:
        teacher_of(server, tmp_path)(SENTENCES, "de")
    assert "has failed 6 times: status 503, over loaded. What" in str(raised.value)
    assert ". What it has answered is kept: try again later, or" in str(raised.value)
    server.requests.clear()
    assert teacher_of(server, tmp_path)(SENTENCES, "de") and 0 < len(server.requests) < 3


@pytest.mark.parametrize(("fault", "told"), [("html", "no answer of a chat model: "), ("cut", "the connection broke (")])
def test_an_endpoint_that_is_none(server, fault: str, told: str):
    server.faults = [FAULTS[fault]] * TRIES
    with pytest.raises(InputError) as raised:
        Endpoint(server.address, "tiny", backoff=0.0).ask("", parse_answer, Endless())
    assert told in str(raised.value)


def test_nobody_waits_for_answers_that_are_not_needed(server, tmp_path):
    """One is refused, another one would be tried again in a minute."""
    server.answer = lambda prompt: (429, "", {"Retry-After": "60"}) if "Kiel" in prompt else (401, "wrong key", {})
    start = time.monotonic()
    with pytest.raises(InputError) as raised:
        teacher_of(server, tmp_path, requests=2)(SENTENCES[:2], "de")
    assert "refuses with status 401: wrong key" in str(raised.value)
    assert ". Check address and model, and the key in " in str(raised.value)
    assert time.monotonic() - start < 10


def test_an_address_where_nobody_is(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with chat_server(names_in) as gone:
        address = gone.address
    with pytest.raises(InputError) as raised:
        Endpoint(address, "tiny", backoff=0.0).ask("", parse_answer, Endless())
    assert "it cannot be reached (" in str(raised.value)


def test_sentences_without_an_answer(server, tmp_path):
    """One of them is left out; more than a tenth end the run."""
    server.answer = lambda prompt: "Otto" if "Otto" in prompt else names_in(prompt)
    teacher = teacher_of(server, tmp_path)
    assert [bool(spans) for spans in teacher(SENTENCES, "de")] == [False, False, True] and teacher.facts()["no_answer"] == 1
    assert teacher.facts()["asked"] == 3
    server.answer = lambda prompt: "I do not know"
    with pytest.raises(InputError, match="Choose a model that follows instructions"):
        teacher_of(server, tmp_path / "other")(SENTENCES, "de")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("http://127.0.0.1/v1", ": which model? Give ADDRESS#MODEL, such as"),
        ("http://user:word@127.0.0.1/v1#tiny", "--teachers: an address with a user, a password or a query"),
    ],
)
def test_addresses_of_another_form(name: str, told: str):
    with pytest.raises(InputError) as raised:
        Endpoint.named(name, 1, 1.0)
    assert told in str(raised.value) and "word@" not in str(raised.value)
