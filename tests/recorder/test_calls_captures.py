"""Calls in captures of real traffic, read with tshark and fed to the tracker."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from capture.address import parse_endpoint
from decoders.sip import parse_message
from recorder.calls import CallTracker
from recorder.model import Call, CallState, GroupReason, Side, Sighting
from tests.playbook import Played

ENDS = ("ip.src", "ipv6.src", "udp.srcport", "ip.dst", "ipv6.dst", "udp.dstport")
FIELDS = ("frame.number", "frame.time_epoch", *ENDS, "udp.payload")
INVITED = re.compile(rb"INVITE [^\r\n]+\r?\n(?:[^\r\n]+\r?\n)*?(?:Call-ID|i)\s*:\s*([^\r\n]+)", re.IGNORECASE)


def datagrams(path: Path) -> Iterator[tuple[bytes, Sighting]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    command = ["tshark", "-r", str(path), "-Y", "sip && udp && !icmp", "-T", "fields"]
    command += [word for name in FIELDS for word in ("-e", name)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        number, time, *ends, payload = (field.split(",")[-1] for field in line.split("\t"))
        source = parse_endpoint(ends[0] or ends[1], int(ends[2]))
        destination = parse_endpoint(ends[3] or ends[4], int(ends[5]))
        assert source is not None
        assert destination is not None
        seconds, _, fraction = time.partition(".")
        nanoseconds = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
        yield bytes.fromhex(payload), Sighting(nanoseconds, int(number), 0, source, destination)


def track(path: Path, sent: list[bytes] | None = None) -> Played:
    played = Played(CallTracker())
    now = 0
    for data, seen in datagrams(path):
        if sent is not None:
            sent.append(data)
        message = parse_message(data)
        if message is not None:
            now = max(now, seen.time)
            played.events += played.tracker.feed(message, seen)
            played.events += played.tracker.expire(now)
    played.events += played.tracker.finish(now)
    return played


def real_calls(played: Played) -> list[Call]:
    return [call for call in played.calls if call.recording_session is None]


def after(call: Call, time: int | None) -> float | None:
    return None if time is None else round((time - call.started) / 1e9, 3)


def test_one_call_through_a_proxy_and_its_recording_session(captures):
    played = track(captures / "lab" / "opensips_siprec_hold.pcap")
    (call,) = real_calls(played)
    assert call.state is CallState.COMPLETED
    assert call.warnings == []
    assert (call.caller.name, call.callee.name) == ("Alice Caller", "Bob Callee")
    assert (str(call.caller.address), str(call.callee.address)) == ("127.0.0.11:5060", "127.0.0.12:5060")
    assert [(after(call, h.begin), after(call, h.end), h.by) for h in call.holds] == [(4.016, 7.024, Side.CALLER)]
    (session,) = call.recorded_by
    assert session.records == [call.index]
    assert session.aors == ("sip:alice@example.com", "sip:bob@example.com")
    assert len(session.metadata) == 3
    assert session.ended is not None


@pytest.mark.parametrize(
    ("name", "sessions"),
    [
        ("3calls", [1, 1, 1]),
        ("early_busy", [1]),
        ("failover_503", [2]),
        ("pause_resume", [1]),
        ("udp", [1]),
    ],
)
def test_every_recorded_call_has_its_sessions(captures, name, sessions):
    played = track(captures / "lab" / f"opensips_siprec_{name}.pcap")
    calls = real_calls(played)
    assert [len(call.recorded_by) for call in calls] == sessions
    assert all(not call.warnings for call in played.calls)
    assert all(call.group is None for call in calls)


def test_each_of_three_calls_at_once_has_its_own_session(captures):
    calls = real_calls(track(captures / "lab" / "opensips_siprec_3calls.pcap"))
    assert len({call.recorded_by[0].call_id for call in calls}) == 3


def test_a_busy_call_with_early_media_is_refused(captures):
    (call,) = real_calls(track(captures / "lab" / "opensips_siprec_early_busy.pcap"))
    assert (call.state, call.sip_status, call.ended_by) == (CallState.REFUSED, 486, Side.CALLEE)


def test_one_call_id_used_five_times_is_five_calls(captures):
    played = track(captures / "real" / "cisco-system-traffic-generator__trex-core" / "udp_sip.cap")
    assert [call.state for call in played.calls] == [CallState.COMPLETED] * 5
    assert len({call.call_id for call in played.calls}) == 1
    assert {call.ended_by for call in played.calls} == {Side.CALLEE}


def test_hold_and_transfer_behind_a_call_manager(captures):
    call = track(captures / "real" / "ahmedelemamn__Wireshark-Captures" / "sip_hold_transfer.pcapng").call
    assert call.state is CallState.COMPLETED
    assert [(after(call, h.begin), after(call, h.end), h.by) for h in call.holds] == [
        (8.369, 8.375, Side.CALLEE),
        (14.68, 14.745, Side.CALLEE),
    ]
    assert call.warnings == []


@pytest.mark.parametrize(
    "name", ["velco22__MTAA_1/presmerovanie_hovoru.pcapng", "Magum23__mtaa-sip/call_transfer.pcapng"]
)
def test_a_transfer_by_refer_groups_its_calls(captures, name):
    played = track(captures / "real" / name)
    first, second = played.calls
    assert (first.group, second.group) == (0, 0)
    assert second.group_reasons == [(0, GroupReason.REFERRED_BY)]
    assert "transferred" in played.codes(first)
    assert [call.state for call in played.calls] == [CallState.COMPLETED] * 2


@pytest.mark.parametrize(
    ("name", "state", "status", "ended_by"),
    [
        ("drepkovsky__sip-proxy-js/cancel.pcapng", CallState.CANCELLED, 487, Side.CALLER),
        ("aboutsip__pkts/cancel.pcap", CallState.CANCELLED, 487, Side.CALLER),
        ("drepkovsky__sip-proxy-js/reject.pcapng", CallState.REFUSED, 603, Side.CALLEE),
        ("NormB__sipnab/sip-488-codec-reject.pcapng", CallState.REFUSED, 488, Side.CALLEE),
        ("martin-hric__sip-proxy/scenar3.pcap", CallState.REFUSED, 486, Side.CALLEE),
        ("NormB__sipnab/sip-proxy.pcap", CallState.COMPLETED, 200, Side.CALLEE),
        ("MichalCab__ISA/sip.pcap", CallState.COMPLETED, 200, Side.CALLEE),
    ],
)
def test_one_call_and_how_it_ended(captures, name, state, status, ended_by):
    call = track(captures / "real" / name).call
    assert (call.state, call.sip_status, call.ended_by) == (state, status, ended_by)


def test_keys_pressed_by_info(captures):
    call = track(captures / "real" / "odedshimon__BruteShark" / "DTMFsipinfo.pcap").call
    assert "".join(digit.digit for digit in call.digits) == "1342"
    assert {digit.side for digit in call.digits} == {Side.CALLER}


def test_a_capture_that_begins_after_the_invite(captures):
    played = track(captures / "real" / "cps274203__RTPExtractor" / "DTMF_API.pcap")
    call = played.call
    assert (call.state, call.ringing is not None, call.answered is not None) == (CallState.COMPLETED, True, True)
    assert played.warnings() == ["invite-not-seen"]
    played = track(captures / "real" / "cps274203__RTPExtractor" / "uac.pcap")
    assert played.call.state is CallState.COMPLETED
    assert played.warnings() == ["invite-not-seen", "sides-assumed", "answer-not-seen"]


def test_every_call_id_with_an_invite_is_a_call(captures):
    rows = [line.split("\t") for line in (captures / "INDEX.tsv").read_text().splitlines()[1:]]
    names = [row[0] for row in rows if row[8] == "yes" and "sip-udp" in row[12] and 2000 < int(row[5]) < 60_000]
    for name in names[:8]:
        sent: list[bytes] = []
        played = track(captures / "real" / name, sent)
        invited = {found[1].decode("latin-1").strip() for data in sent if (found := INVITED.match(data))}
        ours = {call.call_id for call in played.calls if "invite-seen" in played.codes(call)}
        assert ours == invited, name
