"""The model card of a trained folder, its README.md: what it was made from, what it cost, how it is loaded.

The front matter is the Hub's (https://huggingface.co/docs/hub/model-cards). No test score is known when a policy has
been trained; the card says where they will stand: `tasks.report` writes it again with them.
"""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from tasks.params import Model

TEXT = """# {policy}, k = {k}, seed {seed}

Trained from `{base}` by kshot-rft.

## Data

k = {k} a category, {num_labelled} labelled examples in all. SHA-256 of the training questions:
`{train_sha256}`.

## Training

```
{command}
```

under the params.yaml whose sections `model` and `prompt` stand in history.json.

| | |
| --- | --- |
{numbers}

Val chose the checkpoint, so its reward flatters. Scores on test, with intervals and against SFT, end the same card in
report/cards/{policy}-{k}-{seed}.md of the study, and in MLflow's model registry.

## Use

```python
from transformers import AutoProcessor, {auto}

{load}
processor = AutoProcessor.from_pretrained(".")  # Qwen-VL: needs torchvision
```

Boxes are in `{coordinates}` units (tasks/models/coordinates.py). `python -m tasks.predict` asks it a question.

## Limits

It learned from {num_labelled} labelled examples, with one prompt a task; nothing is known of other prompts and other
categories, and one seed says nothing about another training run. Licence: the base model's ({license}).
"""


WHOLE = 'model = {auto}.from_pretrained(".")'
ADAPTER = """from peft import PeftModel

model = {auto}.from_pretrained("{path}")
# where there is a folder `under`, first: model = PeftModel.from_pretrained(model, "under").merge_and_unload()
model = PeftModel.from_pretrained(model, ".")"""


def licence(origin: str | Path) -> str:
    """That of the folder that a run began with, by its card; 'other' where there is none to read."""
    card = Path(origin) / "README.md"
    return (card.is_file() and ModelCard.load(card).data.license) or "other"


def numbers(history: dict) -> dict[str, float | int | str]:
    """{what: how much} of a run, from its history.json: the choice of the checkpoint, then the costs."""
    rewards = {point["step"]: point["reward"] for point in history["val"]}
    best = {"best val reward": rewards[history["best_step"]]} if rewards else {}
    budget = {name.replace("_", " "): value for name, value in history.get("budget", {}).items()}
    return {"best step": history["best_step"], **best, "seconds": history["seconds"], **budget}


def model_card(model: Model, origin: str | Path, history: dict, command: str, sees: bool) -> str:
    """The text of README.md. `origin` is the folder or hub id that the run began with, `history` the content of
    history.json, `command` what trained the folder, and `sees` whether the model takes pictures.
    """
    front = ModelCardData(
        license=licence(origin),
        library_name="transformers",
        pipeline_tag="image-text-to-text" if sees else "text-generation",
        base_model=model.path,
        tags=["kshot-rft", history["policy"]],
    )
    told = {name: history[name] for name in ("policy", "k", "seed", "num_labelled", "train_sha256")}
    auto = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    alone = model.lora is not None and model.lora.output == "adapter"
    text = TEXT.format(
        **told,
        load=(ADAPTER if alone else WHOLE).format(auto=auto, path=model.path),
        base=f"{model.path}@{model.revision}" if model.revision else model.path,
        command=command,
        numbers="\n".join(f"| {name} | {value} |" for name, value in numbers(history).items()),
        auto=auto,
        coordinates=model.coordinates,
        license=front.license,
    )
    return f"---\n{front.to_yaml()}\n---\n{text}"
