"""Servers that answer as a test says, on real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

CONFIGURATION = "/.well-known/opentdf-configuration"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Asking(NamedTuple):
    """One request that came."""

    path: str
    authorization: str | None
    body: bytes


@dataclass
class Answering:
    """Where the server is, what it answers to each path, and what it was asked."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asking] = field(default_factory=list)


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    """An answer in JSON; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, text in headers.items():
            request.send_header(name.replace("_", "-"), text)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@contextmanager
def answering() -> Iterator[Answering]:
    """A server that answers what its `answers` say of a path, and 404 else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            found.asked.append(Asking(path, self.headers.get("Authorization"), body))
            found.answers.get(path, as_json({}, 404))(self)

        do_POST = do_GET  # noqa: N815 as http.server wants it

        def log_message(self, *_: object) -> None:
            return

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Answering(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextmanager
def kas(**members: object) -> Iterator[Answering]:
    """A key access server that issues tokens itself; *members* are added to its configuration."""
    with answering() as found:
        endpoint = f"{found.url}/token"
        configuration = {"idp": {"token_endpoint": endpoint}, **members}
        found.answers[CONFIGURATION] = as_json(configuration)
        found.answers["/token"] = as_json({"access_token": "a.b.c"})
        yield found
