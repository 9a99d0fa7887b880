"""Before SFT and RFT: what could not be learned or rewarded is refused, and the message says what to do."""

import dataclasses
import time
import warnings

import pytest
from transformers import PreTrainedModel

from tasks import sft
from tasks.data.records import Question
from tasks.models.preflight import PreflightError, check, taught
from tasks.models.training import Job
from tasks.params import load_params


@pytest.fixture
def make_job(data):
    def make(**sections: dict) -> Job:
        """With keys of sections changed."""
        raw = load_params().model_dump()
        for name, values in sections.items():
            raw[name] |= values
        return Job(type(load_params()).model_validate(raw), "sft", data / "pool", data / "slice", None, 0)

    return make


@pytest.fixture(scope="module")
def model(data) -> PreTrainedModel:
    return Job(load_params(), "sft", data / "pool", data / "slice", None, 0).load()


@pytest.mark.parametrize("convention", ["relative_1000", "absolute"])
def test_the_shipped_model_passes_in_seconds(make_job, model, convention):
    job, began = make_job(model={"coordinates": convention}), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if convention == "relative_1000" else "ignore")
        check(job, model)
    assert time.process_time() - began < 10


def test_of_many_gold_answers_some_are_checked_the_same_at_every_start(make_job, model, monkeypatch, capsys):
    job, asked = make_job(), []
    job.train = [dataclasses.replace(question, record_id=str(n)) for n, question in enumerate(job.train * 20)]
    num, grade = len(job.gold_pairs()), job.grader
    job.grader = lambda text, question: asked.append(question.record_id) or grade(text, question)
    for _ in range(2):
        check(job, model)
    assert capsys.readouterr().err.splitlines() == [f"preflight: checks 500 of {num} gold answers"] * 2
    assert num > 500 and len(asked) == 2 * 2 * 500  # each is graded as it is, and against what is stated
    assert asked[:1000] == asked[1000:]


@pytest.mark.parametrize("convention", ["relative_1000", "absolute"])
def test_answers_without_thinking_pass_too(make_job, model, convention):
    words = dict.fromkeys(("maths", "program", "ranking"))
    job = make_job(prompt={"thinking": False, **words}, model={"coordinates": convention})
    with warnings.catch_warnings():
        warnings.simplefilter("error" if convention == "relative_1000" else "ignore")
        check(job, model)
    assert all("<think>" not in text for _, text in job.gold_pairs())


def test_sft_is_checked_before_its_first_step(make_job, tmp_path):
    job = make_job()
    job.processor.tokenizer.padding_side = "right"
    with pytest.raises(PreflightError, match="pads on the right"):
        sft.train(job, job.params.sft, tmp_path / "sft")
    assert not (tmp_path / "sft").exists()


def test_image_tokens_that_are_not_the_features_are_refused(make_job, model):
    job = make_job()
    job.processor.image_processor.merge_size = 1  # of another model: four times as many places
    with pytest.raises(PreflightError, match=r"\d+ image tokens .* \d+ features; .* copy both from the same one"):
        check(job, model)


def test_a_tag_that_the_tokenizer_drops_is_refused(make_job, model):
    job = make_job()
    job.processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>"]})
    with pytest.raises(PreflightError, match="must not be special tokens"):
        check(job, model)


def test_boxes_that_do_not_come_back_are_refused(make_job, model, monkeypatch):
    job = make_job()
    write = job.coordinates.write

    def swapped(question):
        return write(dataclasses.replace(question, boxes=tuple((b, a, d, c) for a, b, c, d in question.boxes)))

    monkeypatch.setattr(job.coordinates, "write", swapped)
    with pytest.raises(PreflightError, match=r"read back as .* correct model\.coordinates"):
        check(job, model)


def test_gold_that_the_rubric_does_not_pay_in_full_is_refused(make_job, model):
    detection = {**load_params().reward.detection.model_dump(), "length": 1.0, "max_characters": 40}
    with pytest.raises(PreflightError, match=r"earns 0\.\d+, not 1 .* raise reward\.detection\.max_characters"):
        check(make_job(reward={"detection": detection}), model)


def test_gold_programs_that_miss_their_answers_are_named_together(make_job, model):
    def row(name: str, body: str, gold: str) -> Question:
        return Question(name, None, "program", "How many?", label=gold, thoughts=(f"def solution():\n    {body}",))

    job, right = make_job(), row("row-0", "return 3", "3")
    missed = [row("row-1", "return 2", "3"), row("row-2", "return 1 / 0", "3"), row("row-3", "return 3", "c")]
    job.train = [right, *missed]
    message = (
        r"3 of 4 gold programs miss .* correct or remove these rows .*: row-1 'How many\?' gives 2, not 3; "
        r"row-2 .* gives bad_program, not 3; row-3 .* gives bad_result, not c$"
    )
    with pytest.raises(PreflightError, match=message):
        check(job, model)
    job.train = [right, *missed * 7]
    with pytest.raises(PreflightError, match=r"21 of 22 .*; and 1 more$"):
        check(job, model)
    job.train = [right]
    check(job, model)


def test_gold_that_rounding_makes_worthless_is_told_of(make_job, model):
    job = make_job()
    tiny = ((10.4, 10.4, 11.6, 11.6),)  # written as 10 to 12: the IoU is 0.36
    job.train = [dataclasses.replace(job.train[0], boxes=tiny), *job.train[1:]]
    with pytest.warns(UserWarning, match=rf"1 of {len(job.train)} gold answers lose their boxes by rounding"):
        check(job, model)


def test_gold_too_long_to_be_generated_is_told_of(make_job, model):
    with pytest.warns(UserWarning, match=r"do not fit in grade\.max_new_tokens 8"):
        check(make_job(grade={"max_new_tokens": 8}), model)


def test_units_that_the_family_does_not_write_are_told_of(make_job, model):
    with pytest.warns(UserWarning, match="qwen3_vl writes boxes as relative_1000"):
        check(make_job(model={"coordinates": "absolute_resized"}), model)


def test_a_revision_that_is_not_pinned_is_told_of(make_job, model):
    job = make_job()
    job.params = job.params.model_copy(
        update={"model": job.params.model.model_copy(update={"path": "Qwen/Qwen3-0.6B"})}
    )
    with pytest.warns(UserWarning, match=r"Qwen/Qwen3-0\.6B without a revision: .* give model\.revision a commit"):
        check(job, model)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template .* take the instruction-tuned model"),
        ("{{ 'user: <|vision_start|><|image_pad|><|vision_end|>' }}", "drops the question"),
        (
            "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}",
            "does not go on from the prompt .*<\\|im_end",
        ),
    ],
    ids=["none", "without the question", "without an end of turn"],
)
def test_a_chat_template_that_teaches_something_else_is_refused(make_job, template, message):
    job = make_job()
    job.processor.chat_template = job.processor.tokenizer.chat_template = template
    question, text = job.gold_pairs()[0]
    with pytest.raises(PreflightError, match=message):
        taught(job, question, text)


def test_a_chat_template_that_opens_the_thinking_is_refused(make_job, model):
    job = make_job()
    template = job.processor.chat_template.replace("assistant\n", "assistant\n<think>\n")
    job.processor.chat_template = job.processor.tokenizer.chat_template = template
    with pytest.raises(PreflightError, match=r"opens the thinking .* take '<think>' out"):
        check(job, model)


def test_what_is_taught_is_what_the_template_makes_of_the_answer(make_job):
    job = make_job()
    question, text = job.gold_pairs()[0]
    assert taught(job, question, text) == text
    spaced = job.processor.chat_template.replace("{{ part['text'] }}", " {{ part['text'] }}")
    job.processor.chat_template = spaced
    assert taught(job, question, text) == f" {text}"


def test_steps_too_small_for_half_precision_are_told_of(make_job, model):
    with pytest.warns(UserWarning, match=r"model\.dtype bfloat16 rounds steps of learning rate 1e-06 away"):
        low = {"learning_rate": 1e-6}
        check(make_job(model={"dtype": "bfloat16"}, sft=low, warmup=low), model)
