"""A user agent on sockets of this machine, for whoever leads recording sessions.

In: where to listen, TLS files, who may come in. Out: a `SipAgent` with transports, names to look up and digest, and our
address on the way to a URI. To be opened in the loop that it lives in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recorder.model import Transport
from recorder.sip_ua.agent import Admit, SipAgent
from recorder.sip_ua.config import AgentConfig
from recorder.sip_ua.digest import Authorizer
from recorder.sip_ua.framing import MAX_BODY
from recorder.sip_ua.listen import Listen
from recorder.sip_ua.locate import Locator
from recorder.sip_ua.tls import TlsContexts, TlsFiles
from recorder.sip_ua.transport import SipTransports, TransportOptions, open_transports


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How the agent is reached."""

    listen: Sequence[Listen] = ()
    tls: TlsFiles = field(default_factory=TlsFiles)
    config: AgentConfig = field(default_factory=AgentConfig)
    source: str = ""
    """Address that our requests leave from; empty: the one that leads to the peer."""
    contexts: TlsContexts | None = None
    """Of `tls`, read already."""
    trouble: Callable[[str | None], None] = lambda text: None
    """Told twice a minute why our certificate cannot be renewed, None where it can."""
    largest_body: int = MAX_BODY
    """Octets of the body of a message on a connection."""


@dataclass(frozen=True, slots=True)
class SipStack:
    """An agent and what it stands on."""

    agent: SipAgent
    transports: SipTransports
    locate: Locator

    @property
    def listening(self) -> Sequence[Listen]:
        """Where, with the ports that were given for 0."""
        return self.transports.listening

    async def local_host(self, uri: str) -> str:
        """Our address on the way to a URI. Raises OSError where there is no way."""
        for target in await self.locate(uri):
            local = self.transports.local(target)
            if local is not None:
                return local[0].strip("[]")
        raise OSError(f"{uri}: no address found, or no way there")


async def open_stack(options: StackOptions, admit: Callable[[], Admit | None] = lambda: None) -> SipStack:
    """Open the sockets. `admit` makes, in the loop, who is asked about each INVITE. Raises ListenError, TlsError."""
    transports = await open_transports(
        TransportOptions(
            options.listen,
            options.tls,
            options.source,
            contexts=options.contexts,
            trouble=options.trouble,
            largest_body=options.largest_body,
        )
    )
    locate = Locator(serves=(Transport.UDP, Transport.TCP, Transport.TLS))
    agent = SipAgent(transports, locate, options.config, authorizer=Authorizer, admit=admit())
    return SipStack(agent, transports, locate)
