"""RTCP of one leg: what is sent to a recording server, and when; what comes back.

In: the leg's counts, times, and datagrams from the server. Out: compound packets (SR or RR, SDES; BYE at the end), and
what the server reports. Intervals are those of RFC 3550, section 6.2 and appendix A.7: random, at least five seconds,
the first one half as long. Legs that send no media send RTCP all the same, which keeps their way open (RFC 6263).
"""

from dataclasses import dataclass, field

from capture.randomness import BufferedRandom
from decoders.rtcp import parse_rtcp
from decoders.rtcp_write import bye, receiver_report, sender_report, source_description
from decoders.sdp import CryptoKey
from decoders.srtp import SrtpStream
from decoders.srtp_protect import SrtpSender

SHORTEST = 5.0
"""Least s between two reports (section 6.2)."""
_SENDERS_SHARE = 0.25
_COMPENSATION = 2.71828 - 1.5
"""For what reconsideration makes of the average (appendix A.7)."""
_BANDWIDTH = 400.0
"""Octets of RTCP a second: 5 % of a telephone's 64 kbit/s."""
_STILL_SENDING = 10_000_000_000
"""ns after its last packet for which a leg is a sender (two intervals)."""
_random = BufferedRandom()


def interval(*, members: int, senders: int, we_sent: bool, octets: float, initial: bool) -> float:
    """Seconds until the next report (appendix A.7)."""
    shortest = SHORTEST / 2 if initial else SHORTEST
    bandwidth, count = _BANDWIDTH, members
    if senders <= members * _SENDERS_SHARE:
        bandwidth *= _SENDERS_SHARE if we_sent else 1 - _SENDERS_SHARE
        count = senders if we_sent else members - senders
    return max(octets * count / bandwidth, shortest) * (_random.random() + 0.5) / _COMPENSATION


@dataclass(frozen=True, slots=True)
class Sent:
    """What a leg has sent so far; times in ns, UTC."""

    packets: int
    octets: int
    stamp: int
    """RTP timestamp of the newest packet..."""
    at: int
    """...and when it was captured."""
    rate: int
    """Hz."""


@dataclass(slots=True)
class RtcpState:
    """One leg's RTCP."""

    ssrc: int
    cname: str
    heard_from: int | None = None
    fraction_lost: float | None = None
    cumulative_lost: int | None = None
    jitter: int | None = None
    """In units of the timestamp."""
    sender: SrtpSender | None = None
    """Protects what is sent."""
    _receiver: SrtpStream | None = None
    _keys: tuple[CryptoKey, ...] = ()
    _others: dict[int, None] = field(default_factory=dict)
    """SSRCs of those who reported."""
    _octets: float = 100.0
    """Average size of a compound packet with its headers."""
    _reports: int = 0

    def use_keys(self, keys: tuple[CryptoKey, ...]) -> None:
        """The server's keys."""
        if keys != self._keys:
            self._keys = keys
            self._receiver = SrtpStream(keys) if keys else None

    def wait(self, we_sent: bool) -> float:
        """Seconds until the next report."""
        members = 1 + max(len(self._others), 1)
        return interval(
            members=members, senders=int(we_sent), we_sent=we_sent, octets=self._octets, initial=self._reports == 0
        )

    def report(self, sent: Sent, now: int) -> bytes:
        """The compound packet that is due at `now`."""
        packet = self._begin(sent, now) + source_description(self.ssrc, self.cname)
        self._reports += 1
        return self._protected(packet)

    def leave(self, sent: Sent, now: int) -> bytes:
        """The last compound packet."""
        return self._protected(self._begin(sent, now) + source_description(self.ssrc, self.cname) + bye(self.ssrc))

    def hear(self, data: bytes, now: int) -> None:
        """Take a datagram from the server."""
        plain = data if self._receiver is None else self._receiver.unprotect_rtcp(data)
        if plain is None:
            return
        compound = parse_rtcp(plain)
        if not compound.packet_types:
            return
        self.heard_from = now
        self._average(len(data))
        for reporter, block in compound.blocks():
            if len(self._others) < 8:
                self._others[reporter] = None
            if block.ssrc == self.ssrc:
                self.fraction_lost = block.fraction_lost / 256
                self.cumulative_lost = block.cumulative_lost
                self.jitter = block.jitter

    def _begin(self, sent: Sent, now: int) -> bytes:
        if sent.packets == 0 or now - sent.at > _STILL_SENDING:
            return receiver_report(self.ssrc)
        stamp = sent.stamp + (now - sent.at) * sent.rate // 1_000_000_000
        return sender_report(self.ssrc, now, stamp, sent.packets, sent.octets)

    def _protected(self, packet: bytes) -> bytes:
        packet = packet if self.sender is None else self.sender.protect_rtcp(packet)
        self._average(len(packet))
        return packet

    def _average(self, octets: int) -> None:
        self._octets += (octets + 28 - self._octets) / 16
