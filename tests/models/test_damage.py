"""A damaged checkpoint is never used in silence, and one that cannot be written leaves the one before as it was."""

import dataclasses
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks import rft, sft
from tasks.models.checkpoint import CheckpointError, Checkpoints, identity, write_state
from tasks.models.training import Job
from tests.models.test_checkpoint import SETTINGS, SFT, holding


def held(checkpoints: Checkpoints) -> int:
    return torch.load(checkpoints.newest() / "state.pt", weights_only=True)["step"]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a bit": lambda folder: flip(folder / "state.pt"),
    "half": lambda folder: os.truncate(folder / "state.pt", (folder / "state.pt").stat().st_size // 2),
    "empty": lambda folder: os.truncate(folder / "state.pt", 0),
    "no state": lambda folder: (folder / "state.pt").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: os.truncate(folder / "manifest.json", 20),
    "a bit of the manifest": lambda folder: flip(folder / "manifest.json"),
    "another step's": lambda folder: shutil.copytree(folder.parent / "step-1", folder, dirs_exist_ok=True),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(make_job, tmp_path, capsys, damage):
    job = make_job()
    checkpoints = Checkpoints(tmp_path, job)
    for step in (0, 1, 2):
        checkpoints.save(step, holding(step))
    newest = tmp_path / f"grpo-{job.slice.name}" / identity(job) / "step-2"
    assert sorted(path.name for path in newest.parent.iterdir()) == ["step-1", "step-2"]
    DAMAGE[damage](newest)
    assert held(checkpoints) == 1
    assert f"damaged, not used: {newest}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def left(make_job, tmp_path_factory) -> dict[str, tuple[Job, Path]]:
    """{policy: a job and its folder of checkpoints}, of runs of two steps."""
    found, root = {}, tmp_path_factory.mktemp("left")
    for policy in ("grpo", "sft"):
        job = dataclasses.replace(make_job(policy, **{**SETTINGS, "steps": 2}), checkpoints=root)
        if policy == "sft":
            sft.train(job, SFT.model_copy(update={"steps": 2, "eval_steps": 1}), root / "out")
        else:
            rft.ENGINES["kshot", policy](job)
        found[policy] = (job, root / f"{policy}-{job.slice.name}" / identity(job))
    return found


def swap(file: Path) -> None:
    shutil.copy(file.parent.parent / "step-1" / file.name, file)


MUTATIONS = {
    "missing": Path.unlink,
    "empty": lambda file: os.truncate(file, 0),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a bit": flip,
    "another step's": swap,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("policy", ["grpo", "sft"])
def test_no_damage_to_any_file_of_a_real_checkpoint_is_silent(left, tmp_path, capsys, policy, mutation):
    job, folder = left[policy]
    newest, before = folder / "step-2", folder / "step-1"
    files = sorted(newest.iterdir())
    assert {"manifest.json", "run.pt" if policy == "sft" else "state.pt"} <= {file.name for file in files}
    for file in files:
        kept = shutil.copy(file, tmp_path / file.name)
        MUTATIONS[mutation](file)
        changed = not file.exists() or file.read_bytes() != Path(kept).read_bytes()
        assert changed or mutation == "another step's"  # a config is the same at every step
        assert Checkpoints(job.checkpoints, job).newest() == (before if changed else newest), file
        assert (f"damaged, not used: {newest}" in capsys.readouterr().err) == changed
        shutil.move(kept, file)
    assert Checkpoints(job.checkpoints, job).newest() == newest


def test_where_no_checkpoint_is_whole_a_run_begins_anew_and_says_so(left, tmp_path, capsys):
    job, folder = left["grpo"]
    copy = tmp_path / folder.parent.name / folder.name
    shutil.copytree(folder, copy)
    for step in (1, 2):
        flip(copy / f"step-{step}" / "state.pt")
    again = dataclasses.replace(job, checkpoints=tmp_path)
    assert len(rft.ENGINES["kshot", "grpo"](again)[2]) == 2
    said = capsys.readouterr().err
    assert said.count("damaged, not used") == 2 and f"begins anew: no checkpoint in {copy} is whole" in said


def test_folders_in_a_checkpoint_are_hashed_too(make_job, tmp_path, capsys):
    def write(folder: Path) -> None:
        (folder / "shards" / "0").mkdir(parents=True)
        (folder / "shards" / "0" / "state.pt").write_bytes(b"weights")

    checkpoints = Checkpoints(tmp_path, make_job())
    for step in (1, 2):
        checkpoints.save(step, write)
    assert checkpoints.newest().name == "step-2"
    flip(checkpoints.newest() / "shards" / "0" / "state.pt")
    assert checkpoints.newest().name == "step-1"


def in_child(work: Callable[[], object]) -> str:
    """What a fork says that does `work`: the kind and the text of its exception."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            work()
        except Exception as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as said:
        return said.read()


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(make_job, tmp_path):
    """A real short write, by a limit on the size of files: torch itself raises no OSError then."""
    checkpoints = Checkpoints(tmp_path, make_job())
    checkpoints.save(1, holding(1))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        checkpoints.save(2, lambda folder: write_state({"weights": torch.arange(500_000.0)}, folder / "state.pt"))

    said = in_child(fill)
    assert re.match(rf"CheckpointError: the checkpoint after step 2 .* {tmp_path}.*File too large; free space", said)
    assert [path.name for path in tmp_path.glob("*/*/*")] == ["step-1"]  # what was half written takes no space
    assert held(checkpoints) == 1
    checkpoints.save(3, holding(3))
    assert held(checkpoints) == 3
    checkpoints.clear()
    assert checkpoints.newest() is None


def test_a_folder_that_is_not_writable_is_named_and_keeps_its_checkpoint(make_job, tmp_path):
    """For an ordinary user: root writes everywhere, and becomes one in the fork."""
    checkpoints = Checkpoints(tmp_path, make_job())
    checkpoints.save(1, holding(1))
    (folder,) = tmp_path.glob("*/*")
    folder.chmod(0o555)
    checkpoints._folder = Path()  # the folders above it are not open to other users

    def forbid() -> None:
        os.chdir(folder)
        if os.getuid() == 0:
            os.setuid(65534)
        checkpoints.save(2, holding(2))

    said = in_child(forbid)
    folder.chmod(0o755)
    assert re.match(r"CheckpointError: the checkpoint after step 2 .*Permission denied.* make it writable", said)
    assert [path.name for path in folder.iterdir()] == ["step-1"]
    assert held(Checkpoints(tmp_path, make_job())) == 1


def test_a_file_in_the_place_of_the_folder_is_named(make_job, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"step 1 cannot be written to .*/file/.*Not a directory"):
        Checkpoints(tmp_path / "file", make_job()).save(1, holding(1))
