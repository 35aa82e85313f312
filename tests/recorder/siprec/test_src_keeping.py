"""Calls without a server: from when on their packets are kept, and what becomes of them."""

from types import SimpleNamespace

import pytest

from recorder.siprec.control import EventKind
from recorder.siprec.servers import Servers
from recorder.siprec.src_decision import Instance, Server
from recorder.siprec.src_keeping import PATIENCE, Keeping
from recorder.siprec.src_media import RecordedCall
from recorder.siprec.src_telling import Telling
from tests.siprec_fakes import START, picture

ONE, TWO = Server("sip:one.example"), Server("sip:two.example")


class Keeper:
    """Who is told, and a session of two calls."""

    def __init__(self, *, spool=True):
        self.doubted, self.spared, self.kept, self.told = [], [], [], []
        self.servers = Servers(lambda: 0.0)
        around = SimpleNamespace(
            servers=self.servers,
            doubted=self.doubted.append,
            spared=self.spared.append,
            keep=lambda call, instance: self.kept.append(call),
            tell=self.told.append,
            clock=lambda: START,
        )
        self.calls = [RecordedCall(picture(number), START) for number in (1, 2)]
        instance = Instance((ONE, TWO), spool=spool)
        self.keeping = Keeping(instance, around, self.calls, Telling("r1", instance, around, self.calls, ONE.uri))

    def settle(self):
        for call in self.calls:
            self.keeping.settle(call)


def test_calls_are_in_doubt_when_no_server_has_answered_for_a_while():
    keeper = Keeper()
    keeper.keeping.without(100.0)
    keeper.keeping.look(100.0 + PATIENCE * 0.9)
    assert not keeper.doubted
    keeper.keeping.look(100.0 + PATIENCE)
    keeper.keeping.look(200.0)
    assert keeper.doubted == keeper.calls


def test_calls_are_in_doubt_at_once_where_no_server_is_up():
    keeper = Keeper()
    keeper.servers.failed(ONE, unreachable=True)
    keeper.keeping.without(100.0)
    assert not keeper.doubted
    keeper.servers.failed(TWO, unreachable=True)
    keeper.keeping.without(100.0)
    assert keeper.doubted == keeper.calls


def test_a_server_that_answers_soon_leaves_no_doubt():
    keeper = Keeper()
    keeper.keeping.without(100.0)
    keeper.keeping.served()
    keeper.keeping.look(200.0)
    keeper.settle()
    assert keeper.doubted == keeper.spared == keeper.kept == []


def test_what_was_in_doubt_is_spared_at_the_end_and_what_was_missed_is_kept():
    keeper = Keeper()
    keeper.keeping.without(100.0)
    keeper.keeping.look(200.0)
    one, two = keeper.calls
    one.missed = True
    for _ in range(2):
        keeper.settle()
    assert (keeper.kept, keeper.spared) == ([one], [two])


def test_what_is_missed_is_in_doubt_first():
    keeper = Keeper()
    assert keeper.keeping.miss("none is there")
    assert keeper.doubted == keeper.calls
    assert not keeper.keeping.miss("none is there")
    assert [(each.kind, each.call) for each in keeper.told] == [
        (EventKind.SPOOLED, str(call.picture.id)) for call in keeper.calls
    ]


@pytest.mark.parametrize("late", [True, False])
def test_only_late_calls_are_kept_where_the_server_was_gone_at_their_end(late):
    keeper = Keeper()
    for call in keeper.calls:
        call.late = late
    assert keeper.keeping.unheard() is late
    keeper.settle()
    assert keeper.kept == (keeper.calls if late else [])


def test_calls_that_are_not_to_be_kept_are_never_in_doubt():
    keeper = Keeper(spool=False)
    for each in (ONE, TWO):
        keeper.servers.failed(each, unreachable=True)
    keeper.keeping.without(100.0)
    keeper.keeping.look(200.0)
    assert not keeper.doubted
