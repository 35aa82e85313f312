import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.rtcp import ReportBlock, RttEstimator, SenderReport, parse_rtcp
from decoders.rtcp_values import MAX_NOTES

SECOND = 1_000_000_000


def packet(kind, count, body, padding=0):
    assert len(body) % 4 == 0
    padded = body + bytes(max(0, padding - 1)) + bytes([padding]) * bool(padding)
    first = 0x80 | (0x20 if padding else 0) | count
    return struct.pack("!BBH", first, kind, len(padded) // 4) + padded


def block(ssrc, fraction=0, lost=0, highest=0, jitter=0, lsr=0, dlsr=0):
    return struct.pack("!6I", ssrc, fraction << 24 | lost & 0xFFFFFF, highest, jitter, lsr, dlsr)


def sender_report(ssrc, ntp=0, timestamp=0, packets=0, octets=0, blocks=()):
    return packet(200, len(blocks), struct.pack("!IQIII", ssrc, ntp, timestamp, packets, octets) + b"".join(blocks))


def receiver_report(ssrc, *blocks):
    return packet(201, len(blocks), struct.pack("!I", ssrc) + b"".join(blocks))


def description(ssrc, *items):
    body = struct.pack("!I", ssrc) + b"".join(bytes([kind, len(text)]) + text for kind, text in items) + b"\0"
    return packet(202, 1, body + bytes(-len(body) % 4))


def test_a_sender_report_with_blocks_gives_every_field():
    data = sender_report(7, 0xE5C1103A_80000000, 90, 76, 12160, [block(9, 64, -3, 0x1FFFF, 5, 0x103A8000, 65536)])
    compound = parse_rtcp(data + description(7, (1, b"phone@host")))
    expected = ReportBlock(9, 64, -3, 0x1FFFF, 5, 0x103A8000, 65536)
    assert compound.sender_reports == [SenderReport(7, 0xE5C1103A_80000000, 90, 76, 12160, (expected,))]
    assert compound.cnames == {7: "phone@host"}
    assert list(compound.blocks()) == [(7, expected)]
    assert compound.notes == []


def test_the_senders_clock_is_read_in_unix_time():
    report = parse_rtcp(sender_report(1, (2_208_988_800 + 1_700_000_000) << 32 | 0x80000000)).sender_reports[0]
    assert report.unix_ns == 1_700_000_000 * SECOND + SECOND // 2
    assert report.ntp_middle == (2_208_988_800 + 1_700_000_000 & 0xFFFF) << 16 | 0x8000
    assert parse_rtcp(sender_report(1, 0)).sender_reports[0].unix_ns is None


def test_receiver_reports_of_several_sources_are_all_read():
    compound = parse_rtcp(receiver_report(1, block(2), block(3, lost=0x7FFFFF)))
    assert [b.ssrc for _, b in compound.blocks()] == [2, 3]
    assert compound.receiver_reports[0].blocks[1].cumulative_lost == 0x7FFFFF


def test_a_bye_gives_its_sources_and_its_reason():
    compound = parse_rtcp(receiver_report(1) + packet(203, 2, struct.pack("!II", 5, 6) + b"\x07goodbye"))
    assert compound.byes[0].ssrcs == (5, 6)
    assert compound.byes[0].reason == "goodbye"
    assert parse_rtcp(packet(203, 1, bytes(4))).byes[0].reason is None


def test_descriptions_keep_all_items_and_drop_a_counted_null():
    compound = parse_rtcp(receiver_report(1) + description(1, (1, b"c0\0"), (6, "Büro".encode()), (7, b"")))
    assert compound.descriptions[0].items == ((1, "c0"), (6, "Büro"), (7, ""))


def test_several_chunks_begin_on_word_boundaries():
    chunks = struct.pack("!I", 1) + b"\x01\x03abc\0\0\0" + struct.pack("!I", 2) + b"\x01\x02de\0\0\0\0"
    assert parse_rtcp(receiver_report(1) + packet(202, 2, chunks)).cnames == {1: "abc", 2: "de"}


def test_app_and_feedback_packets_are_kept_as_they_are():
    pli = packet(206, 1, struct.pack("!II", 3, 4))
    compound = parse_rtcp(receiver_report(1) + packet(204, 5, struct.pack("!I", 1) + b"nameDATA") + pli)
    assert (compound.apps[0].subtype, compound.apps[0].name, compound.apps[0].data) == (5, "name", b"DATA")
    assert compound.feedback[0].payload_specific
    assert (compound.feedback[0].format, compound.feedback[0].sender, compound.feedback[0].media) == (1, 3, 4)


def test_voip_metrics_are_read_and_127_is_unavailable():
    metrics = struct.pack(
        "!I4B4H2b8B3H", 9, 12, 12, 84, 10, 120, 520, 30, 40, -20, -60, 127, 16, 92, 127, 43, 127, 0x90, 0, 40, 60, 80
    )
    other = struct.pack("!BBH", 4, 0, 2) + bytes(8)
    body = struct.pack("!I", 5) + other + struct.pack("!BBH", 7, 0, 8) + metrics
    report = parse_rtcp(receiver_report(5) + packet(207, 0, body)).extended[0]
    assert report.block_types == (4, 7)
    voip = report.voip[0]
    assert (voip.ssrc, voip.loss_rate, voip.burst_duration_ms, voip.gap_duration_ms) == (9, 12, 120, 520)
    assert (voip.signal_level_dbm, voip.noise_level_dbm, voip.echo_return_loss_db) == (-20, -60, None)
    assert (voip.gmin, voip.r_factor, voip.external_r_factor, voip.mos_lq, voip.mos_cq) == (16, 92, None, 4.3, None)
    assert (voip.jitter_buffer_nominal_ms, voip.jitter_buffer_absolute_maximum_ms) == (40, 80)


def test_padding_of_the_last_packet_is_removed():
    compound = parse_rtcp(receiver_report(1) + packet(203, 1, bytes(4), padding=8))
    assert compound.byes[0].reason is None
    assert compound.notes == []


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"", "empty"),
        (b"\x80\xc9", "2 octets after the last packet"),
        (b"\x40\xc9\0\x01abcd", "version 1 at octet 0"),
        (description(1), "begins with packet type 202"),
        (packet(200, 0, bytes(8)), "SR is too short"),
        (packet(201, 3, bytes(28)), "3 report blocks promised, 1 present"),
        (receiver_report(1, block(2))[:-4], "4 octets are missing"),
        (receiver_report(1) + b"\x81\x12\0\x01abcd", "no RTCP from octet 8 on: packet type 18"),
        (receiver_report(1) + packet(192, 0, b""), "packet type 192 is not known"),
        (receiver_report(1) + packet(202, 2, bytes(4) + b"\x01\x01a\0"), "2 SDES chunks promised, 1 present"),
        (receiver_report(1) + packet(202, 1, bytes(4) + b"\x01\x09ab"), "runs past its packet"),
        (receiver_report(1) + packet(203, 1, bytes(4) + b"\x09abc"), "reason of a BYE runs past"),
        (receiver_report(1) + packet(207, 0, bytes(4) + b"\x07\0\0\x08" + bytes(8)), "XR block type 7 runs past"),
        (packet(201, 0, bytes(4), padding=8) + description(1), "padding before the last packet"),
        (b"\xa0\xc9\0\x02" + bytes(7) + b"\x07", "padding of 7 octets"),
    ],
)
def test_what_is_unsound_is_noted_and_the_rest_read(data, note):
    compound = parse_rtcp(data)
    assert any(note in n for n in compound.notes)


@given(st.binary(max_size=1500))
def test_no_bytes_raise_or_grow(data):
    compound = parse_rtcp(data)
    assert len(compound.notes) <= MAX_NOTES
    assert len(compound.packet_types) <= 64


@given(
    st.lists(st.tuples(st.integers(192, 223), st.integers(0, 31), st.binary(max_size=80)), max_size=6),
    st.binary(max_size=9),
)
def test_no_packets_of_odd_content_raise(packets, tail):
    data = b"".join(packet(kind, count, body + bytes(-len(body) % 4)) for kind, count, body in packets)
    assert parse_rtcp(data + tail).packet_types[: len(packets)] == [kind for kind, _, _ in packets]


def test_a_round_trip_is_measured_between_the_tap_and_the_receiver():
    # The standard's figure 2: A = 0xb7108000, LSR = 0xb7052000, DLSR = 5.25 s give 6.125 s.
    estimator = RttEstimator()
    sent = 10 * SECOND
    assert estimator.feed(sent, parse_rtcp(sender_report(1, 0xB7052000 << 16))) == []
    back = sent + (0xB7108000 - 0xB7052000) * SECOND // 65536
    (trip,) = estimator.feed(back, parse_rtcp(receiver_report(2, block(1, lsr=0xB7052000, dlsr=0x00054000))))
    assert (trip.source, trip.reporter, trip.rtt_ns) == (1, 2, 6_125_000_000)


def test_both_halves_of_a_path_are_measured_by_sender_reports_that_answer_each_other():
    estimator = RttEstimator()
    estimator.feed(0, parse_rtcp(sender_report(1, 5 << 16)))
    (far,) = estimator.feed(40_000_000, parse_rtcp(sender_report(2, 9 << 16, blocks=[block(1, lsr=5)])))
    (near,) = estimator.feed(45_000_000, parse_rtcp(sender_report(1, 6 << 16, blocks=[block(2, lsr=9)])))
    assert (far.rtt_ns, near.rtt_ns) == (40_000_000, 5_000_000)


def test_reports_that_answer_nothing_seen_give_no_round_trip():
    estimator = RttEstimator()
    estimator.feed(0, parse_rtcp(sender_report(1, 5 << 16)))
    for answer in (block(1, lsr=0), block(1, lsr=6), block(3, lsr=5), block(1, lsr=5, dlsr=0xFFFFFFFF)):
        assert estimator.feed(SECOND, parse_rtcp(receiver_report(2, answer))) == []
    assert estimator.feed(100 * SECOND, parse_rtcp(receiver_report(2, block(1, lsr=5)))) == []


def test_a_mirrored_copy_does_not_shorten_the_way_and_memory_is_bounded():
    estimator = RttEstimator()
    estimator.feed(0, parse_rtcp(sender_report(1, 5 << 16)))
    estimator.feed(1000, parse_rtcp(sender_report(1, 5 << 16)))
    assert estimator.feed(SECOND, parse_rtcp(receiver_report(2, block(1, lsr=5))))[0].rtt_ns == SECOND
    for i in range(10_000):
        estimator.feed(i, parse_rtcp(sender_report(1, (i + 10) << 16)))
    assert len(estimator._passed) <= 256


FIELDS = [
    "udp.payload",
    "rtcp.pt",
    "rtcp.ssrc.cum_nr",
    "rtcp.ssrc.ext_high",
    "rtcp.ssrc.jitter",
    "rtcp.ssrc.lsr",
    "rtcp.ssrc.dlsr",
]
FIELDS += ["rtcp.sender.packetcount", "rtcp.sender.octetcount", "rtcp.timestamp.rtp"]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not here")
@pytest.mark.parametrize(
    "name",
    [
        "goffinet__sip_captures/Forensic_challenge_4.pcap",
        "zongbingwang__pcapApplication/sip.pcap",
        "velco22__MTAA_1/presmerovanie_hovoru.pcapng",
    ],
)
def test_real_reports_read_as_tshark_reads_them(captures, name):
    path = captures / "real" / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    command = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-Y",
        "rtcp && udp.payload",
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-E",
        "aggregator=;",
    ]
    command += [word for field in FIELDS for word in ("-e", field)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    seen = 0
    for line in lines:
        payload, *columns = line.split("|")
        theirs = [[int(value, 0) for value in column.split(";") if value] for column in columns]
        compound = parse_rtcp(bytes.fromhex(payload))
        blocks = [b for _, b in compound.blocks()]
        reports = compound.sender_reports
        ours = [compound.packet_types]
        ours += [
            [getattr(b, f) for b in blocks] for f in ("cumulative_lost", "highest_sequence", "jitter", "lsr", "dlsr")
        ]
        ours += [[getattr(r, f) for r in reports] for f in ("packets", "octets", "rtp_timestamp")]
        assert ours == theirs
        seen += 1
    assert seen > 10
