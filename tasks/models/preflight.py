"""Checks before any training, for SFT and RFT alike, in seconds for a few pictures: each failure says what to do."""

import dataclasses
import random
import re
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tasks.data.questions import messages
from tasks.data.records import Question
from tasks.graders.batch import grade_all
from tasks.graders.frame import Failure as Fault
from tasks.graders.jobs import JobGrader
from tasks.graders.openai import Failure
from tasks.graders.rubric import Grade
from tasks.models.adapters import without_adapter
from tasks.models.generate import encode
from tasks.models.loading import tokenizer_of
from tasks.models.precision import LEAST_STEP
from tasks.models.training import Job

# What the published weights of a family write boxes in (tasks.models.coordinates).
CONVENTIONS = {"qwen2_vl": "relative_1000", "qwen2_5_vl": "absolute_resized", "qwen3_vl": "relative_1000"}
NEVER_RUNS = re.compile("exception: (ImportError|ModuleNotFoundError|NameError|SyntaxError|IndentationError)")
MISSED = {Fault.WRONG_ANSWER, Fault.BAD_RESULT, Fault.BAD_PROGRAM, Fault.PROGRAM_LIMIT}
MOST_NAMED = 20
MOST_GOLD = 500  # graded twice each, one after the other: a program takes milliseconds, and a data set has thousands
MOST_CUT = 0.05  # a crowded picture or two may be too long


class PreflightError(RuntimeError):
    """The run would learn something else than it is asked to, or nothing."""


def check(job: Job, model: PreTrainedModel | PeftModel) -> None:
    """Raises `PreflightError`; warns of what costs some reward and stops nothing."""
    base = without_adapter(model)
    if job.train[0].image is not None:
        _check_image_tokens(job, base)
    _check_padding(job)
    _check_thinking(job)
    pairs = [(question, taught(job, question, text)) for question, text in _some(job)]
    _check_programs(job, [pair for pair in pairs if pair[0].task == "program"])
    # a job's rewards have a scale of their own
    grades = [_check_gold(job, question, text) for question, text in pairs if question.task != "job"]
    _check_job_grader(job)
    _warn(job, base, grades, [text for _, text in pairs])


def _some(job: Job) -> list[tuple[Question, str]]:
    """Gold pairs to check, in their order, the same at every start; how many of how many is told on stderr."""
    pairs = job.gold_pairs()
    chosen = sorted(random.Random(job.seed).sample(range(len(pairs)), min(MOST_GOLD, len(pairs))))
    print(f"preflight: checks {len(chosen)} of {len(pairs)} gold answers", file=sys.stderr)
    return [pairs[n] for n in chosen]


@torch.no_grad()
def _check_image_tokens(job: Job, model: PreTrainedModel) -> None:
    """As many places in the prompt as the tower gives features for the first picture."""
    encoded = encode(job.processor, job.params.prompt, job.train[:1], job.pool)
    places = int((encoded["input_ids"] == model.config.image_token_id).sum())
    taken = ("pixel_values", "image_grid_thw", "pixel_attention_mask")
    pixels = {name: encoded[name].to(model.device) for name in taken if name in encoded}
    features = sum(map(len, model.model.get_image_features(**pixels, return_dict=True).pooler_output))
    if places != features:
        raise PreflightError(
            f"{job.params.model.path}: the prompt has {places} image tokens for {job.train[0].image}, of which the "
            f"model makes {features} features; its processor and its weights are not of one model (image_token_id, "
            "patch_size, merge_size): copy both from the same one"
        )


def taught(job: Job, question: Question, text: str) -> str:
    """What SFT teaches for a gold answer `text`: what the chat template makes of it, up to the end of the turn.

    Raises `PreflightError` where the template is missing, drops the question, or does not go on from what the model
    reads when it answers.
    """
    path, processor, asked = job.params.model.path, job.processor, messages(job.params.prompt, question)
    said = [{"type": "text", "text": text}] if question.image is not None else text
    prompt = _prompt(job, question)
    whole = processor.apply_chat_template([*asked, {"role": "assistant", "content": said}], tokenize=False)
    content = asked[-1]["content"]
    words = content if isinstance(content, str) else content[-1]["text"]
    if words.strip() not in prompt:
        raise PreflightError(
            f"{path}: its chat template drops the question {words[:200]!r}: {prompt[:200]!r}; correct it"
        )
    completion, end = whole.removeprefix(prompt), tokenizer_of(processor).eos_token
    if completion == whole or end not in completion:
        raise PreflightError(
            f"{path}: its chat template does not go on from the prompt {prompt[-100:]!r} with an answer that ends in "
            f"{end!r}, but with {whole[-200:]!r}: correct the template or the tokenizer's eos_token"
        )
    return completion.partition(end)[0]


def _prompt(job: Job, question: Question) -> str:
    """What the model reads before it answers."""
    asked = messages(job.params.prompt, question)
    try:
        return job.processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    except ValueError as error:
        raise PreflightError(
            f"{job.params.model.path}: no chat template ({error}); take the instruction-tuned model, or add one"
        ) from None


def _check_padding(job: Job) -> None:
    mask = tokenizer_of(job.processor)(["a", "a b c d"], padding=True, return_tensors="pt")["attention_mask"]
    if not mask[:, -1].all():
        raise PreflightError(
            f"{job.params.model.path}: its tokenizer pads on the right, so that answers in a batch would go on from "
            "padding; load it by tasks.models.loading.load_processor, which pads on the left"
        )


def _check_thinking(job: Job) -> None:
    """Of a template that writes '<think>' itself (DeepSeek-R1's, Qwen3-Thinking's) no completion would hold it, so that
    thinking that was cut off could not be told from an answer.
    """
    prompt = _prompt(job, job.train[0])
    if prompt.rstrip().endswith("<think>"):
        raise PreflightError(
            f"{job.params.model.path}: its chat template opens the thinking ({prompt[-60:]!r}), which graders look for "
            "in what the model says: take '<think>' out of its generation prompt (chat_template.jinja)"
        )


def _check_programs(job: Job, pairs: list[tuple[Question, str]]) -> None:
    """All gold programs that miss their answers are named at once: published files hold a few, and no setting of the
    reward mends them.
    """
    questions, texts = [question for question, _ in pairs], [text for _, text in pairs]
    missed = [
        f"{question.record_id} {question.asked[:80]!r} gives {grade.label or grade.failure}, not {question.label}"
        for question, grade in zip(questions, grade_all(job.grader, texts, questions), strict=True)
        if grade.failure in MISSED and grade.reward < 1 - 1e-6
    ]
    if missed:
        more = f"; and {len(missed) - MOST_NAMED} more" if len(missed) > MOST_NAMED else ""
        raise PreflightError(
            f"{len(missed)} of {len(pairs)} gold programs miss the answers of their rows: correct or remove these rows "
            f"({Fault.PROGRAM_LIMIT}: or raise reward.program.seconds, memory_mb): "
            f"{'; '.join(missed[:MOST_NAMED])}{more}"
        )


def _check_gold(job: Job, question: Question, text: str) -> Grade:
    """The grade of a gold answer as it is taught: `text` must survive the tokenizer, be read back, and earn 1 but for
    rounding.
    """
    tokenizer = tokenizer_of(job.processor)
    name, reward = f"{question.record_id}, {question.task} {question.asked!r}", f"reward.{question.task}"
    decoded = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    if decoded != text:
        raise PreflightError(
            f"{name}: the tokenizer of {job.params.model.path} turns the gold answer {text[:200]!r} into "
            f"{decoded[:200]!r}; the tags must not be special tokens, nor a letter unknown: correct its tokenizer"
        )
    grade = job.grader(text, question)
    units = [1000 / side + 1e-6 for side in job.coordinates.sides(question)] * 2
    near = len(grade.boxes) == len(question.boxes) and all(
        abs(stated - gold) <= unit
        for pair in zip(grade.boxes, question.boxes, strict=True)
        for stated, gold, unit in zip(*pair, units, strict=True)
    )
    if not near:
        raise PreflightError(
            f"{name}: the gold boxes {question.boxes} are read back as {grade.boxes} from {text[:200]!r} "
            f"({grade.failure}); correct model.coordinates, or the question's labels"
        )
    # against what is stated, so that rounding to whole units costs nothing
    stated = job.grader(text, dataclasses.replace(question, boxes=grade.boxes))
    if stated.reward < 1 - 1e-6:
        raise PreflightError(
            f"{name}: the gold answer earns {stated.reward:.3f}, not 1 ({stated.sub_rewards}, {stated.failure}): "
            f"{text[:200]!r}; correct {reward} (a `length` grader: raise {reward}.max_characters)"
        )
    return grade


def _check_job_grader(job: Job) -> None:
    """Each grader of an imported job that asks no judge grades an answer to the first row: the one that SFT is taught,
    or none. `PreflightError` where its source does not run here whatever the answer; a warning where it fails on this.
    """
    asked = next((question for question in job.train if question.task == "job"), None)
    if asked is None:
        return
    output = next(iter(job.coordinates.write(asked)), "")
    for name, score in JobGrader(job.params.reward.job).try_out(output, asked).items():
        if score.failure is None:
            continue
        said = f"reward.job.grader: the grader {name!r} fails on {asked.record_id}: {score.detail}"
        if score.failure == Failure.PYTHON_GRADER_SERVER or NEVER_RUNS.match(score.detail):
            raise PreflightError(f"{said}; correct its source, or install what it imports (docs/openai_graders.md)")
        warnings.warn(f"{said} (answer {output[:200]!r}); a grader that always fails stops the run", stacklevel=3)


def _warn(job: Job, model: PreTrainedModel, grades: list[Grade], texts: list[str]) -> None:
    """`texts` are the gold answers."""
    lost = sum(grade.failure is not None for grade in grades)
    if lost:
        warnings.warn(
            f"{lost} of {len(grades)} gold answers lose their boxes by rounding to whole units: these are too small to "
            "earn a reward; leave them out, or lower reward.detection.iou_threshold",
            stacklevel=3,
        )
    most = job.params.grade.max_new_tokens
    cut = sum(
        len(ids) >= most for ids in tokenizer_of(job.processor)(texts)["input_ids"]
    )  # an end of turn comes on top
    if cut > MOST_CUT * len(texts):
        warnings.warn(
            f"{cut} of {len(texts)} gold answers do not fit in grade.max_new_tokens {most}, and a policy that writes "
            "them is cut off without a reward: raise it",
            stacklevel=3,
        )
    params, section = job.params.model, getattr(job.params, job.policy if job.policy in ("warmup", "sft") else "rft")
    if params.lora is None and params.dtype != "float32" and section.learning_rate < LEAST_STEP:
        warnings.warn(
            f"model.dtype {params.dtype} rounds steps of learning rate {section.learning_rate:g} away where whole "
            "weights learn: take float32 with model.compute bfloat16, or model.lora, whose adapter is held in float32",
            stacklevel=3,
        )
    if params.revision is None and not params.geometry and not Path(params.path).is_dir():
        warnings.warn(
            f"{params.path} without a revision: another day may bring other weights; give model.revision a commit",
            stacklevel=3,
        )
    convention = CONVENTIONS.get(model.config.model_type, job.params.model.coordinates)
    if convention != job.params.model.coordinates and any(q.boxes for q in job.train):
        warnings.warn(
            f"{model.config.model_type} writes boxes as {convention}; model.coordinates is "
            f"{job.params.model.coordinates}, with which its IoU starts at 0",
            stacklevel=3,
        )
