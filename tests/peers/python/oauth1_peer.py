"""An OAuth 1.0a service over oauthlib: temporary credentials, consent, tokens, and calls whose signatures count.

Its one argument is JSON: `key` and `secret` of the application, `method` of its signatures (`HMAC-SHA1`, `HMAC-SHA256`,
`RSA-SHA1` or `PLAINTEXT`), for RSA `public_key` in PEM, access tokens that are there from the start as `tokens` (their
secrets by token), `timestamp_lifetime` in seconds, and `scheme`, `https` where TLS ends before it. It prints `port N` when it listens. `/authorize` shows
a consent form; `/api/me` answers calls that a token's owner signed, and `POST /api/echo` tells such a form's fields
again; `/signed/…` wants the application's signature alone.
"""

import html
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit

from oauthlib.oauth1 import AccessTokenEndpoint, AuthorizationEndpoint, RequestTokenEndpoint
from oauthlib.oauth1 import RequestValidator, ResourceEndpoint, SignatureOnlyEndpoint

import ends_with_starter

OPTIONS = json.loads(sys.argv[1])
TEMPORARY = {}
TOKENS = dict(OPTIONS.get("tokens", {}))
NONCES = set()


class Rules(RequestValidator):
    """Everything in memory; a nonce counts once."""

    enforce_ssl = False
    # Tests own the time of the calls.
    timestamp_lifetime = OPTIONS.get("timestamp_lifetime", 600)
    allowed_signature_methods = [OPTIONS["method"]]
    dummy_client = "dummy"
    dummy_request_token = "dummy"
    dummy_access_token = "dummy"

    # The library's defaults want longer or shorter keys than services give out.
    def check_client_key(self, client_key):
        return bool(client_key)

    check_request_token = check_access_token = check_nonce = check_verifier = check_client_key

    def validate_client_key(self, client_key, request):
        return client_key == OPTIONS["key"]

    def get_client_secret(self, client_key, request):
        return OPTIONS.get("secret", "")

    def get_rsa_key(self, client_key, request):
        return OPTIONS["public_key"]

    def validate_timestamp_and_nonce(
        self, client_key, timestamp, nonce, request, request_token=None, access_token=None
    ):
        entry = (client_key, timestamp, nonce, request_token or access_token)
        if entry in NONCES:
            return False
        NONCES.add(entry)
        return True

    def validate_redirect_uri(self, client_key, redirect_uri, request):
        return redirect_uri.split("?")[0] in OPTIONS["redirect_uris"]

    def validate_requested_realms(self, client_key, realms, request):
        return True

    def validate_realms(self, client_key, token, request, uri=None, realms=None):
        return True

    def get_default_realms(self, client_key, request):
        return []

    def get_realms(self, token, request):
        return []

    def verify_realms(self, token, realms, request):
        return True

    def save_request_token(self, token, request):
        TEMPORARY[token["oauth_token"]] = {"secret": token["oauth_token_secret"], "callback": request.redirect_uri}

    def verify_request_token(self, token, request):
        return token in TEMPORARY

    def validate_request_token(self, client_key, token, request):
        return token in TEMPORARY

    def get_request_token_secret(self, client_key, token, request):
        return TEMPORARY.get(token, {}).get("secret", "")

    def get_redirect_uri(self, token, request):
        return TEMPORARY[token]["callback"]

    def save_verifier(self, token, verifier, request):
        TEMPORARY[token]["verifier"] = verifier["oauth_verifier"]

    def validate_verifier(self, client_key, token, verifier, request):
        expected = TEMPORARY.get(token, {}).get("verifier")
        return expected is not None and secrets.compare_digest(expected, verifier)

    def invalidate_request_token(self, client_key, request_token, request):
        TEMPORARY.pop(request_token, None)

    def save_access_token(self, token, request):
        TOKENS[token["oauth_token"]] = token["oauth_token_secret"]

    def validate_access_token(self, client_key, token, request):
        return token in TOKENS

    def get_access_token_secret(self, client_key, token, request):
        return TOKENS.get(token, "")


RULES = Rules()
REQUEST_TOKEN = RequestTokenEndpoint(RULES)
AUTHORIZATION = AuthorizationEndpoint(RULES)
ACCESS_TOKEN = AccessTokenEndpoint(RULES)
RESOURCE = ResourceEndpoint(RULES)
SIGNATURE_ONLY = SignatureOnlyEndpoint(RULES)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        uri = f"{OPTIONS.get('scheme', 'http')}://{self.headers['host']}{self.path}"
        path = urlsplit(self.path).path
        given = (uri, self.command, body or None, dict(self.headers))
        if path == "/request_token":
            self.reply(*REQUEST_TOKEN.create_request_token_response(*given))
        elif path == "/access_token":
            self.reply(*ACCESS_TOKEN.create_access_token_response(*given))
        elif path == "/authorize" and self.command == "GET":
            token = parse_qs(urlsplit(self.path).query).get("oauth_token", [""])[0]
            form = '<form method="post" action="/authorize"><input type="hidden" name="oauth_token" value="'
            form += f'{html.escape(token)}"><button type="submit">Allow</button></form>'
            self.reply({"Content-Type": "text/html"}, form, 200)
        elif path == "/authorize":
            target = f"{uri}?{body}"
            self.reply(*AUTHORIZATION.create_authorization_response(target, http_method="POST"))
        elif path.startswith("/api/"):
            self.resource(RESOURCE.validate_protected_resource_request(*given), path, body)
        elif path.startswith("/signed/"):
            self.resource(SIGNATURE_ONLY.validate_request(*given), path, body)
        else:
            self.reply({}, "", 404)

    do_GET = do_POST = handle_any

    def resource(self, verified, path, body):
        valid, _request = verified
        if not valid:
            self.reply({"Content-Type": "application/json"}, '{"error": "signature"}', 401)
            return
        shown = {"id": "ada-1", "name": "Ada"} if path == "/api/me" else dict(parse_qsl(body))
        self.reply({"Content-Type": "application/json"}, json.dumps(shown), 200)

    def reply(self, headers, body, status):
        content = (body or "").encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


ends_with_starter.watch()
SERVER = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
SERVER.daemon_threads = True
print("port", SERVER.server_port, flush=True)
SERVER.serve_forever()
