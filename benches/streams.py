#!/usr/bin/env python3
"""What a body of 1 GiB costs the gateway in memory, down and up, through the proxy door.

The service is written here: it streams zeros, and counts what it is sent. The peak is the kernel's (`VmHWM`, reset
before each body), so that nothing is missed between two looks.

    benches/streams.py [--mib 1024]

Needs a release build: cargo build --release --bin trunkline
"""

import argparse
import hashlib
import re
import socket
import tempfile
import threading
import time
from pathlib import Path

import ladder
from ladder import KEY, free_port, trunkline, wait_for

PIECE = bytes(range(256)) * 1024


def service(port):
    """GET /N answers N pieces; PUT takes a body and answers how many bytes came and their digest."""
    listener = socket.create_server(("127.0.0.1", port))

    def one(peer):
        with peer, peer.makefile("rb") as read:
            while first := read.readline():
                headers = {}
                while (line := read.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    headers[name.strip().lower()] = value.strip()
                if first.startswith(b"GET"):
                    pieces = int(re.search(rb"/(\d+) ", first).group(1))
                    peer.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {pieces * len(PIECE)}\r\n\r\n".encode())
                    for _ in range(pieces):
                        peer.sendall(PIECE)
                else:
                    left, digest, came = int(headers[b"content-length"]), hashlib.blake2b(), 0
                    while left and (piece := read.read(min(left, len(PIECE)))):
                        digest.update(piece)
                        came, left = came + len(piece), left - len(piece)
                    told = f"{came} {digest.hexdigest()}".encode()
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))

    def serve():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def memory(pid, what):
    found = re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024


def call(port, head):
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(f"{head}Host: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n".encode())
    return peer


def down(port, pieces):
    with call(port, f"GET /up/{pieces} HTTP/1.1\r\n") as peer, peer.makefile("rb") as read:
        while read.readline() not in (b"\r\n", b""):
            pass
        came, right = 0, True
        while piece := read.read(len(PIECE)):
            came, right = came + len(piece), right and piece == PIECE
    return came == pieces * len(PIECE) and right


def up(port, pieces):
    digest = hashlib.blake2b()
    with call(port, f"PUT /up/body HTTP/1.1\r\nContent-Length: {pieces * len(PIECE)}\r\n") as peer:
        for _ in range(pieces):
            peer.sendall(PIECE)
            digest.update(PIECE)
        with peer.makefile("rb") as read:
            answer = read.read()
    return answer.endswith(f"{pieces * len(PIECE)} {digest.hexdigest()}".encode())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=1024)
    pieces = options.parse_args().mib * (1 << 20) // len(PIECE)
    ladder.UPSTREAM = free_port()
    service(ladder.UPSTREAM)
    print("| body | whole | seconds | RSS before MiB | peak MiB | more MiB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        port = free_port()
        process = trunkline(Path(work), port)
        try:
            wait_for(port, process)
            for name, body in (("down", down), ("up", up)):
                body(port, 4)
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
                before, began = memory(process.pid, "VmRSS"), time.monotonic()
                whole = body(port, pieces)
                took, peak = time.monotonic() - began, memory(process.pid, "VmHWM")
                print(f"| {pieces * len(PIECE) >> 20} MiB {name} | {'yes' if whole else 'NO'} | {took:.1f} | {before:.1f} | {peak:.1f} | {peak - before:.1f} |")
        finally:
            process.kill()


if __name__ == "__main__":
    main()
