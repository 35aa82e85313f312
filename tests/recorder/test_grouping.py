"""Calls of one conversation, on evidence, and calls that merely look alike, which stay apart."""

import gc
from uuid import UUID
from weakref import ref

from recorder.calls import CallTracker
from recorder.grouping import MAX_SHARING
from recorder.model import GroupReason
from tests.playbook import SECOND, Played, at, play

LEG_A = """
    0.0  alice > proxy  INVITE  call=a sdp=alice:4000 {a}
    1.0  alice < proxy  200     call=a sdp=proxy:5000 {a200}
"""
LEG_B = """
    0.1  proxy > bob    INVITE  call=b ftag=leg-b sdp=proxy:5002 {b}
    0.9  proxy < bob    200     call=b sdp=bob:6000 {b200}
"""
ENDS = """
    8.0  alice > proxy  BYE     call=a
    8.1  proxy > bob    BYE     call=b
"""


def groups(played: Played) -> list[tuple[str | None, int | None, list[tuple[int, GroupReason]]]]:
    return [(call.call_id, call.group, call.group_reasons) for call in played.calls]


def legs(a: str = "", b: str = "", a200: str = "", b200: str = "") -> Played:
    lines = LEG_A.format(a=a, a200=a200).splitlines() + LEG_B.format(b=b, b200=b200).splitlines() + ENDS.splitlines()
    return play("\n".join(sorted(line for line in lines if line.strip())))


def together(played: Played, why: GroupReason) -> bool:
    return groups(played) == [("a", 0, [(1, why)]), ("b", 0, [(0, why)])]


def test_legs_without_evidence_stay_apart():
    assert groups(legs()) == [("a", None, []), ("b", None, [])]


def test_a_header_that_names_the_other_call_id_groups():
    for header in ("X-CID: call-of-a", "X-Original-Call-ID: call-of-a;from=x", 'P-Leg-CID: "call-of-a"'):
        ladder = legs_text = LEG_A.format(a="", a200="") + LEG_B.format(b=f"| {header}", b200="") + ENDS
        played = play("\n".join(sorted(legs_text.replace("call=a", "call=call-of-a").splitlines())))
        assert [call.group for call in played.calls] == [0, 0], ladder
        assert played.calls[1].group_reasons == [(0, GroupReason.HEADER)]


def test_a_call_may_be_named_before_it_is_seen():
    played = play("""
        0.0  alice > proxy  INVITE  call=first-call | X-Call-ID: second-call
        0.1  proxy > bob    INVITE  call=second-call ftag=leg-b
    """)
    assert [call.group for call in played.calls] == [0, 0]


def test_a_header_that_names_its_own_call_is_no_evidence():
    played = play("0.0  alice > bob  INVITE  call=own-call-id | X-CID: own-call-id")
    assert played.call.group is None


def test_a_session_identifier_groups_by_either_half():
    one, other = "a" * 32, "b" * 32
    played = legs(a=f"| Session-ID: {one};remote={'0' * 32}", b=f"| Session-ID: {one};remote={other}")
    assert together(played, GroupReason.SESSION_ID)
    assert played.calls[1].session_ids == (f"{one};remote={other}",)


def test_the_remote_half_may_come_with_the_answer():
    one, other = "a" * 32, "b" * 32
    played = legs(
        a200=f"| Session-ID: {other};remote={one}",
        b200=f"| Session-ID: {other};remote={'c' * 32}",
    )
    assert together(played, GroupReason.SESSION_ID)


def test_the_nil_session_identifier_is_no_evidence():
    nil = "0" * 32
    assert groups(legs(a=f"| Session-ID: {nil}", b=f"| Session-ID: {nil}")) == [("a", None, []), ("b", None, [])]


def test_the_charging_identity_and_guids_group():
    vector = "| P-Charging-Vector: icid-value=1234bc9876e;icid-generated-at=192.0.6.8"
    assert together(legs(a=vector, b=vector), GroupReason.HEADER)
    guid = "| Cisco-Guid: 1234567890-0000065536-0000000001-0000000002"
    assert together(legs(a=guid, b=guid), GroupReason.HEADER)


def test_a_value_that_every_call_shares_proves_nothing_for_long():
    lines = [
        f"{i / 100} alice > bob INVITE call=call-{i:04} ftag=t{i} | Session-ID: {'d' * 32}"
        for i in range(3 * MAX_SHARING)
    ]
    played = play("\n".join(lines))
    assert [call.group for call in played.calls[MAX_SHARING:]] == [None] * (2 * MAX_SHARING)


def test_an_attended_transfer_groups_by_replaces():
    played = play("""
        0.0  alice > bob    INVITE  call=first sdp=alice:4000
        1.0  alice < bob    200     call=first sdp=bob:5000
        2.0  alice > carol  INVITE  call=second sdp=alice:4002 ftag=alice-2 tag=carol-tag
        3.0  alice < carol  200     call=second sdp=carol:6000
        4.0  alice > bob    REFER   call=first | r: <sip:carol@example.com?Replaces=second%3Bto-tag%3Dx%3Bfrom-tag%3Dy>
        4.1  bob > carol    INVITE  call=third ftag=bob-3 | Replaces: second;to-tag=carol-tag;from-tag=alice-2
        5.0  bob < carol    200     call=third tag=carol-3 sdp=carol:6002
        5.1  alice > carol  BYE     call=second
        5.2  alice > bob    BYE     call=first
        9.0  bob > carol    BYE     call=third
    """)
    assert [call.group for call in played.calls] == [0, 0, 0]
    first, _, third = played.calls
    assert (1, GroupReason.REPLACES) in first.group_reasons
    assert (1, GroupReason.REPLACES) in third.group_reasons
    assert "transfer" in played.codes(first)


BLIND = """
    0.0  alice > bob    INVITE  call=first sdp=alice:4000
    1.0  alice < bob    200     call=first sdp=bob:5000
    4.0  alice > bob    REFER   call=first | Refer-To: <sip:carol@example.com>
    4.1  alice < bob    202     call=first
    4.2  bob > carol INVITE call=second {header} | f: <sip:bob@example.com>;tag=bob-2 | t: sip:carol@example.com
    4.3  alice < bob    NOTIFY  call=first body=SIP/2.0%20200%20OK~ | Content-Type: message/sipfrag
    5.0  bob < carol    200     call=second tag=carol-tag sdp=carol:6000
    6.0  alice > bob    BYE     call=first
    9.0  bob > carol    BYE     call=second
"""


def test_a_blind_transfer_groups_by_the_announced_call():
    played = play(BLIND.format(header=""))
    assert [call.group for call in played.calls] == [0, 0]
    assert played.calls[1].group_reasons == [(0, GroupReason.REFER)]
    assert "transferred" in played.codes(played.calls[0])


def test_referred_by_names_the_reason():
    played = play(BLIND.format(header="| Referred-By: <sip:alice@example.com>"))
    assert played.calls[1].group_reasons == [(0, GroupReason.REFERRED_BY)]


def test_referred_by_without_the_refer_finds_the_call_between_the_two():
    ladder = "\n".join(line for line in BLIND.splitlines() if "REFER " not in line)
    played = play(ladder.format(header="| Referred-By: <sip:alice@example.com>"))
    assert played.calls[1].group_reasons == [(0, GroupReason.REFERRED_BY)]


def test_a_call_to_the_target_by_somebody_else_is_no_transfer():
    ladder = BLIND.format(header="").replace("4.2  bob > carol", "4.2  dave > carol").replace("<sip:bob@", "<sip:dave@")
    assert [call.group for call in play(ladder).calls] == [None, None]


def test_a_redirection_groups_with_the_call_that_follows_it():
    played = play("""
        0.0  alice > bob    INVITE  call=first sdp=alice:4000
        0.1  alice < bob    302     call=first | Contact: <sip:carol@example.com>
        0.2  alice > carol  INVITE  call=second ftag=a-2 sdp=alice:4000 | To: <sip:carol@example.com>
    """)
    assert played.calls[1].group_reasons == [(0, GroupReason.REDIRECT)]


def test_a_call_that_finished_is_still_found():
    first = play(
        """
        0.0  alice > bob    INVITE  call=first-call
        1.0  alice < bob    486     call=first-call
        """,
        until=30,
        finish=False,
    )
    first.calls[0].id = UUID(int=7)
    played = play(
        "40.0  alice > carol  INVITE  call=second ftag=x | X-CID: first-call", tracker=first.tracker, finish=False
    )
    (call,) = played.tracker.calls_active.values()
    assert call.group == 0


def test_the_identifier_of_a_group_is_that_of_its_first_call():
    played = play(BLIND.format(header="").split("6.0")[0], finish=False)
    for index, call in played.tracker.calls_active.items():
        call.id = UUID(int=index + 100)
    calls = list(played.tracker.calls_active.values())
    ended = play("6.0 alice > bob BYE call=first cseq=9", until=20, finish=False, tracker=played.tracker)
    assert [call.index for call in ended.calls] == [0]
    assert {played.tracker.group_identifier(call) for call in calls} == {UUID(int=100)}


def test_media_identity_groups_and_groups_merge():
    played = play(
        "\n".join(f"{i / 10} alice > bob INVITE call=call-{i} ftag=t{i}" for i in range(4)),
        finish=False,
    )
    tracker, calls = played.tracker, list(played.tracker.calls_active.values())
    tracker.group(calls[1], calls[0], GroupReason.MEDIA)
    tracker.group(calls[2], calls[3], GroupReason.MEDIA)
    tracker.group(calls[3], calls[0], GroupReason.MEDIA)
    assert [call.group for call in calls] == [0, 0, 0, 0]
    assert calls[0].group_reasons == [(1, GroupReason.MEDIA), (3, GroupReason.MEDIA)]
    tracker.group(calls[3], calls[0], GroupReason.MEDIA)
    assert len(calls[3].group_reasons) == 2
    assert tracker.expire(10 * SECOND) == []


def test_media_without_signalling_keeps_its_group_when_it_ends():
    played = play("0.0 alice > bob INVITE", finish=False)
    (call,) = played.tracker.calls_active.values()
    call.id = UUID(int=1)
    media = played.tracker.media_only(at(1), 5, 0)
    media.id = UUID(int=2)
    played.tracker.group(media, call, GroupReason.MEDIA)
    played.tracker.end_media_only(media, at(9))
    assert played.tracker.group_identifier(media) == UUID(int=1)


def test_a_group_that_joins_an_older_one_takes_its_finished_calls_along():
    played = play("\n".join(f"{i} alice > bob INVITE call=call-{i} ftag=t{i}" for i in range(4)), finish=False)
    tracker, calls = played.tracker, list(played.tracker.calls_active.values())
    tracker.group(calls[1], calls[2], GroupReason.MEDIA)
    play("5.0 alice < bob 486 call=call-1 ftag=t1", until=20, finish=False, tracker=tracker)
    assert 1 not in tracker.calls_active
    tracker.group(calls[0], calls[2], GroupReason.MEDIA)
    assert [call.group for call in calls] == [0, 0, 0, None]


def test_a_call_that_is_written_is_not_kept_for_its_group():
    tracker = CallTracker()
    calls = [tracker.admit(f"call-{number}", at(number), lambda now: None) for number in range(2)]
    for number, call in enumerate(calls):
        call.id = UUID(int=number + 1)
        tracker.share(call, ["a value"], GroupReason.METADATA)
    kept = ref(calls[0])
    tracker.dismiss(calls.pop(0), at(5))
    gc.collect()
    assert kept() is None
    third = tracker.admit("call-3", at(6), lambda now: None)
    tracker.share(third, ["a value"], GroupReason.METADATA)
    assert {tracker.group_identifier(call) for call in (*calls, third)} == {UUID(int=1)}
