"""Encrypted calls and encrypted legs: libsrtp at both ends of the forwarder."""

import pytest
from pylibsrtp import Policy, Session

from decoders.rtcp import parse_rtcp
from decoders.sdp_values import CryptoKey
from recorder.siprec.legs import LegId
from tests.forwarding import VOICE, Bench, Rtp, talk

PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}


def crypto(suite: str, seed: int) -> CryptoKey:
    return CryptoKey(1, suite, bytes((seed + 3 * k) & 0xFF for k in range(PROFILES[suite][1])))


def session(key: CryptoKey, kind: int) -> Session:
    return Session(Policy(key=key.key, ssrc_type=kind, srtp_profile=PROFILES[key.suite][0]))


def protected(packets: list[Rtp], key: CryptoKey) -> list[Rtp]:
    sender = session(key, Policy.SSRC_ANY_OUTBOUND)
    return [each._replace(payload=sender.protect(each.octets())[12:]) for each in packets]


@pytest.mark.parametrize("suite", PROFILES)
def test_a_leg_encrypts_media_and_reports(suite):
    with Bench() as bench:
        ours = crypto(suite, 1)
        server = bench.server()
        spoken = talk(150)
        bench.feed(spoken[:60])
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE, encrypt=ours)
        bench.feed(spoken[60:])
        bench.pass_time(4000)
        opened = session(ours, Policy.SSRC_ANY_INBOUND)
        plain = [opened.unprotect(each) for each in server.raw()]
        assert [each[12:] for each in plain] == [each.payload for each in spoken]
        sequences = [int.from_bytes(each[2:4], "big") for each in plain]
        assert sequences == list(range(sequences[0], sequences[0] + 150))
        assert {each[8:12] for each in plain} == {local.ssrc.to_bytes(4, "big")}
        reports = [parse_rtcp(opened.unprotect_rtcp(each)) for each in server.raw(rtcp=True)]
        assert {report.sender_reports[0].ssrc for report in reports} == {local.ssrc}
        assert bench.forwarder.report([leg])[leg].packets == 150


@pytest.mark.parametrize("suite", PROFILES)
def test_an_encrypted_call_is_decrypted_from_its_first_packet(suite):
    with Bench() as bench:
        theirs, ours = crypto(suite, 5), crypto(suite, 9)
        clear, sealed = bench.server(), bench.server()
        spoken = talk(100, sequence=65_450)
        on_the_wire = protected(spoken, theirs)
        bench.feed(on_the_wire[:30])
        bench.place_all(VOICE, crypto=(theirs,))
        bench.leg(clear, VOICE, 1)
        bench.leg(sealed, VOICE, 2, encrypt=ours)
        bench.feed(on_the_wire[30:])
        bench.pass_time(200)
        assert [each.payload for each in clear.got()] == [each.payload for each in spoken]
        opened = session(ours, Policy.SSRC_ANY_INBOUND)
        assert [opened.unprotect(each)[12:] for each in sealed.raw()] == [each.payload for each in spoken]


def test_packets_that_no_key_opens_are_not_sent():
    with Bench() as bench:
        server = bench.server()
        wrong = crypto("AES_CM_128_HMAC_SHA1_80", 77)
        spoken = protected(talk(20), crypto("AES_CM_128_HMAC_SHA1_80", 5))
        bench.feed(spoken[:5])
        bench.place_all(VOICE, crypto=(wrong,))
        bench.leg(server, VOICE)
        bench.feed(spoken[5:])
        assert server.got() == []


def test_the_servers_own_key_opens_its_reports():
    with Bench() as bench:
        from decoders.rtcp_values import ReportBlock
        from decoders.rtcp_write import receiver_report

        ours, theirs = crypto("AEAD_AES_256_GCM", 1), crypto("AEAD_AES_256_GCM", 2)
        server = bench.server()
        bench.feed(talk(5))
        bench.place_all(VOICE)
        leg, local = bench.leg(server, VOICE, encrypt=ours, decrypt=(theirs,))
        block = ReportBlock(local.ssrc, 128, 1, 2, 3, 0, 0)
        packet = session(theirs, Policy.SSRC_ANY_OUTBOUND).protect_rtcp(receiver_report(99, [block]))
        where = (local.rtcp.host, local.rtcp.port)
        server.rtcp_socket.sendto(packet, where)
        bench.pass_time(300)
        report = bench.forwarder.report([leg])[leg]
        assert report.fraction_lost == 0.5


def test_a_key_of_no_use_is_refused_at_once():
    with Bench() as bench:
        server = bench.server()
        leg = LegId(VOICE, 1)
        bench.forwarder.open(leg, "127.0.0.1", 0)
        with pytest.raises(ValueError, match="octets"):
            bench.forwarder.connect(leg, server.remote(encrypt=CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", b"short")))
