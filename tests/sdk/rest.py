"""What the tests say to the REST and WebSocket listener: the standard library's HTTP and websocket-client."""

import base64
import http.client
import json
import os
from urllib.parse import urlencode

import websocket

from support import SECONDS_MAX

ADDRESS = os.environ["FLOTILLA_REST_ADDRESS"]
# Where those connect who answer what is asked at ADDRESS: in a cluster another node.
PEER_ADDRESS = os.environ.get("FLOTILLA_REST_PEER_ADDRESS", ADDRESS)


def encoded(body):
    return base64.b64encode(body).decode()


def decoded(text):
    return base64.b64decode(text or "")


def call(method, path, body=None, address=ADDRESS):
    """The status and the envelope of one request."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        envelope = json.loads(answer.read())
        assert answer.getheader("Access-Control-Allow-Origin") == "*"
        assert set(envelope) == {"is_error", "message", "data"}
        assert envelope["is_error"] == (answer.status != 200)
        return answer.status, envelope
    finally:
        connection.close()


def data(method, path, body=None, address=ADDRESS):
    """The data of a request that goes well."""
    status, envelope = call(method, path, body, address)
    assert status == 200 and envelope["message"] == "OK", envelope
    return envelope["data"]


def post(path, body, address=ADDRESS):
    return data("POST", path, body, address)


class Socket:
    """A WebSocket that speaks JSON."""

    def __init__(self, path, address=ADDRESS, **query):
        url = "ws://%s%s?%s" % (address, path, urlencode(query))
        self.socket = websocket.create_connection(url, timeout=SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, message):
        self.socket.send(json.dumps(message))

    def next(self):
        return json.loads(self.socket.recv())

    def ask(self, message):
        self.send(message)
        return self.next()

    def close_code(self):
        """How the server closes it."""
        opcode, frame = self.socket.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE, frame
        return int.from_bytes(frame[:2], "big")
