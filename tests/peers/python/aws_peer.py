"""Amazon's services over moto, which checks Signature Version 4 by botocore's own signer.

It takes no arguments. It prints one line of JSON with `id` and `secret` of an access key that may do everything and the `role` that it may
take, then
`port N` when it listens. Calls are checked from then on.
"""

import json
import logging

import boto3
import requests
from moto.server import ThreadedMotoServer

import ends_with_starter

ends_with_starter.watch()
# The server's log of every call.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
SERVER = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
SERVER.start()
_HOST, PORT = SERVER.get_host_and_port()
URL = f"http://127.0.0.1:{PORT}"

IAM = boto3.client(
    "iam", region_name="us-east-1", endpoint_url=URL, aws_access_key_id="AKIAX", aws_secret_access_key="x"
)
IAM.create_user(UserName="trunkline")
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
IAM.put_user_policy(UserName="trunkline", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
KEY = IAM.create_access_key(UserName="trunkline")["AccessKey"]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
ROLE = IAM.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
IAM.put_role_policy(RoleName="reader", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
# From the next call on every signature and policy counts.
requests.post(f"{URL}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()

print(json.dumps({"id": KEY["AccessKeyId"], "secret": KEY["SecretAccessKey"], "role": ROLE}), flush=True)
print("port", PORT, flush=True)
SERVER._thread.join()
