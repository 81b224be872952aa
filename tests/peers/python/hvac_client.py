"""Holds hvac, a Vault client that others wrote, against the Vault of the tests.

Usage: hvac_client.py URL ROOT_TOKEN. Says nothing and exits 0 when every call is answered as hvac
expects it; needs PyPI `hvac`.
"""

import base64
import sys

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

url, root = sys.argv[1:]
client = hvac.Client(url=url, token=root)
assert client.is_authenticated()
client.secrets.kv.v2.create_or_update_secret(path="apps/acme", secret={"key": "v"}, mount_point="secret")
read = client.secrets.kv.v2.read_secret_version(path="apps/acme", mount_point="secret", raise_on_deleted_version=True)
assert read["data"]["data"] == {"key": "v"} and read["data"]["metadata"]["version"] == 1, read
try:
    client.secrets.kv.v2.read_secret_version(path="apps/none", mount_point="secret", raise_on_deleted_version=True)
    raise SystemExit("a missing secret was read")
except InvalidPath:
    pass
plain = base64.b64encode(b"0123456789abcdef").decode()
wrapped = client.secrets.transit.encrypt_data(name="trunkline", plaintext=plain)["data"]["ciphertext"]
assert client.secrets.transit.decrypt_data(name="trunkline", ciphertext=wrapped)["data"]["plaintext"] == plain
for login in (
    lambda c: c.auth.approle.login(role_id="gateway", secret_id="secret"),
    lambda c: c.auth.kubernetes.login(role="gateway", jwt="jwt"),
):
    other = hvac.Client(url=url)
    answer = login(other)
    other.token = answer["auth"]["client_token"]
    assert other.is_authenticated() and answer["auth"]["lease_duration"] == 3600, answer
    assert other.auth.token.renew_self()["auth"]["client_token"] == other.token
try:
    hvac.Client(url=url).auth.approle.login(role_id="gateway", secret_id="wrong")
    raise SystemExit("a wrong secret id was taken")
except InvalidRequest:
    pass
try:
    hvac.Client(url=url, token="hvs.unknown").secrets.kv.v2.read_secret_version(
        path="apps/acme", mount_point="secret", raise_on_deleted_version=True
    )
    raise SystemExit("an unknown token was taken")
except Forbidden:
    pass
