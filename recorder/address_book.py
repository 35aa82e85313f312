"""Which calls in progress a user takes part in.

In: calls as they begin, learn more and finish. Out: their indices by the user part of any identity, in order of
entry. Costs nothing until the first question is asked; bounded by the calls in progress.
"""

from collections.abc import Iterable, Mapping

from recorder.identities import addresses_of
from recorder.model import Call

MAX_PER_USER = 256
"""Calls of one user that are told apart; a trunk's main number has many."""


class AddressBook:
    """Calls in progress by user."""

    __slots__ = ("_active", "_by_user", "_in_use", "_users")

    def __init__(self, active: Mapping[int, Call]) -> None:
        self._active = active
        self._by_user: dict[str, dict[int, None]] = {}
        self._users: dict[int, set[str]] = {}
        self._in_use = False

    def enter(self, call: Call) -> None:
        """A call began, or its identities may have grown."""
        if not self._in_use:
            return
        known = self._users.setdefault(call.index, set())
        for party in (call.caller, call.callee):
            for address in addresses_of(party):
                if address.user in known:
                    continue
                known.add(address.user)
                calls = self._by_user.setdefault(address.user, {})
                calls[call.index] = None
                if len(calls) > MAX_PER_USER:
                    del calls[next(iter(calls))]

    def leave(self, index: int) -> None:
        """A call finished."""
        for user in self._users.pop(index, ()):
            calls = self._by_user.get(user)
            if calls is not None:
                calls.pop(index, None)
                if not calls:
                    del self._by_user[user]

    def calls_of(self, user: str) -> Iterable[Call]:
        """Calls in progress of a user, in order of entry."""
        if not self._in_use:
            self._in_use = True
            for call in self._active.values():
                self.enter(call)
        return [self._active[index] for index in self._by_user.get(user, ()) if index in self._active]
