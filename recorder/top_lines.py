"""A Textual widget for many lines under a heading, one of which may be chosen.

In: a heading, the number of lines and a function that makes one. Out: on the screen, only the lines that are seen are
made, so that thousands cost no more than a screenful. Text goes to the screen as it is; nothing in it is markup.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from recorder.top_text import Line, Tone

STYLES = {
    Tone.PLAIN: Style(),
    Tone.DIM: Style(dim=True),
    Tone.STRONG: Style(bold=True),
    Tone.GOOD: Style(color="green"),
    Tone.WARN: Style(color="yellow"),
    Tone.BAD: Style(color="red", bold=True),
}
_HEADING = Style(reverse=True)
_CURSOR = Style(reverse=True, bold=True)


def as_text(lines: Iterable[Line]) -> Text:
    """Lines for a widget that shows a text."""
    return Text("\n").join(Text.assemble(*((text, STYLES[tone]) for text, tone in line)) for line in lines)


class Lines(ScrollView, can_focus=True):
    """Lines of text. Posts `Moved` when the cursor moves, `Chosen` on a click where it is already."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "end(-1)", "First", show=False),
        Binding("end,G", "end(1)", "Last", show=False),
        Binding("left", "sideways(-8)", "Left", show=False),
        Binding("right", "sideways(8)", "Right", show=False),
    ]
    DEFAULT_CSS = """
    Lines { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; }
    """

    class _Event(Message):
        """About a line of a widget."""

        def __init__(self, lines: "Lines", index: int) -> None:
            self.control_lines = lines
            self.index = index
            super().__init__()

        @property
        def control(self) -> "Lines":
            """Which widget: what `on` selects by."""
            return self.control_lines

    class Chosen(_Event):
        """A line was chosen."""

    class Moved(_Event):
        """Another line has the cursor."""

    def __init__(self, *, heading_style: Style = _HEADING, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cursor = 0
        self._heading: Sequence[Line] = ()
        self._heading_style = heading_style
        self._count = 0
        self._line: Callable[[int], Line] = lambda _: ()

    @property
    def count(self) -> int:
        """Lines under the heading."""
        return self._count

    def show(self, heading: Sequence[Line], count: int, line: Callable[[int], Line], width: int, cursor: int) -> None:
        """Show other lines, of at most `width` cells, with the cursor on one of them."""
        self._heading, self._count, self._line = heading, count, line
        self.virtual_size = Size(width, count + len(heading))
        self.cursor = max(0, min(cursor, count - 1))
        self._follow()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the screen; Textual asks for those that it draws."""
        x, top = self.scroll_offset
        if y < len(self._heading):
            line, base = self._heading[y], self._heading_style
        else:
            index = y - len(self._heading) + top
            if index >= self._count:
                return Strip.blank(self.size.width, self.rich_style)
            line, base = self._line(index), _CURSOR if index == self.cursor and self.has_focus else Style()
        base = self.rich_style + base
        strip = Strip([Segment(piece.text, base + STYLES[piece.tone]) for piece in line])
        return strip.crop_extend(x, x + self.size.width, base)

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self._move_to(self.cursor + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by a screenful."""
        self._move_to(self.cursor + pages * max(1, self._room - 1))

    def action_end(self, which: int) -> None:
        """Move the cursor to the first or last line."""
        self._move_to(0 if which < 0 else self._count - 1)

    def action_sideways(self, cells: int) -> None:
        """Scroll to the side."""
        self.scroll_to(x=self.scroll_offset.x + cells, animate=False)

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; one where it is already chooses."""
        index = event.y - len(self._heading) + self.scroll_offset.y
        if event.y < len(self._heading) or index >= self._count:
            return
        if index == self.cursor:
            self.post_message(self.Chosen(self, index))
        else:
            self._move_to(index)

    @property
    def _room(self) -> int:
        """Lines that are seen under the heading."""
        return max(1, self.scrollable_content_region.height - len(self._heading))

    def _move_to(self, index: int) -> None:
        index = max(0, min(index, self._count - 1))
        if index != self.cursor:
            self.cursor = index
            self.post_message(self.Moved(self, index))
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        """Scroll so that the cursor is seen."""
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + self._room:
            self.scroll_to(y=self.cursor - self._room + 1, animate=False)
