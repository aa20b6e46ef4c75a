"""Waits for messages in the three ways there are, and to be killed: run by test_new_streams.py."""

import sys
import threading

from raw import Downstream, Transaction, Type
from support import pb, raw_stub

unary, downstream, transaction = sys.argv[1:]
stub = raw_stub()
receiving = Transaction(stub)
receiving.send(
    Transaction.RECEIVE, Channel=transaction, VisibilitySeconds=600, WaitTimeSeconds=600
)
getting = Downstream(stub)
getting.send(Type.Get, Channel=downstream, MaxItems=10, WaitTimeout=600_000)
# Requests of a stream begin in their order: what is refused at once tells that those before it wait.
receiving.send(Transaction.ACK, RefSequence=1)
getting.send(Type.Get, Channel="")
assert receiving.answer().IsError and getting.answer().IsError
request = pb.ReceiveQueueMessagesRequest(
    ClientID="killed", Channel=unary, MaxNumberOfMessages=10, WaitTimeSeconds=600
)
polling = stub.ReceiveQueueMessages.future(request)
stub.Ping(pb.Empty())
print("polling", flush=True)
threading.Event().wait()
