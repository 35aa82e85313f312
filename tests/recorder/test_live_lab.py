"""A call of real programs through a proxy and a media relay, recorded live from a tc mirror of the proxy's port.

All calls and all kinds of mirrors: `python -m tests.live_lab`.
"""

import numpy as np
import pytest

from bench.veth import is_possible
from pcaps.make.sources import speech_like
from tests.known_audio import judge_piece, unheard
from tests.live_lab import Scenario, missing, spoken, through_the_proxy
from tests.live_mirror import in_erspan, mirrors_are_possible, tagged

CALL = Scenario("suite", "sipp to sipp, PCMA", spoken("PCMA", "suite", seconds=2.0), "PCMA")


@pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and network namespaces")
def test_a_call_through_kamailio_and_rtpengine_is_recorded_from_a_mirror(tmp_path):
    if absent := missing():
        pytest.skip(f"not here: {', '.join(absent)}")
    if not mirrors_are_possible():
        pytest.skip("this kernel mirrors nothing: it lacks clsact, u32 or mirred")
    (found,) = through_the_proxy(tmp_path / "lab", [CALL], every=False)
    assert found.faults == ()
    assert found.states == ("completed",)
    assert found.packets == "100 of 100, 100 of 100"
    assert found.copies == "1 / 0, 1 / 0", "each packet at two hops"
    assert found.warnings == ()
    assert found.replay == "same"


def test_known_audio_is_found_and_what_is_not_in_it_is_counted():
    piece = speech_like(5, 0.5)
    heard = np.concatenate([np.zeros(77, np.int16), piece, np.zeros(500, np.int16)])
    judged = judge_piece(heard, piece)
    assert (judged.at, judged.equal, judged.snr_db) == (77, len(piece), float("inf"))
    assert unheard(heard, [judged]) == 0
    heard[100] += 1
    heard[-1] = 3
    judged = judge_piece(heard, piece)
    assert (judged.at, judged.equal) == (77, len(piece) - 1)
    assert judged.snr_db > 60
    assert unheard(heard, [judged]) == 1


def test_tags_and_tunnels_stand_where_they_should():
    frame = bytes(range(60))
    assert tagged(frame, 7) == frame[:12] + b"\x81\x00\x00\x07" + frame[12:]
    assert in_erspan(frame, 3, 5) == b"\x10\x00\x88\xbe\0\0\0\x03" + b"\x10\x00\x00\x05\0\0\0\0" + frame
