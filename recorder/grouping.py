"""Which calls belong to one conversation: transfers and the legs of a B2BUA, on evidence only (RFC 7865, section 6.5).

In: what INVITEs, REFERs and redirections say of other calls, and what the media engine finds. Out: `Call.group` and
`Call.group_reasons`. Evidence names the other call (Replaces, a header with its Call-ID), is shared by both
(Session-ID, charging vector), or was announced (REFER, 3xx). Every table is bounded; a value that too many calls
share proves nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID
from weakref import ref

from capture.address import Endpoint
from decoders.sip import Replaces, SipMessage
from recorder.address_book import AddressBook
from recorder.evidence import read_evidence, session_keys
from recorder.identities import Address, address_of, addresses_of, anonymous
from recorder.model import Call, GroupReason, Sighting
from recorder.trace import note

MAX_GROUP = 64
"""Calls of one group."""
MAX_SHARING = 16
"""Calls that share a value before it proves nothing."""
MAX_KEYS = 65536
MAX_WANTED = 4096
MAX_EXPECTED = 4096
EXPECTED = 64_000_000_000
"""ns for which a REFER or a redirection explains a new call."""


class _Expected(NamedTuple):
    """A call that one party of another call was told to make."""

    call: int
    why: GroupReason
    until: int
    by: tuple[Address, ...]
    signalling: Endpoint | None


@dataclass(slots=True)
class _Group:
    root: int
    root_id: UUID | None
    members: list[int]
    calls: "dict[int, ref[Call]]"
    """Members whose documents may still be written: also those that finished after they were grouped, as long as
    somebody else keeps them."""


class Groups:
    """The groups of the calls in progress and of those that finished lately."""

    def __init__(self, active: Mapping[int, Call], find: Callable[[str], int | None], book: AddressBook) -> None:
        self._active = active
        self._find = find
        self._book = book
        self._group_of: dict[int, _Group] = {}
        self._sharing: dict[str, list[int]] = {}
        self._spoiled: dict[str, None] = {}
        """Values that too many calls shared at once."""
        self._keys_of: dict[int, list[str]] = {}
        self._wanted: dict[str, list[tuple[int, GroupReason]]] = {}
        self._expected: dict[Address, list[_Expected]] = {}

    def begin(self, call: Call) -> None:
        """A Call-ID became a call: others may have named it before."""
        for index, why in self._wanted.pop(call.call_id or "", ()):
            self.join(call, index, why)

    def invited(self, call: Call, message: SipMessage, seen: Sighting) -> None:
        """An initial INVITE, at a hop at which it was not seen before."""
        headers = message.headers
        if "replaces" in headers:
            self._replace(call, message.replaces)
        if self._expected:
            self._match_expected(call, message, seen)
        if "referred-by" in headers:
            self._match_referrer(call, message)
        evidence = read_evidence(message)
        for call_id, wanted in evidence.named:
            self._name(call, call_id, GroupReason.HEADER, wanted)
        if evidence.shared:
            self.share(call, evidence.shared, GroupReason.HEADER)
        if call.session_ids:
            self.share(call, session_keys(call.session_ids), GroupReason.SESSION_ID)

    def answered(self, call: Call) -> None:
        """An answer brings the other side's half of the Session-ID (RFC 7989)."""
        if call.session_ids:
            self.share(call, session_keys(call.session_ids), GroupReason.SESSION_ID)

    def referred(self, call: Call, message: SipMessage, seen: Sighting, to_callee: bool) -> None:
        """A REFER: one side is told to call somebody, perhaps in place of another dialog (RFC 3515, RFC 5589)."""
        told = call.callee if to_callee else call.caller
        if message.refer_to is not None:
            self._expect(call, message.refer_to.uri, GroupReason.REFER, seen, tuple(addresses_of(told)), told.address)
            self._replace(call, message.refer_to_replaces)

    def redirected(self, call: Call, message: SipMessage, seen: Sighting) -> None:
        """A 3xx: the caller is told to call somebody else (RFC 3261, section 8.1.3.4)."""
        caller = call.caller
        for contact in message.contacts[:8]:
            self._expect(call, contact.uri, GroupReason.REDIRECT, seen, tuple(addresses_of(caller)), caller.address)

    def share(self, call: Call, keys: Iterable[str], why: GroupReason) -> None:
        """The call has a value that is the same in all calls of a conversation."""
        own = self._keys_of.setdefault(call.index, [])
        for key in keys:
            if key in own or key in self._spoiled:
                continue
            if key not in self._sharing and len(self._sharing) >= MAX_KEYS:
                break
            sharing = self._sharing.setdefault(key, [])
            if len(sharing) >= MAX_SHARING:
                self._spoil(key)
                continue
            own.append(key)
            for other in sharing:
                self.join(call, other, why)
            sharing.append(call.index)
        if not own:
            del self._keys_of[call.index]

    def _spoil(self, key: str) -> None:
        self._spoiled[key] = None
        if len(self._spoiled) > MAX_WANTED:
            del self._spoiled[next(iter(self._spoiled))]

    def join(self, call: Call, other: int, why: GroupReason) -> None:
        """Two calls belong together; `other` may have finished."""
        if call.index == other:
            return
        one, two = self._group(call.index), self._group(other)
        known = any(reason == (other, why) for reason in call.group_reasons)
        if one is not two:
            if len(one.members) + len(two.members) > MAX_GROUP:
                note(call, call.last_seen, call.last_packet, "group-limit", f"not grouped by {why}: too many calls")
                return
            first, second = (one, two) if one.root < two.root else (two, one)
            first.members += second.members
            for member in second.members:
                self._group_of[member] = first
            first.calls |= second.calls
            for reference in first.calls.values():
                member_call = reference()
                if member_call is not None:
                    member_call.group = first.root
        if not known and len(call.group_reasons) < MAX_GROUP:
            call.group_reasons.append((other, why))
            note(call, call.last_seen, call.last_packet, "grouped", f"belongs with call {other} by {why}")
        peer = self._active.get(other)
        if peer is not None and (call.index, why) not in peer.group_reasons and len(peer.group_reasons) < MAX_GROUP:
            peer.group_reasons.append((call.index, why))
            note(peer, call.last_seen, call.last_packet, "grouped", f"belongs with call {call.index} by {why}")

    def remember(self, call: Call) -> None:
        """The call can be joined also after it has finished."""
        self._group(call.index)

    def identifier(self, call: Call) -> UUID | None:
        """`Call.id` of the first call of its group, also after that has finished; its own where it is alone."""
        group = self._group_of.get(call.index)
        if group is None:
            return call.id
        root = self._active.get(group.root)
        return root.id if root is not None else group.root_id

    def finish(self, call: Call) -> None:
        """A call is over: what it shares is let go, its group stays for those that follow."""
        for key in self._keys_of.pop(call.index, ()):
            sharing = self._sharing[key]
            sharing.remove(call.index)
            if not sharing:
                del self._sharing[key]
        group = self._group_of.get(call.index)
        if group is not None and group.root == call.index:
            group.root_id = call.id

    def forget(self, index: int) -> None:
        """A call finished so long ago that nothing follows any more."""
        self._group_of.pop(index, None)

    def expire(self, now: int) -> None:
        """Let go of announced calls that never came."""
        for target in [target for target, expected in self._expected.items() if expected[-1].until < now]:
            del self._expected[target]

    def _group(self, index: int) -> _Group:
        group = self._group_of.get(index)
        if group is None:
            call = self._active.get(index)
            group = self._group_of[index] = _Group(
                index, call.id if call else None, [index], {index: ref(call)} if call else {}
            )
        return group

    def _replace(self, call: Call, replaced: Replaces | None) -> None:
        if replaced is not None:
            self._name(call, replaced.call_id, GroupReason.REPLACES, wanted=True)

    def _name(self, call: Call, call_id: str, why: GroupReason, wanted: bool) -> None:
        """`call` names another call; if that was not seen yet, it is waited for where `wanted`."""
        if call_id == call.call_id:
            return
        index = self._find(call_id)
        if index is not None:
            self.join(call, index, why)
        elif wanted:
            waiting = self._wanted.setdefault(call_id, [])
            if len(waiting) < MAX_SHARING and (call.index, why) not in waiting:
                waiting.append((call.index, why))
            if len(self._wanted) > MAX_WANTED:
                del self._wanted[next(iter(self._wanted))]

    def _expect(
        self,
        call: Call,
        uri: str,
        why: GroupReason,
        seen: Sighting,
        by: tuple[Address, ...],
        signalling: Endpoint | None,
    ) -> None:
        target = address_of(uri)
        if not target.user:
            return
        expected = self._expected.pop(target, [])
        if not any(each.call == call.index for each in expected):
            expected.append(_Expected(call.index, why, seen.time + EXPECTED, by, signalling))
        self._expected[target] = expected[-MAX_SHARING:]
        if len(self._expected) > MAX_EXPECTED:
            del self._expected[next(iter(self._expected))]

    def _match_expected(self, call: Call, message: SipMessage, seen: Sighting) -> None:
        uris = [message.request_uri or "", message.to.uri if message.to else ""]
        callers = set(addresses_of(call.caller))
        users = {address.user for address in callers}
        for target in dict.fromkeys(address_of(uri) for uri in uris):
            for each in self._expected.get(target, ()):
                told = any(address in callers or address.user in users for address in each.by)
                near = each.signalling is not None and each.signalling[:2] == seen.source[:2]
                if each.call != call.index and seen.time <= each.until and (told or near):
                    why = GroupReason.REFERRED_BY if "referred-by" in message.headers else each.why
                    self.join(call, each.call, why)

    def _match_referrer(self, call: Call, message: SipMessage) -> None:
        """Referred-By without its REFER seen: a call in progress between the referrer and this caller."""
        referrer = message.referred_by
        address = address_of(referrer.uri) if referrer else None
        if address is None or anonymous(address):
            return
        callers = {each.user for each in addresses_of(call.caller)}
        for other in self._book.calls_of(address.user):
            if other.index == call.index or other.recording_session is not None:
                continue
            sides = [{each.user for each in addresses_of(party)} for party in (other.caller, other.callee)]
            if any(address.user in sides[i] and callers & sides[1 - i] for i in (0, 1)):
                self.join(call, other.index, GroupReason.REFERRED_BY)
