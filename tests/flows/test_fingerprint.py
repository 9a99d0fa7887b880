"""A user's files are part of the study: changed files change params.yaml, so that DVC prepares again."""

import shutil

import pytest

from flows.compose import compose


@pytest.fixture
def sha256(tmp_path, monkeypatch):
    """What a composition in a folder with an annotation file and a picture says of them."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(b"1234")
    (tmp_path / "gt.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    paths = ["dataset.train.annotations=gt.json", "dataset.train.images=pictures", "dataset.val=null"]
    return lambda: compose(["+experiment=fsod_coco", *paths])["dataset"]["sha256"]


def test_changed_labels_or_pictures_change_the_study(sha256, tmp_path):
    seen = [sha256()]
    assert sha256() == seen[0] is not None
    for change in (
        lambda: (tmp_path / "gt.json").write_text("[]"),
        lambda: (tmp_path / "pictures" / "two.png").write_bytes(b"1"),
        lambda: (tmp_path / "pictures" / "one.png").write_bytes(b"12345"),
    ):
        change()
        seen.append(sha256())
    assert len(set(seen)) == 4


def test_the_same_files_in_another_folder_are_the_same_study(sha256, tmp_path, monkeypatch):
    here = sha256()
    shutil.copytree(tmp_path / "pictures", tmp_path / "other" / "pictures")  # new times
    shutil.copy(tmp_path / "gt.json", tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    assert sha256() == here


def test_files_that_are_not_here_have_none(sha256, tmp_path):
    shutil.rmtree(tmp_path / "pictures")
    (tmp_path / "gt.json").unlink()
    assert sha256() is None
