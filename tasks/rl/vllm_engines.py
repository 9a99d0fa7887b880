"""vLLM, in this process or as a server: weights and prompts go in, tokens come out (docs/vllm.md).

    python -m tasks.rl.vllm_engines FOLDER      # rft.vllm.mode server: what `vllm serve` is given, and its command

The only module that imports vllm. Written against vLLM 0.32 and run with it, on a CPU: its sampling parameters, `LLM`,
and the server's `/inference/v1/generate` and development routes.
"""

import argparse
import base64
import importlib.util
import io
import json
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from tasks.models.adapters import merged_state, without_adapter
from tasks.models.loading import load_config, load_model, load_processor
from tasks.models.training import Job
from tasks.params import Params, load_params

# vLLM builds the stock processors, whose part for videos ours leave out (tasks.models.processors).
VIDEO = {
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
}
LOGPROBS = "processed_logprobs"  # at the temperature, of the tokens that may be sampled: what was sampled from
PICTURES = {"image": 1, "video": 0}  # of a prompt, at most
TIMEOUT = httpx.Timeout(1800, connect=10)  # seconds


class VllmError(RuntimeError):
    """vLLM is not there, or is not what the run needs; the message says what to do."""


@dataclass(frozen=True)
class Answer:
    """vLLM's completions of one prompt, and their tokens' log-probabilities as sampled. `prompt` is as it was read."""

    prompt: list[int]
    completions: list[list[int]]
    logprobs: list[list[float]]


@dataclass(frozen=True)
class Request:
    """A prompt with one place for its picture, if it has one, and the keys of vLLM's SamplingParams."""

    tokens: list[int]
    picture: Image.Image | None
    sampling: dict


class Colocated:
    """vLLM in this process, which begins with the weights of `model`."""

    def __init__(self, job: Job, model: PreTrainedModel | PeftModel):
        if importlib.util.find_spec("vllm") is None:
            raise VllmError(
                "rft.vllm.mode colocated: vLLM is not installed here: docs/vllm.md says how to install it; or let a "
                "server in an environment of its own sample (rft=vllm_server), or take rft.vllm null"
            )
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, which hands the weights over as they lie
        from vllm import LLM

        own, self._folder = job.params.rft.vllm, TemporaryDirectory()
        save_whole(model, Path(self._folder.name))
        write_processor(job.params, job.init, Path(self._folder.name))
        self._llm = LLM(
            model=self._folder.name, dtype=job.params.model.computing, max_model_len=-1, seed=job.seed,
            gpu_memory_utilization=own.memory_share, enable_sleep_mode=own.sleep, logprobs_mode=LOGPROBS,
            generation_config="vllm", limit_mm_per_prompt=PICTURES, disable_log_stats=True,
        )  # fmt: skip

    def load(self, model: PreTrainedModel | PeftModel) -> None:
        """Take over the weights of `model`; nothing computed with others is kept."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(whole_weights(model).items())})
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_encoder_cache()  # reload_weights empties the worker's alone

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        from vllm import SamplingParams

        prompts = [
            {"prompt_token_ids": r.tokens, **({"multi_modal_data": {"image": r.picture}} if r.picture else {})}
            for r in requests
        ]
        done = self._llm.generate(prompts, [SamplingParams(**r.sampling) for r in requests], use_tqdm=False)
        return [
            Answer(
                list(one.prompt_token_ids),
                [list(c.token_ids) for c in one.outputs],
                [[at[t].logprob for t, at in zip(c.token_ids, c.logprobs, strict=True)] for c in one.outputs],
            )
            for one in done
        ]

    def sleep(self) -> None:
        self._llm.sleep(level=1)

    def wake(self) -> None:
        torch.cuda.empty_cache()  # what the update held and does not use
        self._llm.wake_up()


class Server:
    """A `vllm serve` at `rft.vllm.address`. Weights go through a folder in TMPDIR, which it must see too."""

    def __init__(self, job: Job, model: PreTrainedModel | PeftModel):
        params = job.params
        self._http = httpx.Client(base_url=params.rft.vllm.address, timeout=TIMEOUT)
        self._where, self._start = f"rft.vllm.address {params.rft.vllm.address}", serve_command(params, Path("FOLDER"))
        info = self._get("/server_info", config_format="json")
        self._model = self._get("/v1/models")["data"][0]["id"]
        config = info["vllm_config"]["model_config"]
        needed = {"logprobs_mode": LOGPROBS, "dtype": f"torch.{params.model.computing}"}
        needed |= {"enable_sleep_mode": True} if params.rft.vllm.sleep else {}
        wrong = [f"{name} is {config[name]}, not {value}" for name, value in needed.items() if config[name] != value]
        if self._model != params.model.path:
            wrong.insert(0, f"it serves {self._model}, not model.path {params.model.path}")
        if wrong:
            raise VllmError(f"{self._where}: {'; '.join(wrong)}; {self._start}")

    def _answer(self, method: str, path: str, **keys) -> dict:
        try:
            answer = self._http.request(method, path, **keys)
        except httpx.TransportError as error:
            raise VllmError(f"{self._where}: no server answers ({error!r}); {self._start}") from None
        if answer.status_code == 404:
            raise VllmError(f"{self._where}: {path} is not offered there; {self._start}")
        if answer.is_error:
            raise VllmError(f"{self._where}: {path} failed ({answer.status_code}): {answer.text[:2000]}")
        return answer.json() if answer.content else {}

    def _get(self, path: str, **query) -> dict:
        return self._answer("GET", path, params=query)

    def _post(self, path: str, body: dict | None = None, **query) -> dict:
        return self._answer("POST", path, json=body, params=query)

    def load(self, model: PreTrainedModel | PeftModel) -> None:
        """Have the server take over the weights of `model`; nothing computed with others is kept."""
        with TemporaryDirectory(prefix="kshot-weights-") as folder:
            weights = {n: w.to("cpu", copy=True).contiguous() for n, w in whole_weights(model).items()}
            save_file(weights, Path(folder) / "model.safetensors")
            self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        self._post("/reset_encoder_cache")
        if not self._post("/reset_prefix_cache")["success"]:
            raise VllmError(f"{self._where}: it is at work for others, and keeps what old weights computed: stop them")

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self._generate, requests))

    def _generate(self, request: Request) -> Answer:
        pictures = [{"type": "image_url", "url": _as_url(request.picture)}] if request.picture else None
        body = {"model": self._model, "token_ids": request.tokens, "sampling_params": request.sampling}
        done = self._post("/inference/v1/generate", {**body, "content_parts": pictures, "return_token_ids": True})
        choices = sorted(done["choices"], key=lambda choice: choice["index"])
        logprobs = [[at["logprob"] for at in choice["logprobs"]["content"]] for choice in choices]
        return Answer(done["prompt_token_ids"], [choice["token_ids"] for choice in choices], logprobs)

    def sleep(self) -> None:
        self._post("/sleep", level=1)

    def wake(self) -> None:
        torch.cuda.empty_cache()  # the server may be on this GPU
        self._post("/wake_up")


def _as_url(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")  # lossless
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def whole_weights(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    """The weights with the adapter merged, by the names of a checkpoint. A tied head is among them, which a saved model
    leaves out: vLLM's reload would keep the head that it had.
    """
    return revert_weight_conversion(without_adapter(model), merged_state(model))


def save_whole(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """The weights with the adapter merged, and their shapes."""
    without_adapter(model).save_pretrained(folder, state_dict=merged_state(model))


def write_processor(params: Params, init: Path | None, folder: Path) -> None:
    """A processor that vLLM can build, and that scales pictures as ours does."""
    config, processor = load_config(params.model, init), load_processor(params.model, init)
    processor.save_pretrained(folder)
    if video := VIDEO.get(config.model_type):
        (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": video}))


def serve_command(params: Params, folder: Path) -> str:
    sleep = " --enable-sleep-mode" if params.rft.vllm.sleep else ""
    name, address = shlex.quote(params.model.path), httpx.URL(params.rft.vllm.address)
    return (
        f"start it with: python -m tasks.rl.vllm_engines {folder}; VLLM_SERVER_DEV_MODE=1 vllm serve {folder} --host "
        f"{address.host} --port {address.port or 80} --served-model-name {name} --dtype {params.model.computing} "
        f"--max-model-len auto --logprobs-mode {LOGPROBS} --generation-config vllm "
        f"--limit-mm-per-prompt {shlex.quote(json.dumps(PICTURES))} --enable-scale-out{sleep}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the base model of params.yaml for `vllm serve`.")
    parser.add_argument("folder", type=Path)
    folder, params = parser.parse_args().folder, load_params()
    if params.rft.vllm is None or params.rft.vllm.mode != "server":
        parser.error("rft.vllm.mode is not server: python -m flows.compose rft=vllm_server")
    save_whole(load_model(params.model), folder)
    write_processor(params, None, folder)
    print(serve_command(params, folder))


if __name__ == "__main__":
    main()
