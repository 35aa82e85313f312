"""SRTP and SRTCP as a sender makes them (RFC 3711; RFC 6188; RFC 7714), with one SDES key (RFC 4568).

In: whole plain packets of any number of SSRCs, in the order in which they are sent. Out: protected packets. Keeps a
rollover counter per SSRC, which begins at 0. `decoders.srtp` is the receiver. Raises ValueError for a key that is of no
use, and for a packet that is no RTP or RTCP.
"""

from collections.abc import Sequence

from decoders._srtp_ciphers import CounterCipher, GcmCipher, Sha1Authenticator
from decoders._srtp_keys import SUITES, derive_session_keys, why_key_unusable
from decoders.sdp_values import CryptoKey

__all__ = ["SrtpSender"]

MAX_SOURCES = 64
"""SSRCs whose counters are kept; the one that began first is forgotten."""
_RTCP_HEADER = 8
_ENCRYPTED = 0x80000000
_LAST_RTCP_INDEX = 0x7FFFFFFF


class SrtpSender:
    """One key in one direction."""

    def __init__(self, key: CryptoKey) -> None:
        """Derive the session keys. Raises ValueError where the key cannot be used."""
        reason = why_key_unusable(key)
        if reason or key.session_params:
            raise ValueError(reason or f"session parameters of a key of ours: {' '.join(key.session_params)}")
        suite = SUITES[key.suite.upper()]
        self.key = key
        self._aead = suite.aead
        self._mki = b"" if key.mki is None else key.mki.to_bytes(key.mki_length, "big")
        rtp, rtcp = (derive_session_keys(key.key, suite, rtcp) for rtcp in (False, True))
        self._cipher, self._rtcp_cipher = CounterCipher(rtp), CounterCipher(rtcp)
        self._gcm, self._rtcp_gcm = GcmCipher(rtp), GcmCipher(rtcp)
        self._auth = Sha1Authenticator(rtp.authentication, suite.rtp_tag)
        self._rtcp_auth = Sha1Authenticator(rtcp.authentication, suite.rtcp_tag)
        self._highest: dict[int, int] = {}
        """SSRC -> highest packet index."""
        self._rtcp_index: dict[int, int] = {}

    def protect(self, packet: bytes) -> bytes:
        """The SRTP packet of an RTP packet."""
        return self.protect_many([packet])[0]

    def protect_many(self, packets: Sequence[bytes]) -> list[bytes]:
        """The same for several, in order, faster than one by one."""
        headers = [_header_octets(packet) for packet in packets]
        ssrcs = [int.from_bytes(packet[8:12], "big") for packet in packets]
        indices = [
            self._index(ssrc, int.from_bytes(packet[2:4], "big")) for ssrc, packet in zip(ssrcs, packets, strict=True)
        ]
        texts = [packet[header:] for packet, header in zip(packets, headers, strict=True)]
        if self._aead:
            return [
                packet[:header] + self._gcm.seal(text, packet[:header], ssrc, index) + self._mki
                for packet, header, text, ssrc, index in zip(packets, headers, texts, ssrcs, indices, strict=True)
            ]
        sealed = self._cipher.decrypt(texts, ssrcs, indices)  # encryption is the same operation
        protected = []
        for packet, header, text, index in zip(packets, headers, sealed, indices, strict=True):
            covered = packet[:header] + text
            tag = self._auth.sign(covered + (index >> 16).to_bytes(4, "big"))
            protected.append(covered + self._mki + tag)
        return protected

    def protect_rtcp(self, packet: bytes) -> bytes:
        """The SRTCP packet of a compound RTCP packet (RFC 3711, section 3.4)."""
        if len(packet) < _RTCP_HEADER:
            raise ValueError(f"an RTCP packet of {len(packet)} octets")
        ssrc = int.from_bytes(packet[4:8], "big")
        index = self._rtcp_index.get(ssrc, 0)
        self._rtcp_index[ssrc] = (index + 1) & _LAST_RTCP_INDEX
        _forget_first(self._rtcp_index)
        header, text = packet[:_RTCP_HEADER], packet[_RTCP_HEADER:]
        word = (_ENCRYPTED | index).to_bytes(4, "big")
        if self._aead:
            return header + self._rtcp_gcm.seal(text, header + word, ssrc, index) + word + self._mki
        covered = header + self._rtcp_cipher.decrypt([text], [ssrc], [index])[0] + word
        return covered + self._mki + self._rtcp_auth.sign(covered)

    def _index(self, ssrc: int, sequence: int) -> int:
        """Packet index of a sequence number near the highest so far (RFC 3711, section 3.3.1)."""
        highest = self._highest.get(ssrc)
        if highest is None:
            self._highest[ssrc] = sequence
            _forget_first(self._highest)
            return sequence
        step = ((sequence - highest + 0x8000) & 0xFFFF) - 0x8000
        index = max(highest + step, sequence)
        self._highest[ssrc] = max(highest, index)
        return index


def _forget_first(counters: dict[int, int]) -> None:
    if len(counters) > MAX_SOURCES:
        del counters[next(iter(counters))]


def _header_octets(packet: bytes) -> int:
    """Octets of an RTP header with contributing sources and extension."""
    if len(packet) < 12 or packet[0] >> 6 != 2:
        raise ValueError(f"no RTP packet: {packet[:2].hex() or 'empty'}")
    header = 12 + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        header += 4 + 4 * int.from_bytes(packet[header + 2 : header + 4], "big")
    if header > len(packet):
        raise ValueError(f"an RTP header of {header} octets in a packet of {len(packet)}")
    return header
