"""SRTP as a sender makes it, opened by libsrtp, by our own receiver, and along the standards' vectors."""

import pytest
from pylibsrtp import Policy, Session

from decoders._srtp_keys import SUITES
from decoders.rtcp_write import bye, sender_report, source_description
from decoders.sdp_values import CryptoKey
from decoders.srtp import SrtpStream
from decoders.srtp_protect import SrtpSender

PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
REPORT = sender_report(0x1234, 1_700_000_000_000_000_000, 160, 1, 160) + source_description(0x1234, "one") + bye(0x1234)


def crypto(suite: str, **fields) -> CryptoKey:
    size = SUITES[suite].key + SUITES[suite].salt
    return CryptoKey(1, suite, bytes((7 * k + len(suite)) & 0xFF for k in range(size)), **fields)


def rtp(number: int, ssrc: int = 0x1234, first: bytes = b"\x80", extra: bytes = b"") -> bytes:
    head = first + b"\0" + (number & 0xFFFF).to_bytes(2, "big") + (160 * number & 0xFFFFFFFF).to_bytes(4, "big")
    return head + ssrc.to_bytes(4, "big") + extra + number.to_bytes(4, "big") * 40


def receiver(key: CryptoKey) -> Session:
    return Session(Policy(key=key.key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=PROFILES[key.suite]))


@pytest.mark.parametrize("suite", PROFILES)
@pytest.mark.parametrize("at_once", [1, 50])
def test_libsrtp_opens_what_is_protected(suite, at_once):
    key = crypto(suite)
    sender, session = SrtpSender(key), receiver(key)
    plain = [rtp(number) for number in range(65_300, 65_800)]
    for begin in range(0, len(plain), at_once):
        some = plain[begin : begin + at_once]
        assert [session.unprotect(each) for each in sender.protect_many(some)] == some


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_our_own_receiver_opens_every_suite(suite):
    key = crypto(suite, mki=3, mki_length=2)
    sender, stream = SrtpSender(key), SrtpStream([key])
    plain = [rtp(number) for number in range(65_500, 65_600)]
    protected = [sender.protect(each) for each in plain]
    assert stream.unprotect_many(protected) == plain
    assert all(each[:12] == whole[:12] and each != whole for each, whole in zip(protected, plain, strict=True))
    assert [stream.unprotect_rtcp(sender.protect_rtcp(REPORT)) for _ in range(3)] == [REPORT] * 3


@pytest.mark.parametrize("suite", PROFILES)
def test_libsrtp_opens_rtcp(suite):
    key = crypto(suite)
    sender, session = SrtpSender(key), receiver(key)
    assert [session.unprotect_rtcp(sender.protect_rtcp(REPORT)) for _ in range(5)] == [REPORT] * 5


@pytest.mark.parametrize("suite", ["AES_CM_128_HMAC_SHA1_80", "AEAD_AES_128_GCM"])
def test_headers_with_sources_and_extensions_stay_plain(suite):
    key = crypto(suite)
    packet = rtp(9, first=b"\x91", extra=bytes(4) + b"\xbe\xde\0\1" + bytes(4))
    protected = SrtpSender(key).protect(packet)
    assert protected[:24] == packet[:24]
    assert receiver(key).unprotect(protected) == packet


def test_packets_out_of_order_round_a_wrap_keep_their_index():
    key = crypto("AES_CM_128_HMAC_SHA1_80")
    sender, session = SrtpSender(key), receiver(key)
    order = [65_533, 65_535, 65_536, 65_534, 65_538, 65_537]
    assert [session.unprotect(sender.protect(rtp(number))) for number in order] == [rtp(number) for number in order]


def test_each_ssrc_has_a_counter_of_its_own():
    key = crypto("AES_CM_128_HMAC_SHA1_80")
    sender, session = SrtpSender(key), receiver(key)
    for number in range(65_500, 65_600):
        for ssrc in (1, 2):
            packet = rtp(number - 300 * ssrc, ssrc)
            assert session.unprotect(sender.protect(packet)) == packet


def test_the_packet_of_rfc_7714():
    # Section 16.1.1 gives session keys; the sender's own are put in their place.
    sender = SrtpSender(crypto("AEAD_AES_128_GCM"))
    from decoders._srtp_ciphers import GcmCipher
    from decoders._srtp_keys import SessionKeys

    sender._gcm = GcmCipher(SessionKeys(bytes(range(16)), b"", bytes.fromhex("517569642070726f2071756f")))
    packet = bytes.fromhex("8040f17b8041f8d35501a0b2") + b"Gallia est omnis divisa in partes tres"
    assert sender.protect(packet).hex() == (
        "8040f17b8041f8d35501a0b2"
        "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce"
    )


@pytest.mark.parametrize("key", [CryptoKey(1, "NULL", b"x" * 30), CryptoKey(1, "AES_CM_128_HMAC_SHA1_80", b"short")])
def test_a_key_of_no_use_is_refused(key):
    with pytest.raises(ValueError, match=r"suite|octets"):
        SrtpSender(key)


@pytest.mark.parametrize("packet", [b"", b"\x80" * 11, b"\x00" * 40, b"\x8f" + bytes(20)])
def test_what_is_no_rtp_is_refused(packet):
    with pytest.raises(ValueError, match="RTP"):
        SrtpSender(crypto("AES_CM_128_HMAC_SHA1_80")).protect(packet)
