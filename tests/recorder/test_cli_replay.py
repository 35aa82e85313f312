"""The command line of a replay, with an engine that finds what it is told to."""

import json
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
import typer

from recorder import cli_replay
from recorder.cli_app import app
from recorder.cli_replay import parse_time, selection
from recorder.document import CallDocument
from recorder.replay_types import AudioFormat, Dissector, ReplayOptions, Selection
from tests.calls import answered_call, fake_engine

CALLS = [answered_call(0), answered_call(1, "Bob", "333")]


@pytest.fixture
def replay(monkeypatch, capsys, tmp_path):
    """Runs `spanrec replay` into tmp_path; gives status, stdout, stderr and the options that the engine got."""
    monkeypatch.delenv("SPANREC_OUT", raising=False)

    def run(*arguments: str, calls=CALLS, damage: tuple[str, ...] = ()):
        seen: list[ReplayOptions] = []
        engine = fake_engine(calls, damage)

        def noting(options, reporter):
            seen.append(options)
            return engine(options, reporter)

        monkeypatch.setattr(cli_replay, "load_engine", lambda quiet: noting)
        with pytest.raises(SystemExit) as ended:
            app(["replay", *arguments, "-o", str(tmp_path / "out")])
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err, seen[0] if seen else None

    return run


def test_options_reach_the_engine(replay, tmp_path):
    *_, options = replay(
        *("a.pcap", "-", "--workers", "3", "--batch-size", "100", "--keep-packets", "--format", "flac", "--mono"),
        *("--dissector", "tshark", "--keylog", "keys", "--verify", "--number", "1", "--number", "2*"),
        *(
            "--call-id",
            "x@y",
            "--address",
            "192.0.2.77/24",
            "--from",
            "2026-03-01",
            "--to",
            "2026-03-02T00:00:00+02:00",
        ),
    )
    assert options == ReplayOptions(
        captures=("a.pcap", "-"),
        out=tmp_path / "out",
        workers=3,
        batch_size=100,
        selection=Selection(
            numbers=("1", "2*"),
            call_ids=("x@y",),
            addresses=(ip_network("192.0.2.0/24"),),
            since=1_772_323_200_000_000_000,
            until=1_772_402_400_000_000_000,
        ),
        audio_format=AudioFormat.FLAC,
        mono=True,
        keep_packets=True,
        dissector=Dissector.TSHARK,
        keylog=Path("keys"),
        verify=True,
    )


def test_without_options_everything_is_recorded(replay, tmp_path):
    *_, options = replay("a.pcap")
    assert options == ReplayOptions(captures=("a.pcap",), out=tmp_path / "out")
    assert options.selection.everything


def test_the_table_tells_the_calls_in_order_of_time(replay):
    status, out, err, _ = replay("a.pcap", calls=CALLS[::-1])
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("started (UTC)")
    assert [line.split()[2] for line in lines[1:3]] == ["+4930111", "Bob"]
    assert lines[-1] == "2 calls, 4 streams in 200 packets of 1 capture"
    assert err == ""


def test_stdout_does_not_tell_where_the_recordings_went(replay, tmp_path):
    for arguments in ((), ("--json",)):
        assert str(tmp_path) not in replay("a.pcap", *arguments)[1]


def test_json_is_one_object_with_the_documents_as_stored(replay, tmp_path):
    status, out, err, _ = replay("a.pcap", "--json")
    told = json.loads(out)
    assert (status, err, list(told)) == (0, "", ["calls", "captures", "summary"])
    stored = sorted((tmp_path / "out").rglob("call.json"), key=lambda path: path.read_text())
    assert [call["caller"]["uri"] for call in told["calls"]] == ["sip:+4930111@example.com", "sip:Bob@example.com"]
    assert all(json.loads(path.read_text()) in told["calls"] for path in stored)
    assert list(told["captures"][0]) == [
        *("file", "sha256", "bytes", "packets", "link_types", "started", "ended", "damage"),
    ]
    assert told["captures"][0]["started"] == "2026-03-01T09:15:02.123456Z"
    assert told["summary"]["calls"] == 2


def test_no_calls_are_a_result_too(replay):
    status, out, _, _ = replay("a.pcap", calls=[])
    assert (status, out) == (0, "0 calls, 0 streams in 200 packets of 1 capture\n")
    assert json.loads(replay("a.pcap", "--json", calls=[])[1])["calls"] == []


def test_damage_is_said_and_is_status_3(replay):
    status, out, err, _ = replay("a.pcap", "--json", damage=("office.pcap: 12 octets skipped at 400",))
    assert status == 3
    assert err == "spanrec: office.pcap: 12 octets skipped at 400\n"
    assert json.loads(out)["captures"][0]["damage"] == ["office.pcap: 12 octets skipped at 400"]


def test_quiet_prints_only_what_went_wrong(replay):
    assert replay("a.pcap", "--quiet")[:3] == (0, "", "")
    assert replay("a.pcap", "--quiet", damage=("x",))[:3] == (3, "", "spanrec: x\n")


def test_verify_says_that_nothing_differs(replay):
    assert "same calls" in replay("a.pcap", "--verify")[2]


def test_replaying_twice_prints_and_stores_the_same(replay, tmp_path):
    first = replay("a.pcap")[1], (tmp_path / "out/catalogue.sqlite").read_bytes()
    second = replay("a.pcap")[1], (tmp_path / "out/catalogue.sqlite").read_bytes()
    assert first == second


def test_the_first_replay_says_that_it_compiles(monkeypatch, capsys):
    import recorder.warmup

    for cached, says in ((False, "compiling kernels, once"), (True, "")):
        monkeypatch.setattr(recorder.warmup, "kernels_are_cached", lambda cached=cached: cached)
        cli_replay.load_engine(quiet=False)
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T09:15", datetime(2026, 3, 1, 9, 15, tzinfo=UTC)),
        ("2026-03-01 09:15:02.000001Z", datetime(2026, 3, 1, 9, 15, 2, 1, tzinfo=UTC)),
        ("2026-03-01T09:15:02+05:30", datetime(2026, 3, 1, 3, 45, 2, tzinfo=UTC)),
        ("1969-12-31T23:59:59Z", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, moment, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    seconds, rest = divmod(parse_time(text, "--from"), 1_000_000_000)
    assert seconds == int(moment.replace(microsecond=0).timestamp())
    assert rest == moment.microsecond * 1000


def test_a_criterion_that_makes_no_sense_is_wrong_usage():
    with pytest.raises(typer.BadParameter):
        selection(None, None, ["nowhere"], None, None)


def test_the_reporter_forgets_no_call_and_holds_none_in_memory(tmp_path):
    from recorder.reporting import ConsoleReporter
    from tests.calls import document

    reporter = ConsoleReporter(live=False)
    told: CallDocument = document()
    for _ in range(3):
        reporter.call_done(told, "2026/03/01/x")
    assert [row["directory"] for row in reporter.rows()] == ["2026/03/01/x"]


def test_the_bar_moves_on_a_terminal_only(capsys):
    from recorder.reporting import ConsoleReporter

    with ConsoleReporter(live=True) as reporter:
        reporter.progress(10, 1, 50, 100)
        reporter.progress(20, 2, 100, None)
    assert capsys.readouterr().out == ""
