"""AMR and AMR-WB payloads (RFC 4867): bandwidth-efficient and octet-aligned, to frames in storage format.

In: a payload and what the format parameters agreed on. Out: frames of 20 ms, each one octet of frame type and quality,
then the speech bits from the high end, as the decoders take them (section 5.3). Interleaving and robust sorting
are refused by name, never misread. Never raises.
"""

from decoders.payload import MAX_SECONDS, CodecFrame, Splitter

# Speech bits of each frame type; None where it is reserved (RFC 4867, tables of 3GPP TS 26.101 and 26.201).
_NARROW_BITS = (95, 103, 118, 134, 148, 159, 204, 244, 39, 43, 38, 37, None, None, None, 0)
_WIDE_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477, 40, None, None, None, None, 0, 0)
_NO_DATA = 15
_MAX_FRAMES = MAX_SECONDS * 50


def parse_parameters(fmtp: str) -> dict[str, str]:
    """Format parameters `name=value; name` by name in lower case; a name alone has the value 1."""
    parameters: dict[str, str] = {}
    for part in fmtp.split(";"):
        name, _, value = part.strip().partition("=")
        if name:
            parameters.setdefault(name.strip().lower(), value.strip() or "1")
    return parameters


def why_amr_unsupported(fmtp: str) -> str:
    """What in the agreed parameters (section 8.1) this module does not read; empty where it reads all."""
    parameters = parse_parameters(fmtp)
    if "interleaving" in parameters:
        return "AMR with interleaving is not supported"
    if parameters.get("robust-sorting", "0") == "1":
        return "AMR with robust sorting is not supported"
    return ""


def amr_splitter(fmtp: str, wide: bool) -> Splitter:
    """Splitter for what `fmtp` agreed on."""
    parameters = parse_parameters(fmtp)
    checked = parameters.get("crc", "0") == "1"
    bits = _WIDE_BITS if wide else _NARROW_BITS
    samples = 320 if wide else 160
    # CRCs exist in octet-aligned payloads only, so that they imply it (section 8.1).
    if checked or parameters.get("octet-align", "0") == "1":
        return lambda payload: _split_octet_aligned(payload, bits, samples, checked)
    return lambda payload: _split_bandwidth_efficient(payload, bits, samples)


def _split_octet_aligned(payload: bytes, bits: tuple[int | None, ...], samples: int, checked: bool) -> list[CodecFrame]:
    """Split a payload whose mode request, table of contents and frames are each padded to octets (section 4.4)."""
    entries: list[int] = []
    position, more = 1, True
    while more:
        if position >= len(payload) or len(entries) == _MAX_FRAMES:
            return []
        entries.append(payload[position])
        more = bool(payload[position] & 0x80)
        position += 1
    sizes = [bits[entry >> 3 & 15] for entry in entries]
    if checked:
        position += sum(1 for size in sizes if size)
    frames = []
    for entry, size in zip(entries, sizes, strict=True):
        if size is None:
            return []
        octets = (size + 7) // 8
        if position + octets > len(payload):
            return []
        frames.append(_frame(entry, payload[position : position + octets], samples))
        position += octets
    return frames


def _split_bandwidth_efficient(payload: bytes, bits: tuple[int | None, ...], samples: int) -> list[CodecFrame]:
    """Split a payload without any padding but at its end (section 4.3): bits are taken from one long integer."""
    total = len(payload) * 8
    value = int.from_bytes(payload, "big")
    entries: list[int] = []
    position, more = 4, True
    while more:
        if position + 6 > total or len(entries) == _MAX_FRAMES:
            return []
        entry = value >> total - position - 6 & 0x3F
        entries.append(entry << 2)
        more = bool(entry & 0x20)
        position += 6
    frames = []
    for entry in entries:
        size = bits[entry >> 3 & 15]
        if size is None or position + size > total:
            return []
        speech = value >> total - position - size & (1 << size) - 1
        octets = (size + 7) // 8
        frames.append(_frame(entry, (speech << octets * 8 - size).to_bytes(octets, "big"), samples))
        position += size
    return frames


def _frame(entry: int, speech: bytes, samples: int) -> CodecFrame:
    """Frame with its header octet; one marked as damaged (Q=0) is given as lost, for the decoder to conceal."""
    if not entry & 0x04:
        return CodecFrame(bytes([_NO_DATA << 3 | 0x04]), samples)
    return CodecFrame(bytes([entry & 0x7C]) + speech, samples)
