"""What the files say that the settings of our recording client name: certificates, users.

In: settings. Out: `SrcFiles`. They are read before the process becomes another user, who need not be able to read them.
Only a certificate is looked at again later (`TlsContexts.renew`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.model import Transport
from recorder.sip_ua.tls import TlsContexts
from recorder.siprec.src_settings import SrcSettings
from recorder.siprec.users import read_users


@dataclass(frozen=True, slots=True)
class SrcFiles:
    """What was read."""

    tls: TlsContexts
    users: Mapping[str, str] | None = None
    """Passwords of servers that may ask for calls; None: they are asked for none."""


def read_files(settings: SrcSettings) -> SrcFiles:
    """Read them. Raises SpanrecError where they cannot be used."""
    sockets = (settings.listen, *settings.sockets.values())
    secured = any(each.transport is Transport.TLS for some in sockets for each in some)
    users = None if settings.allow_users_file is None else read_users(settings.allow_users_file)
    return SrcFiles(TlsContexts(settings.tls, listening=secured), users)
