"""Which calls are wanted: by number, Call-ID, address and time.

In: a `Selection` and a call that is over. Out: whether it is to be recorded; where not, its trace says by what.
"""

from fnmatch import fnmatchcase
from ipaddress import ip_address

from capture.address import Endpoint
from recorder.engine import FinishedCall
from recorder.model import Call
from recorder.naming import user_part
from recorder.replay_types import Selection
from recorder.trace import note


def selects(selection: Selection, finished: FinishedCall) -> bool:
    """Whether a call meets every criterion given."""
    if selection.everything:
        return True
    call = finished.call
    failed = [
        name
        for name, met in (
            ("number", not selection.numbers or _has_number(selection, call)),
            ("Call-ID", not selection.call_ids or call.call_id in selection.call_ids),
            ("address", not selection.addresses or _has_address(selection, finished)),
            ("start", selection.since is None or call.started >= selection.since),
            ("end", selection.until is None or call.started < selection.until),
        )
        if not met
    ]
    if failed:
        note(call, call.last_seen, call.last_packet, "filtered", f"not selected by {', '.join(failed)}")
    return not failed


def _has_number(selection: Selection, call: Call) -> bool:
    own = {user_part(i.uri) for party in (call.caller, call.callee) for i in party.identities}
    return any(fnmatchcase(user, pattern) for pattern in selection.numbers for user in own)


def _has_address(selection: Selection, finished: FinishedCall) -> bool:
    seen: list[Endpoint] = [p.address for p in (finished.call.caller, finished.call.callee) if p.address]
    for stream in finished.streams:
        seen += (stream.source, stream.destination)
    hosts = {ip_address(endpoint.host) for endpoint in seen}
    return any(host in network for host in hosts for network in selection.addresses)
