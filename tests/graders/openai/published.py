"""Grader objects as OpenAI publishes them, read from stored copies of the pages that each names. Unchanged."""

GUIDE = "developers.openai.com/api/docs/guides/graders"
REFERENCE = "platform.openai.com/docs/api-reference/graders"
RFT_GUIDE = "developers.openai.com/api/docs/guides/reinforcement-fine-tuning"

STRING_CHECK = {  # REFERENCE, String Check Grader
    "type": "string_check",
    "name": "Example string check grader",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "operation": "eq",
}
TEXT_SIMILARITY = {  # REFERENCE, Text Similarity Grader
    "type": "text_similarity",
    "name": "Example text similarity grader",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "evaluation_metric": "fuzzy_match",
}
SCORE_MODEL = {  # GUIDE, Score model graders: the runnable example
    "type": "score_model",
    "name": "my_score_model",
    "input": [
        {
            "role": "system",
            "content": "You are an expert grader. If the reference and model answer are exact matches, output a score "
            "of 1. If they are somewhat similar in meaning, output a score in 0.5. Otherwise, give a score of 0.",
        },
        {
            "role": "user",
            "content": "Reference: {{ item.reference_answer }}. Model answer: {{ sample.output_text }}",
        },
    ],
    "pass_threshold": 0.5,
    "model": "o4-mini-2025-04-16",
    "range": [0, 1],
    "sampling_params": {"max_completions_tokens": 32768, "top_p": 1, "reasoning_effort": "medium"},
}
RUN_SCORE_MODEL = {  # the reference of graders/run: content as a list of parts
    "type": "score_model",
    "name": "Example score model grader",
    "input": [
        {
            "role": "user",
            "content": [
                {
                    "type": "input_text",
                    "text": "Score how close the reference answer is to the model answer on a 0-1 scale. Return only "
                    "the score.\n\nReference answer: {{item.reference_answer}}\n\nModel answer: {{sample.output_text}}",
                }
            ],
        }
    ],
    "model": "gpt-5-mini",
    "sampling_params": {"temperature": 1, "top_p": 1, "seed": 42},
}
LABEL_MODEL = {  # REFERENCE, Label Model Grader: content as one part
    "name": "First label grader",
    "type": "label_model",
    "model": "gpt-4o-2024-08-06",
    "input": [
        {
            "type": "message",
            "role": "system",
            "content": {
                "type": "input_text",
                "text": "Classify the sentiment of the following statement as one of positive, neutral, or negative",
            },
        },
        {
            "type": "message",
            "role": "user",
            "content": {"type": "input_text", "text": "Statement: {{item.response}}"},
        },
    ],
    "passing_labels": ["positive"],
    "labels": ["positive", "neutral", "negative"],
}
GUIDE_LABEL_MODEL = {  # GUIDE as of 2025, Label model graders: sampling_params.max_tokens
    "type": "label_model",
    "name": "my_label_model",
    "input": [
        {"role": "system", "content": "You are an expert grader."},
        {
            "role": "user",
            "content": "Classify this: {{ sample.output_text }} as either good or bad, where closer to 1 is good.",
        },
    ],
    "passing_labels": ["good"],
    "labels": ["good", "bad"],
    "model": "o3-mini-2024-01-31",
    "sampling_params": {"max_tokens": 32768, "top_p": 1, "seed": 42, "reasoning_effort": "medium"},
}
PYTHON = {  # GUIDE, Python graders: no name
    "type": "python",
    "source": "def grade(sample, item):\n    return 1.0",
    "image_tag": "2025-05-08",
}
REFERENCE_PYTHON = {  # REFERENCE, Python Grader
    "type": "python",
    "name": "Example python grader",
    "image_tag": "2025-05-08",
    "source": '''
def grade(sample: dict, item: dict) -> float:
    """
    Returns 1.0 if `output_text` equals `label`, otherwise 0.0.
    """
    output = sample.get("output_text")
    label = item.get("label")
    return 1.0 if output == label else 0.0
''',
}
FUZZY_PYTHON = {  # GUIDE, Python graders: the working example, graded there on the fuzzy wuzzy texts
    "type": "python",
    "source": """
from rapidfuzz import fuzz, utils

def grade(sample, item) -> float:
    output_text = sample["output_text"]
    reference_answer = item["reference_answer"]
    return fuzz.WRatio(output_text, reference_answer, processor=utils.default_process) / 100.0
""",
}
MULTI = {  # GUIDE, Combined graders
    "type": "multi",
    "graders": {
        "name": {
            "name": "name_grader",
            "type": "text_similarity",
            "input": "{{sample.output_json.name}}",
            "reference": "{{item.name}}",
            "evaluation_metric": "fuzzy_match",
            "pass_threshold": 0.9,
        },
        "email": {
            "name": "email_grader",
            "type": "string_check",
            "input": "{{sample.output_json.email}}",
            "reference": "{{item.email}}",
            "operation": "eq",
        },
    },
    "calculate_output": "(name + email) / 2",
}
TOOLS = {  # GUIDE, Details on grading tool calls
    "type": "multi",
    "graders": {
        "function_name": {
            "name": "function_name",
            "type": "string_check",
            "input": "get_acceptors",
            "reference": "{{sample.output_tools[0].function.name}}",
            "operation": "eq",
        },
        "arguments": {
            "name": "arguments",
            "type": "string_check",
            "input": '{"smiles": "{{item.smiles}}"}',
            "reference": "{{sample.output_tools[0].function.arguments}}",
            "operation": "eq",
        },
    },
    "calculate_output": "0.5 * function_name + 0.5 * arguments",
}
COMPLIANCE = {  # RFT_GUIDE, Grader configuration
    "type": "multi",
    "graders": {
        "explanation": {
            "name": "Explanation text grader",
            "type": "score_model",
            "input": [{"role": "user", "type": "message", "content": "...see other tab for the full prompt..."}],
            "model": "gpt-4o-2024-08-06",
        },
        "compliant": {
            "name": "compliant",
            "type": "string_check",
            "reference": "{{item.compliant}}",
            "operation": "eq",
            "input": "{{sample.output_json.compliant}}",
        },
    },
    "calculate_output": "0.5 * compliant + 0.5 * explanation",
}
BROKEN_MULTI = {  # REFERENCE, Multi Grader: names and a parenthesis that cannot be right
    "type": "multi",
    "name": "example multi grader",
    "graders": [
        {
            "type": "text_similarity",
            "name": "example text similarity grader",
            "input": "The graded text",
            "reference": "The reference text",
            "evaluation_metric": "fuzzy_match",
        },
        {
            "type": "string_check",
            "name": "Example string check grader",
            "input": "{{sample.output_text}}",
            "reference": "{{item.label}}",
            "operation": "eq",
        },
    ],
    "calculate_output": "0.5 * text_similarity_score +  0.5 * string_check_score)",
}
PUBLISHED = {
    name: spec
    for name, spec in dict(globals()).items()
    if name.isupper() and isinstance(spec, dict) and spec["type"] != "label_model" and spec is not BROKEN_MULTI
}
