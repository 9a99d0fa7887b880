"""A judge: any endpoint that speaks OpenAI's chat completions (vLLM, SGLang, llama.cpp, Ollama, a hosted one)."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import httpx
from pydantic import BaseModel, Field, ValidationError

from tasks.graders.openai.cache import Cache

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
MAX_WAIT = 30.0  # seconds between two attempts, whatever Retry-After says
RETRIED = (408, 409, 429)  # and 5xx


@dataclass(frozen=True)
class Reply:
    """What a judge said, or the `error` that kept it from saying anything; `usage` is 0 tokens for a cached reply."""

    content: str | None = None
    refusal: str | None = None
    model: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


class _Trouble(Exception):
    """An attempt that gave no completion. `again`: another one may; `wait`: not before so many seconds."""

    def __init__(self, detail: str, again: bool, wait: float = 0.0):
        super().__init__(detail)
        self.again, self.wait = again, wait


class Judge:
    """Sends requests at most `concurrency` at once; equal ones once, and never again while `cache` remembers.

    An attempt has `timeout` seconds, however slowly the body of its answer drips; while the head drips, each read has
    them. Connection errors, time-outs, answers that are no completion and the statuses 408, 409, 429 and 5xx are tried
    up to `attempts` times, `backoff` seconds apart, doubling, or Retry-After's. Raises ValueError for a base_url that
    is no http(s) URL; no trouble of the endpoint raises. Use as a context manager, or close().
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        attempts: int = 4,
        backoff: float = 1.0,
        concurrency: int = 8,
        cache: Path | None = None,
    ):
        if not _is_http(base_url):
            raise ValueError(f"judge base_url {base_url!r} is no URL; give one such as http://localhost:8000/v1")
        self.url = f"{base_url.rstrip('/')}/chat/completions"
        self.timeout, self.attempts, self.backoff = timeout, attempts, backoff
        self.cache = Cache(cache)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        limits = httpx.Limits(max_connections=concurrency)
        self._client = httpx.Client(headers=headers, timeout=timeout, limits=limits)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="judge")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **options) -> "Judge":
        """OPENAI_BASE_URL and OPENAI_API_KEY (none for an endpoint without), as OpenAI's own client names them."""
        if not environment.get("OPENAI_BASE_URL"):
            raise ValueError(
                "no judge: set OPENAI_BASE_URL, for example to http://localhost:8000/v1 (and OPENAI_API_KEY)"
            )
        return cls(environment["OPENAI_BASE_URL"], environment.get("OPENAI_API_KEY"), **options)

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def ask(self, requests: Sequence[dict]) -> list[Reply]:
        """A reply for each request (the body of a chat completion), in order."""
        bodies = [json.dumps(request, sort_keys=True) for request in requests]  # ASCII: lone surrogates stay escaped
        keys = [hashlib.sha256(f"{self.url}\n{body}".encode()).hexdigest() for body in bodies]
        replies = {key: Reply(**json.loads(text)) for key, text in self.cache.get(keys).items()}
        new = {key: body for key, body in zip(keys, bodies, strict=True) if key not in replies}
        fresh = dict(zip(new, self._pool.map(self._send, new.values()), strict=True))
        for key, reply in fresh.items():
            replies[key] = replace(reply, usage={}, seconds=0.0)
            if reply.error is None:
                self.cache.put(key, json.dumps(asdict(replies[key])))
        return [fresh.pop(key, replies[key]) for key in keys]  # the first of equal requests holds what it cost

    def _send(self, body: str) -> Reply:
        started = time.perf_counter()
        for attempt in range(1, self.attempts + 1):
            try:
                reply = self._attempt(body)
                return replace(reply, seconds=time.perf_counter() - started)
            except _Trouble as trouble:
                last = trouble
            if not last.again or attempt == self.attempts:
                break
            time.sleep(min(MAX_WAIT, max(last.wait, self.backoff * 2 ** (attempt - 1))))
        error = f"{last} (attempt {attempt} of {self.attempts})"
        return Reply(error=error, seconds=time.perf_counter() - started)

    def _attempt(self, body: str) -> Reply:
        try:
            status, wait, data = self._post(body)
        except httpx.HTTPError as error:
            raise _Trouble(f"{type(error).__name__}: {error}", again=True) from None
        if status != 200:
            text = data[:200].decode(errors="replace")
            raise _Trouble(f"status {status}: {text}", again=status in RETRIED or status >= 500, wait=wait)
        try:
            return _Completion.model_validate_json(bytes(data)).reply()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "(the answer)"
            raise _Trouble(f"the answer is no chat completion: {place}: {first['msg']}", again=True) from None

    def _post(self, body: str) -> tuple[int, float, bytearray]:
        """Status, seconds to wait as Retry-After has it, body. httpx times out one read; the deadline ends the body."""
        deadline = time.monotonic() + self.timeout
        with self._client.stream("POST", self.url, content=body) as response:
            data = bytearray()
            for chunk in response.iter_bytes(chunk_size=None):
                data += chunk
                if len(data) > MAX_RESPONSE_BYTES:
                    raise _Trouble(f"an answer of more than {MAX_RESPONSE_BYTES} bytes", again=False)
                if time.monotonic() > deadline:
                    raise _Trouble(f"an answer that took more than {self.timeout} s", again=True)
        after = response.headers.get("Retry-After", "")
        return response.status_code, float(after) if after.isascii() and after.isdecimal() else 0.0, data


def _is_http(url: str) -> bool:
    try:
        return httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        return False


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Cached(BaseModel):
    cached_tokens: int | None = 0


class _Usage(BaseModel):
    prompt_tokens: int | None = 0
    total_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None


class _Completion(BaseModel):
    """A chat completion as far as it is needed."""

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: _Usage | None = None

    def reply(self) -> Reply:
        message, usage = self.choices[0].message, self.usage or _Usage()
        tokens = {kind: num or 0 for kind, num in usage.model_dump(exclude={"prompt_tokens_details"}).items()}
        details = usage.prompt_tokens_details or _Cached()
        tokens["cached_tokens"] = details.cached_tokens or 0
        return Reply(message.content, message.refusal, self.model or "", tokens)
