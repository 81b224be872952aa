#!/usr/bin/env python3
"""Where a proxied call's instructions go: Trunkline and the bare proxy under callgrind, same loop, same upstream.

Instructions are counted, not timed, so that other work on the machine does not change them. System calls are not
in the count. The proxies run on one worker; the count begins after a warm-up and is divided by the requests made.

    benches/instructions.py [--requests 3000] [--connections 8] [--declared] [--keep DIR] [--functions 40]

`--declared` adds limits, a breaker, retries and a cache to the definition. With `--keep` the callgrind files stay
for callgrind_annotate. Needs: valgrind wrk nginx (Debian), and:
cargo build --release --bin trunkline --example bare_pingora
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ladder
from ladder import ROOT, contenders, free_port, start_upstream, wait_for


def under_callgrind(out):
    def launch(argv, env=None, core="1"):
        return subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", *map(str, argv)],
            env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL,
            stderr=open(ROOT / "target" / "instructions.log", "ab"), start_new_session=True,
        )

    return launch


def drive(contender, requests, connections):
    """Requests made, at least as many as asked for."""
    made = 0
    while made < requests:
        found = subprocess.run(ladder.wrk(contender, 1, connections), capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in found:
            raise RuntimeError(f"{contender.name}: not every answer was 2xx\n{found}")
        made += int(re.search(r"(\d+) requests in", found).group(1))
    return made


def control(process, word):
    subprocess.run(["callgrind_control", *word, str(process.pid)], check=True, capture_output=True)


def count(contender, work, options):
    out = Path(options.keep or work) / f"callgrind.{contender.name.split()[0]}"
    ladder.launch = under_callgrind(out)
    contender.port = free_port()
    process = contender.start(work, contender.port)
    try:
        wait_for(contender.port, process)
        time.sleep(3)
        drive(contender, 500, options.connections)
        control(process, ["-i", "on"])
        made = drive(contender, options.requests, options.connections)
        control(process, ["-i", "off"])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    functions = subprocess.run(
        ["callgrind_annotate", "--threshold=99", str(out)], capture_output=True, text=True, check=True
    ).stdout
    total = int(re.search(r"([\d,]+) \(100\.0%\)\s+PROGRAM TOTALS", functions).group(1).replace(",", ""))
    print(f"{contender.name}: {total / made:,.0f} instructions a request ({made} requests)")
    for line in functions.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(?:.*/)?([^ ]+:.*?)(?: \[.*)?$", line)
        if found and options.functions > 0 and "PROGRAM" not in line:
            print(f"  {int(found.group(1).replace(',', '')) / made:8,.0f}  {found.group(2)[:140]}")
            options.functions -= 1
    return total / made


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=3000)
    options.add_argument("--connections", type=int, default=8)
    options.add_argument("--functions", type=int, default=40)
    options.add_argument("--declared", action="store_true")
    options.add_argument("--keep")
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        upstream = start_upstream(work)
        try:
            shown = options.functions
            wanted = [c for c in contenders(options.declared and work) if c.name in ("bare pingora, our accept loop", "trunkline")]
            found = {}
            for contender in wanted:
                options.functions = shown if contender.name == "trunkline" else 0
                found[contender.name] = count(contender, work, options)
            print(f"ratio: {found['trunkline'] / found['bare pingora, our accept loop']:.2f}")
        finally:
            os.killpg(upstream.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
