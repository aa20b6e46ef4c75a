"""Who calls, for servers that ask: tokens, certificates, and what the rules of these tests allow.

The rules (tests/src/credentials.rs): `writer` may send to channels that begin with `open`, `reader`
may read them, of every pattern.
"""

import base64
import hashlib
import hmac
import json
import os
import time

SECRET = os.environ.get("FLOTILLA_SECRET", "").encode()
CA_FILE = os.environ.get("FLOTILLA_CA_FILE", "")
CERT_FILE = os.environ.get("FLOTILLA_CERT_FILE", "")
KEY_FILE = os.environ.get("FLOTILLA_KEY_FILE", "")
DENIED = "Error 412: access denied to resource"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(secret=SECRET, **claims):
    """A token that is good for a minute unless it says something else."""
    claims = {"exp": int(time.time()) + 60, **claims}
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, encoded(signature)]).decode()


def expired():
    return token(exp=int(time.time()) - 10)


def forged():
    return token(secret=b"another one")
