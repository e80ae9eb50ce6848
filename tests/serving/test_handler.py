"""Protects the endpoint's handler: it answers what the pipeline answers, takes what InferenceClient sends, and says what is wrong
with a payload."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient
from support.entities import places

from glode.serving.handler import EndpointHandler

TEXTS = ["Anna Berg lives in New York .", "", "Otto von Hagen flew to Oslo, then   to Kiel!", "在北京"]


@pytest.fixture(scope="module")
def handler(directory: Path) -> EndpointHandler:
    return EndpointHandler(str(directory))


def test_handler_answers_and_refuses(handler, directory, ner):
    assert places(handler({"inputs": TEXTS[0]})) == places(ner(TEXTS[0]))
    assert [places(x) for x in handler({"inputs": TEXTS, "parameters": {"threshold": 0.5, "nested": True}})] == [
        places(x) for x in ner(TEXTS, threshold=0.5, nested=True)
    ]
    assert handler({"inputs": []}) == []
    for payload, message in (
        ("text", "expected"),
        ({}, 'expected {"inputs": text or list of texts'),
        ({"inputs": 3}, "must be a text or a list of texts"),
        ({"inputs": ["a", 1]}, "text or a list"),
        ({"inputs": "a", "parameters": [1]}, "must be an object"),
        ({"inputs": "a", "parameters": {"top_k": 1}}, "there is no parameter "),
        ({"inputs": "a", "parameters": {"threshold": "high"}}, "must be of type "),
        ({"inputs": "a", "parameters": {"nested": 1}}, "must be of type bool"),
        ({"inputs": "a", "parameters": {"stride": True}}, "must be of type int"),
        ({"inputs": "a", "parameters": {"ignore_labels": "PER"}}, "must be of type list of strings"),
        ({"inputs": "a", "parameters": {"ignore_labels": [1]}}, "must be of type list of strings"),
        (
            {"inputs": "a", "parameters": {"aggregation_strategy": "none"}},
            "asks for labels of tokens",
        ),
        ({"inputs": "a", "parameters": {"unknown": None}}, "there is no parameter 'unknown'"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            handler(payload)
        assert str(directory) not in str(error.value)


def test_null_is_a_parameter_left_out(handler, ner):
    nothing = {"threshold": None, "nested": None, "ignore_labels": None, "stride": None, "aggregation_strategy": None}
    assert places(handler({"inputs": TEXTS[0], "parameters": nothing})) == places(ner(TEXTS[0]))
    assert places(handler({"inputs": TEXTS[0], "parameters": None})) == places(ner(TEXTS[0]))


@pytest.fixture
def client(handler, monkeypatch) -> Iterator[InferenceClient]:
    """The client of a server that hands payloads to the handler, as an Inference Endpoint does."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(handler(payload)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it stops calls to this machine as well
    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield InferenceClient(model=f"http://127.0.0.1:{server.server_port}", token="none")
        server.shutdown()


def test_the_inference_client_is_answered(client, ner):
    group = ner(TEXTS[0])[0]["entity_group"]
    for parameters in ({}, {"aggregation_strategy": "average", "ignore_labels": [group], "stride": 8}):
        answer = client.token_classification(TEXTS[0], **parameters)
        wanted = [e for e in ner(TEXTS[0]) if e["entity_group"] not in parameters.get("ignore_labels", [])]
        assert places([dict(element) for element in answer]) == places(wanted) != []
