"""A page to try a study's policies: a picture, a question, and what base, SFT and RFT answer, side by side.

    python -m tasks.app --pool data/pool --policies policies          # make app

On 127.0.0.1 only, for there is no login. The page is one file that asks nothing of any other machine; the answers are
those of `tasks.predict`.
"""

import argparse
import base64
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Annotated, Literal

import uvicorn
from fastapi import Body, FastAPI, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment

from tasks.data.questions import ask
from tasks.data.records import Question, read_records
from tasks.params import Params, ParamsError, load_params
from tasks.predict import PARSERS, PredictError, Prediction, Predictor
from tasks.reporting import words

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("app.html.j2")
NUM_SAMPLES = 12
# What the page may do: talk to this server, show its pictures, run the script that stands in it.
SECURITY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'"
)


def trained(policies: Path, names: list[str], k: int, seed: int) -> dict[str, Path]:
    """{name: folder} of the policies that are trained at this point of the grid; `PredictError` where none is."""
    folders = {name: policies / f"{name}-{k}-{seed}" for name in names}
    found = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not found:
        raise PredictError(
            f"{policies}: none of {', '.join(f.name for f in folders.values())}; `dvc repro` trains them"
        )
    return found


def samples(pool: Path) -> list[Question]:
    """The first question about each of `NUM_SAMPLES` test pictures, spread evenly over the test."""
    try:
        asked = ask(read_records(pool / "test.jsonl"), [], 0)
    except FileNotFoundError:
        raise PredictError(f"{pool}: no test.jsonl; `dvc repro prepare` makes it") from None
    first: dict[str, Question] = {}
    for question in asked:
        if question.image is not None:
            first.setdefault(question.image, question)
    questions = list(first.values())
    return questions[:: max(1, len(questions) // NUM_SAMPLES)][:NUM_SAMPLES]


def row(name: str, found: Prediction) -> dict[str, str | None]:
    """What the page shows of an answer: `stated` in words, the annotated picture as a data URI."""
    boxes = [f"[{', '.join(f'{x:.0f}' for x in box)}]" for box in found.boxes]
    sure = [f"{box} with confidence {c:.2f}" for box, c in zip(boxes, found.confidences, strict=False)] or boxes
    nothing = "nothing that can be read" if found.failure else "no objects"
    return {
        "name": name,
        "completion": found.completion,
        "stated": found.label or "; ".join(sure) or nothing,
        "failure": found.failure,
        "picture": f"data:image/png;base64,{base64.b64encode(found.annotated).decode()}",
    }


def make_app(title: str, predictors: dict[str, Predictor], shown: list[Question], pool: Path) -> FastAPI:
    """The page at /, the pictures of the questions `shown` at /samples/N, and /answer, to which a picture is posted."""
    app = FastAPI(openapi_url=None)  # the pages of documentation would fetch scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # under no name of another site
    alone = Lock()
    template = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    page = template.render(title=title, tasks=list(PARSERS), samples=shown, policies=list(predictors))

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": SECURITY})

    @app.get("/samples/{number}")
    def sample(number: int) -> FileResponse:
        if not 0 <= number < len(shown):
            raise HTTPException(404, f"no sample {number}; there are {len(shown)}")
        return FileResponse(pool / shown[number].image)

    @app.post("/answer")
    def answer(
        task: Literal[tuple(PARSERS)],
        asked: str,
        content: Annotated[bytes, Body(media_type="application/octet-stream")],
    ) -> list[dict]:
        with alone, TemporaryDirectory() as folder:
            picture = Path(folder) / "picture"
            picture.write_bytes(content)
            try:
                return [row(name, predictor.predict(picture, task, asked)) for name, predictor in predictors.items()]
            except PredictError as error:
                raise HTTPException(422, str(error).replace(f"{picture}", "the picture")) from None

    return app


def load(params: Params, policies: Path, k: int, seed: int) -> dict[str, Predictor]:
    """{name on the page: model} of the base and of the policies that are trained at this point."""
    folders = trained(policies, params.grid.policy, k, seed)
    return {words.name(policy): Predictor(params, folder) for policy, folder in {"base": None, **folders}.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.app", description="Try the policies of a study on a page.")
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--policies", type=Path, required=True)
    parser.add_argument("--k", type=int, help="default: the grid's largest")
    parser.add_argument("--seed", type=int, help="default: the grid's first")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    args = parser.parse_args()
    try:
        params = load_params()
        grid = params.grid
        k, seed = (max(grid.k) if args.k is None else args.k), (grid.seed[0] if args.seed is None else args.seed)
        shown = samples(args.pool)
        app = make_app(f"{params.study}, k = {k}", load(params, args.policies, k, seed), shown, args.pool)
    except (PredictError, ParamsError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"http://{HOST}:{args.port}    Ctrl-C stops it", flush=True)
    uvicorn.run(app, host=HOST, port=args.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
