"""SIP of captures that others made, read the way tshark reads it."""

import shutil
import subprocess
from collections import Counter

import pytest

from decoders.demux import SIP, SIP_IGNORED
from decoders.sip import parse_message
from decoders.sipstream import SipStream
from tests.naive_demux import classify_payload

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

FIELDS = ["udp.payload", "sip.Method", "sip.Status-Code", "sip.Call-ID", "sip.CSeq.seq", "sip.CSeq.method"]
TCP_FIELDS = ["tcp.payload", "tcp.stream", "tcp.srcport", "tcp.analysis.retransmission", "sip.Call-ID", "frame.number"]


def dissect(path, display_filter, fields):
    """One row of field values a frame; several values of a field are separated by a space, innermost last."""
    command = ["tshark", "-n", "-r", str(path), "-Y", display_filter, "-T", "fields", "-E", "aggregator= "]
    for field in fields:
        command += ["-e", field]
    out = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode("latin-1")
    return [line.split("\t") for line in out.splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "MichalCab__ISA/sip.pcap",
        "ahmedelemamn__Wireshark-Captures/sip_hold_transfer.pcapng",
        "ahmedelemamn__Wireshark-Captures/sip_recording_ora.pcapng",
        "arkime__arkime/gtp-iphone.pcap",
        "irontec__sngrep/ipv6frag.pcap",
        "nextcaller__sip-capture/sip-i.pcap",
        "odedshimon__BruteShark/DTMFsipinfo.pcap",
        "ossobv__sipzamine/sip-invites-with-utf8-and-latin1.pcap",
        "velco22__MTAA_1/presmerovanie_hovoru.pcapng",
        "zeek__zeek/sip-long-request-response-paths.pcap",
    ],
)
def test_every_message_over_udp_is_read_as_tshark_reads_it(captures, name):
    rows = dissect(captures / "real" / name, "sip && udp && !tcp", FIELDS)
    read = 0
    for payload, method, status, call_id, number, sequence in rows:
        if not payload:
            continue
        data = bytes.fromhex(payload.split()[-1])
        message = parse_message(data)
        assert message is not None
        assert (message.method or "", str(message.status or "")) == (method, status)
        assert (message.call_id or "") == call_id
        assert message.cseq == (int(number), sequence)
        assert classify_payload(data) in (SIP, SIP_IGNORED)
        assert message.from_ is not None
        message.sdp(), message.parts()
        read += 1
    assert read > 0


@pytest.mark.parametrize(
    "name",
    [
        "real/NormB__sipnab/sip-over-tcp.pcap",
        "real/ahmedelemamn__Wireshark-Captures/sip_prack_do_183.pcapng",
        "real/lundgrel__sipp-scenarios/sipp_uac_Media_DTMF_Speex.pcap",
        "lab/opensips_siprec_tcp.pcap",
    ],
)
def test_every_message_over_tcp_is_framed_as_tshark_frames_it(captures, name):
    expected, found, streams = Counter(), Counter(), {}
    for payload, stream, port, repeated, call_ids, _ in dissect(captures / name, "tcp.len > 0", TCP_FIELDS):
        expected.update(call_ids.split())
        if repeated or not payload:
            continue
        direction = streams.setdefault((stream, port), SipStream())
        found.update(parse_message(data).call_id for data in direction.feed(bytes.fromhex(payload.split()[-1])))
    assert expected
    assert found == expected


def test_junk_before_a_request_costs_nothing(captures):
    rows = dissect(captures / "real/zeek__zeek/sip-junk-before-request.pcap", "udp", ["udp.payload"])
    messages = [parse_message(bytes.fromhex(row[0])) for row in rows]
    assert [message and message.method for message in messages] == [None, "REGISTER"]
