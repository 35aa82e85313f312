"""The live view, driven by keys, in front of the real server."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from recorder import status_client
from recorder.status_client import StatusClient
from recorder.top import Seen, Top
from recorder.top_ladder import LadderScreen
from recorder.top_poll import Look, View
from tests import live_status
from tests.live_status import ALARM, Pretender, identifier, live_call, serving

Play = Callable[[Pilot[None]], Awaitable[None]]
SIZE = (80, 24)


@pytest.fixture
def where(tmp_path):
    return tmp_path / "status.sock"


@contextmanager
def service(where, calls: int = 50, **options):
    pretender = Pretender(calls, **{"interval": 0.2, **options})
    with serving(where, pretender):
        yield pretender


def play(where, script: Play, size: tuple[int, int] = SIZE) -> None:
    """Run the view and a script of keys against it."""

    async def run() -> None:
        async with Top(StatusClient(where), interval=0.2).run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(run())


def screen(pilot: Pilot[None]) -> list[str]:
    """What stands on the terminal."""
    return ["".join(segment.text for segment in strip) for strip in pilot.app.screen._compositor.render_strips()]


async def shown(pilot: Pilot[None], text: str, *, gone: bool = False) -> list[str]:
    """Wait until a text is on the screen, or gone from it."""
    for _ in range(200):
        await pilot.pause(0.02)
        lines = screen(pilot)
        if any(text in line for line in lines) is not gone:
            return lines
    pytest.fail(f"{text!r} {'stays' if gone else 'never comes'}:\n" + "\n".join(screen(pilot)))


def rows(lines: list[str]) -> list[str]:
    """Rows of calls."""
    return [line for line in lines if line.startswith("+49")]


def test_calls_and_the_service_are_seen_in_80_by_24(where):
    async def script(pilot):
        await shown(pilot, "+49301237570")
        lines = await shown(pilot, "! kernel-drops since")
        assert "spanrec 0.1.0 on eth1" in lines[0]
        assert "50 calls" in lines[1]
        assert "4,200 packets/s  123 dropped" in lines[2]
        assert "! kernel-drops since 09:14:11" in lines[3]
        assert lines[4].split() == ["from", "to", "state", "time", "codec", "loss", "%", "MOS", "pkt/s"]
        assert lines[5].split()[:3] == ["+49301237570", "230", "active"]
        assert all(len(line) == 80 for line in lines)
        assert "Messages" in lines[-1]
        assert "Quit" in lines[-1]

    with service(where, alarms=(ALARM,)):
        play(where, script)


def test_figures_go_on(where):
    async def script(pilot):
        first = (await shown(pilot, "+49301237570"))[5]
        await shown(pilot, first, gone=True)

    with service(where):
        play(where, script)


def test_enter_shows_the_ladder_and_escape_goes_back(where):
    async def script(pilot):
        await shown(pilot, "+49301237570")
        await pilot.press("down", "down", "enter")
        lines = await shown(pilot, "INVITE (SDP)")
        assert "+49301221732 → 228" in lines[0]
        assert any("192.0.2.28" in line and "198.51.100.1" in line for line in lines)
        assert any("+2.469" in line and "200 OK (SDP)" in line for line in lines)
        await pilot.press("s", "slash", "F")
        assert isinstance(pilot.app.screen, LadderScreen), "keys of the table do nothing here"
        await pilot.press("escape")
        lines = await shown(pilot, "50 calls")
        assert rows(lines)

    with service(where) as pretender:
        play(where, script)
    assert set(pretender.asked) == {identifier(28)}


def test_a_ladder_that_grows_is_followed(where, monkeypatch):
    steps = live_status.ladder(0)
    monkeypatch.setattr(live_status, "ladder", lambda index: steps)

    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("enter")
        await shown(pilot, "INVITE")
        for index in range(30):
            steps.append(replace(steps[-1], line=f"INFO{index}"))
        await shown(pilot, "INFO29")
        await pilot.press("home")
        await shown(pilot, "100 Trying")
        steps.append(replace(steps[-1], line="BYE"))
        await pilot.pause(0.5)
        assert not any("BYE" in line for line in screen(pilot)), "who looks at the beginning is left there"

    with service(where, 1):
        play(where, script)


def test_a_call_that_ends_while_one_looks_stays_to_be_read(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("enter")
        await shown(pilot, "INVITE")
        pretender.calls = 0
        await shown(pilot, "This call is over")
        await shown(pilot, "INVITE")
        await pilot.press("escape")
        await shown(pilot, "0 calls")

    with service(where, 1) as pretender:
        play(where, script)


def test_a_late_answer_about_another_call_is_not_shown(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("enter")
        await shown(pilot, "INVITE")
        pilot.app.post_message(Seen(View(live_status.snapshot(1), None, Look(identifier(7), None, ()))))
        await pilot.pause()
        assert not any("This call is over" in line for line in screen(pilot))

    with service(where, 1):
        play(where, script)


def test_a_filter_holds_until_escape(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("slash", *"79190")
        lines = await shown(pilot, "1 of 50 calls have “79190”")
        assert len(rows(lines)) == 1
        await pilot.press("enter")
        assert pilot.app.focused.id == "calls"
        await shown(pilot, "Quit")
        await pilot.press("escape")
        await shown(pilot, "have", gone=True)
        assert len(rows(screen(pilot))) > 10

    with service(where):
        play(where, script)


def test_letters_in_a_filter_are_no_commands(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("slash", *"qsrf")
        await shown(pilot, "0 of 50 calls have “qsrf”")

    with service(where):
        play(where, script)


def test_frozen_is_frozen(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("F")
        before = await shown(pilot, "FROZEN")
        await pilot.pause(1.2)
        assert screen(pilot) == before
        await pilot.press("space")
        await shown(pilot, "FROZEN", gone=True)
        await shown(pilot, before[5], gone=True)

    with service(where):
        play(where, script)


def test_sorting_goes_through_the_columns_that_are_shown(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("s")
        lines = await shown(pilot, "from▲")
        assert rows(lines) == sorted(rows(lines))
        await pilot.press("r")
        lines = await shown(pilot, "from▼")
        assert rows(lines) == sorted(rows(lines), reverse=True)
        for title in ("to▲", "state▲", "time▲", "codec▲", "loss %▲", "MOS▲", "pkt/s▲", "from▲"):
            await pilot.press("s")
            await shown(pilot, title)

    with service(where):
        play(where, script)


def test_the_cursor_stays_on_its_call_when_others_come_and_go(where):
    async def script(pilot):
        await shown(pilot, "+4930")
        await pilot.press("slash", *"active", "enter", "end")
        await pilot.pause(0.1)
        chosen = pilot.app._chosen
        pretender.calls = 50
        await shown(pilot, "of 50 calls")
        await pilot.pause(0.2)
        assert pilot.app._chosen == chosen
        await pilot.press("enter")
        await shown(pilot, f"id {chosen[:8]}")

    with service(where, 20) as pretender:
        play(where, script)


def test_two_thousand_calls_are_scrolled_through(where):
    async def script(pilot):
        await shown(pilot, "2,000 calls")
        await shown(pilot, "+4930")
        await pilot.press("end")
        await pilot.pause(0.1)
        last = sorted(range(2000), key=lambda index: (live_call(index).started, live_call(index).id))[-1]
        assert rows(screen(pilot))[-1].startswith(f"+4930{1_000_000 + last * 7919}")
        await pilot.press("pageup", "home")
        await pilot.pause(0.1)
        assert rows(screen(pilot))[0].split()[2] == "held"

    with service(where, 2000, interval=0.5):
        play(where, script)


def test_clicks_choose_and_open(where):
    async def script(pilot):
        lines = await shown(pilot, "packets/s")
        assert lines[4].startswith("+4930"), "nothing moves any more"
        await pilot.click("#calls", offset=(3, 4))
        await pilot.pause(0.1)
        assert pilot.app.query_one("#calls").cursor == 3
        await pilot.click("#calls", offset=(3, 0))
        await pilot.click("#calls", offset=(3, 4))
        await shown(pilot, "INVITE")

    with service(where):
        play(where, script)


def test_without_a_service_it_says_so_and_finds_it_when_it_comes(where):
    async def script(pilot):
        lines = await shown(pilot, "No connection, trying again.")
        assert any("is the service running?" in line for line in lines)
        await pilot.press("enter", "s", "down", "end", "F", "F")
        with service(where, 3):
            await shown(pilot, "3 calls")
            await shown(pilot, "No connection", gone=True)
        lines = await shown(pilot, "what is shown is old")
        assert rows(lines)

    play(where, script)


def test_a_service_that_hangs_does_not_keep_one_from_leaving(where, monkeypatch):
    monkeypatch.setattr(status_client, "SECONDS", 30.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(where))
        silent.listen()

        async def script(pilot):
            await shown(pilot, "asks")
            await pilot.press("q")

        begin = time.monotonic()
        play(where, script)
        assert time.monotonic() - begin < 10


def test_nothing_from_the_wire_is_markup_or_acts_on_the_terminal(where, monkeypatch):
    evil = replace(
        live_call(0),
        caller="sip:[bold red]x[/]\x1b[2J@h",
        callee="sip:\u202e[link=x]@h",
        call_id="[@click=quit]\r\n\x07",
        warnings=("[b]",),
    )
    steps = [replace(live_status.ladder(0)[0], line="[red]INVITE\x1b]0;x\x07", source="[b]:1")]
    monkeypatch.setattr(live_status, "live_call", lambda index, age=0.0: evil)
    monkeypatch.setattr(live_status, "ladder", lambda index: steps)

    async def script(pilot):
        lines = await shown(pilot, "[bold red]x[/]")
        assert any("\\u202e" in line for line in lines)
        assert "\x1b" not in "".join(lines)
        await pilot.press("enter")
        lines = await shown(pilot, "[red]INVITE\\x1b")
        assert any("[@click=quit]\\x0d" in line for line in lines)
        assert "\x1b" not in "".join(lines)

    with service(where, 1):
        play(where, script, (140, 30))


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (250, 60)])
def test_any_size_of_terminal_will_do(where, size):
    async def script(pilot):
        await shown(pilot, "spanrec 0.1.0")
        await pilot.resize_terminal(60, 20)
        await shown(pilot, "+4930")
        await pilot.press("enter")
        await shown(pilot, "INVITE")
        await pilot.resize_terminal(*size)
        await pilot.pause(0.1)

    with service(where, 5):
        play(where, script, size)
