"""Speex frames inside payloads (RFC 5574)."""

import pytest

from decoders.payload_speex import speex_splitter

NARROW = {0: 5, 1: 43, 2: 119, 3: 160, 4: 220, 5: 300, 6: 364, 7: 492, 8: 79}
LAYER = {0: 4, 1: 36, 2: 112, 3: 192, 4: 352}


def narrow(mode: int) -> str:
    return "0" + format(mode, "04b") + "10" * 300


def frame(mode: int, *layers: int) -> str:
    bits = narrow(mode)[: NARROW[mode]]
    return bits + "".join(("1" + format(layer, "03b") + "01" * 200)[: LAYER[layer]] for layer in layers)


def payload(*frames: str) -> bytes:
    bits = "".join(frames)
    bits += ("0" + "1" * 7)[: -len(bits) % 8]
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("mode", NARROW)
@pytest.mark.parametrize("layers", [(), (0,), (3,), (2, 1), (4, 4)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_frames_are_found_in_every_sub_mode(mode, layers, count):
    split = speex_splitter(32000)(payload(*[frame(mode, *layers)] * count))
    assert [piece.data for piece in split] == [payload(frame(mode, *layers))] * count
    assert all(piece.samples == 640 for piece in split)


def test_a_terminator_ends_the_payload():
    assert len(speex_splitter(8000)(payload(frame(3), "01111", "0" * 40))) == 1


def test_messages_in_band_go_with_the_frame_after_them():
    message, user = "01110" + "0010" + "1111", "01101" + "0001" + "00000" + "10101010"
    split = speex_splitter(8000)(payload(frame(2), message, user, frame(2)))
    assert [piece.data for piece in split] == [payload(frame(2)), payload(message, user, frame(2))]


@pytest.mark.parametrize("cut", [1, 2, 10, 20])
def test_cut_frames_are_refused(cut):
    whole = payload(frame(5))
    assert speex_splitter(8000)(whole[:-cut]) == []


def test_a_reserved_layer_is_refused():
    assert speex_splitter(16000)(payload(frame(3) + "1" + "111" + "0" * 60)) == []
