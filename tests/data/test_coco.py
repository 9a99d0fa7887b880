"""The COCO reader: used + quarantined = read, whatever is in the file."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tasks.data.ingest import ingest
from tasks.data.records import DataError
from tasks.data.sources.coco import read_coco as read_drafts
from tasks.schema.dataset import CocoFiles


def read_coco(files: CocoFiles, categories):
    """Pictures, and everything that was put aside."""
    done = ingest(read_drafts(files, Path(files.images)), categories, "read")
    return done.pictures, done.aside


def write(tmp_path, annotations, images=None, names=("cat", "dog")):
    """A COCO data set of 20 x 10 pixel pictures; `images` defaults to one good picture with id 1."""
    images = images if images is not None else [{"id": 1, "file_name": "1.png"}]
    (tmp_path / "images").mkdir()
    for image in images:
        if image["file_name"].endswith(".png") and not image["file_name"].startswith(("/", "..")):
            Image.new("RGB", (20, 10), (image["id"] % 256, 0, 0)).save(tmp_path / "images" / image["file_name"])
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(names)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(coco))
    return CocoFiles(annotations=str(tmp_path / "gt.json"), images=str(tmp_path / "images"))


def box(id, bbox, image_id=1, category_id=1, **more):
    return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def test_boxes_become_corners_clipped_to_the_picture(tmp_path):
    pictures, aside = read_coco(write(tmp_path, [box(1, [2, 3, 4, 5]), box(2, [-5, -5, 10, 10])]), None)
    assert [o.box for o in pictures[0].record.objects] == [(2, 3, 6, 8), (0, 0, 5, 5)]
    assert (pictures[0].record.width, pictures[0].record.height, aside) == (20, 10, [])


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (box(7, [0, 0, 0, 5]), "without area"),
        (box(7, [0, 0, -3, 5]), "without area"),
        (box(7, [0, 0, float("nan"), 5]), "four numbers"),
        (box(7, [30, 0, 5, 5]), "outside"),
        (box(7, [0, 0, 5]), "four numbers"),
        (box(7, None), "four numbers"),
        (box(7, [0, 0, 10**400, 5]), "four numbers"),
        (box(7, [0, 0, "5", 5]), "four numbers"),
        (box(7, [0, 0, 5, 5], image_id=99), "no such image: 99"),
        (box(7, [0, 0, 5, 5], image_id=[]), "no such image"),
        (box(7, [0, 0, 5, 5], category_id=99), "no such category: 99"),
    ],
)
def test_a_bad_annotation_is_put_aside_with_its_reason_and_the_good_one_is_used(tmp_path, annotation, reason):
    pictures, aside = read_coco(write(tmp_path, [box(1, [0, 0, 5, 5]), annotation]), None)
    assert len(pictures[0].record.objects) == 1
    assert [(q.kind, q.item) for q in aside] == [("annotation", "7")]
    assert reason in aside[0].reason


@pytest.mark.parametrize("name", ["../1.png", "/etc/passwd", "missing.jpg", "text.jpg"])
def test_a_picture_that_cannot_be_used_takes_its_annotations_with_it(tmp_path, name):
    split = write(tmp_path, [box(1, [0, 0, 5, 5])], [{"id": 1, "file_name": name}])
    (tmp_path / "images" / "text.jpg").write_text("not a picture")
    Image.new("RGB", (20, 10)).save(tmp_path / "1.png")
    pictures, aside = read_coco(split, None)
    assert pictures == []
    assert [q.kind for q in aside] == ["image", "annotation"]


def test_exif_rotation_and_alpha_are_resolved_before_boxes_are_read(tmp_path):
    split = write(tmp_path, [box(1, [0, 0, 5, 15])], [{"id": 1, "file_name": "1.jpg"}])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: 20 x 10 stored, 10 x 20 seen
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "1.jpg", exif=exif)
    pictures, aside = read_coco(split, None)
    assert (pictures[0].record.width, pictures[0].record.height) == (10, 20)
    assert pictures[0].record.objects[0].box == (0, 0, 5, 15)
    assert not aside


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_id_that_stands_twice_is_refused_naming_file_and_id(tmp_path, key):
    split = write(tmp_path, [box(1, [0, 0, 5, 5])])
    coco = json.loads(Path(split.annotations).read_text())
    coco[key].append(coco[key][0])
    Path(split.annotations).write_text(json.dumps(coco))
    with pytest.raises(DataError, match=rf"gt\.json: id 1 stands twice among the {key[:3]}"):
        read_coco(split, None)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": []}'])
def test_a_file_that_is_no_coco_file_is_refused(tmp_path, text):
    split = write(tmp_path, [])
    Path(split.annotations).write_text(text)
    with pytest.raises(DataError, match=r"gt\.json"):
        read_coco(split, None)


def test_categories_select_pictures_and_objects_and_an_unknown_one_is_refused(tmp_path):
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}]
    split = write(tmp_path, [box(1, [0, 0, 5, 5]), box(2, [0, 0, 5, 5], 1, 2), box(3, [0, 0, 5, 5], 2, 2)], images)
    pictures, _ = read_coco(split, ["cat"])
    assert [(p.record.id, p.record.categories) for p in pictures] == [("1", ("cat",))]
    assert read_coco(split, ["zebra"]) == ([], [])


def test_a_crowd_is_a_region_to_ignore_and_an_id_of_zero_is_an_id_like_any_other(tmp_path):
    pictures, aside = read_coco(write(tmp_path, [box(0, [0, 0, 5, 5]), box(7, [0, 0, 9, 9], iscrowd=1)]), None)
    assert [o.box for o in pictures[0].record.objects] == [(0, 0, 5, 5)]
    assert [o.box for o in pictures[0].record.ignore] == [(0, 0, 9, 9)]
    assert not aside


def test_a_category_with_an_unusable_box_counts_as_labelled_in_part(tmp_path):
    """So that the picture is not taken for one that does not show it."""
    pictures, _ = read_coco(write(tmp_path, [box(1, [0, 0, 0, 5]), box(2, [0, 0, 5, 5], category_id=2)]), None)
    assert pictures[0].record.categories == ("dog",)
    assert pictures[0].record.not_exhaustive == ("cat",)


def test_a_picture_of_another_size_than_the_file_says_is_put_aside(tmp_path):
    split = write(tmp_path, [box(1, [0, 0, 5, 5])], [{"id": 1, "file_name": "1.png", "width": 10, "height": 20}])
    pictures, aside = read_coco(split, None)
    assert not pictures
    assert "10x20 in the file, 20x10 seen" in aside[0].reason


def test_names_are_compared_in_one_unicode_form_and_two_that_become_one_are_refused(tmp_path):
    split = write(tmp_path, [box(1, [0, 0, 5, 5])], names=("cafe\u0301", "dog"))
    pictures, _ = read_coco(split, ["caf\u00e9"])
    assert pictures[0].record.categories == ("caf\u00e9",)
    both = [box(1, [0, 0, 5, 5]), box(2, [0, 0, 5, 5], category_id=2)]
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="look the same"):
        read_coco(write(tmp_path / "b", both, names=("cafe\u0301", "caf\u00e9")), None)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("item", [None, 7, [], {}, {"id": None}, {"id": []}, {"id": 1.5}])
def test_an_item_without_form_or_id_is_put_aside(tmp_path, key, item):
    split = write(tmp_path, [box(1, [0, 0, 5, 5])])
    coco = json.loads(Path(split.annotations).read_text())
    coco[key].append(item)
    Path(split.annotations).write_text(json.dumps(coco))
    pictures, aside = read_coco(split, None)
    assert len(pictures[0].record.objects) == 1
    assert [q.item for q in aside] == [f"#{len(coco[key]) - 1}"]
