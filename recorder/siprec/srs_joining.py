"""Whether what a recording session tells of is a call that is known already.

In: a call that an SRC sends, and a communication session of some metadata. Out: yes or no. Identifiers alone prove
nothing: some SRCs use one for many calls, some make another one for each message.
"""

from collections.abc import Mapping

from recorder.siprec.srs_call import ReceivedCall
from recorder.siprec.srs_view import Communication, Person

UNIQUE = 16
"""Characters of a `session_id` from which on it is believed to be no other call's."""
SAME_START = 2_000_000_000
"""ns by which two SRCs may tell the begin of one call differently."""


def unique(key: str) -> bool:
    """Whether a `session_id` looks like one of its kind (RFC 7865, section 6.10)."""
    return len(key) >= UNIQUE


def same_call(known: ReceivedCall, session: Communication, persons: Mapping[str, Person]) -> bool:
    """Whether a session that another recording session brings is the call that has its identifier."""
    before = known.session
    ids, others = set(before.sip_session_ids), set(session.sip_session_ids)
    if ids and others and not ids & others:
        return False
    if before.start is not None and session.start is not None and abs(before.start - session.start) > SAME_START:
        return False
    ours, theirs = _addresses(before, known.persons), _addresses(session, persons)
    return not ours or not theirs or bool(ours & theirs)


def same_people(known: ReceivedCall, session: Communication, persons: Mapping[str, Person]) -> bool:
    """Whether a session has the very participants of a call, by their addresses."""
    ours = _addresses(known.session, known.persons)
    return bool(ours) and ours == _addresses(session, persons)


def _addresses(session: Communication, persons: Mapping[str, Person]) -> set[str]:
    """Of the participants of a session."""
    found = (persons[member.person] for member in session.members if member.person in persons)
    return {identity.uri for person in found for identity in person.identities}
