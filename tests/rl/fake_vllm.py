"""A server that speaks what `tasks.rl.vllm_engines.Server` uses of vLLM 0.32, strictly, and samples with transformers.

What it answers was compared with a real server (tests/rl/test_vllm_real.py): keys, tokens, log-probabilities, errors.
"""

import base64
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import parse_qs, urlsplit

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

SAMPLING = {"n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "logprobs"}
SAMPLING |= {"ignore_eos", "stop_token_ids", "detokenize", "logit_bias"}
BODY = {"model", "token_ids", "sampling_params", "content_parts", "return_token_ids"}


class FakeVllm:
    """`said` are the paths that were asked for, in order. `config` is the part of /server_info that is read; `shift` is
    added to what the sampler says of its log-probabilities.
    """

    def __init__(self, name: str, processor, **config):
        self.name, self.processor, self.shift, self.said = name, processor, 0.0, []
        self.config = {
            "logprobs_mode": "processed_logprobs",
            "dtype": "torch.float32",
            "enable_sleep_mode": True,
        } | config
        self.model, self.asleep, self.lock, self.without = None, False, Lock(), set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(None)

            def do_POST(self):
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "null"))

            def _answer(self, body):
                with fake.lock:
                    url = urlsplit(self.path)
                    fake.said.append(url.path)
                    known = {k: v for k, v in fake.routes().items() if k not in fake.without}
                    status, answer = 404, {"detail": "Not Found"}
                    if url.path in known:
                        status, answer = 200, known[url.path](body, parse_qs(url.query))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def routes(self):
        return {
            "/server_info": lambda body, query: {"vllm_config": {"model_config": self.config}},
            "/v1/models": lambda body, query: {"data": [{"id": self.name}]},
            "/collective_rpc": self.rpc,
            "/reset_encoder_cache": lambda body, query: {},
            "/reset_prefix_cache": lambda body, query: {"success": True},
            "/sleep": lambda body, query: self.set_asleep(True),
            "/wake_up": lambda body, query: self.set_asleep(False),
            "/inference/v1/generate": self.generate,
        }

    def set_asleep(self, asleep):
        self.asleep = asleep
        return {}

    def rpc(self, body, query):
        assert body["method"] == "reload_weights" and set(body["kwargs"]) == {"weights_path"} and not self.asleep
        folder = Path(body["kwargs"]["weights_path"])
        self.model = AutoModelForImageTextToText.from_pretrained(self.name, dtype=torch.float32)
        self.model.load_state_dict(load_file(folder / "model.safetensors"))  # the tied head too, which vLLM needs
        return {"results": [None]}

    @torch.no_grad()
    def generate(self, body, query):
        params = body["sampling_params"]
        assert set(body) == BODY and set(params) == SAMPLING and body["model"] == self.name and not self.asleep
        inputs = self.read(body)
        bias = torch.zeros(self.model.config.get_text_config().vocab_size)
        for token, value in params["logit_bias"].items():
            bias[int(token)] = value
        generator = torch.Generator().manual_seed(params["seed"])
        choices = [self.sample(inputs, params, bias, generator) for _ in range(params["n"])]
        choices = [{"index": n, **choice} for n, choice in enumerate(choices)]
        return {"prompt_token_ids": inputs["input_ids"][0].tolist(), "choices": choices[::-1]}

    def read(self, body):
        """The prompt with its picture's one place widened, by the processor."""
        text = self.processor.tokenizer.decode(body["token_ids"])
        pictures = [
            Image.open(io.BytesIO(base64.b64decode(part["url"].partition(",")[2])))
            for part in body["content_parts"] or []
        ]
        return self.processor(text=[text], **({"images": pictures} if pictures else {}), return_tensors="pt")

    def sample(self, inputs, params, bias, generator):
        """One completion, token by token, without a cache."""
        ids, tokens, logprobs = inputs["input_ids"], [], []
        while len(tokens) < params["max_tokens"] and (not tokens or tokens[-1] not in params["stop_token_ids"]):
            more = torch.tensor([tokens], dtype=torch.long)
            now = {**inputs, "input_ids": torch.cat([ids, more], dim=1)}
            now["attention_mask"] = torch.ones_like(now["input_ids"])
            now["mm_token_type_ids"] = (now["input_ids"] == self.model.config.image_token_id).int()
            logits = self.model(**now, use_cache=False).logits[0, -1] + bias
            all_of_them = (logits / params["temperature"]).log_softmax(-1)
            tokens.append(int(torch.multinomial(all_of_them.exp(), 1, generator=generator)))
            logprobs.append({"token_id": tokens[-1], "logprob": all_of_them[tokens[-1]].item() + self.shift})
        return {"token_ids": tokens, "logprobs": {"content": logprobs}}
