"""TLS for a program that has none: a TCP connection in, another one out, one of the two inside TLS 1.3 (OpenSSL).

`tlsrelay.py client LISTEN HOST PORT KEYS`: takes TCP on 127.0.0.1:LISTEN, speaks TLS to HOST:PORT, logs its keys.
`tlsrelay.py server LISTEN_HOST LISTEN HOST PORT CERTIFICATE KEY`: takes TLS, speaks TCP to HOST:PORT.
"""

import socket
import ssl
import sys
import threading


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry octets one way until the source closes."""
    while data := source.recv(65535):
        target.sendall(data)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Carry octets both ways until either side closes."""
    ways = [threading.Thread(target=carry, args=pair, daemon=True) for pair in ((one, other), (other, one))]
    for way in ways:
        way.start()
    while all(way.is_alive() for way in ways):
        ways[0].join(0.1)


def accept(host: str, port: int) -> socket.socket:
    listening = socket.create_server((host, port))
    return listening.accept()[0]


def client(listen: str, host: str, port: str, keys: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.keylog_filename = keys
    near = accept("127.0.0.1", int(listen))
    relay(near, context.wrap_socket(socket.create_connection((host, int(port)))))


def server(listen_host: str, listen: str, host: str, port: str, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    near = context.wrap_socket(accept(listen_host, int(listen)), server_side=True)
    relay(near, socket.create_connection((host, int(port))))


if __name__ == "__main__":
    {"client": client, "server": server}[sys.argv[1]](*sys.argv[2:])
