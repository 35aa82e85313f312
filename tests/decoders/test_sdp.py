"""Session descriptions: what offers and answers of real endpoints look like, and what broken ones do."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import sdp
from decoders.sdp import STATIC_FORMATS, Direction, parse_sdp

HEAD = b"v=0\r\no=alice 2890844526 2890844527 IN IP4 host.example.com\r\ns=call\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def describe(*lines, head=HEAD):
    return parse_sdp(head + b"".join(line.encode() + b"\r\n" for line in lines))


def audio(*lines, head=HEAD):
    return describe("m=audio 49170 RTP/AVP 0 8 97", "a=rtpmap:97 iLBC/8000", *lines, head=head).media[0]


def test_a_plain_offer_is_read_whole():
    session = describe("m=audio 49170 RTP/AVP 0 101", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16,66")
    assert session.notes == ()
    assert (session.origin.user, session.origin.session_id, session.origin.version) == (
        "alice",
        "2890844526",
        2890844527,
    )
    assert (session.origin.address, session.name) == ("host.example.com", "call")
    media = session.media[0]
    assert (media.media, media.port, media.protocol, media.address) == ("audio", 49170, "RTP/AVP", "192.0.2.1")
    assert media.direction is Direction.SENDRECV
    assert list(media.formats) == [0, 101]
    assert media.formats[0].rtpmap == "PCMU/8000"
    assert (media.formats[101].encoding, media.formats[101].fmtp) == ("telephone-event", "0-16,66")


def test_static_types_need_no_rtpmap_and_dynamic_ones_do():
    session = describe("m=audio 4 RTP/AVP 8 9 13 18 96", "a=fmtp:18 annexb=no")
    assert [f.rtpmap for f in session.media[0].formats.values()] == ["PCMA/8000", "G722/8000", "CN/8000", "G729/8000"]
    assert session.media[0].formats[18].fmtp == "annexb=no"
    assert session.notes == ("media description 0: payload type 96 has no rtpmap",)


def test_an_rtpmap_outweighs_the_static_table_and_keeps_its_case():
    media = describe("m=audio 4 RTP/AVP 0 111", "a=RTPMAP:0 pcmu/8000/1", "a=rtpmap:111 opus/48000/2").media[0]
    assert [f.rtpmap for f in media.formats.values()] == ["pcmu/8000", "opus/48000/2"]
    assert media.formats[111].channels == 2


def test_the_static_table_is_that_of_rfc_3551():
    assert STATIC_FORMATS[10].rtpmap == "L16/44100/2"
    assert STATIC_FORMATS[34].clock_rate == 90000
    assert all(number == entry.payload_type for number, entry in STATIC_FORMATS.items())


@pytest.mark.parametrize("value", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_the_direction_of_the_media_outweighs_that_of_the_session(value):
    assert audio(f"a={value}", head=HEAD + b"a=inactive\r\n").direction == value
    assert audio(head=HEAD + f"a={value}\r\n".encode()).direction == value
    assert audio(f"a={value.upper()}").direction == value


@pytest.mark.parametrize("line", ["c=IN IP4 0.0.0.0", "c=IN IP6 ::", "c=IN IP6 0:0:0:0:0:0:0:0"])
def test_hold_by_address_is_seen_apart_from_hold_by_direction(line):
    media = audio(line)
    assert media.held_by_address
    assert media.direction is Direction.SENDRECV
    assert not audio("a=sendonly").held_by_address


def test_connection_lines_are_taken_from_the_nearest_level():
    session = describe("m=audio 4 RTP/AVP 0", "m=video 6 RTP/AVP 31", "c=IN IP6 2001:db8::1", "c=IN IP6 2001:db8::2")
    assert [media.address for media in session.media] == ["192.0.2.1", "2001:db8::1"]
    assert audio("c=IN IP4 224.2.1.1/127/3").address == "224.2.1.1"
    assert audio("c=IN IP4 media.example.com").address == "media.example.com"
    assert parse_sdp(b"v=0\nm=audio 4 RTP/AVP 0\n").media[0].address == ""


def test_rtcp_may_be_elsewhere_or_on_the_same_port():
    assert (audio().rtcp_port, audio().rtcp_address, audio().rtcp_mux) == (None, None, False)
    assert audio("a=rtcp:53020").rtcp_port == 53020
    assert audio("a=rtcp:53020 IN IP4 126.16.64.4").rtcp_address == "126.16.64.4"
    assert audio("a=rtcp-mux").rtcp_mux
    assert audio("a=rtcp:99999").rtcp_port is None


def test_ports_may_come_in_ranges_and_be_refused():
    media = describe("m=audio 49170/2 RTP/AVP 0", "m=video 0 RTP/AVP 31", "m=audio 0 RTP/AVP 0", "a=bundle-only").media
    assert [(m.port, m.port_count, m.rejected) for m in media] == [
        (49170, 2, False),
        (0, 1, True),
        (0, 1, False),
    ]
    assert [m.index for m in media] == [0, 1, 2]


KEY = base64.b64encode(bytes(range(30))).decode()


def test_sdes_keys_carry_lifetime_and_mki():
    (key,) = audio(f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31|1:4 UNENCRYPTED_SRTCP KDR=1").crypto
    assert (key.tag, key.suite, key.key) == (1, "AES_CM_128_HMAC_SHA1_80", bytes(range(30)))
    assert (key.lifetime, key.mki, key.mki_length) == (2**31, 1, 4)
    assert key.session_params == ("UNENCRYPTED_SRTCP", "KDR=1")


def test_every_key_of_every_crypto_line_is_kept_in_order():
    gcm = base64.b64encode(bytes(28)).decode().rstrip("=")
    media = audio(
        f"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4",
        f"a=Crypto:7 AEAD_AES_128_GCM inline:{gcm}",
    )
    assert [(key.tag, key.mki) for key in media.crypto] == [(1, 1), (1, 2), (7, None)]


@pytest.mark.parametrize(
    "line",
    [
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:!!!!",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
        "a=crypto:x AES_CM_128_HMAC_SHA1_80 inline:" + KEY,
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80",
        "a=crypto:",
    ],
)
def test_an_unsound_key_is_noted_and_left_out(line):
    session = describe("m=audio 4 RTP/SAVP 0", line)
    assert session.media[0].crypto == ()
    assert len(session.notes) == 1


def test_keys_and_fingerprints_of_the_session_hold_for_its_media():
    line = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n".encode()
    assert audio(head=HEAD + line).crypto[0].key == bytes(range(30))
    assert audio(head=HEAD + b"a=fingerprint:SHA-1 4A:AD\r\n").dtls
    assert audio("a=fingerprint:SHA-256 4A:AD").dtls
    assert not audio().dtls


@pytest.mark.parametrize(
    ("protocol", "encrypted", "rtp"),
    [
        ("RTP/AVP", False, True),
        ("RTP/AVPF", False, True),
        ("RTP/SAVP", True, True),
        ("rtp/savpf", True, True),
        ("UDP/TLS/RTP/SAVPF", True, True),
        ("udptl", False, False),
    ],
)
def test_the_profile_tells_whether_media_are_rtp_and_encrypted(protocol, encrypted, rtp):
    media = describe(f"m=audio 4 {protocol} 0").media[0]
    assert (media.encrypted, media.rtp, bool(media.formats)) == (encrypted, rtp, rtp)


def test_fax_over_udptl_is_kept_without_formats():
    media = describe("m=image 4000 udptl t38", "a=T38FaxVersion:0").media[0]
    assert (media.media, media.protocol, dict(media.formats)) == ("image", "udptl", {})


def test_ice_candidates_are_read_and_broken_ones_dropped():
    media = audio(
        "a=candidate:1 1 UDP 2130706431 10.0.1.1 8998 typ host",
        "a=candidate:2 2 udp 1694498815 2001:db8::5 45664 typ srflx raddr 10.0.1.1 rport 8998",
        "a=candidate:3 1 UDP 1 10.0.1.1",
        "a=candidate:4 1 UDP 1 10.0.1.1 99999 typ host",
        head=HEAD + b"a=ice-lite\r\n",
    )
    assert [(c.component, c.transport, c.address, c.port, c.kind) for c in media.candidates] == [
        (1, "udp", "10.0.1.1", 8998, "host"),
        (2, "udp", "2001:db8::5", 45664, "srflx"),
    ]
    assert describe("m=audio 4 RTP/AVP 0", head=HEAD + b"a=ice-lite\r\n").ice_lite


def test_labels_mids_bundles_sources_and_record_states_are_kept():
    session = describe(
        "m=audio 4 RTP/AVP 0",
        "a=mid:a1",
        "a=label: 10 ",
        "a=ssrc:314159 cname:x",
        "a=ssrc:314159 msid:y",
        "a=record:on",
        "a=ptime:20",
        head=HEAD + b"a=group:bundle a1 v1\r\na=record:paused\r\n",
    )
    media = session.media[0]
    assert (media.mid, media.label, media.ssrcs, media.record, media.ptime) == ("a1", "10", (314159,), "on", 20)
    assert session.bundle == ("a1", "v1")
    assert audio(head=HEAD + b"a=record:paused\r\n").record == "paused"
    assert audio("a=record:maybe", "a=ptime:nan").record is None
    assert audio("a=ptime:nan").ptime is None


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b"\n\r\n"])
def test_any_line_end_will_do(end):
    body = (HEAD + b"m=audio 4 RTP/AVP 0\r\na=sendonly\r\n").replace(b"\r\n", end)
    assert parse_sdp(body).media[0].direction is Direction.SENDONLY


def test_names_may_be_utf_8_or_latin_1():
    assert parse_sdp(HEAD.replace(b"s=call", "s=Gespräch\u2028".encode())).name == "Gespräch"
    assert parse_sdp(HEAD.replace(b"s=call", b"s=Gespr\xe4ch")).name == "Gespräch"


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"<xml/>", b"a=sendonly\r\n", b"m=audio\r\n", b"\xff" * 100, b"=\n==\n"]
)
def test_what_is_no_description_gives_none(body):
    assert parse_sdp(body) is None


@pytest.mark.parametrize("line", ["m=audio", "m=audio x RTP/AVP 0", "m=audio 65536 RTP/AVP 0", "m=audio -1 RTP/AVP 0"])
def test_an_unusable_media_line_is_noted_and_the_others_keep_their_place(line):
    session = describe(line, "m=video 6 RTP/AVP 31")
    assert [(media.index, media.media) for media in session.media] == [(1, "video")]
    assert len(session.notes) == 1


def test_counts_are_bounded():
    many = describe(*["m=audio 4 RTP/AVP 0"] * 1000)
    assert len(many.media) == 64
    assert many.notes == ("too many media descriptions",)
    formats = " ".join(str(number % 128) for number in range(10000))
    assert len(describe(f"m=audio 4 RTP/AVP {formats}").media[0].formats) <= 64
    assert len(audio(*["a=candidate:1 1 UDP 1 10.0.1.1 8998 typ host"] * 1000).candidates) == 64
    assert len(describe("m=audio 4 RTP/AVP " + "x " * 1000).notes) <= 32


def test_attributes_before_any_media_line_change_nothing_in_a_later_one_that_has_its_own():
    session = describe("m=audio 4 RTP/AVP 0", "a=recvonly", "m=audio 6 RTP/AVP 0", head=HEAD + b"a=sendonly\r\n")
    assert [media.direction for media in session.media] == [Direction.RECVONLY, Direction.SENDONLY]


LINES = st.one_of(
    st.sampled_from(
        [
            b"v=0",
            b"o=- 1 1 IN IP4 h",
            b"c=IN IP4 1.2.3.4/1",
            b"c=IN",
            b"m=audio 4 RTP/AVP 0 96",
            b"m=audio 4/9999999999 RTP/SAVP 0",
            b"a=rtpmap:96 x/8000",
            b"a=rtpmap:96 x/0",
            b"a=rtpmap:0 /",
            b"a=crypto:1 X inline:AAAA|1:|:1|2^99",
            b"a=candidate:",
            b"a=rtcp:",
            b"a=group:",
            b"a=group: BUNDLE",
            b"a=ssrc:",
            b"a=ptime:1e999",
            b"a=ptime:-1",
            b" v=0",
            b"m =audio 4 RTP/AVP 0",
            b"a=rtcp:1 IN IP4",
        ]
    ),
    st.binary(max_size=30),
)


@given(st.lists(LINES, max_size=30), st.sampled_from([b"\r\n", b"\n", b"\r"]))
def test_no_description_raises(lines, end):
    session = parse_sdp(end.join(lines))
    for media in session.media if session else ():
        assert 0 <= media.port <= 0xFFFF
        assert all(entry.clock_rate > 0 and entry.channels > 0 for entry in media.formats.values())


@given(
    st.lists(st.integers(0, 34).filter(STATIC_FORMATS.__contains__), min_size=1, max_size=10, unique=True),
    st.integers(1, 65535),
    st.sampled_from(list(Direction)),
)
def test_what_is_written_is_read_back(types, port, direction):
    lines = [f"m=audio {port} RTP/AVP {' '.join(map(str, types))}"]
    lines += [f"a=rtpmap:{number} {STATIC_FORMATS[number].rtpmap}" for number in types]
    media = describe(*lines, f"a={direction}").media[0]
    assert dict(media.formats) == {number: STATIC_FORMATS[number] for number in types}
    assert (media.port, media.direction) == (port, direction)


def test_lines_that_one_call_alone_has_are_not_remembered():
    sdp._known_media.cache_clear()
    for line in ("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 40, "a=ssrc:7 cname:x", "a=sendonly"):
        text = f"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0\r\n{line}\r\n"
        first, second = parse_sdp(text.encode()), parse_sdp(text.encode())
        assert first == second
    assert sdp._known_media.cache_info().currsize == 1
    assert (first.media[0].direction, sdp._known_media.cache_info().hits) == (Direction.SENDONLY, 1)
