"""Kernel filters that keep bulk traffic out of user space, and lose nothing of a call.

In: a tcpdump expression (pcap-filter(7)) and a link type. Out: a `Filter`, a program to attach to a packet socket.

A plain port filter loses much: fragments but the first have no ports, tags and tunnels move the ports elsewhere, IPv6
has headers between. So an expression is only ever widened: what it takes passes, on its own and behind up to two VLAN
tags in the frame (a tag that the network card has taken off is not in the frame, which is then as without), and so does
all in which a call may be hidden from it: later fragments of IPv4, fragments and extension headers of IPv6, more tags,
MPLS, PPPoE, tunnels over IP and UDP, LLC. An expression that cannot be widened is refused with the reason.
"""

import ctypes
import re
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from capture.interface import LINK_ETHERNET, LINK_SLL2
from capture.libpcap import Instruction, compile_expression
from capture.live import LiveCaptureError

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
LONGEST = 4096
"""Instructions that the kernel takes (BPF_MAXINSNS)."""

_FRAGMENTS = "(ip and ip[6:2] & 0x1fff != 0)"
_EXTENSIONS = "(ip6 and (ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 44 or ip6[6] = 60 or ip6[6] = 135))"
"""Hop-by-hop options, routing, fragment, destination options, mobility: ports are behind them."""
_IP_CARRIERS = (4, 41, 47, 50, 51, 97, 137)
"""IPv4, IPv6, GRE (and ERSPAN), ESP, AH, EtherIP, MPLS in IP."""
_UDP_CARRIERS = (2152, 4500, 4789, 4790, 6081, 6635, 8472, 37008)
"""GTP-U, ESP, VXLAN and its extension, GENEVE, MPLS, VXLAN of Linux, TZSP."""
_ETHERNET_CARRIERS = (0x8847, 0x8848, 0x8864, 0x6558, 0x880B, 0x8926, 0x893F, 0x8909, 0x9200)
"""MPLS, PPPoE, bridged Ethernet, PPP, tags of port extenders and security groups, an old tag."""
_TAGS = (0x8100, 0x88A8, 0x9100)
"""The tags that the word `vlan` knows."""

_SHIFTING = ("vlan", "mpls", "pppoes", "geneve", "vxlan")
_LOOPING = "protochain"

_LOAD, _LOAD_X = 0x00, 0x01
_ABSOLUTE, _INDIRECT, _HEADER_LENGTH = 0x20, 0x40, 0xA0
_RETURN = 0x06
_PROTOCOL, _PACKET_TYPE, _IFINDEX, _HARDWARE_TYPE = 0xFFFFF000, 0xFFFFF004, 0xFFFFF008, 0xFFFFF01C
_SLL2 = 20
_COOKED_FIELDS = {0: _PROTOCOL, 4: _IFINDEX, 8: _HARDWARE_TYPE, 10: _PACKET_TYPE}
"""Offsets in a Linux SLL2 header, which a cooked socket's frames do not have yet -> what the kernel knows instead."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A program for a packet socket whose frames are of one link type."""

    expression: str
    """As it was compiled: widened."""
    link_type: int
    instructions: tuple[Instruction, ...]

    def attach(self, to: socket.socket) -> None:
        """Filter what the socket gets from now on, in place of any filter before."""
        attach(to, self.instructions)


REJECT_ALL = (Instruction(_RETURN, 0, 0, 0),)
"""Nothing passes: what a socket has until it is ready."""


def attach(to: socket.socket, instructions: Sequence[Instruction]) -> None:
    """Attach a program; the kernel copies it."""
    program = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    held = ctypes.create_string_buffer(program, len(program))
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(instructions), ctypes.addressof(held)))


def detach(from_: socket.socket) -> None:
    """Let everything pass from now on."""
    with suppress(FileNotFoundError):  # there was none
        from_.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def default_expression(without_tcp: Sequence[int] = ()) -> str:
    """All that may carry SIP or RTP; TCP of the ports `without_tcp` (bulk, such as 443) is left out on request."""
    if not without_tcp:
        return "udp or tcp"
    return "udp or (tcp and not (" + " or ".join(f"port {port:d}" for port in without_tcp) + "))"


def compile_filter(expression: str, link_type: int, excluded: str = "") -> Filter:
    """Widen an expression and compile it. Raises `LiveCaptureError` where it cannot be used, with the reason.

    `excluded` tells the frames that are not to pass whatever else holds, because another source takes them.
    """
    widened = protect(expression, link_type)
    if excluded:
        widened = f"not ({excluded}) and ({widened})"
    instructions = compile_expression(widened, link_type)
    if link_type == LINK_SLL2:
        instructions = tuple(_without_link_header(each) for each in instructions)
    _check_length(instructions, LONGEST)
    return Filter(widened, link_type, instructions)


def protect(expression: str, link_type: int = LINK_ETHERNET) -> str:
    """The expression widened by everything that may hide a call from it. Raises `LiveCaptureError` if it cannot be."""
    words = set(re.findall(r"[\w.:-]+", expression.lower()))
    for word in _SHIFTING:
        if word in words:
            raise LiveCaptureError(
                f"The kernel filter must not hold the word {word!r}: all that follows it would be looked for behind "
                f"that header only, and tags that the network card has taken off would be missed. Leave it out: what "
                f"is tagged or tunnelled passes anyway; which of it is recorded, rules of the policy can say."
            )
    if _LOOPING in words:
        raise LiveCaptureError(
            f"The kernel filter must not hold the word {_LOOPING!r}: the kernel runs no programs with loops. Use "
            f"'proto' instead; IPv6 packets with extension headers pass anyway."
        )
    # On its own first, so that "a) or (b" is refused; and libpcap takes minutes over what is far too long.
    _check_length(compile_expression(expression, link_type), LONGEST // 8)
    asked = f"({expression})"
    hidden = [_FRAGMENTS, _EXTENSIONS, *(f"(ip proto {n}) or (ip6 proto {n})" for n in _IP_CARRIERS)]
    hidden.append("(udp and (" + " or ".join(f"port {port}" for port in _UDP_CARRIERS) + "))")
    if link_type == LINK_ETHERNET:
        hidden += [f"(ether proto {number:#x})" for number in _ETHERNET_CARRIERS] + ["llc"]
        here = f"{asked} or " + " or ".join(hidden)
        deeper = " or ".join(f"(ether proto {number:#x})" for number in _TAGS)
        return f"{here} or (vlan and ({here})) or (vlan and ({here} or {deeper}))"
    if link_type == LINK_SLL2:
        hidden += [f"(ether proto {number:#x})" for number in (*_ETHERNET_CARRIERS, *_TAGS)]
    return f"{asked} or " + " or ".join(hidden)


def _check_length(instructions: Sequence[Instruction], most: int) -> None:
    if len(instructions) > most:
        raise LiveCaptureError(
            f"The kernel filter is too long: {len(instructions)} instructions, of which at most {most} can be used. "
            f"Name fewer hosts or ports; networks and port ranges need less."
        )


def _without_link_header(instruction: Instruction) -> Instruction:
    """An instruction for frames with a Linux SLL2 header, made to run where the frame begins behind it."""
    code, k = instruction.code, instruction.k
    kind, mode = code & 0x07, code & 0xE0
    if not (kind == _LOAD and mode in (_ABSOLUTE, _INDIRECT)) and not (kind == _LOAD_X and mode == _HEADER_LENGTH):
        return instruction
    if k >= _SLL2:
        return instruction._replace(k=k - _SLL2)
    if mode == _ABSOLUTE and k in _COOKED_FIELDS:
        return instruction._replace(k=_COOKED_FIELDS[k])
    raise LiveCaptureError(
        "The kernel filter asks for link addresses, which there are none of on this interface. Leave them out."
    )
