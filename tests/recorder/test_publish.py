"""Calls that wait for their documents."""

import pickle

from recorder import publish
from recorder.engine import FinishedCall
from recorder.publish import Publisher, Waiting
from tests.calls import answered_call, audio, stream


def test_a_call_comes_back_from_the_spool_as_it_went_there():
    call = answered_call()
    call.group, call.tags, call.callee.contact_params = 7, ("sales",), (("isfocus", ""),)
    waiting = Waiting(call, [stream()], audio())
    back = pickle.loads(pickle.dumps(waiting, 5))
    assert back == waiting
    assert type(back.call.trace[0]) is type(call.trace[0])
    assert back.call.caller is not call.caller


def test_calls_beyond_those_that_wait_in_memory_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "SPILL", 5)
    monkeypatch.setattr(publish, "TOGETHER", 2)
    publisher = Publisher(tmp_path / "waiting")
    calls = [answered_call(index) for index in range(12)]
    for call in calls:
        assert publisher.take(FinishedCall(call, None, []))
    assert [waiting.call for waiting in publisher.waiting()] == calls
    assert (tmp_path / "waiting").exists()
    publisher.close()
    assert not (tmp_path / "waiting").exists()
