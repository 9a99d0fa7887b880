"""Class folders, Flowers102, Pets37, Aircraft and Cars196: small data sets of the official layouts."""

import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields
from scipy.io import savemat

from tasks.data.records import DataError
from tasks.schema.dataset import AircraftFiles, CarsFiles, FlowersFiles, FolderFiles, PetsFiles


def labels(split):
    return {p.record.image: p.record.label for p in split.pictures}


def test_a_class_folder_is_a_class(tmp_path, draw, read):
    for n, name in enumerate(("tabby/1.jpg", "tabby/more/2.jpg", "manx/3.png", "stray.jpg")):
        draw(tmp_path / "cats" / name, n)
    (tmp_path / "cats" / "manx" / "notes.txt").write_text("not a picture")
    (tmp_path / "cats" / ".DS_Store").write_text("")
    split = read("folder", FolderFiles(images=str(tmp_path / "cats")))
    assert labels(split) == {"tabby/1.jpg": "tabby", "tabby/more/2.jpg": "tabby", "manx/3.png": "manx"}
    assert sorted((q.item, q.fault) for q in split.aside) == [
        ("manx/notes.txt", "not a JPEG, PNG or WebP picture"), ("stray.jpg", "not in a class folder"),
    ]  # fmt: skip
    assert set(labels(read("folder", FolderFiles(images=str(tmp_path / "cats")), ["manx"])).values()) == {"manx"}


@pytest.fixture
def flowers(tmp_path, draw):
    """As http://www.robots.ox.ac.uk/~vgg/data/flowers/102 has them: (1, n) arrays of uint8 and uint16."""
    for number in range(1, 7):
        draw(tmp_path / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[2, 1, 1, 2, 9, 1]], np.uint8)})
    splits = {"trnid": [[3, 1]], "valid": [[2]], "tstid": [[4, 5, 77]]}
    savemat(tmp_path / "setid.mat", {key: np.array(value, np.uint16) for key, value in splits.items()})
    (tmp_path / "names.txt").write_text("# classes\nrose\nlotus\n")
    return lambda split: FlowersFiles(root=str(tmp_path), split=split, names=str(tmp_path / "names.txt"))


def test_flowers102_by_the_split_of_setid(flowers, read):
    assert labels(read("flowers102", flowers("train"))) == {"image_00003.jpg": "rose", "image_00001.jpg": "lotus"}
    assert labels(read("flowers102", flowers("val"))) == {"image_00002.jpg": "rose"}  # one number: MATLAB's scalar
    test = read("flowers102", flowers("test"))
    assert labels(test) == {"image_00004.jpg": "lotus"}
    assert [(q.item, q.fault) for q in test.aside] == [("5", "no name for class"), ("77", "no label for picture")]


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + b"\0" * 200, b"\x89PNG\r\n" + bytes(range(256)) * 4])
def test_a_broken_mat_file_is_refused_by_name(flowers, read, tmp_path, content):
    (tmp_path / "setid.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"setid\.mat"):
        read("flowers102", flowers("train"))


def test_pets37_takes_the_breed_from_the_pictures_name(tmp_path, draw, read):
    for n, name in enumerate(("Abyssinian_1", "american_bulldog_100", "Egyptian_Mau_139")):
        draw(tmp_path / "images" / f"{name}.jpg", n)
    (tmp_path / "images" / "Egyptian_Mau_139.jpg").write_bytes(b"GIF89a" + bytes(50))  # as in the real data set
    (tmp_path / "annotations").mkdir()
    head = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    lines = "Abyssinian_1 1 1 1\namerican_bulldog_100 2 2 1\nEgyptian_Mau_139 12 1 6\nAbyssinian_2 2 1 1\nBengal 7\n"
    (tmp_path / "annotations" / "trainval.txt").write_text(head + lines)
    split = read("pets37", PetsFiles(root=str(tmp_path), list="trainval"))
    assert labels(split) == {"Abyssinian_1.jpg": "Abyssinian", "american_bulldog_100.jpg": "american bulldog"}
    assert sorted((q.line, q.fault) for q in split.aside) == [
        (5, "not a JPEG, PNG or WebP picture"),
        (6, "class has another name"),
        (7, "not <picture> <class> <species> <breed>"),
    ]


def test_aircraft_variants_may_hold_blanks_and_slashes(tmp_path, draw, read):
    for n, name in enumerate(("1025794", "0034309", "2")):
        draw(tmp_path / "images" / f"{name}.jpg", n)
    (tmp_path / "images_variant_train.txt").write_text("1025794 707-320\n0034309 F/A-18\n2 Cessna 172\n3\n4 A330-200\n")
    split = read("aircraft", AircraftFiles(root=str(tmp_path), split="train"))
    assert labels(split) == {"1025794.jpg": "707-320", "0034309.jpg": "F/A-18", "2.jpg": "Cessna 172"}
    assert sorted((q.line, q.fault) for q in split.aside) == [
        (4, "not <picture> <variant>"), (5, "no such picture"),
    ]  # fmt: skip


def test_cars196_takes_the_class_of_the_devkits_struct(tmp_path, draw, read):
    names = np.empty((1, 2), object)
    names[0] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    savemat(tmp_path / "cars_meta.mat", {"class_names": names})
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    rows = np.zeros((1, 3), [(field, object) for field in fields])
    for n, number in enumerate((2, 1, 197)):
        draw(tmp_path / "cars_train" / f"{n + 1:05d}.jpg", n)
        rows[0, n] = (np.uint8(1), np.uint8(1), np.uint8(9), np.uint8(9), np.uint8(number), f"{n + 1:05d}.jpg")
    savemat(tmp_path / "annos.mat", {"annotations": rows})
    files = CarsFiles(
        annotations=str(tmp_path / "annos.mat"),
        meta=str(tmp_path / "cars_meta.mat"),
        images=str(tmp_path / "cars_train"),
    )
    split = read("cars196", files)
    assert labels(split) == {"00001.jpg": "Acura RL Sedan 2012", "00002.jpg": "AM General Hummer SUV 2000"}
    assert [(q.item, q.fault) for q in split.aside] == [("00003.jpg", "no name for class")]
    savemat(tmp_path / "annos.mat", {"annotations": repack_fields(rows[["bbox_x1", "fname"]])})
    with pytest.raises(DataError, match="cars_test_annos_withlabels"):
        read("cars196", files)
