"""A worker hears whether its flow is at work, without a clock or a connection between them."""

import itertools
import time
from pathlib import Path

import pytest

from tasks import pulse
from tasks.pulse import FILE, PATIENCE, Flow, Listener, at_work


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.01)
    return tmp_path


def looks_until_it_ended(listener: Listener) -> int:
    return next(num for num in itertools.count() if listener.ended())


def test_a_flow_is_heard_until_it_ends_however_it_ends():
    with pytest.raises(KeyboardInterrupt), at_work() as flow:
        listener = Listener(flow)
        assert not listener.ended()
        raise KeyboardInterrupt
    assert listener.ended()


def test_a_flow_at_work_is_never_taken_for_dead():
    with at_work() as flow:
        listener = Listener(flow)
        for _ in range(3 * PATIENCE):  # each look later than the next beat, by far fewer of which it would be dead
            assert not listener.ended()
            time.sleep(0.001)


def test_a_killed_flow_is_missed_after_a_while_and_at_once_where_the_next_is_at_work(workspace):
    killed = Flow(workspace, "killed")
    pulse.FILE.parent.mkdir()
    Path(FILE).write_text("killed 7")
    assert looks_until_it_ended(Listener(killed)) == PATIENCE + 1
    listener = Listener(killed)
    assert not listener.ended()
    with at_work():
        assert listener.ended()


def test_a_file_server_that_is_away_for_a_while_ends_nothing(workspace):
    with at_work() as flow:
        listener = Listener(flow)
        assert not listener.ended()
        with_beats = workspace / FILE
        away = with_beats.parent.rename(workspace / "away")
        assert not any(listener.ended() for _ in range(PATIENCE // 2))
        away.rename(with_beats.parent)
        time.sleep(0.1)
        assert not any(listener.ended() for _ in range(PATIENCE // 2))


def test_a_worker_that_does_not_see_the_workspace_is_told_so(workspace):
    with pytest.raises(FileNotFoundError, match=r"has no .*elsewhere/\.rft/flow: every worker must see"):
        Listener(Flow(workspace / "elsewhere", "token"))
