"""Pauses by themselves: a code that somebody presses (card data), a preference that a participant states.

In: a picture of a call, the digits heard in it so far, the rule's terms. Out: whether nothing of it is to be recorded
now. Pure. What is on hold is for `Instance.on_hold`.

How late: a digit by SIP INFO counts at once. One by RFC 4733 (telephone-event) counts when the engine has closed the
window of media that it lies in, some 2 s after it was pressed: an agent presses the code before the caller reads out
the card, not while.
"""

from collections.abc import Iterable

from recorder.model import Digit
from recorder.siprec.picture import CallPicture
from recorder.siprec.src_decision import PauseTerms

BETWEEN = 5_000_000_000
"""ns between two digits of one code, at the most."""
_UNWANTED = ("off", "pause")


def is_paused(picture: CallPicture, digits: Iterable[Digit], terms: PauseTerms) -> bool:
    """Whether a call is not recorded now."""
    return (terms.preference and picture.record_preference in _UNWANTED) or paused_by_code(digits, terms)


def paused_by_code(digits: Iterable[Digit], terms: PauseTerms) -> bool:
    """Whether the code that was pressed last is the one that pauses. Digits may be in any order."""
    if not terms.pause_digits:
        return False
    paused = False
    pressed = {side: _Pressed() for side in terms.by}
    for digit in sorted(digits, key=lambda each: each.at):
        keys = pressed.get(digit.side)
        if keys is None:
            continue
        keys.press(digit)
        awaited = (terms.resume_digits or terms.pause_digits) if paused else terms.pause_digits
        if keys.text.endswith(awaited):
            paused = not paused
            keys.text = ""
    return paused


class _Pressed:
    """What one side has pressed lately."""

    __slots__ = ("last", "text")

    def __init__(self) -> None:
        self.text = ""
        self.last = 0

    def press(self, digit: Digit) -> None:
        if digit.at - self.last > BETWEEN:
            self.text = ""
        self.text = (self.text + digit.digit)[-16:]
        self.last = digit.at
