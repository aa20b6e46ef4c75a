"""Holds a message in a transaction and waits to be killed: run by test_old_transactions.py."""

import sys
import threading

from old import queue

transaction = queue(sys.argv[1]).create_transaction()
response = transaction.receive(600, 10)
print(response.message.Attributes.Sequence, flush=True)
threading.Event().wait()
