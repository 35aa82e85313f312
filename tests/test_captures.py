"""Every third-party capture replayed: what is found is what the index says, or the difference is explained.

Prints nothing of the captures; the same table is `python tests/captures_table.py`.
"""

from functools import cache
from pathlib import Path

import pytest

from tests import captures_table as table

CAPTURES = table.collection()
ROWS = table.read_index(CAPTURES) if CAPTURES is not None else []
EXPLAINED = table.read_explained()

needs_captures = pytest.mark.skipif(CAPTURES is None, reason="third-party captures are not here (SPANREC_CAPTURES)")


@cache
def found_in(file):
    return table.replay_capture(CAPTURES / "real" / file)


def ending(name):
    return found_in(next(row.file for row in ROWS if row.file.endswith(name)))


@needs_captures
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.file)
def test_calls_and_streams_are_those_of_the_index_or_explained(row):
    found = found_in(row.file)
    fine, sentence = table.verdict(row, found, EXPLAINED)
    assert fine, f"found {found.figures()}: {sentence}"
    assert list(table.implausible(found)) == []


def test_every_explanation_is_a_sentence_about_a_capture_of_the_index():
    for file, (figures, sentence) in EXPLAINED.items():
        assert figures
        assert sentence.endswith(".")
        assert CAPTURES is None or file in {row.file for row in ROWS}


@needs_captures
def test_only_the_capture_that_nobody_can_read_is_damaged():
    damaged = [row.file for row in ROWS if found_in(row.file).damaged]
    assert [Path(file).name for file in damaged] == ["cool.pcap"]
    assert "nothing could be read" in found_in(damaged[0]).error


@needs_captures
@pytest.mark.parametrize(
    "name",
    ["kpalaw__sip-rtp-analyzer/call_and_rtp.pcap", "sip_recording_ora.pcapng", "dtmf_relay_asymm.pcapng",
     "test_voip.pcap.pcapng", "tc-02.22.pcap"],
)  # fmt: skip
def test_both_legs_of_a_b2bua_share_a_group(name):
    with_media = [document for document in ending(name).documents if document.streams]
    assert len(with_media) == 2
    assert len({document.group_id for document in with_media}) == 1


@needs_captures
def test_calls_that_play_the_same_file_at_once_are_not_grouped():
    documents = ending("uacsipclient.pcap").documents
    assert len({document.group_id for document in documents}) == len(documents) == 5


@needs_captures
def test_a_relay_that_rewrites_ssrcs_is_recognised_by_its_payloads():
    one, other = ending("test_voip.pcap.pcapng").documents
    assert {stream.ssrc for stream in one.streams}.isdisjoint(stream.ssrc for stream in other.streams)
    assert one.group_id == other.group_id


@needs_captures
@pytest.mark.parametrize(
    ("name", "packets"),
    [("sip_hold_transfer.pcapng", 375), ("conference_call.pcapng", 806), ("Asterisk_ZFONE_XLITE.pcap", 207)],
)
def test_a_source_that_moves_on_is_one_stream(name, packets):
    streams = [s for document in ending(name).documents for s in document.streams if s.participant == "caller"]
    assert (packets, 0) in [(stream.packets, stream.copies) for stream in streams]


@needs_captures
def test_a_refused_invite_that_is_tried_again_with_the_same_sdp_keeps_its_media():
    (document,) = ending("rtp_sip_g711ulaw_20ms.pcapng").documents
    assert [stream.packets for stream in document.streams] == [356, 355]


@needs_captures
def test_each_call_on_a_port_used_again_has_its_own_media_from_its_first_packet():
    for document in ending("sip-invites-with-utf8-and-latin1.pcap").documents:
        assert [s.packets for s in document.streams if s.participant == "caller"] == [150]


@needs_captures
@pytest.mark.parametrize(
    "name",
    ["marseillaise-srtp.pcap", "alice_srtp.pcap", "bob_srtp.pcap", "call1_g722_srtp.o.rtp.pcap",
     "WebRTC_PCMA_p2p_SDES_Call_1.pcap", "srtp_g722_DTMF_srcport_29394.pcap"],
)  # fmt: skip
def test_encrypted_media_without_keys_is_silent_and_says_so(name):
    (document,) = ending(name).documents
    assert document.audio is None
    assert all(stream.encrypted for stream in document.streams)
    assert {"encrypted"} <= {warning.code for warning in document.warnings}


@needs_captures
def test_media_that_zrtp_encrypts_is_marked_so():
    (document,) = ending("Asterisk_ZFONE_XLITE.pcap").documents
    assert [stream.encrypted for stream in document.streams] == [True, True]


@needs_captures
def test_keys_of_both_sides_under_a_plain_profile_decrypt():
    (document,) = ending("chrome2chrome.pcap").documents
    assert all(stream.encrypted for stream in document.streams)
    assert {warning.code for warning in document.warnings}.isdisjoint({"encrypted", "undecrypted"})


@needs_captures
def test_noise_is_no_call_unless_plain_audio_plays():
    for row in ROWS:
        found = found_in(row.file)
        if row.calls == 0 and found.media_only:
            for document in found.documents:
                assert document.state != "media-only" or document.audio or any(s.encrypted for s in document.streams)
