"""Tells SIP, RTP and RTCP from everything else, by content and never by port (RFC 5761, RFC 7983, RFC 3261).

In: a `DatagramBatch`. Out: one class a row. SIP requests that cannot change a call (REGISTER, OPTIONS, SUBSCRIBE,
PUBLISH, MESSAGE, unknown methods, NOTIFY other than of a transfer) and the responses to them are a class of their own,
so that they never reach Python. Says nothing of whether media belong to a call: any RTP header passes.
"""

import numpy as np

from capture.batch import DatagramBatch, UInt8
from decoders._demux_kernels import OTHER, RTCP, RTP, SIP, SIP_IGNORED, classify_rows

__all__ = ["OTHER", "RTCP", "RTP", "SIP", "SIP_IGNORED", "classify"]


def classify(datagrams: DatagramBatch) -> UInt8:
    """Class of each row, shape (n,): OTHER, SIP, SIP_IGNORED, RTP or RTCP. Rows that are no UDP are OTHER."""
    classes = np.empty(len(datagrams), np.uint8)
    # A mapped file is read-only, a capture ring is not: one view of both, so that the kernel is compiled once.
    buffer = datagrams.packets.buffer.view()
    buffer.flags.writeable = False
    classify_rows(
        buffer,
        datagrams.kind,
        datagrams.payload,
        datagrams.length,
        datagrams.missing,
        datagrams.source_port,
        datagrams.destination_port,
        classes,
    )
    return classes
