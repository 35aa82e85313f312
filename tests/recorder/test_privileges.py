"""Privileges: what is held, what is given up, and that it cannot be had back."""

import os
import pwd
from tempfile import TemporaryDirectory

import pytest

from recorder import privileges
from tests.child import USER, needs_root, run

HELD = """
from recorder import capabilities, privileges
def held():
    return sorted({name for thread in capabilities.threads() for name in capabilities.names_of(thread.held)})
def fails(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return error.errno
    return 0
def refused(*arguments):
    try:
        privileges.drop(*arguments)
    except privileges.PrivilegeError as error:
        return str(error)
"""
PACKET_SOCKET = "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))"


@needs_root
def test_root_becomes_the_user_and_keeps_only_what_opening_needs():
    account = pwd.getpwnam(USER)
    told = run(
        HELD
        + f"""
privileges.become({USER!r})
opened = {PACKET_SOCKET}
tell([os.getresuid(), os.getresgid(), os.getgroups(), held(), os.environ["HOME"], privileges.current().bounding])
""",
        XDG_CACHE_HOME="/root/.cache",
    )
    kept = ["bpf", "net_admin", "net_raw"]
    assert told == [[account.pw_uid] * 3, [account.pw_gid] * 3, [account.pw_gid], kept, account.pw_dir, []]


@needs_root
def test_nothing_is_left_after_dropping_and_the_open_socket_still_receives():
    told = run(
        HELD
        + f"""
privileges.become({USER!r})
opened = {PACKET_SOCKET}
opened.bind(("lo", 3))
opened.settimeout(5)
dropped = privileges.drop({USER!r})
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(b"still heard", ("127.0.0.1", 9))
while b"still heard" not in opened.recv(2000):
    pass
tell([held(), list(dropped.capabilities), fails(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3),
      fails(os.setuid, 0), fails(os.setgroups, [0]), privileges.current().no_new_privileges, dropped.bounding_emptied])
"""
    )
    assert told == [[], ["net_admin", "net_raw", "bpf"], 1, 1, 1, True, True]


@needs_root
def test_caches_that_the_user_cannot_write_are_no_longer_named():
    caches = "[os.environ.get(name) for name in ('NUMBA_CACHE_DIR', 'XDG_CACHE_HOME')]"
    script = f"{HELD}privileges.become({USER!r})\ntell({caches})"
    # pytest's own directories are root's alone.
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        assert run(script, NUMBA_CACHE_DIR=place, XDG_CACHE_HOME=place) == [None, None]
        os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
        assert run(script, NUMBA_CACHE_DIR=place) == [place, None]


@needs_root
def test_promiscuous_mode_needs_nothing_more():
    told = run(
        HELD
        + f"""
import struct
privileges.OPENING = ("net_raw",)
privileges.become({USER!r})
opened = {PACKET_SOCKET}
opened.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex("lo"), 1, 0, b""))
tell(held())
"""
    )
    assert told == ["net_raw"]


@needs_root
def test_a_change_of_user_reaches_threads_that_run_already():
    told = run(
        HELD
        + f"""
ends = threading.Event()
for _ in range(3):
    threading.Thread(target=ends.wait, daemon=True).start()
dropped = privileges.drop({USER!r})
tell([held(), dropped.threads, sorted({{thread.users for thread in capabilities.threads()}})])
"""
    )
    uid = pwd.getpwnam(USER).pw_uid
    assert told == [[], 4, [[uid] * 4]]


@needs_root
def test_a_thread_that_holds_capabilities_still_is_an_error_that_names_them():
    told = run(
        HELD
        + f"""
privileges.become({USER!r})
threading.Thread(target=threading.Event().wait, daemon=True).start()
tell(refused())
"""
    )
    assert "1 of 2 threads still hold bpf, net_admin, net_raw" in told
    assert "OPENBLAS_NUM_THREADS=1" in told


@needs_root
def test_numpy_starts_no_threads_after_becoming_the_user():
    assert run(f"{HELD}privileges.become({USER!r})\nimport numpy\nprivileges.drop()\ntell(held())") == []


@needs_root
def test_root_without_a_user_to_become_is_left_without_capabilities():
    told = run(f"{HELD}dropped = privileges.drop()\ntell([held(), dropped.user, fails(os.chown, '/etc/passwd', 1, 1)])")
    assert told == [[], "root", 1]


@needs_root
def test_a_user_with_capabilities_drops_them_without_being_root():
    told = run(
        HELD
        + f"""
privileges.become({USER!r})
dropped = privileges.drop({USER!r})
tell([dropped.was, dropped.user, held(), refused(), refused("root"), refused("daemon")])
"""
    )
    assert told[:4] == [USER, USER, [], None]
    assert "is root" in told[4]
    assert "only root can become user daemon" in told[5]


def test_an_unknown_user_is_an_error_that_says_how_to_make_it():
    with pytest.raises(privileges.PrivilegeError, match=r"useradd --system .* no_such_user"):
        privileges.become("no_such_user")


@needs_root
def test_a_plain_user_is_told_what_to_do():
    told = run(
        HELD
        + f"""
privileges.drop({USER!r})
try:
    privileges.require(["eth1", "eth2"])
except privileges.PrivilegeError as error:
    tell(str(error))
"""
    )
    assert told.startswith(f"user {USER} may not capture")
    assert "systemctl start spanrec-capture" in told
    assert "sudo spanrec capture --user spanrec -i eth1 -i eth2" in told
