"""What the files say that the settings of our recording server name: certificates, users.

In: settings. Out: `SrsFiles`. They are read before the process becomes another user, who need not be able to read them.
Only a certificate is looked at again later (`TlsContexts.renew`).
"""

import time
from dataclasses import dataclass

from recorder.model import Transport
from recorder.sip_ua.agent import Admit
from recorder.sip_ua.digest import Challenger
from recorder.sip_ua.tls import TlsContexts
from recorder.siprec.srs_settings import SrsSettings
from recorder.siprec.users import read_users


@dataclass(frozen=True, slots=True)
class SrsFiles:
    """What was read."""

    tls: TlsContexts
    challenge: Admit | None = None
    """Asks clients for a password; None: nobody is asked."""


def read_files(settings: SrsSettings) -> SrsFiles:
    """Read them. Raises SpanrecError where they cannot be used."""
    secured = any(each.transport is Transport.TLS for each in settings.listen)
    challenge = None
    if settings.users_file is not None:
        users = read_users(settings.users_file)
        challenge = Challenger(users.get, time.monotonic, settings.realm, algorithms=settings.digest)
    return SrsFiles(TlsContexts(settings.tls, listening=secured), challenge)
