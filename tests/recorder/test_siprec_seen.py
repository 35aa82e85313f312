"""Somebody else's recording sessions: known as such, and reported with the call that they record."""

from recorder.model import CallState
from tests.playbook import Played, node, play

CALL = """
    0.0  alice > bob    INVITE  call=the-call sdp=alice:4000
    1.0  alice < bob    200     call=the-call sdp=bob:5000
"""
END = """
    8.0  alice > bob    BYE     call=the-call
    8.1  src > srs      BYE     call=recording
"""
SESSION = "<session session_id='s1'>{}</session>"
PARTIES = (
    "<participant participant_id='p1'><nameID aor='sip:{}'/></participant>"
    "<participant participant_id='p2'><nameID aor='sip:{}'/></participant>"
)


def recording(session: str, parties: str, time: float = 1.5, call: str = "recording") -> str:
    document = f"<recording xmlns='urn:ietf:params:xml:ns:recording:1'>{session}{parties}</recording>"
    body = "~".join(
        [
            "--b",
            "Content-Type: application/sdp",
            "",
            "v=0",
            "o=- 1 1 IN IP4 10.0.0.7",
            "s=-",
            "c=IN IP4 10.0.0.7",
            "t=0 0",
            "m=audio 7000 RTP/AVP 8",
            "a=sendonly",
            "m=audio 7002 RTP/AVP 8",
            "a=sendonly",
            "--b",
            "Content-Type: application/rs-metadata+xml",
            "",
            document,
            "--b--",
        ]
    ).replace(" ", "%20")
    headers = (
        "| Content-Type: multipart/mixed;boundary=b | From: <sip:src@example.com>;tag=r | To: <sip:srs@example.com>"
    )
    return f"{time} src > srs INVITE call={call} ftag=r tag=s body={body} {headers}\n"


def linked(played: Played) -> list[str]:
    call = next(call for call in played.calls if call.call_id == "the-call")
    return [session.call_id for session in call.recorded_by]


def test_a_session_that_names_the_call_id_belongs_to_that_call():
    text = recording(SESSION.format("<sipSessionID>the-call</sipSessionID>"), "")
    played = play(CALL + text + END)
    call, session = played.calls
    assert linked(played) == ["recording"]
    assert session.recording_session is call.recorded_by[0]
    assert session.recording_session.records == [0]
    assert (session.recording_session.src, session.recording_session.srs) == (node("src"), node("srs"))
    assert played.seconds(session.recording_session.started) == 1.5
    assert played.seconds(session.recording_session.ended) == 8.1
    assert session.recording_session.session_ids == ("s1",)
    assert session.recording_session.metadata[0].startswith(b"<recording")
    assert "recorded-by" in played.codes(call)
    assert [str(e.endpoint) for e in played.endpoints if e.call == session.index] == ["10.0.0.7:7000", "10.0.0.7:7002"]


def test_participants_find_the_call_by_both_sides():
    text = recording(SESSION.format(""), PARTIES.format("bob@example.com", "alice@example.com"))
    played = play(CALL + text + END)
    assert linked(played) == ["recording"]
    assert played.calls[0].recorded_by[0].aors == ("sip:bob@example.com", "sip:alice@example.com")


def test_another_domain_is_enough_where_both_users_fit():
    text = recording(SESSION.format(""), PARTIES.format("alice@10.9.9.9", "bob@10.9.9.9"))
    assert linked(play(CALL + text + END)) == ["recording"]


def test_one_side_alone_is_not_enough():
    text = recording(SESSION.format(""), PARTIES.format("alice@example.com", "dave@example.com"))
    played = play(CALL + text + END)
    assert linked(played) == []
    assert played.calls[1].recording_session is not None


def test_a_session_that_comes_before_its_call_finds_it_later():
    text = recording(SESSION.format(""), PARTIES.format("alice@example.com", "bob@example.com"), time=0)
    played = play(text + CALL.replace("0.0 ", "0.5 ") + END)
    assert linked(played) == ["recording"]


def test_a_session_after_the_call_ended_is_not_of_it():
    text = recording(SESSION.format(""), PARTIES.format("alice@example.com", "bob@example.com"), time=12)
    played = play(CALL + END.splitlines()[1] + "\n" + text)
    assert linked(played) == []


def test_of_two_calls_the_later_is_meant():
    other = CALL.replace("the-call", "earlier").replace("ftag", "x")
    text = recording(SESSION.format(""), PARTIES.format("alice@example.com", "bob@example.com"))
    played = play(other + CALL.replace("0.0 ", "0.5 ") + text + END)
    assert linked(played) == ["recording"]


def test_require_and_feature_tags_tell_a_session_without_metadata():
    for header in ("Require: siprec", "Contact: <sip:src@10.0.0.7>;+sip.src"):
        played = play(f"0.0  src > srs  INVITE  sdp=src:7000/sendonly | {header}")
        assert played.call.recording_session is not None
        assert "recording-session" in played.codes()


def test_an_srs_that_calls_is_the_srs():
    played = play("0.0  srs > src  INVITE  sdp=srs:7000 | Contact: <sip:srs@10.0.0.8>;+sip.srs")
    assert played.call.recording_session is not None
    assert played.call.recording_session.srs == node("srs")


def test_the_recorded_call_waits_for_the_end_of_its_session():
    text = recording(SESSION.format("<sipSessionID>the-call</sipSessionID>"), "")
    played = play(CALL + text + "8.0 alice > bob BYE call=the-call\n", until=14, finish=False)
    assert played.calls == []
    later = play(
        "14.5 src > srs BYE call=recording ftag=r tag=s cseq=2", until=30, finish=False, tracker=played.tracker
    )
    assert [call.call_id for call in sorted(later.calls, key=lambda c: c.index)] == ["the-call", "recording"]


def test_a_session_refused_is_still_one():
    text = recording(SESSION.format("<sipSessionID>the-call</sipSessionID>"), "")
    played = play(CALL + text + "1.6 src < srs 503 call=recording\n" + END.splitlines()[1])
    assert played.calls[1].state is CallState.FAILED
    assert linked(played) == ["recording"]
