#!/usr/bin/env python3
"""What one acknowledged, durable webhook costs, beside the disk's own limit and Debian's `webhook`.

GitHub's own example payloads (npm @octokit/webhooks-examples), signed once each, are posted by wrk over
keep-alive connections with a delivery id of their own, so that none is a duplicate. The bare append
(benches/bare_append.rs) writes records of the same mean size from as many producers, grouped into one
write and one fdatasync. Debian's `webhook` verifies the same signature and starts /bin/true; it stores
nothing. Contenders take turns; figures are medians over the rounds.

    benches/ingest.py [--rounds 5] [--seconds 4] [--connections 64]

Needs: wrk webhook (Debian), npm, and: cargo build --release --bin trunkline --example bare_append
"""

import argparse
import hashlib
import hmac
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ladder import ROOT, TARGET, TICKS, cpu_seconds, free_port, launch, rss_mib, wait_for

SECRET = "bench-webhook-secret-0123456789abcdef"


def payloads(work):
    subprocess.run(["npm", "pack", "--silent", "@octokit/webhooks-examples"], cwd=work, check=True, capture_output=True)
    archive = next(work.glob("octokit-webhooks-examples-*.tgz"))
    subprocess.run(["tar", "xzf", archive], cwd=work, check=True)
    found = next(p for p in (work / "package").rglob("*.json") if p.name in ("index.json", "examples.json"))
    bodies = []
    for event in json.loads(found.read_text()):
        bodies += [(event["name"], json.dumps(example)) for example in event["examples"]]
    return bodies


def lua_script(work, bodies):
    lines = ["local requests = {"]
    for name, body in bodies:
        signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
        lines.append(f"  {{ {json.dumps(name)}, {lua_string(body)}, \"sha256={signature}\" }},")
    # A request is made of two parts and its delivery id, so that the sender, which shares the machine, costs little.
    lines += [
        "}",
        "local sent, run, parts = 0, os.time() .. '-' .. math.random(1e9), {}",
        "init = function(args)",
        "  for _, r in ipairs(requests) do",
        "    local whole = wrk.format('POST', nil, { ['Content-Type'] = 'application/json', ['X-GitHub-Event'] = r[1],",
        "      ['X-GitHub-Delivery'] = '@delivery@', ['X-Hub-Signature-256'] = r[3] }, r[2])",
        "    local from, to = whole:find('@delivery@', 1, true)",
        "    parts[#parts + 1] = { whole:sub(1, from - 1), whole:sub(to + 1) }",
        "  end",
        "end",
        "request = function()",
        "  sent = sent + 1",
        "  local part = parts[sent % #parts + 1]",
        "  return part[1] .. run .. '-' .. sent .. part[2]",
        "end",
    ]
    path = work / "ingest.lua"
    path.write_text("\n".join(lines))
    return path


def lua_string(text):
    level = 1
    while "]" + "=" * level + "]" in text:
        level += 1
    return f"[{'=' * level}[{text}]{'=' * level}]"


def trunkline(work, port):
    home = work / "trunkline"
    (home / "integrations").mkdir(parents=True)
    (home / "integrations" / "github.yaml").write_text(
        "trunkline: 1\nid: github\nextends: github\nauth:\n  oauth2:\n    client: { id: bench, secret: \"${env:BENCH_SECRET}\" }\n"
        "webhook:\n  secrets: [\"${env:BENCH_SECRET}\"]\n  rate: 1000000/s\n  rate_per_source: 1000000/s\n"
    )
    (home / "trunkline.yaml").write_text(
        "trunkline: 1\nmode: development\n"
        f"listen: {{ public: \"127.0.0.1:{port}\", proxy: \"127.0.0.1:{free_port()}\", admin: \"127.0.0.1:{free_port()}\" }}\n"
        f"public_url: http://localhost:{port}\nintegrations: [./integrations]\n"
        "state: { sled: { path: ./data } }\nsecrets: { key: \"${file:./data/master.key}\" }\n"
    )
    return launch([TARGET / "trunkline", "serve", "--config", home / "trunkline.yaml"], {"BENCH_SECRET": SECRET}, core="0,1")


def by_thread(pid):
    """CPU seconds by name of thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        fields = rest.split()
        found[name] = found.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICKS
    return found


def debian_webhook(work, port):
    rule = {"match": {"type": "payload-hmac-sha256", "secret": SECRET, "parameter": {"source": "header", "name": "X-Hub-Signature-256"}}}
    hooks = work / "hooks.json"
    hooks.write_text(json.dumps([{"id": "github", "execute-command": "/bin/true", "trigger-rule": rule}]))
    return launch(["webhook", "-hooks", hooks, "-ip", "127.0.0.1", "-port", port, "-urlprefix", "webhooks"], core="0,1")


def post(port, script, seconds, connections):
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/webhooks/github"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Non-2xx" in out:
        raise RuntimeError(f"some were not acknowledged:\n{out}")
    done = int(out.split(" requests in")[0].split()[-1])
    sender = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, sender / done * 1e6


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=64)
    chosen = options.parse_args()
    runs = {"bare append": [], "trunkline": [], "debian webhook": []}
    threads, events, senders = {}, 0, []
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        work, servers = Path(directory), {}
        bodies = payloads(work)
        size = sum(len(body) for _, body in bodies) // len(bodies) + 1024
        print(f"{len(bodies)} payloads, {size} bytes a record with headers", file=sys.stderr)
        script = lua_script(work, bodies)
        try:
            for name, start in (("trunkline", trunkline), ("debian webhook", debian_webhook)):
                port = free_port()
                servers[name] = (port, start(work, port))
                wait_for(port, servers[name][1])
                post(port, script, 1, chosen.connections)
            for _ in range(chosen.rounds):
                out = subprocess.run(
                    [TARGET / "examples" / "bare_append", work / "bare", str(size), str(chosen.connections), str(chosen.seconds)],
                    capture_output=True, text=True, check=True,
                ).stdout
                runs["bare append"].append((json.loads(out)["per_second"], 0))
                for name, (port, process) in servers.items():
                    before, of_threads = cpu_seconds(process.pid), by_thread(process.pid)
                    done, sender = post(port, script, chosen.seconds, chosen.connections)
                    # What happens behind the acknowledgements counts as well.
                    time.sleep(1)
                    runs[name].append((done / chosen.seconds, (cpu_seconds(process.pid) - before) / done * 1e6))
                    if name == "trunkline":
                        events += done
                        senders.append(sender)
                        for thread, seconds in by_thread(process.pid).items():
                            threads[thread] = threads.get(thread, 0) + seconds - of_threads.get(thread, 0)
            middle = lambda name, place: statistics.median(run[place] for run in runs[name])
            base = middle("bare append", 0)
            print("| contender | acknowledged/s | of the bare append | CPU µs/event | loaded MiB |\n|---|---|---|---|---|")
            for name in runs:
                loaded = f"{rss_mib(servers[name][1].pid):.0f}" if name in servers else "–"
                print(f"| {name} | {middle(name, 0):.0f} | {middle(name, 0) / base:.2f} | {middle(name, 1):.0f} | {loaded} |")
            print(f"\nThe sender took {statistics.median(senders):.0f} µs of CPU for each event of trunkline.")
            shares = sorted(threads.items(), key=lambda share: -share[1])
            print("\n| thread | CPU µs/event |\n|---|---|")
            for thread, seconds in shares[:6]:
                print(f"| {thread} | {seconds / events * 1e6:.1f} |")
        finally:
            for _, process in servers.values():
                process.kill()


if __name__ == "__main__":
    main()
