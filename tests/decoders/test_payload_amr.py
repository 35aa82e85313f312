"""AMR and AMR-WB payloads (RFC 4867), built here bit by bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.payload_amr import amr_splitter, parse_parameters, why_amr_unsupported

NARROW = {0: 95, 1: 103, 2: 118, 3: 134, 4: 148, 5: 159, 6: 204, 7: 244, 8: 39, 15: 0}
WIDE = {0: 132, 1: 177, 2: 253, 3: 285, 4: 317, 5: 365, 6: 397, 7: 461, 8: 477, 9: 40, 14: 0, 15: 0}


def bits_of(value: int, count: int) -> str:
    return format(value, f"0{count}b") if count else ""


def to_octets(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def contents(frames: list[tuple[int, str]]) -> list[str]:
    """Entries F, FT, Q of a table of contents."""
    return [("1" if i < len(frames) - 1 else "0") + bits_of(kind, 4) + "1" for i, (kind, _) in enumerate(frames)]


def bandwidth_efficient(frames: list[tuple[int, str]]) -> bytes:
    return to_octets("1111" + "".join(contents(frames)) + "".join(speech for _, speech in frames))


def octet_aligned(frames: list[tuple[int, str]], crc: bool = False) -> bytes:
    checks = bytes(0xEE for _, speech in frames if speech) if crc else b""
    table = b"".join(to_octets(entry) for entry in contents(frames))
    return b"\xf0" + table + checks + b"".join(to_octets(speech) if speech else b"" for _, speech in frames)


def stored(frames: list[tuple[int, str]]) -> list[bytes]:
    """Frames in storage format (RFC 4867, section 5.3)."""
    return [bytes([kind << 3 | 4]) + (to_octets(speech) if speech else b"") for kind, speech in frames]


def frames_of(sizes: dict[int, int]) -> st.SearchStrategy[list[tuple[int, str]]]:
    one = st.sampled_from(sorted(sizes)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.integers(0, (1 << sizes[kind]) - 1).map(lambda value: bits_of(value, sizes[kind]))
        )
    )
    return st.lists(one, min_size=1, max_size=6)


@pytest.mark.parametrize(("wide", "sizes"), [(False, NARROW), (True, WIDE)])
@given(data=st.data())
def test_both_packings_give_the_frames_that_were_packed(wide, sizes, data):
    frames = data.draw(frames_of(sizes))
    for fmtp, payload in [
        ("mode-set=0,2,7", bandwidth_efficient(frames)),
        ("octet-align=0", bandwidth_efficient(frames)),
        ("mode-change-period=2; octet-align=1", octet_aligned(frames)),
        ("crc=1", octet_aligned(frames, crc=True)),
    ]:
        split = amr_splitter(fmtp, wide)(payload)
        assert [frame.data for frame in split] == stored(frames)
        assert {frame.samples for frame in split} == {320 if wide else 160}


def test_a_damaged_frame_is_given_as_lost():
    payload = bytearray(octet_aligned([(7, "1" * 244)]))
    payload[1] &= ~0x04
    assert [frame.data for frame in amr_splitter("octet-align=1", wide=False)(bytes(payload))] == [b"\x7c"]


@pytest.mark.parametrize("kind", [12, 13, 14])
def test_reserved_frame_types_are_refused(kind):
    assert amr_splitter("", wide=False)(to_octets("1111" + "0" + bits_of(kind, 4) + "1" + "0" * 300)) == []


def test_cut_payloads_are_refused():
    for fmtp, payload in [
        ("", bandwidth_efficient([(7, "1" * 244)])),
        ("octet-align=1", octet_aligned([(7, "1" * 244)])),
    ]:
        assert all(amr_splitter(fmtp, wide=False)(payload[:n]) == [] for n in range(len(payload)))


def test_what_is_not_supported_is_named():
    assert why_amr_unsupported("octet-align=1; crc=1") == ""
    assert "interleaving" in why_amr_unsupported("octet-align=1; interleaving=30")
    assert "sorting" in why_amr_unsupported("robust-sorting=1")


def test_parameters_are_read_in_any_case_and_spacing():
    assert parse_parameters(" Octet-Align = 1;mode-set=0,2 ;; crc") == {
        "octet-align": "1",
        "mode-set": "0,2",
        "crc": "1",
    }
