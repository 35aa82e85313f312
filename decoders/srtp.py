"""SRTP and SRTCP of one stream, decrypted with the SDES keys that its SDP offered (RFC 3711, RFC 4568, RFC 7714).

In: whole packets as captured, joined at any time; keys of which any may be the right one. Out: plain packets, or None
where no key authenticates one. The rollover counter is found by the authentication tag, so that a stream may be joined
after 2^16 packets and more. Duplicates and reordered packets decrypt like any other: a recorder has no replay to fear.
Never raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from decoders._srtp_ciphers import CounterCipher, GcmCipher, Sha1Authenticator
from decoders._srtp_keys import SUITES, derive_session_keys, why_key_unusable
from decoders.sdp_values import CryptoKey

__all__ = ["MAX_ROLLOVERS", "SrtpStream", "why_key_unusable"]

MAX_ROLLOVERS = 64
"""Highest rollover counter tried for a stream that is joined late: 23 hours at 50 packets a second."""
MAX_KEYS = 8
"""Keys that one stream tries."""
_RTP_HEADER = 12
_RTCP_HEADER = 8
_EAGER_SEARCHES = 32
_SEARCH_INTERVAL = 64
"""After so many failures in a row every 64th packet tries all counters: wrong keys must not cost 65 hashes each."""


class _KeyContext:
    """One offered key, ready for use."""

    def __init__(self, key: CryptoKey) -> None:
        self.key = key
        suite = SUITES[key.suite.upper()]
        parameters = {parameter.upper() for parameter in key.session_params}
        self.encrypted = "UNENCRYPTED_SRTP" not in parameters
        self.authenticated = suite.aead or "UNAUTHENTICATED_SRTP" not in parameters
        self.aead = suite.aead
        self.tag = suite.rtp_tag if self.authenticated else 0
        self.rtcp_tag = suite.rtcp_tag
        self.mki = b"" if key.mki is None else (key.mki & (1 << 8 * key.mki_length) - 1).to_bytes(key.mki_length, "big")
        rtp, rtcp = (derive_session_keys(key.key, suite, rtcp) for rtcp in (False, True))
        self.rtp_auth = Sha1Authenticator(rtp.authentication, suite.rtp_tag)
        self.rtcp_auth = Sha1Authenticator(rtcp.authentication, suite.rtcp_tag)
        self.rtp_cipher, self.rtcp_cipher = CounterCipher(rtp), CounterCipher(rtcp)
        self.rtp_gcm, self.rtcp_gcm = GcmCipher(rtp), GcmCipher(rtcp)

    def cut(self, packet: bytes, tag: int) -> tuple[bytes, bytes] | None:
        """What the tag of `tag` octets covers, and the tag; None where the packet is too short or has another MKI.

        The MKI stands before an HMAC tag (RFC 3711, section 3.1) and after an AEAD one (RFC 7714, section 8.2), which
        stays part of the text.
        """
        if self.aead:
            tag = 0
        end = len(packet) - tag - len(self.mki)
        if end < 0 or packet[end : end + len(self.mki)] != self.mki:
            return None
        return packet[:end], packet[len(packet) - tag :]


@dataclass(frozen=True, slots=True)
class _Opened:
    """An SRTP packet that is authentic."""

    key: _KeyContext
    text: bytes
    """Without MKI and tag; plain already where the key is of an AEAD suite."""
    header: int
    """Octets of the RTP header."""
    ssrc: int
    index: int
    """Rollover counter and sequence number, 48 bits."""


class SrtpStream:
    """One SSRC in one direction. Keys are tried in the order given until one authenticates a packet."""

    def __init__(self, keys: Sequence[CryptoKey]) -> None:
        self._contexts = [_KeyContext(key) for key in keys if not why_key_unusable(key)]
        self._current: _KeyContext | None = None
        self._ssrc: int | None = None
        self._highest = -1
        self._failures = 0

    def add_keys(self, keys: Sequence[CryptoKey]) -> None:
        """Keys of a later session description: they may be right too. The oldest beyond MAX_KEYS are forgotten."""
        known = [context.key for context in self._contexts]
        fresh = [key for key in keys if key not in known and not why_key_unusable(key)]
        if fresh:
            self._contexts = [*self._contexts, *(_KeyContext(key) for key in fresh)][-MAX_KEYS:]
            self._failures = 0

    @property
    def key(self) -> CryptoKey | None:
        """The key that authenticated the newest packet; None before the first."""
        return self._current.key if self._current else None

    def unprotect(self, packet: bytes) -> bytes | None:
        """The plain RTP packet, or None where no key authenticates it."""
        return self.unprotect_many([packet])[0]

    def unprotect_many(self, packets: Sequence[bytes]) -> list[bytes | None]:
        """Plain RTP packet of each, in order; the same as one by one, several times faster."""
        plain: list[bytes | None] = [None] * len(packets)
        pending: dict[_KeyContext, list[tuple[int, _Opened]]] = {}
        for position, packet in enumerate(packets):
            opened = self._authenticate(packet)
            if opened and (opened.key.aead or not opened.key.encrypted):
                plain[position] = opened.text
            elif opened:
                pending.setdefault(opened.key, []).append((position, opened))
        for key, rows in pending.items():
            texts = key.rtp_cipher.decrypt(
                [opened.text[opened.header :] for _, opened in rows],
                [opened.ssrc for _, opened in rows],
                [opened.index for _, opened in rows],
            )
            for (position, opened), text in zip(rows, texts, strict=True):
                plain[position] = opened.text[: opened.header] + text
        return plain

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """The plain compound RTCP packet, or None where no key authenticates it (RFC 3711, section 3.4)."""
        for key in sorted(self._contexts, key=lambda key: key is not self._current):
            plain = _open_rtcp(key, packet)
            if plain is not None:
                return plain
        return None

    def _authenticate(self, packet: bytes) -> _Opened | None:
        """Find key and index of one packet and remember them."""
        header = _header_octets(packet)
        if header is None:
            return None
        sequence, ssrc = int.from_bytes(packet[2:4], "big"), int.from_bytes(packet[8:12], "big")
        if ssrc != self._ssrc:
            # A new source starts its own index (RFC 3711, section 3.2.3), under the same keys.
            self._ssrc, self._failures, self._highest = ssrc, 0, -1
        candidates = [count << 16 | sequence for count in self._likely_rollovers(sequence)]
        opened = _open(self._current, packet, header, candidates) if self._current else None
        if not opened:
            opened = self._search(packet, header, candidates)
            if not opened:
                return None
            # Found by search: joined late, or a new key, under which the index may have started again.
            self._current, self._highest = opened.key, opened.index
        self._failures = 0
        self._highest = max(self._highest, opened.index)
        return opened

    def _search(self, packet: bytes, header: int, likely: Sequence[int]) -> _Opened | None:
        """Try every key with the likely rollover counters, and, less and less often while that fails, with all."""
        self._failures += 1
        candidates = list(likely)
        if self._failures <= _EAGER_SEARCHES or self._failures % _SEARCH_INTERVAL == 0:
            every = (count << 16 | likely[0] & 0xFFFF for count in range(MAX_ROLLOVERS + 1))
            candidates += [index for index in every if index not in likely]
        attempts = (_open(key, packet, header, candidates) for key in self._contexts)
        return next((opened for opened in attempts if opened), None)

    def _likely_rollovers(self, sequence: int) -> list[int]:
        """Rollover counters a packet may have, the likeliest first (RFC 3711, section 3.3.1 and appendix A)."""
        if self._highest < 0:
            return [0]
        guess, highest = self._highest >> 16, self._highest & 0xFFFF
        if sequence - highest > 0x8000:
            guess -= 1
        elif highest - sequence > 0x8000:
            guess += 1
        return [count for count in (guess, guess + 1, guess - 1) if count >= 0]


def _header_octets(packet: bytes) -> int | None:
    """Octets of the RTP header with contributing sources and extension; None where there is no whole one."""
    if len(packet) < _RTP_HEADER or packet[0] >> 6 != 2:
        return None
    header = _RTP_HEADER + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if len(packet) < header + 4:
            return None
        header += 4 + 4 * int.from_bytes(packet[header + 2 : header + 4], "big")
    return header if header <= len(packet) else None


def _open(key: _KeyContext, packet: bytes, header: int, indices: Sequence[int]) -> _Opened | None:
    """Authenticate an SRTP packet under one key with the first of `indices` that fits."""
    cut = key.cut(packet, key.tag)
    if cut is None or len(cut[0]) < header:
        return None
    text, tag = cut
    ssrc = int.from_bytes(packet[8:12], "big")
    if key.aead:
        for index in indices:
            plain = key.rtp_gcm.open(text[header:], text[:header], ssrc, index)
            if plain is not None:
                return _Opened(key, text[:header] + plain, header, ssrc, index)
        return None
    if not key.authenticated:
        return _Opened(key, text, header, ssrc, indices[0])
    number = key.rtp_auth.find(text, tag, [(index >> 16).to_bytes(4, "big") for index in indices])
    return None if number is None else _Opened(key, text, header, ssrc, indices[number])


def _open_rtcp(key: _KeyContext, packet: bytes) -> bytes | None:
    """Authenticate and decrypt an SRTCP packet: header, text, E flag and index, MKI, tag (RFC 3711, section 3.4)."""
    cut = key.cut(packet, key.rtcp_tag)
    if cut is None or len(cut[0]) < _RTCP_HEADER + 4:
        return None
    covered, tag = cut
    text, word = covered[:-4], covered[-4:]
    ssrc = int.from_bytes(packet[4:8], "big")
    index = int.from_bytes(word, "big") & 0x7FFFFFFF
    encrypted = bool(word[0] & 0x80)
    if key.aead:
        return _open_rtcp_gcm(key, text, word, encrypted, ssrc, index)
    if not key.rtcp_auth.verify(covered, tag):
        return None
    if not encrypted:
        return text
    return text[:_RTCP_HEADER] + key.rtcp_cipher.decrypt([text[_RTCP_HEADER:]], [ssrc], [index])[0]


def _open_rtcp_gcm(key: _KeyContext, text: bytes, word: bytes, encrypted: bool, ssrc: int, index: int) -> bytes | None:
    """AEAD form; its associated data is all that stays plain, then the index word (RFC 7714, sections 9.2, 9.3)."""
    clear = _RTCP_HEADER if encrypted else len(text) - key.rtcp_tag
    if clear < _RTCP_HEADER:
        return None
    plain = key.rtcp_gcm.open(text[clear:], text[:clear] + word, ssrc, index)
    return None if plain is None else text[:clear] + plain
