"""Sends commands one after another with the new SDK's client (4.1.5), and notes what became of each and when.

`O MILLISECONDS ANSWER`: `ok`, or what the client says. It goes to another node when the answer is not one of a
server.
"""

import argparse
import time

from common import Journal, Nodes, Stop, end
from kubemq.cq import Client, CommandMessage

SERVER_SAID = "Error 301"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--home", type=int, required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--timeout", type=int, required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, client, number = Nodes(arguments.address, arguments.home), None, 0
    while not stop:
        if client is None:
            try:
                client = Client(address=nodes.wait_for_one(stop), client_id="asker")
            except Exception:
                stop.pause(0.05)
                continue
        number += 1
        message = CommandMessage(
            channel=arguments.channel,
            body=b"%d" % number,
            timeout_in_seconds=arguments.timeout,
        )
        began = time.monotonic()
        try:
            response = client.send_command(message)
            answer = "ok" if response.is_executed else response.error
        except Exception as error:
            answer = " ".join(str(error).split())
            if SERVER_SAID not in answer:
                client = None
        journal.write("O %d %s" % ((time.monotonic() - began) * 1000, answer))
        stop.pause(0.01)
    end()


if __name__ == "__main__":
    main()
