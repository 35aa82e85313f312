"""The tracker under anything that a wire may bring: never raises, forgets nothing, grows without bound nowhere."""

from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.sip import parse_message
from recorder import calls
from recorder.call_events import CallFinished, CallStarted, EndpointOffered, EndpointReleased
from recorder.calls import CallTracker
from recorder.model import CallState
from recorder.trace import MAX_STEPS
from tests.playbook import Played, _Dialog, _message, at, play

METHODS = "INVITE ACK BYE CANCEL PRACK UPDATE INFO REFER NOTIFY SUBSCRIBE MESSAGE".split()  # noqa: SIM905
STATUSES = ["100", "180", "183", "200", "202", "302", "401", "404", "422", "486", "487", "491", "500", "603"]
EXTRAS = [
    "",
    "| Replaces: a;to-tag=x;from-tag=y",
    "| Refer-To: <sip:bob@example.com?Replaces=b%3Bto-tag%3D1%3Bfrom-tag%3D2>",
    "| Referred-By: <sip:alice@example.com>",
    "| X-CID: call-b",
    f"| Session-ID: {'e' * 32}",
    "| Require: siprec",
    "| Contact: <sip:carol@example.com>;+sip.src",
    "| From: ",
    "| To: x",
    "| CSeq: 0 BYE",
    "| Via: SIP/2.0/UDP x",
    "| RAck: 1 1 INVITE",
]

lines = st.builds(
    "{:.3f} {} {} {} {} call=call-{} {} {} {} {}".format,
    st.floats(0, 400),
    st.sampled_from(["alice", "proxy"]),
    st.sampled_from("><"),
    st.sampled_from(["bob", "carol", "proxy"]),
    st.sampled_from(METHODS + STATUSES + ["INVITE", "200", "BYE"] * 4),
    st.sampled_from("ab"),
    st.sampled_from(["", "tag=other", "ftag=else", "early", "again", "cseq=1", "cseq=2", "to=INVITE", "to=BYE"]),
    st.sampled_from(["", "", "realm=4"]),
    st.sampled_from(["", "sdp=alice:4000", "sdp=bob:5000/sendonly", "sdp=hold:5000", "sdp=bob:0,image:6000"]),
    st.sampled_from(EXTRAS),
)


def check(played: Played) -> None:
    """What holds of any run that has finished."""
    begun = [event.call.index for event in played.events if isinstance(event, CallStarted)]
    ended = [event.call.index for event in played.events if isinstance(event, CallFinished)]
    assert sorted(begun) == sorted(set(ended)) == sorted(ended)
    assert not played.tracker.calls_active
    gone: set[int] = set()
    for event in played.events:
        if isinstance(event, EndpointOffered | EndpointReleased):
            assert event.endpoint.call in begun
            assert event.endpoint.call not in gone
        elif isinstance(event, CallFinished):
            gone.add(event.call.index)
    for call in played.calls:
        assert call.state is not CallState.ACTIVE
        assert call.ended is not None
        assert call.ended >= call.started
        assert len(call.trace) <= MAX_STEPS
        assert all(hold.end is not None and hold.begin <= hold.end for hold in call.holds)
        assert call.index not in [other for other, _ in call.group_reasons]
        assert (call.group is None) == (not call.group_reasons)


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=40), st.sampled_from([None, 300.0, 8000.0]))
def test_any_ladder_comes_to_a_truthful_end_and_always_to_the_same(ladder, until):
    text = "\n".join(ladder)
    played = play(text, until=until)
    check(played)
    assert repr(played.events) == repr(play(text, until=until).events)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(lines, st.integers(0, 900), st.binary(max_size=6)), max_size=12))
def test_damaged_messages_never_raise(ladder):
    played, dialogs = Played(CallTracker()), dict[str, _Dialog]()
    for number, (line, position, junk) in enumerate(ladder):
        data, seen = _message(line, number + 1, dialogs)
        message = parse_message(data[:position] + junk + data[position + len(junk) :])
        if message is not None:
            played.events += played.tracker.feed(message, seen)
    played.events += played.tracker.finish(at(500))
    check(played)


def test_the_trace_is_bounded_and_says_how_much_is_missing():
    moves = "\n".join(f"{2 + i / 100} alice > bob UPDATE sdp=alice:{4000 + i % 2}" for i in range(600))
    played = play("0.0 alice > bob INVITE sdp=alice:4000\n1.0 alice < bob 200 sdp=bob:5000\n" + moves)
    assert len(played.call.trace) == MAX_STEPS
    assert played.call.trace[-1].text.endswith("more steps left out")


def test_too_many_calls_make_room_by_ending_the_ones_nearest_to_their_end(monkeypatch):
    monkeypatch.setattr(calls, "MAX_ACTIVE", 10)
    played = Played(CallTracker())
    for number in range(40):
        later = play(f"{number} alice > bob INVITE call=call-{number}", tracker=played.tracker, finish=False)
        played.events += later.events
        assert len(played.tracker.calls_active) <= 10
    played.events += played.tracker.finish(at(50))
    check(played)
    assert [played.warnings(call) for call in played.calls[:30]] == [["evicted", "no-final-answer"]] * 30


def test_many_short_calls_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(calls, "MAX_LATELY", 50)
    monkeypatch.setattr(calls, "MAX_UNEXPLAINED", 20)
    tracker = CallTracker()
    for number in range(300):
        ladder = f"""
            {number * 10}.0  alice > bob  INVITE  call=call-{number} sdp=alice:4000 | X-CID: other-{number}
            {number * 10}.1  alice < bob  200     call=call-{number} sdp=bob:5000
            {number * 10}.2  alice > bob  REFER   call=call-{number} | Refer-To: <sip:{number}@example.com>
            {number * 10}.3  alice > bob  BYE     call=call-{number}
            {number * 10}.4  alice < bob  404     call=lost-{number}
        """
        play(ladder, until=number * 10 + 9, finish=False, tracker=tracker)
    assert len(tracker.calls_active) <= 2
    assert len(tracker._lately) <= 50
    assert len(tracker._unexplained) == 20
    assert len(tracker._due) <= 20
    assert len(tracker._groups._expected) <= 10
    assert not tracker._groups._group_of
