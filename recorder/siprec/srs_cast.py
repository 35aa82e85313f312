"""Who is who in one call that an SRC sends: which participant is caller, which is callee, and who speaks on which line.

In: the participants and streams of a communication session, and the media descriptions that carry it. Out: a side for
each participant and each line. RFC 7865 has no roles: our own SRC says them, else the first participant of the document
is the caller. A side once given to a line stays, for its media are being written to that channel; participants who are
told of later follow the lines that they send on. A document has two parties: those who come later are kept beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recorder.model import Side
from recorder.siprec.srs_answer import Line
from recorder.siprec.srs_view import Communication, Flow, Person

MOST_PEOPLE = 128
"""Participants of a call that are remembered; the one that came first after the first two is forgotten."""
LineKey = tuple[int, int]
"""Running number of the recording session, position of the m= section."""
Placed = tuple[Line, Flow | None]
"""A line, and the stream that its label names."""


@dataclass(slots=True)
class Cast:
    """Sides of one call."""

    sides: dict[str, Side] = field(default_factory=dict)
    """By participant."""
    first: dict[Side, str] = field(default_factory=dict)
    """Participant who had a side first: the caller and the callee of the document."""
    gone: set[str] = field(default_factory=set)
    lines: dict[LineKey, Side] = field(default_factory=dict)
    """Who speaks on a line."""
    _labels: dict[LineKey, str | None] = field(default_factory=dict)
    mixed: bool = False
    """A line carries several participants."""
    assumed: bool = False
    """Who speaks on a line was told by nothing but its place."""

    @property
    def others(self) -> list[str]:
        """Participants beside the two of the document, in the order in which they came."""
        return [person for person in self.sides if person not in self.first.values()]

    def forget(self, rs: int, index: int) -> None:
        """A line is no more."""
        self.lines.pop((rs, index), None)
        self._labels.pop((rs, index), None)

    def place(self, rs: int, session: Communication, persons: Mapping[str, Person], lines: Sequence[Placed]) -> None:
        """Take in what a session says now, and who speaks on its lines."""
        present = [member.person for member in session.members if member.left is None]
        self.gone |= {member.person for member in session.members if member.left is not None}
        self.gone |= set(self.sides) - {member.person for member in session.members} if session.members else set()
        self.gone -= set(present)
        for person in [member.person for member in session.members]:
            if person not in self.sides and not self._renamed(person, persons):
                self._place_person(rs, person, persons.get(person), lines)
        for line, flow in lines:
            key = (rs, line.index)
            if self._labels.setdefault(key, line.label) != line.label:
                # The place was taken for another stream (RFC 7866, section 7.1.1).
                self._labels[key] = line.label
                self.lines.pop(key, None)
            if key not in self.lines:
                self.lines[key] = self._speaker(rs, flow, lines)

    def _renamed(self, identifier: str, persons: Mapping[str, Person]) -> bool:
        """Whether it is a participant who is gone, under another identifier: some SRCs make them anew each time."""
        address = _address(persons.get(identifier))
        left = self.gone & self.sides.keys()  # who had gone before anything was heard has no place to give
        same = (each for each in left if address is not None and _address(persons.get(each)) == address)
        before = next(same, None)
        if before is None:
            return False
        # In the same place: the order is that in which they came.
        self.sides = {identifier if each == before else each: side for each, side in self.sides.items()}
        self.first = {side: identifier if each == before else each for side, each in self.first.items()}
        self.gone.discard(before)
        return True

    def _place_person(self, rs: int, identifier: str, person: Person | None, lines: Sequence[Placed]) -> None:
        taken = {self.sides[each] for each in self.sides if each not in self.gone}
        side = self._heard_on(rs, identifier, lines)
        if side is None and person is not None:
            side = person.role
        if side is None:
            side = next((side for side in Side if side not in taken), Side.CALLEE)
        self.sides[identifier] = side
        self.first.setdefault(side, identifier)
        if len(self.sides) > MOST_PEOPLE:
            del self.sides[self.others[0]]

    def _heard_on(self, rs: int, person: str, lines: Sequence[Placed]) -> Side | None:
        """Side of a line that the participant alone sends on, where that was given to the line before."""
        for line, flow in lines:
            if flow is not None and flow.senders == (person,) and (rs, line.index) in self.lines:
                return self.lines[rs, line.index]
        return None

    def _speaker(self, rs: int, flow: Flow | None, lines: Sequence[Placed]) -> Side:
        if flow is not None:
            senders = {self.sides[person] for person in flow.senders if person in self.sides}
            if len(senders) == 1:
                self.mixed = self.mixed or len(flow.senders) > 1
                return senders.pop()
            receivers = {self.sides[person] for person in flow.receivers if person in self.sides}
            if not senders and len(receivers) == 1:
                return receivers.pop().other
            if senders:
                self.mixed = True
                return Side.CALLER
        self.assumed = True
        taken = {self.lines[rs, line.index] for line, _ in lines if (rs, line.index) in self.lines}
        told = [self._told(each) for _, each in lines]
        taken |= {side for side in told if side is not None}
        return next((side for side in Side if side not in taken), Side.CALLEE)

    def _told(self, flow: Flow | None) -> Side | None:
        sides = {self.sides[person] for person in flow.senders if person in self.sides} if flow is not None else set()
        return sides.pop() if len(sides) == 1 else None

    def receiving(self, session: Communication) -> frozenset[Side]:
        """Sides that receive a stream of the session."""
        return frozenset(
            self.sides[person] for flow in session.flows for person in flow.receivers if person in self.sides
        )


def _address(person: Person | None) -> str | None:
    return person.identities[0].uri if person is not None and person.identities else None
