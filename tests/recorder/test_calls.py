"""Calls from ladders: how they begin, ring, are answered and end."""

from recorder.call_events import CallAnswered, CallEnded, CallFinished, CallStarted, EndpointOffered
from recorder.model import CallState, Side
from tests.playbook import at, node, play

SIMPLE = """
    0.00  alice > bob    INVITE  sdp=alice:4000
    0.01  alice < bob    100
    0.50  alice < bob    180
    3.00  alice < bob    200     sdp=bob:5000
    3.01  alice > bob    ACK
    9.00  alice > bob    BYE
    9.01  alice < bob    200
"""


def test_a_call_is_answered_and_ended_by_the_caller():
    played = play(SIMPLE)
    call = played.call
    assert call.state is CallState.COMPLETED
    assert (call.sip_status, call.sip_reason) == (200, "Because")
    assert played.times() == (0, 0.5, 3, 9)
    assert call.ended_by is Side.CALLER
    assert (call.caller.address, call.callee.address) == (node("alice"), node("bob"))
    assert (call.caller.uri, call.caller.name) == ("sip:alice@example.com", "Alice")
    assert call.callee.uri == "sip:bob@example.com"
    assert (call.caller.joined, call.callee.joined) == (at(0), at(3))
    assert call.captures == {0: (1, 7)}
    assert call.warnings == []


def test_events_come_in_the_order_of_the_signalling():
    played = play(SIMPLE)
    assert [type(event) for event in played.events] == [
        CallStarted,
        EndpointOffered,
        CallAnswered,
        EndpointOffered,
        CallEnded,
        CallFinished,
    ]
    assert played.announced() == ["caller/0 10.0.0.1:4000 sendrecv", "callee/0 10.0.0.2:5000 sendrecv"]
    assert played.codes() == ["invite-seen", "sdp-seen", "ringing", "answered", "sdp-seen", "ended", "finished"]


def test_the_callee_may_end_the_call():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        1.0  alice < bob    200     sdp=bob:5000
        1.1  alice > bob    ACK
        4.0  alice < bob    BYE     | Reason: Q.850;cause=16;text="Normal call clearing"
        4.1  alice > bob    200
    """)
    assert played.call.ended_by is Side.CALLEE
    assert played.call.reason_headers == (("Q.850", 16, "Normal call clearing"),)
    assert played.times() == (0, None, 1, 4)


def test_retransmissions_change_nothing():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice > bob    INVITE  sdp=alice:4000 again
        0.6  alice < bob    180
        1.0  alice < bob    200     sdp=bob:5000
        1.5  alice < bob    200     sdp=bob:5000
        1.6  alice > bob    ACK
        1.7  alice > bob    ACK
        4.0  alice > bob    BYE
        4.5  alice > bob    BYE     again
        4.6  alice < bob    200
    """)
    assert played.times() == (0, 0.6, 1, 4)
    assert len(played.endpoints) == 2
    assert sum(isinstance(event, CallAnswered | CallEnded) for event in played.events) == 2


def test_a_proxy_in_the_path_makes_hops_of_one_call():
    played = play("""
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > bob    INVITE  sdp=alice:4000
        1.000  proxy < bob    200     sdp=bob:5000
        1.001  alice < proxy  200     sdp=bob:5000
        1.100  alice > proxy  ACK
        1.101  proxy > bob    ACK
        5.000  proxy < bob    BYE
        5.001  alice < proxy  BYE
    """)
    call = played.call
    assert played.times() == (0, None, 1, 5)
    assert (call.caller.address, call.callee.address) == (node("alice"), node("bob"))
    assert played.announced() == [
        "caller/0 10.0.0.1:4000 sendrecv",
        "caller/1 10.0.0.1:4000 sendrecv",
        "callee/1 10.0.0.2:5000 sendrecv",
        "callee/0 10.0.0.2:5000 sendrecv",
    ]
    assert sum(isinstance(event, CallAnswered) for event in played.events) == 1


def test_hops_seen_out_of_order_still_lead_from_caller_to_callee():
    played = play("""
        0.002  edge > bob     INVITE  sdp=alice:4000
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > edge   INVITE  sdp=alice:4000
        1.002  alice < proxy  200     sdp=bob:5000
        1.001  proxy < edge   200     sdp=bob:5000
        1.000  edge < bob     200     sdp=bob:5000
        5.002  edge > bob     BYE
        5.000  alice > proxy  BYE
        5.001  proxy > edge   BYE
    """)
    assert played.times() == (0, None, 1, 5)
    assert (played.call.caller.address, played.call.callee.address) == (node("alice"), node("bob"))


def test_a_mirror_in_another_vlan_is_the_same_call():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.0  alice > bob    INVITE  sdp=alice:4000 again realm=7
        1.0  alice < bob    200     sdp=bob:5000
        1.0  alice < bob    200     sdp=bob:5000 realm=7
        2.0  alice > bob    BYE
        2.0  alice > bob    BYE     again realm=7
    """)
    assert played.times() == (0, None, 1, 2)
    assert [(e.hop, e.realm) for e in played.endpoints] == [(0, 0), (1, 7), (0, 0), (1, 7)]


def test_a_challenge_is_part_of_the_call():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.1  alice < bob    401
        0.1  alice > bob    ACK     branch=z9hG4bK-call-1->-1-x-alice-bob
        0.2  alice > bob    INVITE  sdp=alice:4000 early
        1.0  alice < bob    200     sdp=bob:5000 tag=bob-2
        1.1  alice > bob    ACK
        4.0  alice > bob    BYE
    """)
    assert played.times() == (0, None, 1, 4)
    assert played.call.state is CallState.COMPLETED
    assert "challenged" in played.codes()
    assert played.warnings() == []


def test_a_challenge_that_nobody_meets_is_a_refusal():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.1  alice < bob    407
    """)
    call = played.call
    assert (call.state, call.sip_status) == (CallState.REFUSED, 407)
    assert played.times() == (0, None, None, 0.1)


def test_retries_after_422_and_488_stay_one_call():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.1  alice < bob    422
        0.2  alice > bob    INVITE  sdp=alice:4000 early
        0.3  alice < bob    488
        0.4  alice > bob    INVITE  sdp=alice:4002 early
        1.0  alice < bob    200     sdp=bob:5000
        4.0  alice > bob    BYE
    """)
    assert played.call.state is CallState.COMPLETED
    assert played.call.sip_status == 200
    assert played.times() == (0, None, 1, 4)


def test_busy_is_a_refusal_by_the_callee():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    180
        2.0  alice < bob    486
        2.1  alice > bob    ACK
    """)
    call = played.call
    assert (call.state, call.sip_status, call.ended_by) == (CallState.REFUSED, 486, Side.CALLEE)
    assert played.times() == (0, 0.5, None, 2)
    assert call.warnings == []


def test_a_server_error_is_a_failure_by_nobody():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    503
    """)
    assert (played.call.state, played.call.ended_by) == (CallState.FAILED, None)
    assert played.times() == (0, None, None, 0.5)


def test_a_cancelled_call_ends_with_its_cancel():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    180
        2.0  alice > bob    CANCEL  | Reason: SIP;cause=200;text="Call completed elsewhere"
        2.1  alice < bob    200     to=CANCEL
        2.2  alice < bob    487
        2.3  alice > bob    ACK
    """)
    call = played.call
    assert (call.state, call.sip_status, call.ended_by) == (CallState.CANCELLED, 487, Side.CALLER)
    assert played.times() == (0, 0.5, None, 2)
    assert call.reason_headers == (("SIP", 200, "Call completed elsewhere"),)
    assert call.warnings == []


def test_an_answer_that_crosses_the_cancel_wins():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        2.00 alice > bob    CANCEL
        2.01 alice < bob    200     to=INVITE sdp=bob:5000
        2.02 alice > bob    ACK
        2.03 alice > bob    BYE
    """)
    assert played.call.state is CallState.COMPLETED
    assert played.times() == (0, None, 2.01, 2.03)


def test_487_without_a_cancel_says_so():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        2.0  alice < bob    487
    """)
    assert played.call.state is CallState.CANCELLED
    assert played.warnings() == ["cancel-not-seen"]


def test_nobody_answers():
    played = play(
        """
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice > bob    INVITE  sdp=alice:4000 again
        1.5  alice > bob    INVITE  sdp=alice:4000 again
        """,
        until=200,
        finish=False,
    )
    assert played.call.state is CallState.FAILED
    assert played.call.sip_status is None
    assert played.times() == (0, None, None, 1.5)
    assert played.warnings() == ["no-final-answer"]


def test_a_call_whose_end_was_not_seen_is_incomplete():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        1.0  alice < bob    200     sdp=bob:5000
        1.1  alice > bob    ACK
    """)
    assert played.call.state is CallState.INCOMPLETE
    assert played.times() == (0, None, 1, 1.1)
    assert played.warnings() == ["end-not-seen"]


def test_media_keeps_an_incomplete_call_and_moves_its_end():
    played = play(SIMPLE.split("9.00")[0], finish=False)
    (index,) = played.tracker.calls_active
    played.tracker.touch(index, at(3000))
    assert played.tracker.expire(at(9000)) == []
    (finished,) = played.tracker.expire(at(3000 + 7201))
    assert finished.call.ended == at(3000)


def test_a_lost_answer_is_not_made_up():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    180
        3.0  alice > bob    ACK
        9.0  alice > bob    BYE
    """)
    assert played.call.state is CallState.COMPLETED
    assert played.times() == (0, 0.5, None, 9)
    assert played.warnings() == ["answer-not-seen"]
    assert "answer-missing" in played.codes()


def test_joined_in_the_middle_a_call_has_what_is_left_of_it():
    played = play("""
        5.0  alice > bob    INVITE  sdp=alice:4000 cseq=4
        5.1  alice < bob    200     sdp=bob:5000
        5.2  alice > bob    ACK
        9.0  alice < bob    BYE
    """)
    call = played.call
    assert (call.state, call.ended_by) == (CallState.COMPLETED, Side.CALLEE)
    assert played.times() == (5, None, None, 9)
    assert played.warnings() == ["invite-not-seen", "sides-assumed", "answer-not-seen"]
    assert call.caller.uri == "sip:alice@example.com"
    assert (call.caller.address, call.callee.address) == (node("alice"), node("bob"))
    assert played.announced() == ["caller/0 10.0.0.1:4000 sendrecv", "callee/0 10.0.0.2:5000 sendrecv"]


def test_a_bye_alone_is_a_call():
    played = play("9.0  alice > bob  BYE")
    assert played.call.state is CallState.COMPLETED
    assert played.times() == (9, None, None, 9)
    assert "mid-call" in played.codes()


def test_the_answer_to_a_bye_alone_is_a_call():
    played = play("9.0  alice < bob  200  to=BYE")
    assert played.call.state is CallState.COMPLETED
    assert played.call.ended_by is Side.CALLER
    assert played.call.caller.address == node("alice")


def test_a_tap_in_one_direction_sees_only_responses():
    played = play("""
        0.1  proxy < bob    180
        0.1  alice < proxy  180
        2.0  proxy < bob    200     sdp=bob:5000
        2.0  alice < proxy  200     sdp=bob:5000
        9.0  proxy < bob    200     to=BYE
    """)
    call = played.call
    assert call.state is CallState.COMPLETED
    assert played.times() == (0.1, 0.1, 2, 9)
    assert played.warnings() == ["invite-not-seen"]
    assert (call.caller.address, call.callee.address) == (node("alice"), node("bob"))


def test_refusals_and_foreign_methods_alone_are_explained_but_no_calls():
    played = play("""
        0.1  alice < bob    404     call=never
        0.2  alice > bob    SUBSCRIBE call=presence early
        0.3  alice < bob    100     call=trying
    """)
    assert played.calls == []
    assert list(played.tracker.unexplained) == ["never", "presence", "trying"]
    assert played.tracker.unexplained["never"].trace[0].code == "no-call"


def test_what_came_before_the_call_was_known_belongs_to_it():
    played = play("""
        0.1  alice < bob    100
        0.2  alice < bob    180
        1.0  alice < bob    200     sdp=bob:5000
    """)
    assert played.times() == (0.1, 0.2, 1, 1)
    assert played.call.first_packet == 1
    assert not played.tracker.unexplained


def test_a_call_id_used_again_is_another_call():
    again = SIMPLE.replace("\n    ", "\n    1").replace("INVITE ", "INVITE cseq=1 ").strip()
    played = play(SIMPLE + again)
    assert [call.state for call in played.calls] == [CallState.COMPLETED] * 2
    assert [played.times(call) for call in played.calls] == [(0, 0.5, 3, 9), (10, 10.5, 13, 19)]


def test_a_call_id_used_again_after_the_call_was_let_go_is_another_call():
    played = play(SIMPLE, until=30, finish=False)
    later = play(SIMPLE.replace("\n    ", "\n    10"), tracker=played.tracker)
    assert later.call.index == 1
    assert later.times() == (100, 100.5, 103, 109)


def test_late_copies_of_a_finished_call_are_no_call():
    played = play(SIMPLE, until=30, finish=False)
    late = play("35.0  alice > bob  BYE  cseq=2\n 35.1  alice < bob  200  to=BYE", tracker=played.tracker)
    assert late.events == []


def test_calls_are_let_go_a_little_after_their_end():
    played = play(SIMPLE, until=13, finish=False)
    assert played.calls == []
    assert len(played.tracker.calls_active) == 1
    played.events += played.tracker.expire(at(15))
    assert played.call.state is CallState.COMPLETED
    assert not played.tracker.calls_active


def test_forks_ring_and_one_wins():
    played = play("""
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > bob    INVITE  sdp=alice:4000
        0.002  proxy > carol  INVITE  sdp=alice:4000
        0.500  proxy < bob    183     sdp=bob:5000 tag=bob-tag
        0.501  alice < proxy  183     sdp=bob:5000
        0.600  proxy < carol  183     sdp=carol:6000 tag=carol-tag
        0.601  alice < proxy  183     sdp=carol:6000
        3.000  proxy < carol  200     sdp=carol:6000 tag=carol-tag
        3.001  alice < proxy  200     sdp=carol:6000
        3.002  proxy > bob    CANCEL
        3.003  proxy < bob    487     tag=bob-tag to=INVITE
        3.100  alice > carol  ACK     tag=carol-tag
        9.000  alice > carol  BYE     tag=carol-tag
    """)
    call = played.call
    assert call.state is CallState.COMPLETED
    assert call.callee.address == node("carol")
    assert played.times() == (0, 0.5, 3, 9)
    assert played.codes().count("forked") == 1
    assert set(played.released()) == {"10.0.0.2:5000"}


def test_a_fork_that_refuses_does_not_end_the_call():
    played = play("""
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > bob    INVITE  sdp=alice:4000
        1.000  proxy < bob    486     tag=bob-tag
        1.100  proxy > carol  INVITE  sdp=alice:4000
        2.000  proxy < carol  200     sdp=carol:6000 tag=carol-tag
        2.001  alice < proxy  200     sdp=carol:6000
        9.000  alice > proxy  BYE
    """)
    assert played.call.state is CallState.COMPLETED
    assert played.call.sip_status == 200
    assert played.call.callee.address == node("carol")


def test_the_refusal_that_the_caller_hears_counts_from_its_first_sighting():
    played = play("""
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > bob    INVITE  sdp=alice:4000
        2.000  proxy < bob    603
        2.001  alice < proxy  603
    """)
    assert played.times() == (0, None, None, 2)
    assert sum(isinstance(event, CallEnded) for event in played.events) == 1


def test_behind_the_proxy_the_last_refusal_stands_when_nothing_follows():
    played = play(
        """
        0.000  alice > proxy  INVITE  sdp=alice:4000
        0.001  proxy > bob    INVITE  sdp=alice:4000
        2.000  proxy < bob    603
        """,
        until=60,
        finish=False,
    )
    assert (played.call.state, played.call.sip_status) == (CallState.REFUSED, 603)
    assert played.times() == (0, None, None, 2)


def test_two_forks_that_both_answer_end_with_the_last():
    played = play("""
        0.0  alice > proxy  INVITE  sdp=alice:4000
        1.0  alice < proxy  200     sdp=bob:5000 tag=bob-tag
        1.1  alice < proxy  200     sdp=carol:6000 tag=carol-tag
        1.2  alice > proxy  BYE     tag=carol-tag
        8.0  alice > proxy  BYE     tag=bob-tag
    """)
    assert played.times() == (0, None, 1, 8)
    assert "branch-ended" in played.codes()


def test_a_response_to_another_port_is_still_at_its_hop():
    played = play("""
        0.0  nat > bob      INVITE  sdp=alice:4000 branch=z9hG4bK-n
        1.0  alice < bob    486     branch=z9hG4bK-n
    """)
    assert played.call.state is CallState.REFUSED
    assert sum(isinstance(event, CallEnded) for event in played.events) == 1


def test_digits_by_info_count_once():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        1.0  alice < bob    200     sdp=bob:5000
        2.0  alice > bob    INFO    body=Signal=5~Duration=160~ | Content-Type: application/dtmf-relay
        2.5  alice > bob    INFO    again body=Signal=5~Duration=160~ | Content-Type: application/dtmf-relay
        3.0  alice > bob    INFO    body=Signal=5~Duration=160~ | Content-Type: application/dtmf-relay
        4.0  alice < bob    INFO    body=# | Content-Type: application/dtmf
    """)
    digits = [(played.seconds(d.at), str(d.side), d.digit, d.duration_ms, d.via) for d in played.call.digits]
    assert digits == [
        (2, "caller", "5", 160, "info"),
        (3, "caller", "5", 160, "info"),
        (4, "callee", "#", None, "info"),
    ]


def test_media_without_signalling_is_a_call_of_its_own():
    played = play(SIMPLE, finish=False)
    call = played.tracker.media_only(at(4), 99, 0)
    assert (call.index, call.call_id, call.state) == (1, None, CallState.MEDIA_ONLY)
    played.tracker.touch(call.index, at(6))
    (finished,) = played.tracker.end_media_only(call, at(40))
    assert isinstance(finished, CallFinished)
    assert call.ended == at(6)
    other = played.tracker.media_only(at(50), 120, 0)
    played.tracker.drop(other)
    assert [c.call_id for c in played.tracker.calls_active.values()] == ["call-1"]


def test_nonsense_says_nothing():
    played = play("0.0  alice > bob  INVITE  | Call-ID:  | CSeq: nonsense")
    assert played.events == []
    unnumbered = play("0.0  alice > bob  INVITE  | CSeq: nonsense")
    assert unnumbered.call.state is CallState.FAILED


def test_calling_oneself_through_a_server_on_one_machine_keeps_hops_apart():
    played = play("""
        0.0  alice > alice  INVITE  sdp=alice:4000
        1.0  alice < alice  200     sdp=alice:4002
        2.0  alice > alice  BYE
    """)
    assert played.call.state is CallState.COMPLETED
