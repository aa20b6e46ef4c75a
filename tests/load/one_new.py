"""The clients of 3.6.0 and 4.1.5 for `one_client.py`. Their subscriptions are made again by the clients."""

import kubemq.cq as cq
from common import either, note
from kubemq.common.cancellation_token import CancellationToken
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import EventMessage, EventsSubscription
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage

TIMEOUT_SECONDS = 2


def checked(result):
    if result.is_error:
        raise RuntimeError(result.error)
    return result


class Everything:
    def __init__(self, address, channel, write):
        self.channel, self.write = channel, write
        self.queues, self.pubsub, self.cq, self.responder = (
            of_kind(address=address, client_id=name, reconnect_interval_seconds=1)
            for of_kind, name in (
                (QueuesClient, "queues"),
                (PubSubClient, "pubsub"),
                (cq.Client, "asker"),
                (cq.Client, "responder"),
            )
        )

    def listen(self):
        told = {
            "channel": self.channel,
            "on_error_callback": lambda error: note("told", str(error)[:200]),
        }
        command_response = either(cq, "CommandResponse", "CommandResponseMessage")
        query_response = either(cq, "QueryResponse", "QueryResponseMessage")

        def heard(event):
            self.write("E %s" % bytes(event.body).decode())

        def commanded(request):
            response = command_response(command_received=request, is_executed=True)
            self.responder.send_response_message(response)

        def queried(request):
            response = query_response(query_received=request, is_executed=True, body=request.body)
            self.responder.send_response_message(response)

        self.pubsub.subscribe_to_events(
            EventsSubscription(on_receive_event_callback=heard, **told), CancellationToken()
        )
        self.responder.subscribe_to_commands(
            cq.CommandsSubscription(on_receive_command_callback=commanded, **told),
            CancellationToken(),
        )
        self.responder.subscribe_to_queries(
            cq.QueriesSubscription(on_receive_query_callback=queried, **told), CancellationToken()
        )

    def send(self, number):
        send = either(self.queues, "send_queue_message", "send_queues_message")
        checked(send(QueueMessage(channel=self.channel, body=b"%d" % number)))
        self.write("A %d" % number)

    def receive(self, _):
        receive = either(self.queues, "receive_queue_messages", "receive_queues_messages")
        response = receive(channel=self.channel, max_messages=10, wait_timeout_in_seconds=1)
        for message in checked(response).messages:
            message.ack()
            self.write("G %s" % bytes(message.body).decode())

    def send_event(self, number):
        send = either(self.pubsub, "send_event", "send_events_message")
        send(EventMessage(channel=self.channel, body=b"%d" % number))

    def command(self, number):
        send = either(self.cq, "send_command", "send_command_request")
        self.ask(send, cq.CommandMessage, number)
        self.write("C %d" % number)

    def query(self, number):
        send = either(self.cq, "send_query", "send_query_request")
        response = self.ask(send, cq.QueryMessage, number)
        if response.body != b"%d" % number:
            raise RuntimeError("the answer to %d is %r" % (number, response.body))
        self.write("Q %d" % number)

    def ask(self, send, of_kind, number):
        message = of_kind(
            channel=self.channel, body=b"%d" % number, timeout_in_seconds=TIMEOUT_SECONDS
        )
        response = send(message)
        if not response.is_executed:
            raise RuntimeError(response.error)
        return response
