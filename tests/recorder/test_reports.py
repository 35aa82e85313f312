"""What documents tell of streams: counts, quality and warnings, against what was put on the wire."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from decoders.quality import score
from tests.capture_builder import Capture, both, record_one


def streams(tmp_path, alice, bob):
    """The documents of both streams, and of the call."""
    capture = Capture().rtp(alice, bob)
    capture.call(end=30)
    document = record_one(capture, tmp_path).document
    return {s["participant"]: s for s in document["streams"]}, document


def test_counts_are_those_of_the_wire(tmp_path):
    alice, bob = both(10)
    lost = {50, 51, 52, 200, 301}
    sent = [p for k, p in enumerate(alice) if k not in lost]
    repeated = [replace(p, at=p.at + 0.001) for p in sent[10:20]]
    late = dict.fromkeys((100, 120, 140), 0.1)
    sent = [replace(p, at=p.at + late.get(k, 0)) for k, p in enumerate(sent)]
    found, document = streams(tmp_path, [*sent, *repeated], bob)
    caller = found["caller"]
    assert caller["packets"] == len(sent)
    assert (caller["lost"], caller["expected"]) == (len(lost), 500)
    assert (caller["duplicates"], caller["reordered"], caller["late"]) == (10, 3, 3)
    assert found["callee"]["jitter_ms"] == {"mean": 0.0, "max": 0.0}
    assert (found["callee"]["lost"], found["callee"]["duplicates"]) == (0, 0)
    assert document["warnings"] == []


def test_the_score_is_the_e_models(tmp_path):
    alice, bob = both(20)
    sent = [p for k, p in enumerate(alice) if k % 50 != 7]
    found, _ = streams(tmp_path, sent, bob)
    lost = 1000 - len(sent)
    wanted = score("PCMU", expected=1000, lost=lost, discarded=0, loss_bursts=lost)
    assert found["caller"]["mos"] == pytest.approx(wanted.mos, abs=0.006)
    assert found["callee"]["mos"] == pytest.approx(4.41, abs=0.006)


def test_jitter_is_rfc_3550s(tmp_path):
    dice = np.random.default_rng(8)
    alice, bob = both(20)
    moves = np.concatenate([[0], dice.uniform(0, 0.015, len(alice) - 1)]).round(5)
    shaken = [replace(p, at=p.at + m) for p, m in zip(alice, moves, strict=True)]
    found, _ = streams(tmp_path, shaken, bob)
    jitter, values = 0.0, []
    for before, after in pairwise(shaken):
        transit = int(after.at * 8000 + 1e-6) - int(before.at * 8000 + 1e-6) - 160
        jitter += (abs(transit) - jitter) / 16
        values.append(jitter / 8)
    assert found["caller"]["jitter_ms"]["mean"] == pytest.approx(np.mean(values), abs=0.05)
    assert found["caller"]["jitter_ms"]["max"] == pytest.approx(max(values), abs=0.1)


def test_a_side_that_is_never_heard_is_told(tmp_path):
    alice, _ = both(5)
    found, document = streams(tmp_path, alice, [])
    assert set(found) == {"caller"}
    assert [w["code"] for w in document["warnings"]] == ["one-way"]


def test_payload_types_that_nobody_announced_are_told(tmp_path):
    alice, bob = both(5)
    alice = [replace(p, payload_type=119) if 100 <= k < 110 else p for k, p in enumerate(alice)]
    found, document = streams(tmp_path, alice, bob)
    assert found["caller"]["packets"] == 250
    assert [w["code"] for w in document["warnings"]] == ["unknown-payload"]


def test_a_stream_of_nothing_but_unknown_payload_types_has_the_type_it_came_with(tmp_path):
    alice, bob = both(1.0)
    alice = [replace(packet, payload_type=77) for packet in alice]
    told, _ = streams(tmp_path, alice, bob)
    assert (told["caller"]["codec"], told["caller"]["payload_type"]) == ("unknown/8000", 77)


def test_a_restart_of_sequence_numbers_is_told(tmp_path):
    alice, bob = both(8)
    alice = alice[:200] + [replace(p, sequence=p.sequence + 9000) for p in alice[200:]]
    found, document = streams(tmp_path, alice, bob)
    assert (found["caller"]["packets"], found["caller"]["lost"]) == (400, 0)
    assert [w["code"] for w in document["warnings"]] == ["sequence-restart"]
