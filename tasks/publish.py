"""Show a study in MLflow: one run with its report, below it one a policy and grid point, rebuilt from files alone.

    python -m tasks.publish --pool data/pool --slices data/slice --policies policies --grades grades --report report

Losing MLflow loses nothing: this command brings it back. Run twice, it changes nothing.
"""

import argparse
import itertools
import json
from io import BytesIO
from pathlib import Path

from huggingface_hub import ModelCard
from PIL import Image

from tasks import tracking
from tasks.data.records import read_jsonl
from tasks.params import Params, load_params
from tasks.reporting.pictures import draw, gold_layer, rft_layer, sft_layer

NUM_PICTURES = 8  # of a run, the same questions for every policy


def _spread(rows: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """`NUM_PICTURES` of them, evenly over the test."""
    return rows[:: max(1, len(rows) // NUM_PICTURES)][:NUM_PICTURES]


def pictures(predictions: Path, pool: Path, policy: str) -> dict[str, Image.Image]:
    """`NUM_PICTURES` questions about a picture, spread evenly over the test, by their place in it: the true boxes and
    those of `policy`, drawn as in the report.
    """
    rows = [(i, row) for i, row in enumerate(read_jsonl(predictions)) if row["image"] is not None]
    drawn = {}
    for i, row in _spread(rows):
        layers = [gold_layer(row["gold"]), rft_layer(policy, row["boxes"], row["confidences"])]
        drawn[f"{i:05d}"] = Image.open(BytesIO(draw(pool / row["image"], layers)))
    return drawn


def results(
    grade: Path, policy: Path | None, pool: Path, model: str, *, card: Path | None = None, reranked: bool = False
) -> tracking.Results:
    """What the folders of a grade and of its policy hold, and `card`; the base has neither of the latter two."""
    metrics = json.loads((grade / "metrics.json").read_text(encoding="utf-8"))
    if reranked:
        metrics["rerank"] = json.loads((grade / "rerank.json").read_text(encoding="utf-8"))["rerank"]
    details = json.loads((grade / "details.json").read_text(encoding="utf-8"))
    history = json.loads((policy / "history.json").read_text(encoding="utf-8")) if policy else {}
    counts = {f"failures/{code}": count for code, count in details["failures"].items()}
    counts |= {key: metrics.pop(key) for key in ("num_questions", "num_pictures", "seconds") if key in metrics}
    counts |= {key: history[key] for key in ("best_step", "num_labelled") if key in history}
    counts |= {"training_seconds": history["seconds"]} if history else {}
    measured = {m: v for m, v in metrics.items() if m not in ("k", "seed", "reward")}
    return tracking.Results(
        curves={"train": history.get("steps", []), "val": history.get("val", [])},
        metrics={"reward": metrics["reward"], **measured},
        counts=counts,
        budget=history.get("budget") or {},
        pictures=pictures(grade / "predictions.jsonl", pool, metrics["policy"]),
        predictions=grade / "predictions.jsonl",
        model=model,
        card=ModelCard.load(card).text.strip() if card else None,
        weights_hash=tracking.data_hash(*sorted(policy.glob("*.safetensors"))) if policy else None,
    )


def answers(params: Params, pool: Path, grades: Path) -> dict[str, list]:
    """Columns of a table: at each k, of the first seed, `NUM_PICTURES` questions and what every policy answered; a
    picture has the true boxes, SFT's and the first algorithm's. Where the test has pictures, only questions about them.
    """
    grid, table = params.grid, {}
    for k in sorted(grid.k):
        folders = {"base": grades / "base"} | {p: grades / f"{p}-{k}-{grid.seed[0]}" for p in grid.policy}
        read = {policy: list(read_jsonl(folder / "predictions.jsonl")) for policy, folder in folders.items()}
        about_pictures = [(i, row) for i, row in enumerate(read["base"]) if row["image"] is not None]
        for i, row in _spread(about_pictures or list(enumerate(read["base"]))):
            cells = {"k": k, "asked": row["asked"]}
            if row["image"] is not None:
                cells["picture"] = _compared(pool, row, read["sft"][i], grid.algorithm[0], read[grid.algorithm[0]][i])
            for policy, rows in read.items():
                cells |= {policy: rows[i]["completion"], f"{policy} reward": rows[i]["reward"]}
            for column, cell in cells.items():
                table.setdefault(column, []).append(cell)
    return table


def _compared(pool: Path, row: dict, sft: dict, algorithm: str, rft: dict) -> Image.Image:
    layers = [
        gold_layer(row["gold"]),
        sft_layer(sft["boxes"], sft["confidences"]),
        rft_layer(algorithm.upper(), rft["boxes"], rft["confidences"]),
    ]
    return Image.open(BytesIO(draw(pool / row["image"], layers)))


def reported(params: Params, pool: Path, grades: Path, report: Path) -> tracking.Reported:
    """What the study's own run is to hold: the folder `report`, its numbers over k, a table of answers."""
    rows = []
    for at, told in json.loads((report / "statistics.json").read_text(encoding="utf-8")).items():
        row = {"step": int(at.removeprefix("k="))}
        row |= {policy: score["reward"]["estimate"] for policy, score in told["scores"].items()}
        for name, difference in told["differences"].items():
            ends = difference["interval"] | {"p_holm": difference["p_holm"]}
            row |= {f"{name}/{end}": value for end, value in ends.items()}
        rows.append(row)
    said = (report / "summary.txt").read_text(encoding="utf-8").split("\n\n")[0]
    return tracking.Reported(params.study, params.model_dump(), report, said, rows, answers(params, pool, grades))


def publish(params: Params, pool: Path, slices: Path, policies: Path, grades: Path, report: Path) -> list[str]:
    """Publish the study, the base and every point of the grid; the ids of the runs of the last two."""
    grid = params.grid
    tracking.publish_study(reported(params, pool, grades, report))
    records = [pool / "train.jsonl", pool / "test.jsonl"]  # they hold the pixel hashes, the slice's questions do not
    points = [("base", None, None), *itertools.product(grid.policy, grid.k, grid.seed)]
    runs = []
    for policy, k, seed in points:
        files = records[1:] if k is None else [*records, slices / f"{k}-{seed}" / "train.jsonl"]
        point = tracking.Point(params.study, policy, k, seed, params.model_dump(), tracking.data_hash(*files))
        folder = None if k is None else policies / point.name
        model = str(folder) if folder else params.model.path
        card = report / "cards" / f"{point.name}.md" if folder else None
        shown = results(grades / point.name, folder, pool, model, card=card, reranked=policy in grid.rerank)
        runs.append(tracking.publish(point, shown))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.publish", description="Show the study in MLflow.")
    for name in ("pool", "slices", "policies", "grades", "report"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    params = load_params()
    runs = publish(params, **vars(arguments))
    print(f"{len(runs)} runs in the MLflow experiment {params.study}")


if __name__ == "__main__":
    main()
