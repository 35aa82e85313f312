"""A plain interpreter of the classic BPF machine, with what the Linux kernel adds to it for packet sockets."""

PROTOCOL, PACKET_TYPE, IFINDEX, HARDWARE_TYPE = 0, 4, 8, 28
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
MASK = 0xFFFFFFFF


def passes(instructions, packet, known=None):
    """Whether a program lets a packet through. `known`: answers to the kernel's own offsets (SKF_AD_)."""
    a = x = 0
    memory = [0] * 16
    at = 0
    while True:
        code, jump_true, jump_false, k = instructions[at]
        at += 1
        kind = code & 0x07
        if kind == 0x06:
            return (a if code & 0x18 == 0x10 else k) > 0
        if kind in (0x00, 0x01):
            value = load(code, k, packet, x, memory, known or {})
            if value is None:
                return False
            a, x = (value, x) if kind == 0x00 else (a, value)
        elif kind == 0x02:
            memory[k] = a
        elif kind == 0x03:
            memory[k] = x
        elif kind == 0x04:
            a = calculate(code & 0xF0, a, x if code & 0x08 else k)
        elif kind == 0x05:
            at += jump(code & 0xF0, a, x if code & 0x08 else k, jump_true, jump_false, k)
        elif code & 0xF8 == 0x80:
            a = x
        else:
            x = a


def load(code, k, packet, x, memory, known):
    mode = code & 0xE0
    if mode == 0x00:
        return k
    if mode == 0x60:
        return memory[k]
    if mode == 0x80:
        return len(packet)
    if mode == 0xA0:
        return (packet[k] & 15) * 4 if k < len(packet) else None
    if mode == 0x20 and k >= 0xFFFFF000:
        return known[k - 0xFFFFF000]
    begin, size = k + (x if mode == 0x40 else 0), SIZES[code & 0x18]
    return int.from_bytes(packet[begin : begin + size], "big") if begin + size <= len(packet) else None


def calculate(operation, a, b):
    results = {0x00: a + b, 0x10: a - b, 0x20: a * b, 0x40: a | b, 0x50: a & b, 0xA0: a ^ b, 0x80: -a}
    if operation in (0x60, 0x70):
        return (a << b if operation == 0x60 else a >> b) & MASK
    return results[operation] & MASK


def jump(operation, a, b, jump_true, jump_false, k):
    if operation == 0x00:
        return k
    tests = {0x10: a == b, 0x20: a > b, 0x30: a >= b, 0x40: a & b != 0}
    return jump_true if tests[operation] else jump_false
