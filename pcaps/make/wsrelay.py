"""A WebSocket for a program that has none: UDP datagrams in, WebSocket messages out, and back (RFC 7118, RFC 6455).

`wsrelay.py UDP_PORT HOST PORT`: listens on 127.0.0.1:UDP_PORT, connects to ws://HOST:PORT/ as a SIP client.
"""

import base64
import os
import select
import socket
import struct
import sys


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A whole client frame; clients mask (RFC 6455, 5.3)."""
    mask = os.urandom(4)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    masked = bytes(octet ^ mask[index & 3] for index, octet in enumerate(payload))
    return bytes([0x80 | opcode]) + length + mask + masked


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(opcode, payload) of each whole server frame in `data`, and what is left."""
    frames = []
    while len(data) >= 2:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            if len(data) < 4:
                break
            size, start = struct.unpack("!H", data[2:4])[0], 4
        if len(data) < start + size:
            break
        frames.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return frames, data


def connect(host: str, port: int) -> socket.socket:
    """An open WebSocket with the subprotocol sip."""
    stream = socket.create_connection((host, port))
    lines = [
        "GET / HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Protocol: sip", "", "",
    ]  # fmt: skip
    stream.sendall("\r\n".join(lines).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += stream.recv(4096)
    if b" 101 " not in answer.split(b"\r\n")[0]:
        raise SystemExit(answer.decode())
    return stream


def main() -> None:
    local = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    local.bind(("127.0.0.1", int(sys.argv[1])))
    stream = connect(sys.argv[2], int(sys.argv[3]))
    client, rest = None, b""
    while True:
        ready, _, _ = select.select([local, stream], [], [])
        if local in ready:
            message, client = local.recvfrom(65535)
            stream.sendall(frame(message))
        if stream in ready:
            data = stream.recv(65535)
            if not data:
                return
            frames, rest = split(rest + data)
            for opcode, payload in frames:
                if opcode == 9:
                    stream.sendall(frame(payload, 10))
                elif opcode in (1, 2) and client:
                    local.sendto(payload, client)


if __name__ == "__main__":
    main()
