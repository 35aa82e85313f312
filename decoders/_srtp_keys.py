"""SRTP crypto suites and session keys (RFC 3711, section 4.3; RFC 6188; RFC 7714; names of RFC 4568, section 6.2).

In: an SDES key. Out: the session keys it stands for, or why it is of no use. No state, no packets.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from decoders.sdp_values import CryptoKey


@dataclass(frozen=True, slots=True)
class CryptoSuite:
    """Sizes in octets; `aead` for the GCM suites, whose tag belongs to the cipher."""

    key: int
    salt: int
    rtp_tag: int
    rtcp_tag: int
    aead: bool = False


SUITES = {
    "AES_CM_128_HMAC_SHA1_80": CryptoSuite(16, 14, 10, 10),
    "AES_CM_128_HMAC_SHA1_32": CryptoSuite(16, 14, 4, 10),
    "AES_192_CM_HMAC_SHA1_80": CryptoSuite(24, 14, 10, 10),
    "AES_192_CM_HMAC_SHA1_32": CryptoSuite(24, 14, 4, 10),
    "AES_256_CM_HMAC_SHA1_80": CryptoSuite(32, 14, 10, 10),
    "AES_256_CM_HMAC_SHA1_32": CryptoSuite(32, 14, 4, 10),
    # As drafts before RFC 6188 wrote them, and as telephones still do.
    "AES_CM_192_HMAC_SHA1_80": CryptoSuite(24, 14, 10, 10),
    "AES_CM_192_HMAC_SHA1_32": CryptoSuite(24, 14, 4, 10),
    "AES_CM_256_HMAC_SHA1_80": CryptoSuite(32, 14, 10, 10),
    "AES_CM_256_HMAC_SHA1_32": CryptoSuite(32, 14, 4, 10),
    "AEAD_AES_128_GCM": CryptoSuite(16, 12, 16, 16, aead=True),
    "AEAD_AES_256_GCM": CryptoSuite(32, 12, 16, 16, aead=True),
}


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Keys of SRTP or of SRTCP."""

    cipher: bytes
    authentication: bytes
    """20 octets; not used by the AEAD suites."""
    salt: bytes
    """As long as the suite's master salt."""


_RTP_LABELS = (0, 1, 2)
_RTCP_LABELS = (3, 4, 5)
_AUTHENTICATION_OCTETS = 20


def why_key_unusable(key: CryptoKey) -> str:
    """Why packets under `key` cannot be decrypted, as a sentence without its full stop; empty where they can."""
    suite = SUITES.get(key.suite.upper())
    if suite is None:
        return f"the SRTP suite {key.suite} is not supported"
    if len(key.key) != suite.key + suite.salt:
        return f"the key for {key.suite} has {len(key.key)} octets instead of {suite.key + suite.salt}"
    if any(parameter.upper().startswith("KDR=") for parameter in key.session_params):
        return "SRTP with a key derivation rate is not supported"
    return ""


def derive_session_keys(key: bytes, suite: CryptoSuite, rtcp: bool) -> SessionKeys:
    """Session keys from master key and salt, without a key derivation rate (RFC 3711, section 4.3.1)."""
    master, salt = key[: suite.key], key[suite.key :]
    labels = _RTCP_LABELS if rtcp else _RTP_LABELS
    lengths = (suite.key, _AUTHENTICATION_OCTETS, suite.salt)
    return SessionKeys(*(_derive(master, salt, label, size) for label, size in zip(labels, lengths, strict=True)))


def _derive(master: bytes, salt: bytes, label: int, octets: int) -> bytes:
    """Key stream of AES in counter mode from (label << 48 XOR salt) << 16; a shorter salt is followed by zeros."""
    start = int.from_bytes(salt.ljust(14, b"\0"), "big") ^ label << 48
    stream = Cipher(AES(master), CTR((start << 16).to_bytes(16, "big"))).encryptor()
    return stream.update(bytes(octets))
