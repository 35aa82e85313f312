"""The service's log."""

import io
import json
import logging
import os
import pty
import re
import threading
from pathlib import Path

import pytest

from recorder.log import MOST_KEYS, REPEAT, Form, Level, about_call, open_log
from recorder.log_text import LONGEST, clean_text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A log and what it has said."""

    def __init__(self, **options) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        self.log = open_log(self.stream, clock=self.clock, **options)
        self.logger = self.log.logger

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def brief(self) -> list[tuple]:
        return [(event["event"], event.get("repeated")) for event in self.events]


@pytest.fixture
def told() -> Told:
    return Told()


def test_an_event_is_a_line_of_json_with_the_time_first(told):
    told.logger.info("call-recorded", streams=2, text="It is Zoë's.")
    (line,) = told.stream.getvalue().splitlines()
    event = json.loads(line)
    assert list(event) == ["time", "level", "event", "text", "streams"]
    assert event["time"].endswith("Z")
    assert (event["level"], event["streams"], event["text"]) == ("info", 2, "It is Zoë's.")
    assert "Zoë" in line


def test_a_call_is_named_in_all_that_is_logged_about_it(told):
    with about_call("00c0ffee", "a84b@x"):
        told.logger.info("call-started")
        told.logger.bind(call_id="other@x").info("bound")
    told.logger.info("outside")
    assert [(event.get("call"), event.get("call_id")) for event in told.events] == [
        ("00c0ffee", "a84b@x"),
        ("00c0ffee", "other@x"),
        (None, None),
    ]


def test_levels_below_the_wanted_one_are_silent():
    told = Told(level=Level.WARNING)
    told.logger.debug("a")
    told.logger.info("b")
    told.logger.warning("c")
    told.logger.error("d")
    assert [event["event"] for event in told.events] == ["c", "d"]


def test_a_warning_is_told_once_a_minute_and_then_how_often(told):
    for _ in range(100):
        told.logger.warning("kernel-drops", source="eth1")
    assert told.brief() == [("kernel-drops", None)]
    told.clock.now = REPEAT
    told.logger.warning("kernel-drops", source="eth1")
    assert told.brief()[1:] == [("kernel-drops", 99)]


def test_what_has_stopped_is_counted_when_its_minute_is_over(told):
    for _ in range(5):
        told.logger.error("alarm", code="disk-full", text="The disk is full.")
    told.log.report_repeats()
    assert told.brief() == [("alarm", None)]
    told.clock.now = REPEAT
    told.log.report_repeats()
    told.log.report_repeats()
    assert told.brief()[1:] == [("alarm", 4)]
    assert (told.events[-1]["level"], told.events[-1]["code"]) == ("error", "disk-full")


def test_nothing_is_lost_at_the_end(told):
    told.logger.warning("a")
    told.logger.warning("a")
    told.log.report_repeats(all_of_them=True)
    assert told.brief() == [("a", None), ("a", 1)]


def test_different_warnings_do_not_hide_each_other(told):
    told.logger.warning("down", source="eth1")
    told.logger.warning("down", source="eth2")
    told.logger.warning("alarm", code="a")
    told.logger.warning("alarm", code="b")
    told.logger.error("alarm", code="b")
    assert len(told.events) == 5


def test_information_is_never_held_back(told):
    for _ in range(3):
        told.logger.info("recording-deleted")
    assert len(told.events) == 3


def test_only_so_many_warnings_are_remembered(told):
    for index in range(MOST_KEYS + 1):
        told.logger.warning(f"w{index}")
    told.logger.warning("w0")
    told.logger.warning(f"w{MOST_KEYS}")
    assert len(told.events) == MOST_KEYS + 2


def test_threads_write_whole_lines(told):
    def talk() -> None:
        for _ in range(200):
            told.logger.info("x", text="y" * 50)

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told.events) == 800


def test_an_exception_is_its_traceback_without_the_values_of_variables(told):
    password = "hunter2hunter2"
    try:
        raise ValueError(f"bad\x1b[2J {len(password)}")
    except ValueError:
        told.logger.exception("publish-failed")
    lines = told.events[0]["exception"]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: bad\\x1b[2J 14"
    assert password not in told.stream.getvalue()


def test_what_libraries_log_stands_in_the_log(told):
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        told.log.adopt_libraries()
        logging.getLogger("some.library").warning("No route to %s", "host\n")
        logging.getLogger("noisy").info("nothing")
        logging.getLogger("wrong").error("%d", "x")
    finally:
        root.handlers[:], root.level = before
    assert [(event["level"], event["source"], event["text"]) for event in told.events] == [
        ("warning", "some.library", "No route to host\\x0a"),
        ("error", "wrong", "%d"),
    ]


def test_a_stream_that_fails_stops_nothing():
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    open_log(Full()).logger.error("x")
    closed = io.StringIO()
    log = open_log(closed)
    closed.close()
    log.logger.error("x")


def test_journald_is_told_the_priority(tmp_path):
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        log = open_log(stream, environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        log.logger.warning("a")
        log.logger.info("b")
        open_log(stream, environment={"JOURNAL_STREAM": "1:2"}).logger.info("c")
    lines = path.read_text().splitlines()
    assert [line.partition("{")[0] for line in lines] == ["<4>", "<6>", ""]


def test_on_a_terminal_it_is_for_people():
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        log = open_log(terminal, environment={"NO_COLOR": "1"})
        log.logger.warning("kernel-drops", source="eth1\x1b]0;x\x07", text="Packets were dropped.")
        told = os.read(ours, 4096).decode()
    os.close(ours)
    assert "kernel-drops" in told
    assert "Packets were dropped." in told
    assert "\x1b" not in told
    assert "{" not in told


def test_a_form_may_be_wanted():
    told = Told(form=Form.JOURNAL)
    told.logger.critical("x")
    assert told.stream.getvalue().startswith('<2>{"time"')


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ('Authorization: Digest username="bob", response="0123456789abcdef"', "username", "Authorization"),
        ("proxy-authorization: Basic Ym9iOnB3", "Ym9i", "proxy"),
        ("sent Bearer abcdefghijk to it", "abcdefghijk", "to it"),
        ("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9", "WVNf", "a=crypto:"),
        ("inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9|2^20", "WVNf", "inline:"),
        ("registering sip:bob:hunter2@example.com", "hunter2", "@example.com"),
        ("https://user:hunter2@srs.example/x", "hunter2", "srs.example/x"),
        ("postgresql://spanrec:hunter2@db/x", "hunter2", "@db/x"),
        ("password=hunter2, then more", "hunter2", "then more"),
        ('token: "hunter2 and more"', "hunter2", "token"),
    ],
)
def test_secrets_in_texts_are_left_out(told, text, gone, kept):
    told.logger.info("x", text=text, nested={"list": [text]})
    line = told.stream.getvalue()
    assert gone not in line
    assert kept in line


def test_fields_that_are_named_for_secrets_are_left_out(told):
    names = ("token", "password", "srs_secret", "Authorization", "crypto", "private_key", "key")
    told.logger.info("x", **dict.fromkeys(names, "hunter2"), nested={"keys": ["hunter2"]}, keylog="tls.log")
    assert "hunter2" not in told.stream.getvalue()
    assert told.events[0]["keylog"] == "tls.log"


def test_ordinary_texts_stay_as_they_are():
    for text in (
        "sip:bob@192.0.2.1:5060;transport=tcp",
        "a SIP response: 200",
        "http://127.0.0.1:9180/health",
        "10:30",
    ):
        assert clean_text(text) == text


def test_what_comes_from_the_wire_cannot_act_on_a_terminal_or_fill_the_log(told):
    told.logger.info(
        "x\x1b", text="\x1b[2J\r\n\u202e", octets=b"\x00\xff", huge="y" * 100_000, many=range(3), nan=float("nan")
    )
    (event,) = told.events
    assert event["event"] == "x\\x1b"
    assert event["text"] == "\\x1b[2J\\x0d\\x0a\\u202e"
    assert event["octets"] == "\\x00\\xff"
    assert len(event["huge"]) == LONGEST
    assert event["nan"] == "nan"
    assert len(told.stream.getvalue()) < 2 * LONGEST


def test_every_event_of_the_service_is_documented():
    root = Path(__file__).parents[2]
    logged = re.compile(r"log(?:ger)?\.(?:info|warning|error|exception|log)\(\s*\"([a-z-]+)\"")
    events = {name for path in (root / "recorder").glob("*.py") for name in logged.findall(path.read_text())}
    assert "call-recorded" in events
    table = (root / "docs" / "monitoring.md").read_text().partition("| event | level |")[2].partition("\n\n")[0]
    assert not events - set(re.findall(r"`([a-z-]+)`", table))


def test_packets_are_read_without_a_log():
    root = Path(__file__).parents[2]
    for package in ("capture", "decoders"):
        for path in (root / package).rglob("*.py"):
            assert not re.search(r"^\s*(import|from) (structlog|logging)\b", path.read_text(), re.MULTILINE), path
