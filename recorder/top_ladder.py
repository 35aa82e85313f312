"""The screen of `spanrec top` with the messages of one call.

In: a `Look` whenever the service has answered. Out: the call, its streams, its SIP ladder. When the call is over, what
was seen last stays.
"""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from recorder.console import printable
from recorder.ladder import draw
from recorder.status import LiveCall
from recorder.top_lines import Lines, as_text
from recorder.top_poll import Look
from recorder.top_summary import describe
from recorder.top_text import Piece, Tone

LOW = 20
"""Lines of a terminal."""


class LadderScreen(Screen[None]):
    """The messages of one call."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", key_display="Esc"),
    ]

    def __init__(self, call: LiveCall) -> None:
        super().__init__()
        self._look = Look(call.id, call, ())
        self._call = Static(id="call", markup=False)
        self._note = Static(id="note", markup=False)
        self._ladder = Lines(id="ladder")
        self._said = ""
        self._drawn = False

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield from (self._call, self._note, self._ladder)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """What is known already."""
        self._ladder.focus()
        self._draw()

    def on_resize(self) -> None:
        """Hosts may stand farther apart now."""
        self.call_after_refresh(self._draw)

    def show(self, look: Look) -> None:
        """The service answered."""
        if look.id != self._look.id:
            return  # to a question of before
        if look.call is None:
            # What was seen last stays: the answer to what is over would be nothing.
            self.say(f"This call is over: spanrec calls show {look.id[:8]} tells what was recorded.")
            return
        self._look = look
        self.say("")

    def say(self, text: str) -> None:
        """A sentence above the ladder, or none."""
        self._said = text
        self._draw()

    def _draw(self) -> None:
        if self._look.call is None or not self.is_mounted:
            return
        said = (Piece(printable(self._said), Tone.WARN),)
        self._note.set_class(bool(self._said), "told").update(as_text((said,)))
        width = max(1, self.size.width - 1)
        head = describe(self._look.call, width)
        # On a low terminal the messages matter more than the streams.
        self._call.update(as_text(head if self.size.height >= LOW else head[:1]))
        ladder = draw(self._look.steps, width)
        lines = self._ladder
        steps = self._look.steps
        # Who is at the end stays there when more comes.
        last = not self._drawn or lines.cursor >= lines.count - 1
        self._drawn = self._drawn or bool(steps)
        lines.show(
            tuple((Piece(text),) for text in ladder.heading),
            len(steps),
            lambda index: (Piece(ladder.rows[index], Tone.DIM if steps[index].retransmission else Tone.PLAIN),),
            ladder.width,
            len(steps) - 1 if last else lines.cursor,
        )
