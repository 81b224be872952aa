"""A collector: takes OTLP over HTTP in JSON, and reads it with the protocol's own messages.

What has an unknown field, a wrong type or an id that is none is answered 400 and kept under /-/refused. Needs PyPI
`opentelemetry-proto` and `protobuf`.
"""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ends_with_starter
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OPTIONS = json.loads(sys.argv[1]) or {}
LOCK = threading.Lock()
SPANS, REFUSED, HEADERS = [], [], []
STATE = {"failures": OPTIONS.get("failures", 0)}


def in_base64(value):
    """OTLP writes ids in hexadecimal, where the mapping of Protocol Buffers has base 64."""
    if isinstance(value, list):
        return [in_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    ids = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
    out = {}
    for name, item in value.items():
        if name in ids:
            assert len(item) == ids[name] and item == item.lower() and int(item, 16) > 0, f"{name}: {item}"
            out[name] = base64.b64encode(bytes.fromhex(item)).decode()
        else:
            out[name] = in_base64(item)
    return out


def shown(resource, span):
    def plain(attributes):
        return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}

    return {
        "service": plain(resource.attributes)["service.name"],
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "state": span.trace_state,
        "name": span.name,
        "kind": span.kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": plain(span.attributes),
        "links": [link.trace_id.hex() for link in span.links],
        "error": span.status.message if span.status.code == 2 else None,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with LOCK:
            HEADERS.append(dict(self.headers.items()))
            if STATE["failures"] > 0:
                STATE["failures"] -= 1
                return self.reply({"message": "later"}, 503)
            try:
                assert self.path == "/v1/traces", self.path
                assert self.headers["Content-Type"] == "application/json", self.headers["Content-Type"]
                request = json_format.ParseDict(in_base64(json.loads(body)), ExportTraceServiceRequest())
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        SPANS.extend(shown(resource.resource, span) for span in scope.spans)
            except Exception as error:  # whatever is wrong with a message is told
                REFUSED.append(f"{error}: {body[:2000]!r}")
                return self.reply({"message": str(error)}, 400)
        return self.reply({}, 200)

    def do_GET(self):
        with LOCK:
            known = {"/-/spans": SPANS, "/-/refused": REFUSED, "/-/headers": HEADERS}
            self.reply(known.get(self.path, []), 200)

    def reply(self, value, status):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


ends_with_starter.watch()
SERVER = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
SERVER.daemon_threads = True
print("port", SERVER.server_port, flush=True)
SERVER.serve_forever()
