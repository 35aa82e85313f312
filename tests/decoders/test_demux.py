"""Classes of UDP payloads: golden cases, and the kernel against its plain twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.batch import KIND_FRAGMENT, KIND_TCP, KIND_UDP, DatagramBatch, PacketBatch
from decoders import demux
from decoders.demux import OTHER, RTCP, RTP, SIP, SIP_IGNORED
from decoders.sip import parse_message
from tests.naive_demux import classify_payload


def batch(payloads, missing=0, kind=KIND_UDP, ports=(4000, 4002)):
    """A DatagramBatch of bare payloads."""
    n = len(payloads)
    length = np.array([len(payload) for payload in payloads], np.int32)
    offset = (np.cumsum(length) - length).astype(np.int64)
    nothing = {"time": np.zeros(n, np.int64), "link_type": np.zeros(n, np.int32), "capture": np.zeros(n, np.int32)}
    packets = PacketBatch(
        buffer=np.frombuffer(b"".join(payloads) or b"\0", np.uint8),
        offset=offset,
        captured=length,
        wire=length,
        number=np.arange(n, dtype=np.int64),
        **nothing,
    )
    address = np.zeros(n, np.uint64)
    return DatagramBatch(
        packets,
        np.full(n, kind, np.uint8),
        offset,
        length,
        np.full(n, missing, np.int32),
        address,
        address,
        address,
        address,
        np.full(n, ports[0], np.uint16),
        np.full(n, ports[1], np.uint16),
        np.zeros(n, np.uint32),
        np.zeros(n, np.uint16),
    )


def classify(payload, missing=0, **how):
    found = int(demux.classify(batch([payload], missing, **how))[0])
    if not how:
        assert found == classify_payload(payload, missing)
    return found


def request(method, extra=b"", uri=b"sip:bob@example.com"):
    return method + b" " + uri + b" SIP/2.0\r\nCSeq: 1 " + method + b"\r\n" + extra + b"\r\n"


def response(cseq, code=b"200 OK"):
    return b"SIP/2.0 " + code + b"\r\nVia: SIP/2.0/UDP h\r\n" + cseq + b"\r\nContent-Length: 0\r\n\r\n"


RTP_PACKET = b"\x80\x00\x00\x01" + bytes(8) + b"\xff" * 160
SENDER_REPORT = b"\x80\xc8\x00\x06" + bytes(24)


@pytest.mark.parametrize("method", [b"INVITE", b"ACK", b"BYE", b"CANCEL", b"PRACK", b"UPDATE", b"INFO", b"REFER"])
def test_requests_of_calls_and_their_responses_are_sip(method):
    assert classify(request(method)) == SIP
    assert classify(response(b"CSeq: 17 " + method)) == SIP


@pytest.mark.parametrize("method", [b"REGISTER", b"OPTIONS", b"SUBSCRIBE", b"PUBLISH", b"MESSAGE", b"SERVICE", b"X"])
def test_requests_that_change_no_call_are_ignored_with_their_responses(method):
    assert classify(request(method)) == SIP_IGNORED
    assert classify(response(b"CSeq: 17 " + method)) == SIP_IGNORED


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Event: refer\r\n", SIP),
        (b"o: refer\r\n", SIP),
        (b"EVENT  :  Refer;id=93\r\n", SIP),
        (b"Event:\r\n refer\r\n", SIP),
        (b"Event: referee\r\n", SIP_IGNORED),
        (b"Event: message-summary\r\n", SIP_IGNORED),
        (b"Organisation: refer\r\n", SIP_IGNORED),
        (b"", SIP_IGNORED),
        (b"\r\nEvent: refer\r\n", SIP_IGNORED),
    ],
)
def test_a_notify_is_kept_only_when_it_reports_a_transfer(header, expected):
    assert classify(request(b"NOTIFY", header)) == expected


@pytest.mark.parametrize(
    "cseq", [b"cseq:1 INVITE", b"CSEQ : 00017\t INVITE", b"CSeq:\r\n 1\r\n INVITE", b"Other: x\nCSeq: 1 INVITE"]
)
def test_the_cseq_of_a_response_is_found_however_it_is_written(cseq):
    assert classify(response(cseq)) == SIP


def test_a_response_without_cseq_is_left_to_the_parser():
    assert classify(response(b"X-CSeq: 1 REGISTER")) == SIP


@pytest.mark.parametrize(
    "lead", [b"\r\n", b"\r\n\r\n", b"\0\0", b"  ", b"\xc0\x01\x02:", b"\xff" * 40, b"junk:", b"DB"]
)
def test_a_few_octets_before_the_start_line_hide_nothing(lead):
    assert classify(lead + request(b"INVITE")) == SIP
    assert parse_message(lead + request(b"INVITE")).method == "INVITE"


@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n",
        b"INVITE sip:bob@example.com\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIPO2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIP/2.0 4294967301 better not break\r\nCSeq: 1 INVITE\r\n\r\n",
        b"INVITE sip:bob@example.com XSIP/2.0\r\n\r\n",
        b"hello" * 10,
        b"\0" * 200,
    ],
)
def test_other_text_is_not_sip(text):
    assert classify(text) == OTHER


def test_rtp_is_known_by_its_header_alone():
    assert classify(RTP_PACKET) == RTP
    assert classify(RTP_PACKET[:12]) == RTP
    assert classify(b"\x80\xff" + RTP_PACKET[2:]) == RTP, "marker and payload type 127"
    assert classify(RTP_PACKET[:11]) == OTHER
    assert classify(b"\x40" + RTP_PACKET[1:]) == OTHER, "version 1"
    assert classify(b"\x80\x48" + RTP_PACKET[2:]) == OTHER, "payload type 72 is an RTCP type with its marker"


def test_an_rtp_header_must_fit_its_packet():
    assert classify(b"\x8f" + RTP_PACKET[1:72]) == RTP
    assert classify(b"\x8f" + RTP_PACKET[1:71]) == OTHER
    extension = b"\x90" + RTP_PACKET[1:12] + b"\xbe\xde\x00\x02"
    assert classify(extension + bytes(8)) == RTP
    assert classify(extension + bytes(7)) == OTHER
    assert classify(b"\xa0" + RTP_PACKET[1:12]) == OTHER, "padding needs an octet for its count"


def test_a_packet_cut_by_the_snap_length_is_judged_by_its_length_on_the_wire():
    assert classify(RTP_PACKET[:20], missing=152) == RTP
    assert classify(b"\x8f" + RTP_PACKET[1:20], missing=152) == RTP
    assert classify(SENDER_REPORT[:12], missing=16) == RTCP


def test_rtcp_is_a_chain_of_packets_that_fits():
    description = b"\x81\xca\x00\x02" + bytes(8)
    assert classify(SENDER_REPORT) == RTCP
    assert classify(SENDER_REPORT + description) == RTCP
    assert classify(SENDER_REPORT[:-1]) == OTHER
    assert classify(SENDER_REPORT + b"\x13" * 14) == RTCP, "SRTCP: the rest is encrypted"
    assert classify(b"\x80\xc0\x00\x01" + bytes(4)) == RTCP
    assert classify(b"\x80\xc0\x00\x01" + bytes(5)) == OTHER, "an odd type must fill the datagram"
    assert classify(b"\x80\xc8\x00\x00") == OTHER


@pytest.mark.parametrize("first", [0, 1, 20, 63, 64, 79, 200, 255])
def test_stun_dtls_turn_and_quic_are_none_of_ours(first):
    assert classify(bytes([first]) + bytes(range(1, 120))) == OTHER


@pytest.mark.parametrize("port", [53, 137])
def test_name_services_are_no_rtp_whatever_their_identifier(port):
    assert classify(RTP_PACKET, ports=(port, 40000)) == OTHER
    assert classify(RTP_PACKET, ports=(40000, port)) == OTHER


@pytest.mark.parametrize("kind", [KIND_TCP, KIND_FRAGMENT])
def test_only_whole_datagrams_are_looked_at(kind):
    assert classify(RTP_PACKET, kind=kind) == OTHER


def test_an_empty_batch_has_no_classes():
    assert demux.classify(batch([])).shape == (0,)


PIECES = [
    *(
        b"INVITE",
        b"NOTIFY",
        b"REGISTER",
        b"SIP/2.0",
        b"sip/2.0",
        b" ",
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b"200",
        b"CSeq: 1 ",
    ),
    *(b"Event: refer", b"o:", b"refer", b";", b"\t", b"sip:a@b", b"cseq", b"BYE", b"\0", b"\x80", b"x", b"\r\n\r\n"),
]
SIP_LIKE = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)
MEDIA_LIKE = st.builds(
    lambda first, second, rest: bytes([first | 0x80 if first < 64 else first, second]) + rest,
    st.integers(0, 255),
    st.one_of(st.integers(190, 225), st.integers(0, 255)),
    st.one_of(st.binary(max_size=60), st.lists(st.sampled_from([0, 1, 2, 0x80, 200, 201]), max_size=40).map(bytes)),
)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.one_of(SIP_LIKE, MEDIA_LIKE, st.binary(max_size=40)), max_size=8), st.sampled_from([0, 0, 3, 200]))
def test_the_kernel_agrees_with_its_plain_twin(payloads, missing):
    found = demux.classify(batch(payloads, missing))
    assert found.tolist() == [classify_payload(payload, missing) for payload in payloads]


@settings(deadline=None)  # the first call compiles
@given(st.sampled_from([b"INVITE", b"REGISTER", b"NOTIFY"]), SIP_LIKE, SIP_LIKE, SIP_LIKE)
def test_the_kernel_agrees_with_its_twin_on_messages(method, first, second, third):
    start = method + b" sip:a@b SIP/2.0\r\n"
    payloads = [start + first, b"SIP/2.0 200 OK\r\n" + second + b"\r\nCSeq: 1 " + method + third, first + start + third]
    assert demux.classify(batch(payloads)).tolist() == [classify_payload(payload) for payload in payloads]
