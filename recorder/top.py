"""`spanrec top`: calls in progress on a terminal, and a call's SIP ladder.

In: a `StatusClient`, keys. Out: a screen that is renewed each `interval` s; when the service cannot be reached it says
so, keeps what it had and tries again. Never changes anything in the service. Texts from the wire are shown as they
are, printable, never as markup.
"""

from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Footer, Input, Static

from recorder.console import printable
from recorder.status import LiveCall
from recorder.status_client import StatusClient
from recorder.top_ladder import LadderScreen
from recorder.top_lines import Lines, as_text
from recorder.top_poll import Poller, View
from recorder.top_summary import summary
from recorder.top_table import STARTED, arranged, heading, line, places
from recorder.top_text import Line, Piece, Tone

LOW = 12
"""Lines of a terminal."""


class Seen(Message):
    """The service answered."""

    def __init__(self, view: View) -> None:
        self.view = view
        super().__init__()


class Failed(Message):
    """The service did not answer."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__()


class Top(App[None]):
    """The table of calls."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "spanrec top"
    CSS = """
    Screen { overflow: hidden; }
    #summary, #notice, #call, #note { height: auto; }
    #filter { display: none; border: none; height: 1; padding: 0; }
    #filter.open { display: block; }
    #notice, #note { display: none; }
    #notice.told, #note.told { display: block; }
    Lines { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Messages"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f,F,space", "freeze", "Freeze", key_display="F"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("escape", "clear", "Show all", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, client: StatusClient, interval: float = 1.0) -> None:
        super().__init__(ansi_color=True)
        self._client = client
        # Messages may be posted from any thread.
        self._poller = Poller(
            client,
            interval,
            lambda view: self.post_message(Seen(view)),
            lambda reason: self.post_message(Failed(reason)),
        )
        self._summary = Static(id="summary", markup=False)
        self._note = Static(id="notice", markup=False)
        self._table = Lines(id="calls")
        self._field = Input(id="filter", placeholder="number, Call-ID, address, codec, state...", compact=True)
        self._view: View | None = None
        self._calls: tuple[LiveCall, ...] = ()
        self._listed: list[LiveCall] = []
        self._chosen: str | None = None
        self._wanted = ""
        self._sorted_by = STARTED
        self._descending = False
        self._frozen = False
        self._failure: str | None = None

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield from (self._summary, self._note, self._table, self._field)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to ask."""
        self._table.focus()
        self._draw()
        self._poller.start()

    def on_unmount(self) -> None:
        """The thread goes with the screen."""
        self._poller.stop()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is the table's has no key on the ladder."""
        return action in ("quit", "help_quit") or not isinstance(self.screen, LadderScreen)

    def on_resize(self) -> None:
        """Other columns may fit now."""
        self.call_after_refresh(self._draw)

    @on(Seen)
    def _show(self, message: Seen) -> None:
        view = message.view
        self._failure = None
        # What is still on its way when the screens have been closed is for nobody.
        if self._frozen or not self.screen_stack:
            return
        self._view = view
        if view.calls is not None:
            self._calls = view.calls
        if isinstance(self.screen, LadderScreen) and view.look is not None:
            self.screen.show(view.look)
        self._draw()

    @on(Failed)
    def _fail(self, message: Failed) -> None:
        self._failure = message.reason
        self._draw()
        if isinstance(self.screen, LadderScreen):
            self.screen.say(f"No connection, trying again. {message.reason}")

    @on(Lines.Moved, "#calls")
    def _move(self, message: Lines.Moved) -> None:
        self._chosen = self._listed[message.index].id if message.index < len(self._listed) else None

    @on(Lines.Chosen, "#calls")
    def _open(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Show the messages of the call with the cursor."""
        call = next((call for call in self._listed if call.id == self._chosen), None)
        if call is None or isinstance(self.screen, LadderScreen):
            return
        self._frozen = False
        self._poller.look_at(call.id)
        self.push_screen(LadderScreen(call), lambda _: self._poller.look_at(None))

    def action_filter(self) -> None:
        """Type what calls must have."""
        self._field.add_class("open")
        self._field.focus()

    def action_clear(self) -> None:
        """Show all calls again."""
        self._field.value = ""
        self._field.remove_class("open")
        self._table.focus()

    @on(Input.Changed, "#filter")
    def _filter(self, message: Input.Changed) -> None:
        self._wanted = message.value.strip()
        self._draw_from_top()

    @on(Input.Submitted, "#filter")
    def _keep_filter(self) -> None:
        self._field.remove_class("open")
        self._table.focus()

    def action_freeze(self) -> None:
        """Keep what is shown, until the same key is pressed again."""
        self._frozen = not self._frozen
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next column that is shown."""
        shown = [column for column, _ in places(self._width)]
        after = shown.index(self._sorted_by) + 1 if self._sorted_by in shown else 0
        self._sorted_by = shown[after % len(shown)]
        self._descending = False
        self._draw_from_top()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._descending = not self._descending
        self._draw_from_top()

    @property
    def _width(self) -> int:
        return max(1, self.size.width - 1)

    def _draw(self) -> None:
        """Everything anew."""
        width = self._width
        head = (
            summary(self._view.snapshot, width)
            if self._view is not None
            else ((Piece(f"spanrec top: asks {self._client.address}", Tone.STRONG),),)
        )
        # On a low terminal the calls matter more than the service.
        self._summary.update(as_text(head if self.size.height >= LOW else head[:1]))
        notice = self._notice()
        self._note.set_class(bool(notice), "told").update(as_text((notice,)))
        self._listed = arranged(self._calls, self._wanted, self._sorted_by, descending=self._descending)
        shown = places(width)
        ids = [call.id for call in self._listed]
        cursor = ids.index(self._chosen) if self._chosen in ids else min(self._table.cursor, max(0, len(ids) - 1))
        self._chosen = ids[cursor] if ids else None
        self._table.show(
            (heading(shown, self._sorted_by, descending=self._descending),),
            len(self._listed),
            lambda index: line(self._listed[index], shown),
            width,
            cursor,
        )

    def _draw_from_top(self) -> None:
        """Who sorts or filters wants to see what comes first, not where the call with the cursor has gone."""
        self._chosen = None
        self._table.cursor = 0
        self._draw()

    def _notice(self) -> Line:
        pieces: list[Piece] = []
        if self._failure is not None:
            since = "" if self._view is None else "; what is shown is old"
            pieces.append(Piece(printable(f"No connection, trying again{since}. {self._failure} "), Tone.BAD))
        if self._frozen:
            pieces.append(Piece("FROZEN, F goes on. ", Tone.WARN))
        if self._wanted:
            count = f"{len(self._listed)} of {len(self._calls)} calls"
            pieces.append(Piece(printable(f"{count} have “{self._wanted}”, Esc shows all. ")))
        return tuple(pieces)
