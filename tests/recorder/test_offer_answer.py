"""Offer/answer from ladders: which endpoints, whose, from when; and who holds whom."""

from tests.playbook import at, play

ANSWERED = """
    0.0  alice > bob    INVITE  sdp=alice:4000
    1.0  alice < bob    200     sdp=bob:5000
    1.1  alice > bob    ACK
"""


def test_endpoints_hold_from_the_time_of_their_description():
    played = play(ANSWERED)
    offered, answered = played.endpoints
    assert (offered.since, offered.packet, answered.since, answered.packet) == (at(0), 1, at(1), 2)
    assert str(offered.rtcp) == "10.0.0.1:4001"
    assert offered.formats[8].encoding == "PCMA"


def test_an_offer_in_the_answer_is_answered_in_the_ack():
    played = play("""
        0.0  alice > bob    INVITE
        1.0  alice < bob    200     sdp=bob:5000
        1.1  alice > bob    ACK     sdp=alice:4000
        2.0  alice > bob    BYE
    """)
    assert played.announced() == ["callee/0 10.0.0.2:5000 sendrecv", "caller/0 10.0.0.1:4000 sendrecv"]


def test_an_offer_in_a_provisional_response_is_answered_in_the_prack():
    played = play("""
        0.0  alice > bob    INVITE
        0.5  alice < bob    183     sdp=bob:5000
        0.6  alice > bob    PRACK   sdp=alice:4000 | RAck: 1 1 INVITE
        0.7  alice < bob    200     to=PRACK
        1.0  alice < bob    200     to=INVITE
        2.0  alice > bob    BYE
    """)
    assert played.announced() == ["callee/0 10.0.0.2:5000 sendrecv", "caller/0 10.0.0.1:4000 sendrecv"]
    assert "early-media" in played.codes()
    assert played.holds() == []


def test_an_update_in_the_early_dialog_moves_media_without_a_hold():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    183     sdp=bob:5000/inactive
        0.6  alice > bob    PRACK   | RAck: 1 1 INVITE
        0.8  alice > bob    UPDATE  sdp=alice:4002
        0.9  alice < bob    200     sdp=bob:5002 to=UPDATE
        2.0  alice < bob    200     to=INVITE
        3.0  alice > bob    BYE
    """)
    assert played.announced()[2:] == ["caller/0 10.0.0.1:4002 sendrecv", "callee/0 10.0.0.2:5002 sendrecv"]
    assert played.holds() == []


def test_early_media_is_announced_once():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        0.5  alice < bob    183     sdp=bob:5000
        1.0  alice < bob    183     sdp=bob:5000
        2.0  alice < bob    200     sdp=bob:5000
        3.0  alice > bob    BYE
    """)
    assert len(played.endpoints) == 2


def test_the_side_is_told_by_tags_not_by_the_direction_of_the_request():
    played = play(
        ANSWERED
        + """
        2.0  alice < bob    INVITE  sdp=bob:5002
        2.1  alice > bob    200     sdp=alice:4002
        2.2  alice < bob    ACK
        3.0  alice > bob    BYE
    """
    )
    assert played.announced()[2:] == ["callee/0 10.0.0.2:5002 sendrecv", "caller/0 10.0.0.1:4002 sendrecv"]


def test_sendonly_holds_and_sendrecv_resumes():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        5.0  alice > bob    INVITE  sdp=alice:4000
        5.1  alice < bob    200     sdp=bob:5000
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == [(2, 5, "caller")]
    assert [step for step in played.codes() if step in ("held", "resumed")] == ["held", "resumed"]


def test_inactive_and_the_null_address_hold_too_and_the_end_ends_the_hold():
    for held in ("bob:5000/inactive", "hold:5000"):
        played = play(
            ANSWERED
            + f"""
            2.0  alice < bob    INVITE  sdp={held}
            2.1  alice > bob    200     sdp=alice:4000/inactive
            9.0  alice > bob    BYE
        """
        )
        assert played.holds() == [(2, 9, "callee")]


def test_both_sides_may_hold_and_each_resumes_for_itself():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        3.0  alice < bob    INVITE  sdp=bob:5000/inactive
        3.1  alice > bob    200     sdp=alice:4000/inactive
        4.0  alice > bob    INVITE  sdp=alice:4000/recvonly
        4.1  alice < bob    200     sdp=bob:5000/inactive
        5.0  alice < bob    INVITE  sdp=bob:5000
        5.1  alice > bob    200     sdp=alice:4000
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == [(2, 4, "caller"), (3, 5, "callee")]


def test_a_refresh_by_the_held_side_ends_no_hold():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        3.0  alice < bob    INVITE  sdp=bob:5000/recvonly
        3.1  alice > bob    200     sdp=alice:4000/sendonly
        5.0  alice > bob    INVITE  sdp=alice:4000
        5.1  alice < bob    200     sdp=bob:5000
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == [(2, 5, "caller")]


def test_a_one_way_call_is_not_on_hold():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        1.0  alice < bob    200     sdp=bob:5000/recvonly
        2.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        9.0  alice > bob    BYE
    """)
    assert played.holds() == []


def test_a_hold_after_joining_in_the_middle_is_seen():
    played = play("""
        2.0  alice > bob    INVITE  cseq=5 sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        5.0  alice > bob    INVITE  sdp=alice:4000
        9.0  alice > bob    BYE
    """)
    assert played.holds() == [(2, 5, "caller")]


def test_a_hold_by_late_offer_is_resumed_by_one():
    played = play(
        ANSWERED
        + """
        2.0  alice < bob    INVITE  sdp=hold:5000/inactive
        2.1  alice > bob    200     sdp=alice:4000/inactive
        4.0  alice < bob    INVITE
        4.1  alice > bob    200     sdp=alice:4000
        4.2  alice < bob    ACK     sdp=bob:5008
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == [(2, 4, "callee")]
    assert played.announced()[-1] == "callee/0 10.0.0.2:5008 sendrecv"


def test_a_hold_seen_at_two_hops_is_one_hold():
    played = play("""
        0.00  alice > proxy  INVITE  sdp=alice:4000
        0.01  proxy > bob    INVITE  sdp=alice:4000
        1.00  proxy < bob    200     sdp=bob:5000
        1.01  alice < proxy  200     sdp=bob:5000
        2.00  alice > proxy  INVITE  sdp=alice:4000/sendonly
        2.01  proxy > bob    INVITE  sdp=alice:4000/sendonly
        2.10  proxy < bob    200     sdp=bob:5000/recvonly
        2.11  alice < proxy  200     sdp=bob:5000/recvonly
        5.00  alice > proxy  INVITE  sdp=alice:4000
        5.01  proxy > bob    INVITE  sdp=alice:4000
        9.00  alice > proxy  BYE
    """)
    assert played.holds() == [(2, 5, "caller")]


def test_a_refused_reinvite_leaves_the_session_as_it_was():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    INVITE  sdp=alice:4444/sendonly
        2.1  alice < bob    491
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == []
    assert played.released() == ["10.0.0.1:4444"]
    assert played.announced()[2:] == ["caller/0 10.0.0.1:4444 sendonly", "caller/0 10.0.0.1:4000 sendrecv"]


def test_a_refused_resume_leaves_the_call_on_hold():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    INVITE  sdp=alice:4000/sendonly
        2.1  alice < bob    200     sdp=bob:5000/recvonly
        4.0  alice > bob    INVITE  sdp=alice:4000
        4.1  alice < bob    500
        6.0  alice > bob    INVITE  sdp=alice:4000
        6.1  alice < bob    200     sdp=bob:5000
        9.0  alice > bob    BYE
    """
    )
    assert played.holds() == [(2, 6, "caller")]


def test_a_description_in_a_refusal_announces_nothing():
    played = play("""
        0.0  alice > bob    INVITE  sdp=alice:4000
        1.0  alice < bob    488     sdp=bob:5000
    """)
    assert played.announced() == ["caller/0 10.0.0.1:4000 sendrecv"]


def test_fax_switches_the_media_without_a_hold():
    played = play(
        ANSWERED
        + """
        2.0  alice < bob    INVITE  sdp=bob:0,image:5004
        2.1  alice > bob    200     sdp=alice:0,image:4004
        9.0  alice > bob    BYE
    """
    )
    assert [(e.media, str(e.endpoint), dict(e.formats)) for e in played.endpoints[2:]] == [
        ("image", "10.0.0.2:5004", {}),
        ("image", "10.0.0.1:4004", {}),
    ]
    assert played.holds() == []


def test_a_description_that_comes_back_is_announced_again():
    played = play(
        ANSWERED
        + """
        2.0  alice > bob    UPDATE  sdp=carol:4000
        3.0  alice > bob    UPDATE  sdp=alice:4000
        9.0  alice > bob    BYE
    """
    )
    assert played.announced()[2:] == ["caller/0 10.0.0.3:4000 sendrecv", "caller/0 10.0.0.1:4000 sendrecv"]


def test_candidates_keys_and_multiplexing_are_taken_from_the_description():
    sdp = "~".join(
        [
            "v=0",
            "o=- 1 1 IN IP4 10.0.0.1",
            "s=-",
            "c=IN IP4 10.0.0.1",
            "t=0 0",
            "m=audio 4000 RTP/SAVPF 8",
            "a=rtcp-mux",
            "a=label:left",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:aSBrbm93IGFsbCB5b3VyIGxpdHRsZSBzZWNyZXRz",
            "a=candidate:1 1 udp 1 192.168.1.4 4000 typ host",
            "a=candidate:2 1 udp 1 10.0.0.1 4000 typ srflx",
            "a=candidate:3 2 udp 1 192.168.1.4 4001 typ host",
            "a=candidate:4 1 tcp 1 192.168.1.4 4000 typ host",
            "a=candidate:5 1 udp 1 d2.local 4000 typ host",
        ]
    )
    played = play(f"0.0  alice > bob  INVITE  body={sdp.replace(' ', '%20')} | Content-Type: application/sdp")
    default, candidate = played.endpoints
    assert (default.rtcp, default.encrypted, default.label, default.ice) == (None, True, "left", False)
    assert default.crypto[0].suite == "AES_CM_128_HMAC_SHA1_80"
    assert (str(candidate.endpoint), candidate.ice) == ("192.168.1.4:4000", True)


def test_endpoints_are_bounded():
    lines = [f"{2 + i / 1000} alice > bob UPDATE sdp=alice:{6000 + 2 * i}" for i in range(400)]
    played = play(ANSWERED + "\n".join(lines))
    assert len(played.endpoints) == 256
    assert "endpoint-limit" in played.warnings()
