"""SRTP against the standards' vectors, libsrtp as the sender, and real captures with known keys."""

import base64
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from decoders._srtp_ciphers import CounterCipher, GcmCipher
from decoders._srtp_keys import SUITES, SessionKeys, derive_session_keys
from decoders.codecs import make_decoder
from decoders.sdp_values import STATIC_FORMATS, CryptoKey
from decoders.srtp import MAX_ROLLOVERS, SrtpStream, why_key_unusable

PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
SUITE = "AES_CM_128_HMAC_SHA1_80"


def crypto(suite: str = SUITE, number: int = 1, **fields) -> CryptoKey:
    """A key that follows from `number`."""
    size = SUITES[suite].key + SUITES[suite].salt
    return CryptoKey(number, suite, np.random.default_rng(number).bytes(size), **fields)


def sender(key: CryptoKey) -> Session:
    return Session(Policy(key=key.key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILES[key.suite]))


def rtp(sequence: int, ssrc: int = 0x1234, payload: bytes | None = None) -> bytes:
    header = struct.pack(">BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc)
    return header + (sequence.to_bytes(4, "big") * 40 if payload is None else payload)


def test_key_derivation_of_rfc_3711():
    keys = derive_session_keys(
        bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6"), SUITES[SUITE], rtcp=False
    )
    assert keys.cipher.hex().upper() == "C61E7A93744F39EE10734AFE3FF7A087"
    assert keys.salt.hex().upper() == "30CBBC08863D8C85D49DB34A9AE1"
    assert keys.authentication.hex().upper() == "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"


def test_key_derivation_of_rfc_6188():
    keys = derive_session_keys(
        bytes.fromhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b63b04803de51ee7c96423ab5b78d2"),
        SUITES["AES_256_CM_HMAC_SHA1_80"],
        rtcp=False,
    )
    assert keys.cipher.hex() == "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
    assert keys.salt.hex() == "fa31791685ca444a9e07c6c64e93"
    assert keys.authentication.hex() == "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"


@pytest.mark.parametrize("copies", [1, 10])
def test_key_stream_of_rfc_3711(copies):
    # Appendix B.2: SSRC and index 0; the first three blocks and those from 0xfeff on.
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    cipher = CounterCipher(SessionKeys(key, b"", bytes.fromhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")))
    for stream in cipher.decrypt([bytes(0xFF02 * 16)] * copies, [0] * copies, [0] * copies):
        assert stream[:48].hex().upper() == (
            "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0"
        )
        assert stream[0xFEFF * 16 :].hex().upper() == (
            "EC8CDF7398607CB0F2D21675EA9EA1E4362B7C3C6773516318A077D7FC5073AE6A2CC3787889374FBEB4C81B17BA6C44"
        )


def test_gcm_example_of_rfc_7714():
    # Section 16.1.1, whose packet of SSRC 0x5501a0b2 has a session key given as such.
    header = bytes.fromhex("8040f17b8041f8d35501a0b2")
    sealed = bytes.fromhex(
        "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce"
    )
    keys = SessionKeys(bytes(range(16)), b"", bytes.fromhex("517569642070726f2071756f"))
    assert GcmCipher(keys).open(sealed, header, 0x5501A0B2, 0xF17B) == b"Gallia est omnis divisa in partes tres"


@pytest.mark.parametrize("suite", PROFILES)
@pytest.mark.parametrize("first", [0, 65500])
def test_libsrtp_is_understood(suite, first):
    key = crypto(suite)
    protect = sender(key).protect
    plain = [rtp(sequence) for sequence in range(first, first + 100)]
    sealed = [protect(packet) for packet in plain]
    assert SrtpStream([key]).unprotect_many(sealed) == plain
    stream = SrtpStream([key])
    assert [stream.unprotect(packet) for packet in sealed] == plain


@pytest.mark.parametrize("suite", PROFILES)
def test_header_extensions_and_sources_stay_plain(suite):
    key = crypto(suite)
    header = struct.pack(">BBHII2IHHI", 0x92, 0x80, 7, 160, 0x1234, 11, 12, 0xBEDE, 1, 0x10FF0000)
    packet = header + b"speech" * 20
    assert SrtpStream([key]).unprotect(sender(key).protect(packet)) == packet


@pytest.mark.parametrize("suite", PROFILES)
def test_a_stream_may_be_joined_after_rollovers(suite):
    key = crypto(suite)
    protect = sender(key).protect
    plain = [rtp(sequence, payload=b"x" * 20) for sequence in range(60000, 60000 + 3 * 65536, 16384)]
    plain += [rtp(sequence) for sequence in range(plain_end(plain) + 1, plain_end(plain) + 30)]
    sealed = [protect(packet) for packet in plain]
    late = SrtpStream([crypto(suite, 2), key])
    assert late.unprotect_many(sealed[-29:]) == plain[-29:]
    assert late.key == key


def plain_end(packets: list[bytes]) -> int:
    return 60000 + (len(packets) - 1) * 16384


def test_rollovers_beyond_the_bound_are_not_found():
    key = crypto()
    protect = sender(key).protect
    sealed = b""
    for sequence in range(0, (MAX_ROLLOVERS + 2) * 65536, 20000):
        sealed = protect(rtp(sequence, payload=b"x"))
    assert SrtpStream([key]).unprotect(sealed) is None


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(40)), st.lists(st.integers(0, 39), max_size=10))
def test_order_and_duplicates_make_no_difference(order, again):
    key = crypto()
    protect = sender(key).protect
    plain = [rtp(sequence) for sequence in range(65520, 65560)]
    sealed = [protect(packet) for packet in plain]
    order = [0, *order, *again]
    assert SrtpStream([key]).unprotect_many([sealed[n] for n in order]) == [plain[n] for n in order]


def test_a_new_source_starts_its_own_index():
    key = crypto()
    protect = sender(key).protect
    plain = [rtp(sequence) for sequence in range(65530, 65540)] + [
        rtp(sequence, ssrc=9) for sequence in range(60000, 60010)
    ]
    assert SrtpStream([key]).unprotect_many([protect(packet) for packet in plain]) == plain


def test_a_new_key_takes_over_when_the_sender_changes_to_it():
    first, second = crypto(number=1), crypto(number=2)
    plain = [rtp(sequence) for sequence in range(20)]
    sealed = [sender(first).protect(packet) for packet in plain[:10]] + [sender(second).protect(p) for p in plain[10:]]
    stream = SrtpStream([first, second])
    assert stream.unprotect_many(sealed) == plain
    assert stream.key == second


def test_tampered_short_and_foreign_packets_give_nothing():
    key = crypto()
    sealed = sender(key).protect(rtp(1))
    stream = SrtpStream([key])
    assert stream.unprotect(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert stream.unprotect(sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:]) is None
    assert all(stream.unprotect(sealed[:n]) is None for n in range(len(sealed)))
    assert stream.unprotect(sealed) == rtp(1)
    assert SrtpStream([crypto(number=3)]).unprotect(sealed) is None
    assert SrtpStream([]).unprotect(sealed) is None


def test_many_failures_do_not_end_the_search():
    key = crypto()
    junk = [rtp(sequence) for sequence in range(500)]
    protect = sender(key).protect
    sealed = [protect(rtp(sequence)) for sequence in range(500, 700)]
    assert all(SrtpStream([key]).unprotect_many(junk + sealed)[500:])
    late = SrtpStream([key])
    assert late.unprotect_many(junk) == [None] * 500
    beyond = [protect(rtp(sequence)) for sequence in [*range(20000, 120000, 10000), *range(120000, 120200)]]
    assert any(late.unprotect_many(beyond[-200:]))


@given(st.binary(max_size=80), st.sampled_from(sorted(SUITES)))
def test_no_bytes_raise(packet, suite):
    stream = SrtpStream([crypto(suite, mki=1, mki_length=2)])
    assert stream.unprotect(packet) is None
    assert stream.unprotect(b"\x90" + packet) is None
    assert stream.unprotect_rtcp(packet) is None


@pytest.mark.parametrize("suite", PROFILES)
def test_mki_is_stripped_where_it_fits(suite):
    key, tag = crypto(suite), SUITES[suite].rtp_tag
    sealed = sender(key).protect(rtp(1))
    # RFC 3711, section 3.1: before the tag. RFC 7714, section 8.2: after it, as the tag belongs to the cipher text.
    at = len(sealed) if "GCM" in suite else len(sealed) - tag
    with_mki = sealed[:at] + b"\x00\x07" + sealed[at:]
    assert SrtpStream([crypto(suite, mki=7, mki_length=2)]).unprotect(with_mki) == rtp(1)
    assert SrtpStream([crypto(suite, mki=8, mki_length=2)]).unprotect(with_mki) is None
    assert SrtpStream([key]).unprotect(with_mki) is None


def test_unauthenticated_and_unencrypted_streams():
    sealed = sender(crypto()).protect(rtp(5))
    assert SrtpStream([crypto(session_params=("UNAUTHENTICATED_SRTP",))]).unprotect(sealed[:-10]) == rtp(5)
    both = crypto(session_params=("UNENCRYPTED_SRTP", "UNAUTHENTICATED_SRTP"))
    assert SrtpStream([both]).unprotect(rtp(5)) == rtp(5)
    plain = crypto(session_params=("UNENCRYPTED_SRTP",))
    tag = hmac_tag(plain, rtp(5), 0)
    assert SrtpStream([plain]).unprotect(rtp(5) + tag) == rtp(5)
    assert SrtpStream([plain]).unprotect(rtp(6) + tag) is None


def hmac_tag(key: CryptoKey, packet: bytes, rollovers: int) -> bytes:
    import hmac

    session = derive_session_keys(key.key, SUITES[key.suite], rtcp=False)
    return hmac.digest(session.authentication, packet + rollovers.to_bytes(4, "big"), "sha1")[:10]


@pytest.mark.parametrize("suite", ["AES_192_CM_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_32", "AES_CM_256_HMAC_SHA1_80"])
def test_longer_keys_encrypt_as_openssl_does(suite):
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = crypto(suite)
    session = derive_session_keys(key.key, SUITES[suite], rtcp=False)
    counter = int.from_bytes(session.salt, "big") << 16 ^ 0x1234 << 64 ^ 5 << 16
    cipher = Cipher(algorithms.AES(session.cipher), modes.CTR(counter.to_bytes(16, "big"))).encryptor()
    sealed = rtp(5)[:12] + cipher.update(rtp(5)[12:])
    sealed += hmac_tag(key, sealed, 0)[: SUITES[suite].rtp_tag]
    assert SrtpStream([key]).unprotect(sealed) == rtp(5)


@pytest.mark.parametrize("suite", PROFILES)
@pytest.mark.parametrize(
    "report", [b"\x80\xc9\x00\x01\x00\x00\x12\x34", b"\x80\xc8\x00\x06\x00\x00\x12\x34" + bytes(20)]
)
def test_rtcp_of_libsrtp_is_understood(suite, report):
    key = crypto(suite)
    protect = sender(key).protect_rtcp
    stream = SrtpStream([crypto(suite, 2), key])
    for _ in range(3):
        sealed = protect(report)
        assert stream.unprotect_rtcp(sealed) == report
        assert stream.unprotect_rtcp(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (CryptoKey(1, "F8_128_HMAC_SHA1_80", bytes(30)), "F8_128"),
        (CryptoKey(1, SUITE, bytes(29)), "29 octets"),
        (CryptoKey(1, SUITE, bytes(30), session_params=("KDR=4",)), "derivation"),
    ],
)
def test_keys_of_no_use_say_why(key, word):
    assert word in why_key_unusable(key)
    assert SrtpStream([key]).unprotect(bytes([0x80]) + bytes(100)) is None


REAL = [
    ("gteissier__srtp-decrypt/marseillaise-srtp.pcap", "aSBrbm93IGFsbCB5b3VyIGxpdHRsZSBzZWNyZXRz", SUITE, 8),
    ("sippy__rtpproxy/alice_srtp.pcap", "9sOd+W72ilwfNgNt0FzlGYj6YZPMqN1sJJx43UuS", SUITE, 9),
    ("sippy__rtpproxy/bob_srtp.pcap", "NhqBK/JjtVJgmOgPyDKpvMTEjvFCQ4eiyVQelF6x", SUITE, 9),
    ("sippy__rtpproxy/call1_g722_srtp.o.rtp.pcap", "UBFc5R7tK5f91V8j1da++z3h/3H2yS5WaN819nJd", SUITE, 9),
    (
        "lundgrel__sipp-scenarios/srtp_g722_DTMF_srcport_29394.pcap",
        "ui2NT4JoTRWffhBzCz3eQtsjT1pr8ILqh9ZWi+3J",
        "AES_CM_128_HMAC_SHA1_32",
        9,
    ),
]


@pytest.mark.parametrize(("name", "inline", "suite", "payload_type"), REAL)
def test_real_captures_decrypt_to_speech(rtp_packets, name, inline, suite, payload_type):
    packets = rtp_packets(name)
    keys = [crypto(), CryptoKey(2, suite, base64.b64decode(inline))]
    plain = SrtpStream(keys).unprotect_many(packets)
    assert None not in plain
    speech = [p[12:] for p in plain if p is not None and p[1] & 0x7F == payload_type]
    assert len(speech) > 500
    samples = np.concatenate(make_decoder(STATIC_FORMATS[payload_type]).decode(speech)).astype(float)
    # Neighbours in speech are alike; in what was not decrypted they are not.
    assert np.corrcoef(samples[1:], samples[:-1])[0, 1] > 0.7


def test_both_sides_of_a_call_find_their_keys(rtp_packets):
    inlines = ["7SYMKhu8sVMhCr4VXh+ZqkteB01QgqDSgLr4L9iU", "bhn3DDDcf7GhHEnFkGLW9V223XncT60nJrTQK06x"]
    keys = [CryptoKey(n, SUITE, base64.b64decode(inline)) for n, inline in enumerate(inlines)]
    packets = rtp_packets("veondigital__srtp_decoder/WebRTC_PCMA_p2p_SDES_Call_1.pcap")
    for ssrc, key in [(0xD092D296, keys[0]), (0x522B93AB, keys[1])]:
        stream = SrtpStream(keys)
        sealed = [packet for packet in packets if int.from_bytes(packet[8:12], "big") == ssrc]
        assert len(sealed) > 100
        assert None not in stream.unprotect_many(sealed)
        assert stream.key == key
