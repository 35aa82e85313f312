"""Prometheus metrics."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from recorder.metrics import Exposition
from recorder.siprec.control import EventKind, Role, SessionState
from recorder.siprec.figures import Figures, MediaCounts
from recorder.status import AlarmCode, SourceStatus
from recorder.status_board import StatusBoard
from tests.live_status import ALARM, snapshot

MONITORING = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()


def exposed(whole=None, accept="", figures=None):
    """(name, labels) to value, as Prometheus reads it."""
    content_type, body = Exposition(StatusBoard(whole or snapshot(50, alarms=(ALARM,))), figures).expose(accept)
    parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def test_figures_are_those_of_the_snapshot():
    told = exposed()
    assert told["spanrec_packets_total", ("source", "eth1")] == 4_211_000
    assert told["spanrec_kernel_drops_total", ("source", "eth1")] == 123
    assert told["spanrec_calls", ("state", "active")] == 38
    assert told["spanrec_calls", ("state", "media-only")] == 0
    assert told["spanrec_calls_ended_total", ("state", "completed")] == 1203
    assert told["spanrec_disk_delay_max_seconds",] == 2.04
    assert told["spanrec_store_free_bytes",] == 120e9
    assert told["spanrec_stream_mos_count", ("scale", "narrowband")] == 2
    assert told["spanrec_stream_mos_bucket", ("le", "3.1"), ("scale", "narrowband")] == 1
    assert told["spanrec_stream_mos_sum", ("scale", "narrowband")] == pytest.approx(7.43)
    assert told["spanrec_alarm", ("code", "kernel-drops"), ("severity", "critical")] == 1
    assert told["spanrec_build_info", ("version", "0.1.0")] == 1
    assert told["process_resident_memory_bytes",] > 0


def test_both_formats_tell_the_same():
    plain = exposed()
    other = exposed(accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert {key for key in plain if key[0].startswith("spanrec_")} == {
        key for key in other if key[0].startswith("spanrec_")
    }


@pytest.mark.parametrize(
    "accept", ["*/*", "application/openmetrics-text;version=abc", "text/plain;version=", ";;,\xff"]
)
def test_an_odd_accept_header_gets_an_answer(accept):
    assert exposed(accept=accept)


def test_every_alarm_is_there_before_it_is_raised():
    told = exposed(snapshot(0))
    alarms = {dict(key[1:])["code"]: value for key, value in told.items() if key[0] == "spanrec_alarm"}
    assert alarms == dict.fromkeys((code.value for code in AlarmCode), 0)


def test_what_is_not_known_is_absent():
    told = exposed(replace(snapshot(1), delay=None, store=None, last_packet_age=None))
    assert not [key for key in told if "disk_delay" in key[0] or "store" in key[0] or "last_packet" in key[0]]


def test_threads_on_one_interface_are_one_source():
    sources = (SourceStatus("eth1", 5, 500, 1, 0, True), SourceStatus("eth1", 7, 700, 2, 1, False))
    told = exposed(replace(snapshot(1), sources=sources))
    assert told["spanrec_packets_total", ("source", "eth1")] == 12
    assert told["spanrec_source_up", ("source", "eth1")] == 0


def test_a_source_of_any_name_spoils_nothing():
    source = SourceStatus('e"t\\h\n1\udc80', 5, 500, 1, 0, True)
    assert ("spanrec_bytes_total", ("source", 'e"t\\h\\x0a1\\udc80')) in exposed(
        replace(snapshot(1), sources=(source,))
    )


def test_labels_have_values_that_are_known_beforehand():
    names = {name for key in exposed() if key[0].startswith("spanrec_") for name, _ in key[1:]}
    assert names == {"source", "state", "scale", "le", "code", "severity", "version"}


def test_every_metric_is_documented_and_every_documented_one_is_there():
    sessions = Figures(
        {(Role.SRC, SessionState.RECORDING): 1}, {EventKind.START: 1}, {"sip:a": True}, MediaCounts(1, 1)
    )
    names = (key[0] for key in exposed(figures=lambda: sessions))
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith("spanrec_")}
    table = set(re.findall(r"^\| `(spanrec_\w+)", MONITORING, re.MULTILINE))
    assert table == told
    used = set(re.findall(r"\bspanrec_\w+", MONITORING))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= told


def test_every_alarm_is_documented():
    table = MONITORING.partition("## Alarms")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (\w+)", table, re.MULTILINE))
    assert told == {code.value: code.severity.value for code in AlarmCode}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (package prometheus)")
def test_prometheus_takes_the_metrics_and_the_rules_of_the_manual(tmp_path):
    body = Exposition(StatusBoard(snapshot(50))).expose("")[1]
    subprocess.run(["promtool", "check", "metrics"], input=body, check=True, timeout=60)
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", MONITORING, re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    told = subprocess.run(
        ["promtool", "check", "rules", "rules.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "SUCCESS" in told.stdout
