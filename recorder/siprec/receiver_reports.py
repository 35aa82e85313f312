"""RTCP of our own to those who send us media: receiver reports, source descriptions and BYE (RFC 3550, section 6).

In: what a `PortMonitor` knows of each port, and what was agreed for it. Out: compound packets, handed to a function
that sends them from the port's own socket (symmetric RTCP, RFC 4961), encrypted where we have a key. A port has at most
two members, so that the interval is the least one of 5 s, randomised and reconsidered (sections 6.3.1 and 6.3.6), and
half of it before the first report.

Our SSRC changes where a sender turns out to have the same (section 8.2). Nothing here waits, and callers see to it that
one thread at a time is in here.
"""

import heapq
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

from capture.address import Endpoint
from capture.randomness import BufferedRandom
from decoders.rtcp_values import ReportBlock
from decoders.rtcp_write import bye, receiver_report, source_description
from decoders.sdp_values import CryptoKey
from decoders.srtp import SrtpStream
from decoders.srtp_protect import SrtpSender
from recorder.siprec import _port_kernels as kernels
from recorder.siprec.port_monitor import PortMonitor

INTERVAL = 5.0
"""s between two reports, on average (RFC 3550, section 6.2)."""
_COMPENSATION = 2.718281828459045 - 1.5
"""RFC 3550, section 6.3.1: reconsideration makes intervals longer by so much on average."""
MOST_AT_ONCE = 256
"""Reports sent in one turn."""
_MIDDLE = (1 << 32) - 1
"""DLSR has 32 bits."""
_random = BufferedRandom()

Send = Callable[[int, bytes, Endpoint], bool]
"""(place, octets, destination) -> whether the system took them."""


def new_cname() -> str:
    """A name that tells nothing, for one recording session (RFC 7022, section 4.2: 96 random bits)."""
    return b64encode(_random.randbytes(12)).decode()


@dataclass(frozen=True, slots=True)
class PortTerms:
    """What was agreed for a port."""

    clock_rate: int = 8000
    """Hz, of its RTP timestamps."""
    source: Endpoint | None = None
    """Where the description says that media comes from, if it says so."""
    rtcp_to: Endpoint | None = None
    """Where RTCP goes by the description, until some has come and shows the true way."""
    mux: bool = False
    """RTCP by the RTP port (RFC 5761)."""
    cname: str = ""
    """Ours; empty: one of the port's own."""
    encrypt: CryptoKey | None = None
    """Our key: RTCP goes out encrypted."""
    decrypt: tuple[CryptoKey, ...] = ()
    """Their keys, one of which their RTCP is encrypted with."""


@dataclass(slots=True)
class _Reporter:
    """Our side of one port."""

    terms: PortTerms
    cname: str
    ssrc: int
    opening: int
    previous: float
    """When a report was last sent, or the port came; s, monotonic."""
    protect: SrtpSender | None = None
    unprotect: SrtpStream | None = None
    reported: bool = False
    """The first interval is over."""
    last_sent: int | None = None
    """ns; None: no RTCP went out, and no BYE needs to."""
    sent: int = 0


class ReceiverReports:
    """RTCP of all ports; a pair is `MediaPort.place // 2`."""

    def __init__(self, monitor: PortMonitor, send: Send, *, interval: float = INTERVAL) -> None:
        self._monitor = monitor
        self._send = send
        self._interval = interval
        self._random = _random
        self._reporters: dict[int, _Reporter] = {}
        self._due: list[tuple[float, int, int]] = []
        """(when by the monotonic clock, pair, opening), a heap."""
        self.sent = 0
        self.unsent = 0
        """Reports that nobody could be found for or that the system refused."""

    def agree(self, pair: int, opening: int, terms: PortTerms, now: float) -> None:
        """Begin to report, or go on by other terms. `now` is s of the monotonic clock."""
        known = self._reporters.get(pair)
        if known is not None and known.opening == opening:
            if known.terms.encrypt != terms.encrypt or known.terms.decrypt != terms.decrypt:
                known.protect, known.unprotect = _ciphers(terms)
            known.terms = terms
            known.cname = terms.cname or known.cname
            return
        protect, unprotect = _ciphers(terms)
        self._reporters[pair] = _Reporter(
            terms, terms.cname or new_cname(), self._random.getrandbits(32), opening, now, protect, unprotect
        )
        heapq.heappush(self._due, (now + self._wait() / 2, pair, opening))

    def end(self, pair: int, opening: int, wall: int) -> None:
        """Report a last time, and say BYE. `wall` is ns, UTC."""
        reporter = self._reporters.get(pair)
        if reporter is None or reporter.opening != opening:
            return
        if reporter.last_sent is not None:
            self._report(pair, reporter, wall, leaving=reporter.ssrc)
        del self._reporters[pair]

    def hear_encrypted(self, pair: int, octets: bytes, time: int) -> None:
        """RTCP that a port's sender encrypted; what is not authentic is passed over."""
        reporter = self._reporters.get(pair)
        plain = reporter.unprotect.unprotect_rtcp(octets) if reporter is not None and reporter.unprotect else None
        if plain is not None:
            self._monitor.hear_plain(pair, plain, time)

    def turn(self, now: float, wall: int) -> None:
        """Send what is due by `now` (s, monotonic); `wall` is ns, UTC."""
        for _ in range(MOST_AT_ONCE):
            if not self._due or self._due[0][0] > now:
                return
            _, pair, opening = heapq.heappop(self._due)
            reporter = self._reporters.get(pair)
            if reporter is None or reporter.opening != opening:
                continue
            due = reporter.previous + self._wait() / (1 if reporter.reported else 2)
            if due <= now:
                reporter.previous, reporter.reported = now, True
                self._report(pair, reporter, wall)
                due = now + self._wait()
            heapq.heappush(self._due, (due, pair, opening))

    def sent_by(self, pair: int) -> int:
        """Reports that a port has sent."""
        reporter = self._reporters.get(pair)
        return 0 if reporter is None else reporter.sent

    def _wait(self) -> float:
        return self._interval * self._random.uniform(0.5, 1.5) / _COMPENSATION

    def _report(self, pair: int, reporter: _Reporter, wall: int, leaving: int | None = None) -> None:
        state = self._monitor.states[pair].tolist()
        if state[kernels.LOCKED] and state[kernels.SSRC] == reporter.ssrc:
            leaving = reporter.ssrc
            reporter.ssrc = self._random.getrandbits(32)
        to = _destination(state, reporter.terms)
        if to is None:
            self.unsent += 1
            return
        blocks: tuple[ReportBlock, ...] = ()
        if state[kernels.LOCKED] and (reporter.last_sent is None or state[kernels.LAST] > reporter.last_sent):
            blocks = (block_of(state, wall),)
            self._monitor.states[pair, kernels.EXPECTED_PRIOR] = _expected(state)
            self._monitor.states[pair, kernels.RECEIVED_PRIOR] = state[kernels.RECEIVED]
        octets = receiver_report(reporter.ssrc, blocks) + source_description(reporter.ssrc, reporter.cname)
        if leaving is not None:
            octets += bye(leaving)
        if reporter.protect is not None:
            octets = reporter.protect.protect_rtcp(octets)
        reporter.last_sent = wall
        if self._send(2 * pair + (not reporter.terms.mux), octets, to):
            reporter.sent += 1
            self.sent += 1
        else:
            self.unsent += 1


def block_of(state: list[int], wall: int) -> ReportBlock:
    """What we say of the source in a port's state (RFC 3550, sections 6.4.1 and A.3)."""
    expected, received = _expected(state), state[kernels.RECEIVED]
    expected_now = expected - state[kernels.EXPECTED_PRIOR]
    lost_now = expected_now - (received - state[kernels.RECEIVED_PRIOR])
    fraction = min((lost_now << 8) // expected_now, 255) if expected_now > 0 and lost_now > 0 else 0
    lsr = dlsr = 0
    if state[kernels.REPORT_TIME] and state[kernels.REPORT_SSRC] == state[kernels.SSRC]:
        lsr = state[kernels.REPORT_MIDDLE]
        dlsr = min(max(wall - state[kernels.REPORT_TIME], 0) * 65536 // 1_000_000_000, _MIDDLE)
    return ReportBlock(
        ssrc=state[kernels.SSRC],
        fraction_lost=fraction,
        cumulative_lost=min(max(expected - received, -0x800000), 0x7FFFFF),
        highest_sequence=state[kernels.TOP] & 0xFFFFFFFF,
        jitter=state[kernels.JITTER] >> 4,
        lsr=lsr,
        dlsr=dlsr,
    )


def _expected(state: list[int]) -> int:
    return state[kernels.TOP] - state[kernels.BASE] + 1


def _ciphers(terms: PortTerms) -> tuple[SrtpSender | None, SrtpStream | None]:
    return (
        SrtpSender(terms.encrypt) if terms.encrypt is not None else None,
        SrtpStream(terms.decrypt) if terms.decrypt else None,
    )


def _destination(state: list[int], terms: PortTerms) -> Endpoint | None:
    """Where a port's RTCP goes: to where the sender's comes from, or where the description says."""
    if terms.mux and state[kernels.LOCKED]:
        return _endpoint(state, kernels.HIGH)
    if state[kernels.RTCP_LAST]:
        return _endpoint(state, kernels.RTCP_HIGH)
    return terms.rtcp_to


def _endpoint(state: list[int], first: int) -> Endpoint:
    high, low, port = state[first : first + 3]
    return Endpoint(high & (1 << 64) - 1, low & (1 << 64) - 1, port)
