"""The end of a dialog with a recording server: what is left to be sent and said.

In: a link whose calls are over, or that is to be given up. Out: media that has waited, the last update, RTCP BYE, SIP
BYE. Each step has its time; nothing raises.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from recorder.sip_ua.api import EndedBy
from recorder.siprec.src_link import Link
from recorder.siprec.src_media import SrcMedia

FINAL = 4.0
"""s that the last update may take."""
GOODBYE = 4.0
"""s to wait for the answer to BYE."""
DRAIN = 5.0
"""s that media may take that waited for the server's answer, when the call is over already."""
LOOK = 0.1


async def finish(link: Link, clock: Callable[[], int], *, recent: bool) -> bool:
    """The last update, then BYE with the same metadata; whether the server was there to hear that. `recent`: the answer
    came so late that media may still wait."""
    if recent:
        await _drain(link.media)
    now = clock()
    for call in link.calls:
        call.until = call.until or now
    before, final = link.said, None
    if link.wait() is not None:
        try:
            async with asyncio.timeout(FINAL):
                final = await link.update(final=True)
        except TimeoutError:
            link.notes.append("does not answer the last update")
            final = link.last_words(before)
    heard = link.ended is None or link.ended.by is not EndedBy.TRANSPORT
    link.media.close()
    try:
        async with asyncio.timeout(GOODBYE):
            await link.end(final)
    except TimeoutError:
        heard = False
        link.notes.append("does not answer BYE")
    return heard


async def goodbye(link: Link) -> None:
    """BYE to a server that is thought dead, in case that it is not."""
    if link.session is not None and not link.session.over:
        with suppress(TimeoutError):
            await asyncio.wait_for(link.session.bye(), GOODBYE)


async def _drain(media: SrcMedia) -> None:
    """Until nothing goes out any more."""
    loop = asyncio.get_running_loop()
    until, before = loop.time() + DRAIN, -1
    while loop.time() < until:
        sent = sum(report.packets for report in media.reports().values())
        if sent == before:
            return
        before = sent
        await asyncio.sleep(LOOK)
