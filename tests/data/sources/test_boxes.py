"""LVIS, VOC and YOLO: small data sets of the official layouts."""

import json

import pytest

from tasks.data.records import DataError
from tasks.schema.dataset import CocoFiles, VocFiles, YoloFiles


def boxes(split):
    return [[(o.category, o.box) for o in p.record.objects] for p in split.pictures]


def write_lvis(folder, draw):
    categories = [
        {"id": 1, "name": "die", "synset": "die.n.01", "synonyms": ["die", "dice"], "def": "a small cube",
         "frequency": "r", "image_count": 1, "instance_count": 1},
        {"id": 2, "name": "bus_(vehicle)", "synset": "bus.n.01", "frequency": "f"},
        {"id": 3, "name": "papaya", "synset": "papaya.n.02", "frequency": "c"},
    ]  # fmt: skip
    images = []
    for number, split in ((9, "train2017"), (12, "val2017")):
        draw(folder / "coco" / split / f"{number:012d}.jpg", number)
        url = f"http://images.cocodataset.org/{split}/{number:012d}.jpg"
        images.append(
            {"id": number, "coco_url": url, "height": 10, "width": 20, "neg_category_ids": [3],
             "not_exhaustive_category_ids": [2], "license": 1, "flickr_url": "", "date_captured": ""}
        )  # fmt: skip
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12.0, "segmentation": [[1, 2, 4, 6]]},
        {"id": 2, "image_id": 12, "category_id": 2, "bbox": [0, 0, 5, 5], "area": 25.0, "segmentation": [[0, 0, 5, 5]]},
    ]
    lvis = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    (folder / "lvis_v1_val.json").write_text(json.dumps(lvis))
    return CocoFiles(annotations=str(folder / "lvis_v1_val.json"), images=str(folder / "coco"))


def test_lvis_names_its_pictures_by_url_and_knows_what_is_absent_or_labelled_in_part(tmp_path, draw, read):
    split = read("lvis", write_lvis(tmp_path, draw))
    first, second = (p.record for p in split.pictures)
    assert first.image == "train2017/000000000009.jpg"
    assert boxes(split) == [[("die", (1, 2, 4, 6))], [("bus_(vehicle)", (0, 0, 5, 5))]]
    assert first.federated and first.negative == ("papaya",) and first.not_exhaustive == ("bus_(vehicle)",)
    assert second.image == "val2017/000000000012.jpg"
    assert split.frequency == {"die": "r", "bus_(vehicle)": "f", "papaya": "c"}
    assert not split.aside


def test_lvis_categories_choose_negatives_too(tmp_path, draw, read):
    split = read("lvis", write_lvis(tmp_path, draw), ["die"])
    assert [(p.record.categories, p.record.negative) for p in split.pictures] == [(("die",), ())]
    assert split.left_out == {"image": 1, "annotation": 1}


VOC = """<annotation>
	<folder>VOC2007</folder>
	<filename>{name}.jpg</filename>
	<source><database>The VOC2007 Database</database></source>
	<size><width>20</width><height>10</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object><name>chair</name><pose>Rear</pose><truncated>0</truncated><difficult>0</difficult>
		<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>
	<object><name>person</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
		<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></part></object>
	<object><name>dog</name><bndbox><xmin>five</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def voc(tmp_path, draw):
    for number, name in enumerate(("000005", "000007")):
        draw(tmp_path / "JPEGImages" / f"{name}.jpg", number)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(VOC.format(name=name))
    return VocFiles(annotations=str(tmp_path / "Annotations"), images=str(tmp_path / "JPEGImages"))


def test_voc_boxes_count_from_one_and_difficult_objects_are_ignored(voc, read):
    split = read("voc", voc)
    assert boxes(split) == [[("chair", (0, 2, 20, 10))]] * 2  # the whole width: edges 0 and 20
    assert [o.category for o in split.pictures[0].record.ignore] == ["person"]
    assert {(q.item, q.reason) for q in split.aside} == {
        ("object 3", "bbox is not four numbers: ['five', 5.0, 6.0, 6.0]")
    }


def test_voc_list_chooses_and_each_line_is_accounted_for(voc, read, tmp_path):
    (tmp_path / "trainval.txt").write_text("000007  1\n000009 -1\n../JPEGImages/x\n")
    split = read("voc", voc.model_copy(update={"list": str(tmp_path / "trainval.txt")}))
    assert [p.record.id for p in split.pictures] == ["000007"]
    assert [(q.line, q.fault) for q in split.aside if q.kind == "image"] == [
        (2, "no such annotation file"), (3, "path leaves the data folder"),
    ]  # fmt: skip
    assert split.read["image"] == 3


LAUGHS = '<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;">]><annotation><filename>&m;</filename></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation><filename>&f;</filename></annotation>'


@pytest.mark.parametrize("xml", [LAUGHS, OUTSIDE, "<annotation>", "", '<?xml version="1.0" encoding="x-none"?><a/>'])
def test_unusable_or_dangerous_xml_is_put_aside(voc, read, tmp_path, xml):
    (tmp_path / "Annotations" / "000007.xml").write_text(xml)
    split = read("voc", voc)
    assert len(split.pictures) == 1
    assert ("000007", "not usable XML") in [(q.item, q.fault) for q in split.aside]


@pytest.fixture
def yolo(tmp_path, draw):
    draw(tmp_path / "images" / "a.jpg", 1)
    draw(tmp_path / "images" / "sub" / "b.jpg", 2)
    (tmp_path / "labels" / "sub").mkdir(parents=True)
    (tmp_path / "labels" / "a.txt").write_text(
        "0 0.5 0.5 0.5 0.4\n1 0.1 0.2 0.3 0.2 0.3 0.6\n\n9 0.5 0.5 0.1 0.1\n"
        "0 0.5 0.5 0.5\n0 2.5 0.5 0.1 0.1\ncat 1 1 1 1\n"
    )
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n")
    return YoloFiles(
        images=str(tmp_path / "images"), labels=str(tmp_path / "labels"), names=str(tmp_path / "data.yaml")
    )


def test_yolo_shares_become_pixels_and_a_polygon_its_bounding_box(yolo, read):
    split = read("yolo", yolo)
    (cat, dog), background = boxes(split)
    assert cat == ("cat", pytest.approx((5, 3, 15, 7)))
    assert dog == ("dog", pytest.approx((2, 2, 6, 6)))
    assert background == []  # a picture without a label file shows nothing
    assert sorted((q.line, q.fault) for q in split.aside) == [
        (4, "no such category"),
        (5, "bbox is not four numbers"),
        (6, "box outside the picture"),
        (7, "not a class number and shares"),
    ]


def test_yolo_names_may_be_a_list_or_a_text_file_and_labels_without_picture_are_told(yolo, read, tmp_path):
    (tmp_path / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "lost.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    as_list, as_text = (
        read("yolo", yolo),
        read("yolo", yolo.model_copy(update={"names": str(tmp_path / "classes.txt")})),
    )
    assert boxes(as_list) == boxes(as_text)
    assert ("lost.txt", "no such picture") in [(q.item, q.fault) for q in as_list.aside]


@pytest.mark.parametrize("names", ["train: x\n", "names: 3\n", "names: [cat, cat]\n", "names: [1, 2]\n", "a: [\n"])
def test_a_yaml_without_proper_names_is_refused(yolo, read, tmp_path, names):
    (tmp_path / "data.yaml").write_text(names)
    with pytest.raises(DataError, match=r"data\.yaml"):
        read("yolo", yolo)
