#!/usr/bin/env python3
"""What looking at the activity costs: lists, filters and entries among many, and many viewers of the live stream.

Entries are written into the store's files as the gateway writes them, and read at its start. Then each kind of request is
made some hundred times over one connection. For the stream, calls go through the proxy door to a service that answers at
once, while viewers watch by a filter that selects one call in a hundred; each must see every one of them.

    benches/activity.py [--entries 100000] [--requests 300] [--viewers 200] [--rate 1000] [--seconds 20] [--binary PATH]

Needs: cargo build --release --bin trunkline
"""

import argparse
import asyncio
import http.client
import json
import random
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from ladder import ROOT, TARGET, cpu_seconds, free_port, launch, rss_mib, wait_for

KEY, TOKEN = "bench-caller-key-0123456789", "bench-admin-token-0123456789"
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def text_of(number):
    return "act_" + "".join(ALPHABET[number >> (5 * place) & 31] for place in reversed(range(13)))


def write_entries(directory, count):
    directory.mkdir(parents=True)
    begin = int(time.time() * 1000) - count * 10
    frames, first = [], None
    for place in range(count):
        at = begin + place * 10
        number = at << 20
        first = first or number
        failed = place % 50 == 0
        entry = {
            "id": text_of(number), "at": at, "generation": 1, "integration": f"svc{place % 20}", "connection": f"c{place % 500}",
            "asker": {"is": "caller", "id": "app"}, "method": "GET", "origin": "https://api.example",
            "path": f"/v1/customers/cus_{place:08}/charges", "status": 503 if failed else 200, "duration_ms": place % 900,
            "sent_bytes": 0, "received_bytes": 812, "attempts": 1, "waited_ms": 0, "request_id": f"req-{place:08x}",
        }
        payload = json.dumps(entry, separators=(",", ":")).encode()
        covered = struct.pack("<Q", number) + payload
        frames.append(struct.pack("<II", len(payload), crc32c(covered)) + covered)
    (directory / f"{first:020}.entries").write_bytes(b"".join(frames))


def start(work, chosen, service):
    home, ports = work / "home", [free_port() for _ in range(3)]
    (home / "integrations").mkdir(parents=True)
    (home / "integrations" / "svc.yaml").write_text(
        "trunkline: 1\nid: svc\ntitle: Service\nsummary: Answers.\nauth: { none: {} }\n"
        f"api: {{ base_url: \"http://127.0.0.1:{service}\" }}\nconnections: [{{ id: main }}]\n"
    )
    public, proxy, admin = ports
    (home / "trunkline.yaml").write_text(
        "trunkline: 1\nmode: development\n"
        f"listen: {{ public: \"127.0.0.1:{public}\", proxy: \"127.0.0.1:{proxy}\", admin: \"127.0.0.1:{admin}\" }}\n"
        f"public_url: http://localhost:{public}\nintegrations: [./integrations]\n"
        "state: { sled: { path: ./data } }\nsecrets: { key: \"${file:./data/master.key}\" }\nadmin: { token: \"${env:TOKEN}\" }\n"
        "callers: [{ id: app, key: \"${env:KEY}\", allow: [{ integration: \"*\", connection: \"*\" }] }]\n"
        f"limits: {{ admin_connections: {chosen.viewers + 100}, admin_connections_per_source: {chosen.viewers + 50} }}\n"
        f"activity: {{ keep: {chosen.entries}, viewers: {min(chosen.viewers, 200)} }}\n"
    )
    write_entries(home / "data" / "activity", chosen.entries)
    began = time.monotonic()
    process = launch([chosen.binary, "serve", "--config", home / "trunkline.yaml"], {"KEY": KEY, "TOKEN": TOKEN}, core="0,1")
    wait_for(admin, process)
    print(f"started after {time.monotonic() - began:.2f} s with {chosen.entries} entries", file=sys.stderr)
    return process, proxy, admin


def measure(admin, requests):
    connection = http.client.HTTPConnection("127.0.0.1", admin)
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def ask(path):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body)
        return body

    ids = [row["id"] for row in json.loads(ask("/api/activity?limit=1000"))]
    oldest = json.loads(ask("/api/activity?path=/v1/customers/cus_00000001"))
    kinds = {
        "list": lambda: "/api/activity",
        "filter (outcome, integration)": lambda: f"/api/activity?outcome=error&integration=svc{random.randrange(20)}",
        "search, found late": lambda: f"/api/activity?q=CUS_{random.randrange(100):08}",
        "search, never found": lambda: "/api/activity?q=no+such+text",
        "entry": lambda: f"/api/activity/{random.choice(ids)}",
        "page with counts": lambda: "/activity?outcome=error",
    }
    assert oldest, "the oldest entries are not there"
    print("| request | p50 ms | p99 ms |\n|---|---|---|")
    for name, path in kinds.items():
        times = []
        for _ in range(requests):
            began = time.perf_counter()
            ask(path())
            times.append((time.perf_counter() - began) * 1000)
        times.sort()
        print(f"| {name} | {times[len(times) // 2]:.1f} | {times[int(len(times) * 0.99)]:.1f} |")


async def serve_answers(port):
    async def answer(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await asyncio.start_server(answer, "127.0.0.1", port)


async def call_all(proxy, chosen, made):
    """Calls at a steady rate, over some connections in turn."""
    pipes = [await asyncio.open_connection("127.0.0.1", proxy) for _ in range(16)]
    queues = [asyncio.Queue() for _ in pipes]

    async def caller(pipe, queue):
        reader, writer = pipe
        while (path := await queue.get()) is not None:
            writer.write(f"GET /svc{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTrunkline-Connection: main\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n")[0], head
            await reader.readexactly(2)
            made["calls"] += 1

    callers = [asyncio.create_task(caller(*both)) for both in zip(pipes, queues)]
    began, total = time.monotonic(), chosen.rate * chosen.seconds
    for number in range(total):
        queues[number % len(queues)].put_nowait("/hit" if number % 100 == 0 else "/miss")
        if number % 20 == 0:
            await asyncio.sleep(max(0, began + number / chosen.rate - time.monotonic()))
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*callers)
    made["seconds"] = time.monotonic() - began


async def view(admin, seen, place):
    reader, writer = await asyncio.open_connection("127.0.0.1", admin)
    writer.write(f"GET /api/activity/stream?path=/hit HTTP/1.1\r\nHost: 127.0.0.1:{admin}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert b" 200 " in (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
    while line := await reader.readline():
        seen[place] += line.startswith(b"data: ")
        assert not line.startswith(b"event: "), line


async def watch(process, proxy, admin, chosen):
    seen, made = [0] * chosen.viewers, {"calls": 0}
    before = rss_mib(process.pid)
    viewers = [asyncio.create_task(view(admin, seen, place)) for place in range(chosen.viewers)]
    await asyncio.sleep(2)
    opened, cpu, highest = rss_mib(process.pid), cpu_seconds(process.pid), 0
    calls = asyncio.create_task(call_all(proxy, chosen, made))
    while not calls.done():
        highest = max(highest, rss_mib(process.pid))
        await asyncio.sleep(0.5)
    calls.result()
    await asyncio.sleep(2)
    cpu = cpu_seconds(process.pid) - cpu
    broken = [viewer.exception() for viewer in viewers if viewer.done()]
    assert not broken, broken
    hits = -(-chosen.rate * chosen.seconds // 100)
    print("\n| viewers | calls/s | seen by each | MiB before | with viewers | at most | CPU s |\n|---|---|---|---|---|---|---|")
    print(
        f"| {chosen.viewers} | {made['calls'] / made['seconds']:.0f} | {min(seen)} to {max(seen)} of {hits} | {before:.1f} | {opened:.1f} "
        f"| {highest:.1f} | {cpu:.1f} |"
    )
    for viewer in viewers:
        viewer.cancel()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("entries", 100_000), ("requests", 300), ("viewers", 200), ("rate", 1_000), ("seconds", 20)):
        options.add_argument(f"--{name}", type=int, default=usual)
    options.add_argument("--binary", type=Path, default=TARGET / "trunkline")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        service, loop = free_port(), asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(serve_answers(service), loop).result()
        process, proxy, admin = start(Path(directory), chosen, service)
        try:
            measure(admin, chosen.requests)
            asyncio.run(watch(process, proxy, admin, chosen))
        finally:
            process.kill()


if __name__ == "__main__":
    main()
