"""LISA, Visual-RFT's rows, JSONL and Hugging Face sets."""

import io
import json

import datasets
import pytest
from PIL import Image

from tasks.data.records import DataError, Referring, Shape
from tasks.schema.dataset import HfFiles, JsonlFiles, LisaFiles, RowsFiles

datasets.disable_progress_bars()


def png(shade, size=(20, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def lisa_json(texts, shapes, is_sentence=True):
    """The keys of an official ReasonSeg file."""
    keys = {"labels": ["target"], "shape_type": "polygon", "image_name": "a.jpg", "group_id": None, "flags": {}}
    shapes = [{"label": label, "points": points, **keys} for label, points in shapes]
    return json.dumps({"text": texts, "is_sentence": is_sentence, "shapes": shapes}, ensure_ascii=False)


def test_lisa_asks_each_instruction_for_the_box_of_the_first_target(tmp_path, draw, read):
    for n, name in enumerate("abcd"):
        draw(tmp_path / f"{name}.jpg", n)
    shapes = [("ignore", [[0, 0], [1, 1], [1, 0]]), ("target", [[2.5, 1], [8, 3], [4, 30]]), ("target", [[9, 9]])]
    (tmp_path / "a.json").write_text(lisa_json(["what to eat", "the ripe one"], shapes))
    (tmp_path / "b.json").write_bytes(lisa_json(["caf\u00e9 table"], shapes, is_sentence=False).encode("cp1252"))
    (tmp_path / "c.json").write_text(lisa_json(["x"], [("flag", [[0, 0]])]))
    split = read("lisa", LisaFiles(images=str(tmp_path)))
    box = (2.5, 1, 8, 10)  # clipped to the picture
    told = [p.record.referring for p in split.pictures]
    # the second target has no inside
    mask = (Shape(((0, 0), (1, 1), (1, 0)), ignore=True), Shape(((2.5, 1), (8, 3), (4, 10))))
    own = {"category": "sentence", "mask": mask}
    assert told[0] == (Referring("what to eat", box, **own), Referring("the ripe one", box, **own))
    assert told[1] == (Referring("caf\u00e9 table", box, "phrase", mask),)
    assert [(q.item, q.fault) for q in split.aside] == [
        ("c", "unusable annotation"), ("d", "picture without annotation"),
    ]  # fmt: skip
    assert split.read == {"image": 4, "annotation": 3}


DETECT = (
    "Detect all objects belonging to the category '{0}' in the image, and provide the bounding boxes (between 0 and "
    "1000, integer) and confidence (between 0 and 1, with two decimal places).\nIf no object belonging to the category "
    "'{0}' in the image, return 'No Objects'.\nOutput the thinking process in <think> </think> and final answer in "
    "<answer> </answer> tags."
)
POINT = (
    "Output the bounding box in the image corresponding to the instruction: {0}. Output the thinking process in "
    "<think> </think> and your grouding box."
)
SPECIES = "This is an image containing a plant. Please identify the species of the plant based on the image.\nOutput"
CAT = (
    "<answer>[{'Position': [100, 100, 500, 1000], 'Confidence': 1}, "
    "{'Position': [0, 0, 50, 50], 'Confidence': 1}]</answer>"
)
ROWS = [
    (1, DETECT.format("cat"), CAT),
    (1, DETECT.format("carpenter's level"), "<answer>[{'Position': [0, 0, 1000, 1000], 'Confidence': 1}]</answer>"),
    (1, DETECT.format("dog"), "<answer>No Objects</answer>"),
    (2, POINT.format("the cup that is full, not the empty one"), "<answer>(100,200),(500,600)</answer>"),
    (3, SPECIES, "<answer>pink primrose</answer>"),
    (4, DETECT.format("cat"), "<answer>[{'Position': [1, 2, 'x', 4], 'Confidence': 1}]</answer>"),
    (5, DETECT.format("cat"), "<answer>[{'Position': [1, 2, 3</answer>"),
    (6, "Find things.", CAT),
    (7, SPECIES, ""),
]


@pytest.fixture
def virft():
    columns = {"image": [png(n) for n, _, _ in ROWS], "problem": [p for _, p, _ in ROWS]}
    rows = datasets.Dataset.from_dict({**columns, "solution": [s for _, _, s in ROWS]})
    return rows.cast_column("image", datasets.Image())


def save(rows, folder, form):
    """Each form in which Visual-RFT's rows are passed on; returns the path to give."""
    if form == "parquet":
        rows.to_parquet(folder / "train.parquet")
        return folder / "train.parquet"
    saved = datasets.DatasetDict({"train": rows}) if form == "dict" else rows
    saved.save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.parametrize("form", ["parquet", "dict", "saved"])
def test_visual_rft_rows_tell_their_task_by_the_solution(tmp_path, read, virft, form):
    split = read("visual_rft", RowsFiles(rows=str(save(virft, tmp_path, form))))
    detection, grounding, classification, partly = (p.record for p in split.pictures)
    assert [(o.category, o.box) for o in detection.objects] == [
        ("cat", (2, 1, 10, 10)), ("cat", (0, 0, 1, 0.5)), ("carpenter's level", (0, 0, 20, 10)),
    ]  # fmt: skip
    assert detection.negative == ("dog",) and detection.federated
    assert grounding.referring == (Referring("the cup that is full, not the empty one", (2, 2, 10, 6)),)
    assert classification.label == "pink primrose"
    assert partly.objects == () and partly.not_exhaustive == ("cat",)
    assert [(q.item, q.fault) for q in split.aside] == [
        ("row 6", "unreadable solution"),
        ("row 7", "no category in the problem"),
        ("row 8", "unreadable solution"),
        ("row 5 box 1", "bbox is not four numbers"),
    ]
    assert split.read == {"image": 9, "annotation": 5}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"image": "a.png", "objects": [{"category": "cat"', "not JSON"),
        ('{"image": "a.png", "image": "b.png"}', "not JSON"),
        (b'{"image": "\xff.png"}', "not UTF-8"),
        ('{"label": "cat"}', "no key"),
        ('{"image": "b.png", "lable": "cat"}', "unknown key"),
        ('{"image": "b.png", "label": 7}', "name is not text"),
        ('{"image": "b.png", "label": "\\ud800"}', "name is not valid Unicode"),
        ('{"image": 7, "objects": []}', "no file name"),
        ('{"image": "b.png"}', "no labels"),
        ('{"image": "../b.png", "objects": []}', "path leaves the data folder"),
        ('{"image": "no.png", "objects": []}', "no such picture"),
        ('{"image": "a.png", "objects": []}', "same pixels as another image of this split"),
        ('{"image": "b.png", "objects": {}}', "objects is not a list"),
        ('{"image": "b.png", "objects": [7]}', "objects holds no object of category and box"),
        ('{"image": "b.png", "unit": "inch", "objects": []}', "unit is neither pixels nor thousandths"),
        ('{"image": "b.png", "size": [10, 20], "objects": []}', "size is not that of the picture"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"image": "' + "x" * 16_000_000 + '"}', "line over 4000000 bytes"),
    ],
)  # fmt: skip
def test_a_bad_line_is_put_aside_with_its_number_and_the_good_ones_are_used(tmp_path, draw, read, line, fault):
    for n, name in enumerate("ab"):
        draw(tmp_path / "images" / f"{name}.png", n)
    draw(tmp_path / "b.png", 9)
    good = '{"image": "a.png", "objects": [{"category": "cat", "box": [0, 0, 500, 500]}], "unit": "thousandths"}'
    raw = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + good.encode() + b"\n\n" + raw)  # BOM, then an empty line
    split = read("jsonl", JsonlFiles(rows=str(tmp_path / "rows.jsonl"), images=str(tmp_path / "images")))
    assert [o.box for p in split.pictures for o in p.record.objects] == [(0, 0, 10, 5)]
    assert [(q.line, q.fault) for q in split.aside] == [(3, fault)]


def test_a_jsonl_row_may_serve_every_task(tmp_path, draw, read):
    draw(tmp_path / "images" / "a.png", 1)
    asleep = {"instruction": "the one asleep", "box": [0, 0, 5, 5]}
    row = {
        "image": "a.png", "size": [20, 10], "label": "kitchen",
        "objects": [{"category": "cat", "box": [0, 0, 5, 5]}, {"category": "cat", "box": [0, 0, "x", 5]}],
        "referring": [
            {**asleep, "category": "pets", "mask": [[[0, 0], [5, 0], [0, 5]]]},
            {**asleep, "mask": [[[0, 0], [5, "x"], [0, 5]]]},
        ],
        "ignore": [{"category": "dog", "box": [1, 1, 3, 3]}], "negative": ["cow"], "not_exhaustive": ["hen"],
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    split = read("jsonl", JsonlFiles(rows=str(tmp_path / "rows.jsonl"), images=str(tmp_path / "images")))
    record = split.pictures[0].record
    told = Referring("the one asleep", (0, 0, 5, 5), "pets", (Shape(((0, 0), (5, 0), (0, 5))),))
    assert (record.label, record.referring) == ("kitchen", (told,))
    assert (record.negative, record.not_exhaustive) == (("cow",), ("cat", "hen"))
    assert [(q.line, q.item) for q in split.aside] == [(1, "line 1 objects 2"), (1, "line 1 referring 2")]
    assert split.aside[1].fault == "polygon is not a list of points"


def test_hf_objects_as_struct_of_lists_with_class_names(tmp_path, read):
    inner = {"bbox": datasets.Sequence(datasets.Value("float32"), 4), "category": datasets.ClassLabel(names=["mask"])}
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.Sequence(inner)})
    rows = {
        "image": [png(1), png(2)],
        "objects": [{"bbox": [[1, 2, 3, 4]], "category": [0]}, {"bbox": [], "category": []}],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    split = read("hf", HfFiles(path=str(tmp_path / "set"), split="train", objects="objects"))
    assert [[(o.category, o.box) for o in p.record.objects] for p in split.pictures] == [[("mask", (1, 2, 4, 6))], []]


def test_hf_image_folder_labels_and_grounding_columns(tmp_path, draw, read):
    for n, name in enumerate(("train/tabby/1.png", "train/manx/2.png")):
        draw(tmp_path / "set" / name, n)
    split = read("hf", HfFiles(path=str(tmp_path / "set"), split="train", label="label"))
    assert sorted(p.record.label for p in split.pictures) == ["manx", "tabby"]
    told = {"picture": [png(1), png(1), png(2)], "told": ["left", "right", None], "where": [[0, 0, 5, 5]] * 3}
    datasets.Dataset.from_dict(told).to_parquet(tmp_path / "told.parquet")
    files = HfFiles(
        path=str(tmp_path / "told.parquet"), split="train", image="picture", instruction="told", box="where",
        box_format="xyxy",
    )  # fmt: skip
    split = read("hf", files)
    assert [[r.instruction for r in p.record.referring] for p in split.pictures] == [["left", "right"]]
    assert [(q.item, q.fault) for q in split.aside] == [
        ("row 2", "name is not text"), ("row 2", "no usable instruction"),
    ]  # fmt: skip


def test_a_set_or_column_that_is_not_there_is_refused_with_the_columns_that_are(tmp_path, read, virft):
    with pytest.raises(DataError, match="none_such"):
        read("hf", HfFiles(path=str(tmp_path / "none_such"), split="train", label="x"))
    path = str(save(virft, tmp_path, "parquet"))
    with pytest.raises(DataError, match=r"lable.*'problem'"):
        read("hf", HfFiles(path=path, split="train", label="lable"))
    with pytest.raises(DataError, match=r"picture.*'problem'"):
        read("hf", HfFiles(path=path, split="train", label="solution", image="picture"))
