"""Users and passwords for our digest challenges, from a file that others must not read.

In: a file of lines `user:password`; blank lines and those that begin with # count for nothing. Out: passwords by user.
"""

from collections.abc import Mapping
from pathlib import Path

from capture.errors import SpanrecError


class UsersError(SpanrecError):
    """A file of users cannot be used."""


def read_users(path: Path) -> Mapping[str, str]:
    """Passwords by user. Raises UsersError, which never holds a password."""
    try:
        if path.stat().st_mode & 0o007:
            raise UsersError(f"{path}: everybody on this machine may read it; chmod o= {path}")
        content = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "is no UTF-8 text"
        raise UsersError(f"{path}: cannot be read: {why}") from error
    users: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not user or not password:
            raise UsersError(f"{path}, line {number}: is no user:password")
        users[user] = password
    return users
