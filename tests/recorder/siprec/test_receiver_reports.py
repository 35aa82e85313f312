"""RTCP that goes back to those who send us media."""

import struct
import time

import numpy as np
import pytest

from capture.address import Endpoint, parse_endpoint
from decoders.rtcp import RtcpCompound, parse_rtcp
from decoders.rtcp_values import PacketType
from decoders.sdp_values import CryptoKey
from decoders.srtp import SrtpStream
from recorder.siprec import _port_kernels as kernels
from recorder.siprec.port_monitor import PortMonitor
from recorder.siprec.receiver_reports import PortTerms, ReceiverReports, block_of, new_cname

SECOND = 1_000_000_000
WALL = 1_700_000_000 * SECOND
KEY = CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes(range(30)))
OTHER_KEY = CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", bytes(range(30, 60)))


def at(host: str, port: int) -> Endpoint:
    found = parse_endpoint(host, port)
    assert found is not None
    return found


SDP_RTCP, SEEN_RTCP, SEEN_RTP = at("10.0.0.9", 5001), at("198.51.100.1", 61001), at("198.51.100.1", 61000)


class Bench:
    """Reports with a clock of the test's, and what they sent."""

    def __init__(self, pairs: int = 2) -> None:
        self.monitor = PortMonitor(pairs)
        for pair in range(pairs):
            self.monitor.begin(pair)
        self.sent: list[tuple[float, int, bytes, Endpoint]] = []
        self.now = 0.0
        self.reports = ReceiverReports(self.monitor, self.send)

    def send(self, place: int, octets: bytes, to: Endpoint) -> bool:
        self.sent.append((self.now, place, octets, to))
        return True

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + 0.02, 6)
            self.reports.turn(self.now, WALL + int(self.now * SECOND))

    def lock(self, pair: int = 0, *, ssrc: int = 0xA, last: float = 0.0) -> np.ndarray:
        state = self.monitor.states[pair]
        state[[kernels.LOCKED, kernels.SSRC, kernels.RECEIVED]] = 1, ssrc, 90
        state[[kernels.BASE, kernels.TOP, kernels.JITTER]] = 65530, 65629, 37 << 4
        state[[kernels.HIGH, kernels.LOW, kernels.PORT]] = np.array(SEEN_RTP, np.uint64).view(np.int64)
        state[kernels.LAST] = WALL + int(last * SECOND)
        return state

    def heard(self, pair: int = 0) -> None:
        state = self.monitor.states[pair]
        state[[kernels.RTCP_HIGH, kernels.RTCP_LOW, kernels.RTCP_PORT]] = np.array(SEEN_RTCP, np.uint64).view(np.int64)
        state[[kernels.RTCP_LAST, kernels.REPORT_TIME]] = WALL
        state[[kernels.REPORT_SSRC, kernels.REPORT_MIDDLE]] = 0xA, 0x456789AB

    def compounds(self) -> list[RtcpCompound]:
        found = [parse_rtcp(octets) for _, _, octets, _ in self.sent]
        assert all(not each.notes for each in found)
        return found


def test_reports_come_every_five_seconds_on_average_and_never_at_the_same_distance() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.run(2000.0)
    times = [when for when, _, _, _ in bench.sent]
    gaps = np.diff(times)
    assert times[0] <= 3.1  # half an interval at most
    assert gaps.min() >= 2.0
    assert gaps.max() <= 6.2
    assert gaps.mean() == pytest.approx(5.0, rel=0.06)
    assert len(np.unique(gaps.round(2))) > 50


def test_a_report_says_what_was_received_and_who_we_are() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP, cname="srs@here"), 0.0)
    bench.lock()
    bench.heard()
    bench.run(4.0)
    (compound,) = bench.compounds()[:1]
    assert compound.packet_types == [PacketType.RR, PacketType.SDES]
    (report,) = compound.receiver_reports
    (block,) = report.blocks
    assert compound.cnames == {report.ssrc: "srs@here"}
    assert (block.ssrc, block.cumulative_lost, block.fraction_lost) == (0xA, 10, 25)
    assert (block.highest_sequence, block.jitter, block.lsr) == (65629, 37, 0x456789AB)
    assert block.dlsr == pytest.approx(bench.sent[0][0] * 65536, abs=2)


def test_the_next_report_counts_what_was_lost_since_and_without_media_there_is_no_block() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    state = bench.lock()
    bench.run(3.2)
    state[kernels.TOP] += 100
    state[kernels.RECEIVED] += 50
    state[kernels.LAST] = WALL + int(3.2 * SECOND)
    bench.run(6.2)
    state[kernels.LAST] = WALL
    bench.run(20.0)
    blocks = [each.receiver_reports[0].blocks for each in bench.compounds()]
    assert [len(each) for each in blocks[:3]] == [1, 1, 0]
    assert (blocks[1][0].fraction_lost, blocks[1][0].cumulative_lost) == (128, 60)


def test_rtcp_goes_to_where_theirs_comes_from_and_before_to_where_the_description_says() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.run(3.2)
    bench.heard()
    bench.run(6.2)
    assert bench.sent[0][1:2] + bench.sent[0][3:] == (1, SDP_RTCP)
    assert bench.sent[-1][1:2] + bench.sent[-1][3:] == (1, SEEN_RTCP)


def test_multiplexed_rtcp_leaves_from_the_rtp_port_to_where_rtp_comes_from() -> None:
    bench = Bench()
    bench.reports.agree(1, 1, PortTerms(rtcp_to=SDP_RTCP, mux=True), 0.0)
    bench.run(3.2)
    bench.lock(1)
    bench.run(6.2)
    assert bench.sent[0][1:2] + bench.sent[0][3:] == (2, SDP_RTCP)
    assert bench.sent[-1][1:2] + bench.sent[-1][3:] == (2, SEEN_RTP)


def test_with_nowhere_to_send_nothing_goes_out() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(), 0.0)
    bench.run(10.0)
    bench.reports.end(0, 1, WALL)
    assert bench.sent == []
    assert bench.reports.unsent >= 1


def test_a_port_that_is_released_says_bye_where_it_has_reported_before() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.reports.agree(1, 2, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.reports.end(1, 2, WALL)  # has not said a word yet
    assert bench.sent == []
    bench.run(3.2)
    before = len(bench.sent)
    bench.reports.end(0, 1, WALL)
    bench.reports.end(0, 1, WALL)
    last = bench.compounds()[-1]
    assert len(bench.sent) == before + 1
    assert last.byes[0].ssrcs == (last.receiver_reports[0].ssrc,)
    bench.run(30.0)
    assert len(bench.sent) == before + 1


def test_new_terms_go_on_with_the_same_source_and_name() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.run(3.2)
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SEEN_RTCP), bench.now)
    bench.run(6.2)
    assert bench.sent[-1][3] == SEEN_RTCP
    assert len({tuple(each.cnames.items()) for each in bench.compounds()}) == 1


def test_a_port_opened_anew_reports_as_another_source_and_the_old_schedule_is_gone() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.reports.end(0, 1, WALL)
    bench.reports.agree(0, 2, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.run(100.0)
    assert len({each.receiver_reports[0].ssrc for each in bench.compounds()}) == 1
    assert 15 <= len(bench.sent) <= 40


def test_a_sender_with_our_ssrc_makes_us_take_another_and_say_so() -> None:
    bench = Bench()
    bench.reports.agree(0, 1, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    bench.run(3.2)
    ours = bench.compounds()[0].receiver_reports[0].ssrc
    bench.lock(ssrc=ours, last=3.2)
    bench.run(6.2)
    changed = bench.compounds()[1]
    assert changed.byes[0].ssrcs == (ours,)
    assert changed.receiver_reports[0].ssrc != ours
    assert changed.receiver_reports[0].blocks[0].ssrc == ours
    bench.run(6.2)
    assert bench.compounds()[2].byes == []


def test_reports_are_encrypted_where_we_have_a_key_and_theirs_are_read_with_their_keys() -> None:
    bench = Bench()
    terms = PortTerms(rtcp_to=SDP_RTCP, encrypt=KEY, decrypt=(OTHER_KEY,))
    bench.reports.agree(0, 1, terms, 0.0)
    bench.run(10.0)
    reader = SrtpStream([KEY])
    for _, _, octets, _ in bench.sent:
        # Ciphertext may look like a description by chance, but names nobody.
        assert all(not each.items for each in parse_rtcp(octets).descriptions)
        plain = reader.unprotect_rtcp(octets)
        assert plain is not None
        assert parse_rtcp(plain).packet_types == [PacketType.RR, PacketType.SDES]
    pylibsrtp = pytest.importorskip("pylibsrtp")
    policy = pylibsrtp.Policy(key=OTHER_KEY.key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    report = struct.pack("!BBHIQIII", 0x80, 200, 6, 0xA, 0x0123456789ABCDEF, 0, 0, 0)
    bench.reports.hear_encrypted(0, pylibsrtp.Session(policy=policy).protect_rtcp(report), WALL)
    bench.reports.hear_encrypted(0, bytes(60), WALL + 5)
    assert bench.monitor.states[0, kernels.REPORT_MIDDLE] == 0x456789AB
    assert bench.monitor.states[0, kernels.REPORT_TIME] == WALL


def test_numbers_stay_within_their_fields() -> None:
    state = [0] * kernels.STATE
    state[kernels.LOCKED], state[kernels.TOP], state[kernels.REPORT_TIME] = 1, 20_000_000, 1
    state[kernels.EXPECTED_PRIOR], state[kernels.SSRC] = 0, 0
    block = block_of(state, WALL)
    assert (block.fraction_lost, block.cumulative_lost, block.dlsr) == (255, 0x7FFFFF, 0xFFFFFFFF)
    state[kernels.RECEIVED] = 50_000_000
    block = block_of(state, 0)
    assert (block.fraction_lost, block.cumulative_lost, block.dlsr) == (0, -0x800000, 0)


def test_names_are_of_96_random_bits() -> None:
    names = {new_cname() for _ in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {16}


def test_a_thousand_ports_at_once_are_reported_on_in_turn() -> None:
    bench = Bench(3000)
    for pair in range(3000):
        bench.reports.agree(pair, pair, PortTerms(rtcp_to=SDP_RTCP), 0.0)
    begin = time.perf_counter()
    bench.run(10.0)
    assert {place // 2 for _, place, _, _ in bench.sent} == set(range(3000))
    assert time.perf_counter() - begin < 5.0
