"""A small server that speaks the chat completions protocol, and fails when it is told to."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

Reply = str | tuple[int, str, dict[str, str]]  # what the model writes, or status, body and headers


class ChatServer:
    """Answers by a function of what it is asked; `faults` are given before that, in order.

    Attributes:
        address: such as http://127.0.0.1:1234/v1.
        requests: the bodies that came, each with its headers under "headers".
    """

    def __init__(self, answer: Callable[[str], Reply]):
        self.answer, self.faults, self.requests, self.lock = answer, list[Reply](), list[dict](), Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.requests.append({**body, "path": self.path, "headers": dict(self.headers)})
                    fault = server.faults.pop(0) if server.faults else None
                status, content, headers = server.respond(body, fault)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Nothing on the terminal."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

    def respond(self, body: dict, fault: Reply | None) -> tuple[int, bytes, dict[str, str]]:
        prompt = body["messages"][0]["content"]
        reply = self.answer(prompt) if fault is None else fault
        if not isinstance(reply, str):
            return reply[0], reply[1].encode(), reply[2]
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(reply.split())}
        choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}]
        return 200, json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode(), {}


@contextmanager
def chat_server(answer: Callable[[str], Reply]) -> Iterator[ChatServer]:
    """A server that runs until the block ends."""
    server = ChatServer(answer)
    thread = Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def says(*names: tuple[str, str]) -> str:
    """An answer that names (text, type)."""
    return json.dumps({"entities": [{"text": text, "type": kind} for text, kind in names]}, ensure_ascii=False)
