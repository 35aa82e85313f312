"""Privileges of the live service: what it needs to open packet sockets, and how it gives that up.

In: the process as it was started: by root, by its own user with capabilities from the unit file, or by anybody. Out: a
process of an ordinary user that holds no capability in any thread and can get none back, or a `PrivilegeError`.
Nothing here opens a socket or a file of the user's.

The order in a service, each step optional but never in another order:

1. `become(user)`, first of all where root started it: from here on the process is that user, with the capabilities
   for opening only, so that every file and cache that it makes belongs to the user.
2. `require(interfaces)`, which says what to do where opening will not be permitted.
3. Sockets are opened.
4. `drop(user)`, before workers start. Capabilities belong to threads, and Linux lets no thread take them from another:
   `drop` reads what every thread holds afterwards and fails where one still holds any. Only the change of user
   reaches all threads (the C library makes each of them do it).
5. `recorder.sandbox.enter()`.
"""

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass

from capture.errors import SpanrecError
from recorder import capabilities

OPENING = ("net_raw", "net_admin", "bpf")
"""Kept by `become` until `drop`. Packet sockets need CAP_NET_RAW when they are made; their rings, filters, promiscuous
mode and binding them anew need nothing. CAP_NET_ADMIN has the adapter stamp frames with its own clock, if it can. With
CAP_BPF it also steers the media of recording sessions to one socket.
"""
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_KERNEL_CACHE = "NUMBA_CACHE_DIR"
_ROOT = 0


class PrivilegeError(SpanrecError):
    """The process has not the privileges that it needs, or cannot give up those that it has."""


@dataclass(frozen=True, slots=True)
class Privileges:
    """Who the process is and what the calling thread may do beyond an ordinary user."""

    user: str
    """Its name; the number where it has none."""
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary groups."""
    capabilities: tuple[str, ...]
    """Effective or permitted, as in `capabilities.NAMES`."""
    bounding: tuple[str, ...]
    no_new_privileges: bool
    threads: int
    """Of the process."""

    @property
    def may_open_packet_sockets(self) -> bool:
        """Whether packet sockets will open."""
        return "net_raw" in self.capabilities


@dataclass(frozen=True, slots=True)
class Dropped:
    """What `drop` gave up, for the log."""

    user: str
    """Who the process is now."""
    uid: int
    gid: int
    was: str
    """Who it was before."""
    capabilities: tuple[str, ...]
    """Held until now by some thread."""
    bounding_emptied: bool
    """False without CAP_SETPCAP: then the unit file's CapabilityBoundingSet and no_new_privs have to do."""
    threads: int
    """Threads that were read and hold nothing."""


def current() -> Privileges:
    """The process as it is."""
    state = capabilities.this_thread()
    return Privileges(
        user=_name(os.geteuid()),
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=tuple(sorted(state.supplementary)),
        capabilities=capabilities.names_of(state.effective | state.permitted),
        bounding=capabilities.names_of(state.bounding),
        no_new_privileges=state.no_new_privileges,
        threads=len(capabilities.threads()),
    )


def require(interfaces: Iterable[str]) -> None:
    """Raise `PrivilegeError`, saying what to do, where packet sockets for `interfaces` will not open."""
    privileges = current()
    if privileges.may_open_packet_sockets:
        return
    named = " ".join(f"-i {interface}" for interface in interfaces)
    raise PrivilegeError(
        f"user {privileges.user} may not capture: packet sockets need the capability CAP_NET_RAW. Start the service"
        f" (systemctl start spanrec-capture), or let root start it: sudo spanrec capture --user spanrec {named} …"
        " Do not setcap the Python interpreter: every Python program would get the capability"
    )


def become(user: str) -> None:
    """Turn root into `user`, who keeps the capabilities of `OPENING`. Nothing happens where the process is `user`.

    Call it before anything is imported that starts threads or makes files. The environment becomes the user's: HOME and
    names, no caches elsewhere, and no threads of numpy's linear algebra, which would be born with the capabilities.
    """
    account = _account(user)
    os.environ.setdefault(_BLAS_THREADS, "1")
    if os.geteuid() != _ROOT:
        _check_is(account)
        return
    keep = capabilities.this_thread().permitted & capabilities.mask_of(OPENING)
    capabilities.empty_bounding_set()
    capabilities.keep_across_identity(True)
    _change_identity(account)
    capabilities.keep_across_identity(False)
    capabilities.keep_only(keep)
    _check_no_way_back()
    if not os.access(os.__file__, os.R_OK):
        raise PrivilegeError(
            f"user {user} cannot read the Python that this is, {os.__file__}: install spanrec where everybody can"
            " read it (make install)"
        )
    _adopt_environment(account)


def _adopt_environment(account: pwd.struct_passwd) -> None:
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
    for variable in [name for name in os.environ if name.startswith(("XDG_", "SUDO_"))]:
        del os.environ[variable]
    if not os.access(os.environ.get(_KERNEL_CACHE, ""), os.R_OK | os.W_OK | os.X_OK):
        os.environ.pop(_KERNEL_CACHE, None)


def drop(user: str | None = None) -> Dropped:
    """Give up every capability, and root for `user`, for good. Call it when sockets are open and before workers start.

    Without `user` the process stays who it is; root then is root without capabilities. Raises `PrivilegeError` where
    the user is unknown, where the process is neither root nor `user`, and where any thread still holds a capability.
    """
    was = _name(os.geteuid())
    held = 0
    for thread in capabilities.threads():
        held |= thread.held
    account = _account(user) if user is not None else None
    emptied = capabilities.empty_bounding_set()
    if account is not None and os.geteuid() == _ROOT:
        _change_identity(account)
    elif account is not None:
        _check_is(account)
    capabilities.keep_only(0)
    capabilities.forgo_new_privileges()
    if os.geteuid() != _ROOT:
        _check_no_way_back()
    return Dropped(
        user=_name(os.geteuid()),
        uid=os.geteuid(),
        gid=os.getegid(),
        was=was,
        capabilities=capabilities.names_of(held),
        bounding_emptied=emptied,
        threads=_check_threads(),
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account(user: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise PrivilegeError(
            f"there is no user {user!r}: make it (useradd --system --user-group --home-dir /var/lib/spanrec"
            f" --shell /usr/sbin/nologin {user}), or name another with --user"
        ) from None
    if account.pw_uid == _ROOT:
        raise PrivilegeError(f"user {user!r} is root: name an ordinary user with --user, one that owns the recordings")
    return account


def _check_is(account: pwd.struct_passwd) -> None:
    if os.geteuid() != account.pw_uid:
        raise PrivilegeError(
            f"only root can become user {account.pw_name}, and this process is user {_name(os.geteuid())}:"
            " start it as root, or leave --user out"
        )


def _change_identity(account: pwd.struct_passwd) -> None:
    """Make every thread the user's. Groups first: after the user is changed they could not be."""
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    try:
        os.setgroups(groups)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become user {account.pw_name}: {error.strerror}") from error
    wanted = (account.pw_uid,) * 4, (account.pw_gid,) * 4, frozenset(groups)
    for thread in capabilities.threads():
        if (thread.users, thread.groups, thread.supplementary) != wanted:
            raise PrivilegeError(f"thread {thread.tid} ({thread.name}) has not become user {account.pw_name}")


def _check_no_way_back() -> None:
    """Root is out of the process's reach."""
    try:
        os.setresuid(_ROOT, _ROOT, _ROOT)
    except PermissionError:
        return
    raise PrivilegeError("root's rights were dropped, but could be had back: end this process")


def _check_threads() -> int:
    """How many threads there are; `PrivilegeError` where one holds a capability."""
    states = capabilities.threads()
    holders = [thread for thread in states if thread.held]
    if holders:
        told = ", ".join(f"{thread.tid} ({thread.name})" for thread in holders[:8])
        names = ", ".join(sorted({name for thread in holders for name in capabilities.names_of(thread.held)}))
        raise PrivilegeError(
            f"{len(holders)} of {len(states)} threads still hold {names}: {told}. They were started before privileges"
            " were dropped, and Linux lets no thread take capabilities from another. Set OPENBLAS_NUM_THREADS=1, or"
            " start as root with --user"
        )
    return len(states)
