"""Frames of RTP payloads (RFC 3551, RFC 6716)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.payload import MAX_SECONDS, fixed_frames, opus_samples, split_g723, split_g729, split_opus
from decoders.payload_amr import amr_splitter
from decoders.payload_speex import speex_splitter

SPLITTERS = [
    (fixed_frames(33, 160), 8000),
    (split_g729, 8000),
    (split_g723, 8000),
    (split_opus, 48000),
    (amr_splitter("", wide=False), 8000),
    (amr_splitter("octet-align=1", wide=True), 16000),
    (amr_splitter("octet-align=1;crc=1", wide=False), 8000),
    (speex_splitter(16000), 16000),
]


@pytest.mark.parametrize(("split", "rate"), SPLITTERS)
@given(payload=st.one_of(st.binary(max_size=400), st.binary(max_size=8).map(lambda part: part * 300)))
def test_no_payload_raises_or_stands_for_more_than_a_second(split, rate, payload):
    assert sum(frame.samples for frame in split(payload)) <= MAX_SECONDS * rate


def test_frames_of_one_size_must_fill_the_payload():
    split = fixed_frames(33, 160)
    assert [len(frame.data) for frame in split(bytes(99))] == [33, 33, 33]
    assert split(bytes(34)) == []
    assert split(b"") == []


@pytest.mark.parametrize(
    ("octets", "expected"),
    [(10, [10]), (20, [10, 10]), (2, [0]), (22, [10, 10, 0]), (3, []), (14, []), (12, [10, 0])],
)
def test_g729_payload_may_end_in_a_silence_descriptor(octets, expected):
    frames = split_g729(bytes(octets))
    assert [len(frame.data) for frame in frames] == expected
    assert all(frame.samples == 80 for frame in frames)


def test_g723_frames_tell_their_own_size():
    payload = bytes([0x00]) + bytes(23) + bytes([0x01]) + bytes(19) + bytes([0x02]) + bytes(3)
    assert [(len(frame.data), frame.samples) for frame in split_g723(payload)] == [(24, 240), (20, 240), (4, 240)]
    assert split_g723(payload[:-1]) == []


@pytest.mark.parametrize(
    ("payload", "milliseconds"),
    [
        ("00", 10), ("08", 20), ("10", 40), ("18", 60), ("60", 10), ("68", 20), ("80", 2.5), ("98", 20),
        ("f8", 20), ("f9", 40), ("fa", 40), ("fb06", 120), ("fb03", 60), ("fb07", 0), ("fb00", 0), ("fb", 0), ("", 0),
    ],
)  # fmt: skip
def test_duration_of_an_opus_packet_is_in_its_first_octets(payload, milliseconds):
    assert opus_samples(bytes.fromhex(payload)) == milliseconds * 48
