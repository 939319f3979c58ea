"""Memory per idle session, against a stand-in server that speaks the login only.

Two thousand real backends do not fit beside the rest on a small machine; what
is measured is the proxy, so a server that answers logins and one query does.
"""

from __future__ import annotations

import multiprocessing
import resource
import selectors
import socket
import struct


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _greeting(number: int) -> bytes:
    parameters = {
        "server_version": "15.0", "server_encoding": "UTF8", "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
        "TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "is_superuser": "on",
        "session_authorization": "postgres", "application_name": "", "IntervalStyle": "postgres",
        "in_hot_standby": "off", "default_transaction_read_only": "off",
    }  # fmt: skip
    out = _message(b"R", struct.pack("!I", 0))
    for key, value in parameters.items():
        out += _message(b"S", key.encode() + b"\0" + value.encode() + b"\0")
    return out + _message(b"K", struct.pack("!II", number, number)) + _message(b"Z", b"I")


_ANSWER = (
    _message(b"T", struct.pack("!H", 1) + b"a\0" + struct.pack("!IHIhih", 0, 0, 23, 4, -1, 0))
    + _message(b"D", struct.pack("!HI", 1, 1) + b"1")
    + _message(b"C", b"SELECT 1\0")
    + _message(b"Z", b"I")
)


def _serve(listener: socket.socket) -> None:
    """One process, one selector: logins without a question, the same answer to all."""
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    buffers: dict[socket.socket, bytes] = {}
    started: set[socket.socket] = set()
    number = 1000

    def close(peer):
        selector.unregister(peer)
        buffers.pop(peer, None)
        started.discard(peer)
        peer.close()

    while True:
        for key, _ in selector.select():
            peer = key.fileobj
            if peer is listener:
                try:
                    accepted, _ = listener.accept()
                except BlockingIOError:
                    continue
                buffers[accepted] = b""
                selector.register(accepted, selectors.EVENT_READ)
                continue
            try:
                data = peer.recv(65536)
            except OSError:
                data = b""
            if not data:
                close(peer)
                continue
            buffers[peer] += data
            while True:
                held = buffers[peer]
                if peer not in started:
                    if len(held) < 8 or len(held) < struct.unpack("!I", held[:4])[0]:
                        break
                    length, code = struct.unpack("!II", held[:8])
                    buffers[peer] = held[length:]
                    if code in (80877103, 80877104):
                        peer.sendall(b"N")
                    else:
                        number += 1
                        started.add(peer)
                        peer.sendall(_greeting(number))
                else:
                    if len(held) < 5 or len(held) < 1 + struct.unpack("!I", held[1:5])[0]:
                        break
                    buffers[peer] = held[1 + struct.unpack("!I", held[1:5])[0] :]
                    if held[:1] == b"Q":
                        peer.sendall(_ANSWER)
                    elif held[:1] == b"S":
                        peer.sendall(_message(b"Z", b"I"))
                    elif held[:1] == b"X":
                        close(peer)
                        break


class StandIn:
    """The stand-in server in a process of its own."""

    def __enter__(self) -> "StandIn":
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        self.port = listener.getsockname()[1]
        self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,), daemon=True)
        self.process.start()
        listener.close()
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.join()


def more_files() -> None:
    """As many open files as this process and its children may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_session(host: str, port: int, user: str, password: str, database: str) -> socket.socket:
    """A session that has logged in and run one statement, and now idles."""
    peer = socket.create_connection((host, port), 30)
    body = struct.pack("!I", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
    peer.sendall(struct.pack("!I", len(body) + 4) + body)
    held, queried = b"", False
    while True:
        while len(held) >= 5 and len(held) >= 1 + struct.unpack("!I", held[1:5])[0]:
            length = struct.unpack("!I", held[1:5])[0]
            kind, body, held = held[:1], held[5 : 1 + length], held[1 + length :]
            if kind == b"R" and body[:4] == b"\0\0\0\3":
                peer.sendall(_message(b"p", password.encode() + b"\0"))
            elif kind == b"E":
                raise RuntimeError(f"login refused: {body!r}")
            elif kind == b"Z" and not queried:
                queried = True
                peer.sendall(_message(b"Q", b"SELECT 1\0"))
            elif kind == b"Z":
                return peer
        data = peer.recv(65536)
        if not data:
            raise RuntimeError("closed during the login")
        held += data


def per_session_kib(side, sessions: int, warm: int) -> float:
    """KiB of the proxy's memory that each further idle session takes."""
    endpoint = side.endpoint

    def opened(count):
        return [
            open_session(endpoint.host, endpoint.port, endpoint.user, endpoint.password, "postgres")
            for _ in range(count)
        ]

    held = opened(warm)
    before = side.pss_kib()
    held += opened(sessions - warm)
    after = side.pss_kib()
    for peer in held:
        peer.close()
    return (after - before) / (sessions - warm)
