"""Metrics of a set of answers by hand, task by task."""

import pytest

from tasks.scoring.metrics import METRICS, OPTIONAL, base_and_novel, task_metrics, tasks_of

GOLD = [0, 0, 100, 100]


def classified(label, gold):
    right = float(label is not None and label == gold)
    row = {"task": "classification", "record_id": "p", "asked": "", "label": label, "gold_label": gold}
    return row | {"sub_rewards": {"label": right, "format": float(label is not None)}}


def grounded(record_id, *boxes, gold=GOLD):
    row = {"task": "grounding", "record_id": record_id, "asked": "it", "gold": [gold], "boxes": list(boxes)}
    return row | {"sub_rewards": {"iou": 0.0, "format": 1.0}}


def detected(category, *boxes):
    """A picture with one object of the category."""
    row = {"task": "detection", "record_id": "p", "asked": category, "gold": [GOLD], "ignore": [], "exhaustive": True}
    row |= {"boxes": list(boxes), "confidences": [1.0] * len(boxes)}
    return row | {"sub_rewards": {"iou": float(GOLD in boxes)}}


def test_accuracy_strict_lenient_and_per_class():
    rows = [
        classified("rose", "rose"), classified("rose", "primrose"), classified("e", "rose"), classified(None, "rose"),
    ]  # fmt: skip
    found = task_metrics(rows)
    assert (found["label"], found["format"]) == (0.25, 0.75)
    assert (found["accuracy"], found["accuracy_lenient"]) == (0.25, 0.75)  # an unreadable one is wrong in both
    assert found["accuracy_by_class"] == {"primrose": 0.0, "rose": pytest.approx(1 / 3)}
    assert found["accuracy_per_class"] == pytest.approx(1 / 6)


def test_grounding_by_hand():
    rows = [grounded("p", GOLD), grounded("p", [0, 0, 50, 100]), grounded("q"), grounded("r", [500, 500, 600, 600])]
    found = task_metrics(rows)
    assert found["miou"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert found["iou50"] == 0.25  # exactly 0.5 is not above
    assert found["giou_lisa"] == pytest.approx((0.75 + 0 + 0) / 3)
    assert found["ciou"] == pytest.approx((10_000 + 5_000) / (10_000 + 10_000 + 10_000 + 20_000))


def test_a_mixed_set_has_the_metrics_of_each_task():
    rows = [classified("a", "a"), grounded("p", GOLD), detected("cat", GOLD)]
    found = task_metrics(rows)
    assert tasks_of(rows) == ["detection", "classification", "grounding"]
    names = [name for task in tasks_of(rows) for name in METRICS[task].keys() - OPTIONAL]
    assert all(found[name] == pytest.approx(1) for name in names)
    assert found["ap_by_category"] == {"cat": pytest.approx(1)}


def test_open_vocabulary_means():
    found = base_and_novel({"red": 0.2, "blue": 0.4, "green": 0.9}, ["red", "blue", "black"])
    assert found == pytest.approx({"ap_base": 0.3, "ap_novel": 0.9})
    assert base_and_novel({"red": 0.2}, ["red"]) == {"ap_base": 0.2}
    found = task_metrics([detected("cat", GOLD), detected("dog")], base=["cat"])
    assert {m: found[m] for m in ("ap", "ap_base", "ap_novel")} == pytest.approx(
        {"ap": 0.5, "ap_base": 1, "ap_novel": 0}
    )


def test_means_over_rare_common_and_frequent_categories():
    rows = [detected("cat", GOLD), detected("dog"), detected("ox", GOLD), detected("car", GOLD)]
    found = task_metrics(rows, frequency={"cat": "r", "dog": "r", "ox": "f", "gnu": "c"})
    assert (found["ap"], found["ap_rare"], found["ap_frequent"]) == pytest.approx((0.75, 0.5, 1))
    assert "ap_common" not in found  # none was tested
    assert not METRICS["detection"].keys() - OPTIONAL - found.keys()
    assert not {"ap_rare", "ap_common", "ap_frequent"} & task_metrics(rows).keys()


def words(task: str, answer: float, **row) -> dict:
    return {"task": task, "sub_rewards": {"answer": answer, "format": 1.0}, **row}


def test_accuracy_counts_right_answers_of_chains_and_programs_and_no_partial_reward():
    rows = [words("maths", 1.0), words("maths", 0.1), words("maths", 0.0), words("program", 1.0)]
    assert task_metrics(rows) == {"answer": pytest.approx(0.525), "format": 1.0, "accuracy": 0.5}


def test_the_accuracy_of_a_set_of_labels_and_numbers_is_over_both():
    rows = [classified("a", "a"), classified("a", "b"), classified("a", "b"), words("maths", 1.0)]
    for order in (rows, rows[::-1]):
        assert task_metrics(order)["accuracy"] == 0.5


def test_top_1_top_5_and_top_max_by_hand():
    rows = [words("ranking", 0.0, rank=rank) for rank in (1, 2, 5, 6, 10, None, None, 1)]
    metrics = task_metrics(rows)
    assert {name: metrics[name] for name in ("top1", "top5", "top_max")} == {
        "top1": 2 / 8, "top5": 4 / 8, "top_max": 6 / 8,
    }  # fmt: skip


def test_votes_and_pass_at_k_by_hand():
    rows = [words("maths", 1.0, right=[True, True, False, False], vote_right=True)]
    rows += [words("maths", 0.0, right=[False] * 4, vote_right=False)]
    found = task_metrics(rows)
    assert (found["accuracy"], found["vote"]) == (0.5, 0.5)
    assert found["pass_at_k"] == {1: 0.25, 2: pytest.approx((1 - 1 / 6) / 2), 4: 0.5}
