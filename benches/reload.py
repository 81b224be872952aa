#!/usr/bin/env python3
"""What a reload costs, and what it breaks: nothing.

`reloads` changes definitions under keep-alive load in the ways that editors, deploy scripts and
Kubernetes do (rename over, in place, a swapped `..data` symlink), one in five of them broken, and counts
the requests that failed, the time from the change to its effect, and how the resident memory drifts.
`definitions` starts the gateway with many definitions and edits one of them. `idle` starts it with the
quickstart and opens connections that say nothing, and starts it with a definition for each catalogue entry.

    benches/reload.py reloads [--count 1000]
    benches/reload.py definitions [--sizes 1000,10000]
    benches/reload.py idle [--connections 2000]

Needs: nginx wrk (Debian) and: cargo build --release --bin trunkline
Load goes to 127.0.0.1 only and ends by itself.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from ladder import KEY, ROOT, TARGET, UPSTREAM, free_port, launch, rss_mib, start_upstream, wait_for


def definition(name, change=0):
    return (
        f"trunkline: 1\nid: {name}\ntitle: Upstream {change}\nauth:\n  api_key: {{ title: Key }}\n"
        f"api:\n  base_url: http://127.0.0.1:{UPSTREAM}\n"
        "  credential: { header: Authorization, value: \"Bearer {{ api_key }}\" }\n"
        f"  headers: {{ X-Change: \"{change}\" }}\n"
        "  test: GET /bytes\n"
        "  endpoints:\n    - { id: one, request: \"GET /items/{{ input.id }}\", result: { id: \"{{ body.id }}\" } }\n"
        "connections:\n  - { id: default, api_key: \"${env:SERVICE_KEY}\" }\n"
        "webhook:\n  secrets: [\"${env:SERVICE_KEY}\"]\n  verify:\n    hmac:\n      algorithm: sha256\n"
        "      signature: { header: X-Signature, encoding: hex }\n      signed: \"{{ body }}\"\n  event: body.type\n"
        "rules:\n  - { id: note, when: \"thing.*\", if: body.amount > 0, do: [{ log: \"{{ event.type }}\" }] }\n"
    )


class Gateway:
    def __init__(self, work, files):
        self.home = work / "gateway"
        self.integrations = self.home / "integrations"
        self.proxy, self.admin = free_port(), free_port()
        self.home.mkdir()
        self.integrations.mkdir()
        files(self.integrations)
        (self.home / "trunkline.yaml").write_text(
            "trunkline: 1\nmode: development\n"
            f"listen: {{ public: \"127.0.0.1:{free_port()}\", proxy: \"127.0.0.1:{self.proxy}\", admin: \"127.0.0.1:{self.admin}\" }}\n"
            "public_url: http://localhost:8080\nintegrations: [./integrations]\nstate: { sled: { path: ./data } }\n"
            "secrets: { key: \"${file:./data/master.key}\" }\n"
            "callers:\n  - { id: bench, key: \"${env:BENCH_KEY}\", allow: [{ integration: \"*\", connection: \"*\" }] }\n"
        )
        self.began = time.monotonic()
        argv = [TARGET / "trunkline", "serve", "--config", self.home / "trunkline.yaml"]
        self.process = launch(argv, {"BENCH_KEY": KEY, "SERVICE_KEY": KEY[::-1], "GITHUB_CLIENT_ID": "x"}, core="0,1")
        wait_for(self.admin, self.process, 120)
        while self.get("/readyz", True) is None:
            time.sleep(0.005)
        self.started = time.monotonic() - self.began

    def get(self, path, quiet=False):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=30) as answer:
                return answer.read()
        except OSError:
            if quiet:
                return None
            raise

    def metric(self, pattern):
        found = re.search(pattern + r" ([0-9.e+]+)", self.get("/metrics").decode())
        return float(found.group(1)) if found else 0.0

    def generation(self):
        return self.metric("trunkline_config_generation")

    def kept(self):
        return self.metric(r'trunkline_definitions\{state="kept"\}')

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.004)
    return False


def reloads(options, work):
    def files(directory):
        # The layout of a Kubernetes volume: names that lead through `..data`.
        for version in ("..a", "..b"):
            (directory / version).mkdir()
            (directory / version / "linked.yaml").write_text(definition("linked"))
        (directory / "..data").symlink_to("..a")
        (directory / "linked.yaml").symlink_to("..data/linked.yaml")
        for name in ("renamed", "written", "still"):
            (directory / f"{name}.yaml").write_text(definition(name))

    gateway = Gateway(work, files)
    here = gateway.integrations
    seconds = options.count
    load = [
        subprocess.Popen(
            ["wrk", "-t1", "-c4", f"-d{seconds}s", "-s", str(paced(work)), "-H", f"Authorization: Bearer {KEY}", f"http://127.0.0.1:{gateway.proxy}/{name}/bytes"],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        for name in ("still", "renamed", "written", "linked")
    ]
    time.sleep(3)
    effects, missed, memory, current = [], [], [], "..a"
    try:
        for change in range(1, options.count + 1):
            way = ("renamed", "written", "linked")[change % 3]
            broken = change % 5 == 0
            text = definition(way, change)
            if broken:
                text = text.replace("title:", "titel:")
            generation, kept = gateway.generation(), gateway.kept()
            at = time.monotonic()
            if way == "renamed":
                (here / ".renamed.tmp").write_text(text)
                os.replace(here / ".renamed.tmp", here / "renamed.yaml")
            elif way == "written":
                (here / "written.yaml").write_text(text)
            else:
                current = "..b" if current == "..a" else "..a"
                (here / current / "linked.yaml").write_text(text)
                (here / "..data_tmp").symlink_to(current)
                os.replace(here / "..data_tmp", here / "..data")
            seen = until(lambda: gateway.kept() > kept) if broken else until(lambda: gateway.generation() > generation)
            (effects if seen else missed).append((way, broken, (time.monotonic() - at) * 1e3))
            if broken:  # and mended at once
                text = definition(way, change)
                if way == "linked":
                    (here / current / "linked.yaml").write_text(text)
                    (here / "..data_tmp").symlink_to(current)
                    os.replace(here / "..data_tmp", here / "..data")
                else:
                    (here / f".{way}.tmp").write_text(text)
                    os.replace(here / f".{way}.tmp", here / f"{way}.yaml")
                if not until(lambda: gateway.kept() == 0):
                    missed.append((way, "mended", 0))
            if change % 50 == 0 or change == 1:
                memory.append(rss_mib(gateway.process.pid))
                print(f"{change}: {memory[-1]:.1f} MiB", file=sys.stderr)
    finally:
        for each in load:
            each.send_signal(signal.SIGINT)
    outputs = [each.communicate(timeout=30)[0] for each in load]
    requests = sum(int(re.search(r"(\d+) requests in", out).group(1)) for out in outputs)
    failed = sum(int(n) for out in outputs for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    failed += sum(int(n) for out in outputs for line in re.findall(r"Socket errors: (.*)", out) for n in re.findall(r"\d+", line))
    times = sorted(t for _, _, t in effects)
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))]
    warm = memory[len(memory) // 4]
    print("| reloads | of them broken | not seen | requests meanwhile | failed | effect p50 ms | p99 ms | RSS after a quarter MiB | at the end MiB | drift |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(f"| {options.count} | {options.count // 5} | {len(missed)} | {requests} | {failed} | {at(0.5):.0f} | {at(0.99):.0f} | {warm:.1f} | {memory[-1]:.1f} | {(memory[-1] / warm - 1) * 100:+.1f} % |")
    for miss in missed[:10]:
        print(f"not seen: {miss}", file=sys.stderr)
    gateway.stop()


def paced(work):
    """Some hundred requests a second a connection: enough to see a failure, and room for the rest."""
    path = work / "paced.lua"
    path.write_text("delay = function() return 5 end\n")
    return path


def definitions(options, work):
    print("| definitions | cold start s | RSS MiB | edit to effect p50 ms | max ms |\n|---|---|---|---|---|")
    for size in [int(s) for s in options.sizes.split(",")]:
        home = work / str(size)
        home.mkdir()
        gateway = Gateway(home, lambda directory: [(directory / f"s{i}.yaml").write_text(definition(f"s{i}")) for i in range(size)])
        time.sleep(1)
        effects = []
        for change in range(1, 12):
            generation, at = gateway.generation(), time.monotonic()
            (gateway.integrations / ".tmp").write_text(definition("s7", change))
            os.replace(gateway.integrations / ".tmp", gateway.integrations / "s7.yaml")
            until(lambda: gateway.generation() > generation)
            effects.append((time.monotonic() - at) * 1e3)
        print(f"| {size} | {gateway.started:.2f} | {rss_mib(gateway.process.pid):.0f} | {statistics.median(effects):.0f} | {max(effects):.0f} |")
        gateway.stop()
        shutil.rmtree(home)


def idle(options, work):
    def files(directory):
        shutil.copytree(ROOT / "examples" / "quickstart" / "integrations", directory, dirs_exist_ok=True)

    for line in (ROOT / "examples" / "quickstart" / "demo.env").read_text().splitlines():
        name, found, value = line.removeprefix("export ").partition("=")
        if found and not name.startswith("#"):
            os.environ.setdefault(name.strip(), value.strip().strip("'\""))
    os.environ["APP_WEBHOOK_SECRET"] = os.environ.get("APP_WEBHOOK_SECRET", "bench-signing-secret-0123456789")
    gateway = Gateway(work, files)
    time.sleep(3)
    alone = rss_mib(gateway.process.pid)
    parts = resident(gateway.process.pid)
    held = []
    for _ in range(options.connections):
        one = socket.create_connection(("127.0.0.1", gateway.proxy))
        one.sendall(f"GET /nothing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        held.append(one)
    for one in held:
        one.recv(4096)
    time.sleep(1)
    full = rss_mib(gateway.process.pid)
    print("| idle MiB | idle connections that each carried a request | MiB with them | KiB each |\n|---|---|---|---|")
    print(f"| {alone:.1f} | {len(held)} | {full:.1f} | {(full - alone) * 1024 / len(held):.1f} |")
    gateway.stop()
    print("\n| definitions | VmRSS KB | of them heap and stacks | of them program and libraries |\n|---|---|---|---|")
    print("| quickstart | {VmRSS} | {RssAnon} | {RssFile} |".format(**parts))
    (work / "catalogue").mkdir()

    def entries(directory):
        for entry in sorted((ROOT / "integrations").glob("*.yaml")):
            (directory / entry.name).write_text(f"trunkline: 1\nid: {entry.stem}\nextends: {entry.stem}\n")

    gateway = Gateway(work / "catalogue", entries)
    time.sleep(3)
    print("| the whole catalogue | {VmRSS} | {RssAnon} | {RssFile} |".format(**resident(gateway.process.pid)))
    gateway.stop()


def resident(pid):
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words and words[0].startswith(("VmRSS", "Rss"))}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=["reloads", "definitions", "idle"])
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--sizes", default="1000,10000")
    options.add_argument("--connections", type=int, default=2000)
    chosen = options.parse_args()
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        work = Path(directory)
        upstream = start_upstream(work)
        try:
            {"reloads": reloads, "definitions": definitions, "idle": idle}[chosen.what](chosen, work)
        finally:
            os.killpg(upstream.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
