"""What `python -m tasks.graders` prints for a grader of OpenAI's: the answers of the hosted endpoints.

Source: developers.openai.com/api/reference/resources/fine_tuning/subresources/alpha/subresources/graders, `run` and
`validate`. Failures that only hosted training has, `truncated_observation` and `unresponsive_reward`, are always false.
"""

from collections import Counter
from contextlib import ExitStack

from tasks.graders.openai.failures import Failure
from tasks.graders.openai.grade import OpenAIGrade, make_openai_grader
from tasks.graders.openai.judge import Judge
from tasks.graders.openai.schema import LabelModel, Multi, Python, ScoreModel, Spec
from tasks.graders.sandbox import Sandbox

DETAILS = {
    "python_grader_server_error_type": Failure.PYTHON_GRADER_SERVER,
    "python_grader_runtime_error_details": Failure.PYTHON_GRADER_RUNTIME,
    "model_grader_server_error_details": Failure.MODEL_GRADER_SERVER,
}


def run_grader(spec: Spec, sample: dict, item: dict, isolation: str = "auto") -> dict:
    """The answer of `graders/run`. A sandbox of this isolation and a judge are started where the spec needs them, the
    judge from OPENAI_BASE_URL and OPENAI_API_KEY; ValueError where they are not set.
    """
    parts = list(spec.graders.values()) if isinstance(spec, Multi) else [spec]
    with ExitStack() as stack:
        judged = any(isinstance(part, ScoreModel | LabelModel) for part in parts)
        judge = stack.enter_context(Judge.from_environment()) if judged else None
        programmed = any(isinstance(part, Python) for part in parts)
        sandbox = stack.enter_context(Sandbox(isolation=isolation, workers=1)) if programmed else None
        return answer(spec, make_openai_grader(spec, sandbox, judge)(sample, item))


def answer(spec: Spec, grade: OpenAIGrade) -> dict:
    """A grade in the shape of the hosted endpoint."""
    tokens: Counter = Counter()
    for usage in grade.usage.values():
        tokens.update(usage)  # where + would drop what is 0
    errors = {f"{failure}_error": failure in grade.failures for failure in Failure}
    errors |= {"truncated_observation_error": False, "unresponsive_reward_error": False}
    return {
        "reward": grade.reward,
        "metadata": {
            "name": spec.name or spec.type,
            "type": spec.type,
            "errors": errors | {key: grade.details.get(failure) for key, failure in DETAILS.items()},
            "execution_time": grade.seconds,
            "scores": grade.sub_rewards,
            "token_usage": dict(tokens) or None,
            "sampled_model_name": next(iter(grade.usage)) if len(grade.usage) == 1 else None,
        },
        "sub_rewards": grade.sub_rewards,
        "model_grader_token_usage_per_model": grade.usage,
    }
