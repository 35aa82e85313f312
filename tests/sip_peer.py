"""A peer made by hand: what it sends is what a test writes, so that it may break every rule."""

import asyncio
from collections.abc import Sequence

from decoders.sip import SipMessage, parse_message
from recorder.model import Transport
from recorder.sip_ua.api import Body, Header, Peer
from recorder.sip_ua.message import encode_response
from recorder.sip_ua.wire import Flow, Target
from tests.sip_network import MemoryTransports, Network, endpoint


class RawPeer:
    """Gets messages one by one with `get`, answers with `answer`, asks with `ask`."""

    def __init__(self, network: Network, address: str) -> None:
        self.transports = MemoryTransports(network, address)
        self.transports.on_message = self._told
        self.address = address
        self._inbox: asyncio.Queue[tuple[SipMessage, Flow, Peer]] = asyncio.Queue()
        self._last: tuple[Flow, Peer] | None = None
        self._branch = 0

    def _told(self, data: bytes, flow: Flow, peer: Peer) -> None:
        message = parse_message(data)
        assert message is not None
        self._inbox.put_nowait((message, flow, peer))

    async def get(self, what: str = "", timeout: float = 60.0) -> SipMessage:
        """The next message that is `what`: a method or a status; others are passed over."""
        async with asyncio.timeout(timeout):
            while True:
                message, flow, peer = await self._inbox.get()
                self._last = flow, peer
                if what in ("", message.method, str(message.status)):
                    return message

    async def quiet(self, seconds: float, what: str) -> bool:
        """Whether no such message comes for so long."""
        try:
            await self.get(what, seconds)
        except TimeoutError:
            return True
        return False

    def answer(
        self,
        request: SipMessage,
        status: int,
        *headers: Header,
        tag: str = "peer",
        body: Body | None = None,
        contact: bool = True,
    ) -> None:
        """Send a response to a request that was got."""
        assert self._last is not None
        flow, peer = self._last
        fields: list[Header] = [("Contact", f"<sip:peer@{self.address}>"), *headers] if contact else list(headers)
        data = encode_response(
            request, status, tag=tag if status > 100 else "", source=peer.address, headers=fields, body=body
        )
        self.transports.send(data, Target(flow.transport, peer.address), flow)

    def ask(
        self,
        to: str,
        method: str,
        cseq: int = 1,
        *headers: str,
        uri: str = "",
        from_: str = "<sip:peer@there>;tag=peer",
        to_value: str = "<sip:us@here>",
        call_id: str = "peers-call",
        branch: str = "",
        body: str = "",
        contact: bool = True,
        transport: Transport = Transport.UDP,
        drop: Sequence[str] = (),
    ) -> str:
        """Send a request; gives its branch."""
        self._branch += 1
        branch = branch or f"z9hG4bKpeer{self._branch}"
        lines = [
            f"{method} {uri or f'sip:us@{to}'} SIP/2.0",
            f"Via: SIP/2.0/{transport.upper()} {self.address};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {from_}",
            f"To: {to_value}",
            f"Call-ID: {call_id}",
            f"CSeq: {cseq} {method}",
            *([f"Contact: <sip:peer@{self.address}>"] if contact else []),
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        kept = [line for line in lines if line.partition(":")[0] not in drop]
        self.send(to, "\r\n".join(kept) + "\r\n\r\n" + body, transport)
        return branch

    def within(
        self, request: SipMessage, method: str, cseq: int, *headers: str, body: str = "", branch: str = ""
    ) -> str:
        """Send a request in the dialog that a 2xx of ours to `request` made: From and To change places."""
        local = request.get("to") or ""
        local = local if ";tag=" in local else f"{local};tag=peer"
        uri = request.contact.uri if request.contact is not None else ""
        to = uri.partition("@")[2].partition(";")[0]
        return self.ask(
            to,
            method,
            cseq,
            *headers,
            uri=uri,
            from_=local,
            to_value=request.get("from") or "",
            call_id=request.call_id or "",
            body=body,
            branch=branch,
        )

    def send(self, to: str, text: str | bytes, transport: Transport = Transport.UDP) -> None:
        """Send whatever octets."""
        data = text.encode() if isinstance(text, str) else text
        self.transports.send(data, Target(transport, endpoint(to)))
