"""Commands and queries of the new SDKs (3.6.0, 4.1.5), whose names differ, prepared for the
tests."""

from kubemq.common.cancellation_token import CancellationToken
from kubemq.cq import (
    Client,
    CommandMessage,
    CommandsSubscription,
    QueriesSubscription,
    QueryMessage,
)
from support import ADDRESS, PEER_ADDRESS, Inbox, body_of, number_of, unique, until

try:
    from kubemq.cq import CommandResponse, QueryResponse

    IS_NEWEST = True
except ImportError:
    from kubemq.cq import CommandResponseMessage as CommandResponse
    from kubemq.cq import QueryResponseMessage as QueryResponse

    IS_NEWEST = False

KINDS = ["command", "query"]
TAGS = {"number": "7", "ключ": "значение"}


def cq_client(address=ADDRESS, client_id=None, **options):
    return Client(address=address, client_id=client_id or unique("client"), **options)


def message(kind, channel, number=0, timeout=20, **fields):
    of_kind = CommandMessage if kind == "command" else QueryMessage
    return of_kind(
        **{
            "channel": channel,
            "metadata": "m%d" % number,
            "body": body_of(number),
            "tags": TAGS,
            "timeout_in_seconds": timeout,
            **fields,
        }
    )


def send(client, request):
    """The call has another name in each release."""
    kind = "command" if isinstance(request, CommandMessage) else "query"
    call = getattr(client, ("send_%s" if IS_NEWEST else "send_%s_request") % kind)
    return call(request)


def response_to(kind, request, **fields):
    fields = {"is_executed": True, **fields}
    if kind == "command":
        return CommandResponse(command_received=request, **fields)
    return QueryResponse(query_received=request, **fields)


def subscription(kind, channel, callback, **fields):
    of_kind = CommandsSubscription if kind == "command" else QueriesSubscription
    return of_kind(channel=channel, **{"on_receive_%s_callback" % kind: callback}, **fields)


class Serving:
    """Somebody who answers commands or queries, with the inbox of what it was asked. Probes are
    answered and not noted. Its client is its own, unless it is given one."""

    def __init__(self, kind, channel, answer, group=None, client=None):
        self.inbox = Inbox()
        self.probes = 0
        self.kind, self.answer = kind, answer
        self.token = CancellationToken()
        self.client = client or cq_client(PEER_ADDRESS, unique("responder"))
        fields = {"group": group, "on_error_callback": self.inbox.add_error}
        wanted = subscription(kind, channel, self.handle, **fields)
        if kind == "command":
            self.client.subscribe_to_commands(wanted, self.token)
        else:
            self.client.subscribe_to_queries(wanted, self.token)

    def handle(self, request):
        if request.metadata == "probe":
            self.probes += 1
            self.client.send_response_message(response_to(self.kind, request))
            return
        self.inbox.add(request)
        self.client.send_response_message(self.answer(request))

    def numbers(self):
        return [number_of(request.body) for request in self.inbox.now()]

    def leave(self):
        self.token.cancel()
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()


def is_answered(client, request):
    """That nobody is there, or not in time, is an error of the call."""
    try:
        send(client, request)
    except Exception:
        return False
    return True


def go_live(client, kind, channel, *serving):
    """Asks until each of them was asked."""

    def probe():
        is_answered(client, message(kind, channel, timeout=1, metadata="probe"))

    until(lambda: all(one.probes for one in serving), probe, what="a live responder")
