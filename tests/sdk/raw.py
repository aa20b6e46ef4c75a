"""The generated stubs without the client classes of the SDK: streams in the open, messages to fill
queues with."""

import queue
import threading

import grpc
import pytest
from support import body_of, pb

Type = pb.QueuesDownstreamRequestType


class Stream:
    """One stream, with its requests and responses in the open. Its end is a response too: None, or the
    error."""

    def __init__(self, call):
        self.requests = queue.Queue()
        self.responses = queue.Queue()
        self.call = call(iter(self.requests.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for response in self.call:
                self.responses.put(response)
            self.responses.put(None)
        except grpc.RpcError as error:
            self.responses.put(error)

    def answer(self, seconds=15):
        return self.responses.get(timeout=seconds)

    def assert_silent(self, seconds=0.5):
        with pytest.raises(queue.Empty):
            self.responses.get(timeout=seconds)

    def close(self):
        self.requests.put(None)

    def cancel(self):
        self.call.cancel()


class Transaction(Stream):
    """A stream of one message at a time, as the oldest clients use it."""

    RECEIVE, ACK, REJECT, EXTEND, RESEND, REPLACE = range(1, 7)

    def __init__(self, stub):
        super().__init__(stub.StreamQueueMessage)

    def send(self, kind, client_id="c", **fields):
        self.requests.put(
            pb.StreamQueueMessagesRequest(
                RequestID="r", ClientID=client_id, StreamRequestTypeData=kind, **fields
            )
        )

    def ask(self, kind, **fields):
        """The error that a request is answered with, empty if it went well."""
        self.send(kind, **fields)
        response = self.answer()
        assert (response.RequestID, response.StreamRequestTypeData) == ("r", kind)
        assert response.IsError == bool(response.Error)
        return response.Error


class Downstream(Stream):
    """One downstream stream."""

    def __init__(self, stub):
        super().__init__(stub.QueuesDownstream)

    def send(self, kind, request_id="r", client_id="c", **fields):
        self.requests.put(
            pb.QueuesDownstreamRequest(
                RequestID=request_id, ClientID=client_id, RequestTypeData=kind, **fields
            )
        )

    def get(self, channel, count, wait_ms=5000, **fields):
        self.send(Type.Get, Channel=channel, MaxItems=count, WaitTimeout=wait_ms, **fields)
        response = self.answer()
        assert response.RequestTypeData == Type.Get
        return response


def message(channel, number=0, **fields):
    return pb.QueueMessage(
        MessageID="id-%d" % number, ClientID="c", Channel=channel, Body=body_of(number), **fields
    )


def fill(stub, channel, count):
    batch = [message(channel, number) for number in range(count)]
    response = stub.SendQueueMessagesBatch(pb.QueueMessagesBatchRequest(Messages=batch))
    assert not response.HaveErrors
