"""A judge's endpoint on loopback, which does what each test tells it to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 190, "completion_tokens": 134, "total_tokens": 324}


def completion(content, **message) -> bytes:
    message = {"role": "assistant", "content": content, **message}
    return json.dumps({"model": "judge-1", "choices": [{"index": 0, "message": message}], "usage": USAGE}).encode()


def graded(result) -> bytes:
    return completion(json.dumps({"steps": [], "result": result}))


class Endpoint(ThreadingHTTPServer):
    """`script(request, number)` gives a body, or (status, headers, body), or None to hang up without an answer."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.lock = script, threading.Lock()
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.active = self.most_active = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address) -> None:
        """A client that hung up is no news here."""


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.headers.append(dict(self.headers))
            number = len(self.server.requests)
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
        try:
            made = self.server.script(request, number)
        finally:
            with self.server.lock:
                self.server.active -= 1
        if made is None:
            return
        status, headers, body = made if isinstance(made, tuple) else (200, {}, made)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(body, bytes):
            self.send_header("Content-Length", str(len(body)))
            body = [body]
        self.end_headers()
        for chunk in body:
            self.wfile.write(chunk)
            self.wfile.flush()

    def log_message(self, *_) -> None:
        pass


@contextmanager
def serving(script: Callable) -> Iterator[Endpoint]:
    server = Endpoint(script)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def dripping(seconds: float) -> Iterator[bytes]:
    """A byte now and then: no single read is slow."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield b" "
        time.sleep(0.02)
