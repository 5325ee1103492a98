"""Exit 0 if an AMQP 0-9-1 broker answers at HOST PORT, 1 if not; standard library only.

A listening port is not enough: the broker must answer the protocol header with Connection.Start (class 10, method 10).
"""

from __future__ import annotations

import socket
import struct
import sys

CONNECTION_START = (10, 10)
METHOD_FRAME = 1


def answers(host: str, port: int, timeout: float = 3.0) -> bool:
    """Whether the peer at ``host``:``port`` opens an AMQP connection within ``timeout`` seconds a step."""
    try:
        with socket.create_connection((host, port), timeout) as peer:
            peer.sendall(b"AMQP\x00\x00\x09\x01")
            start = peer.recv(11, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(start) < 11:
        return False
    kind, channel, _size, *method = struct.unpack(">BHIHH", start)
    return (kind, channel, tuple(method)) == (METHOD_FRAME, 0, CONNECTION_START)


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1], int(sys.argv[2])) else 1)
