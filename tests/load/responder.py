"""Answers commands as a member of a group with the new SDK's client (4.1.5), and notes which it got."""

import argparse

from common import Journal, Nodes, Stop, end, note
from kubemq.common.cancellation_token import CancellationToken
from kubemq.cq import Client, CommandResponse, CommandsSubscription


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    client = Client(address=Nodes(arguments.address).wait_for_one(stop), client_id="responder")

    def answer(request):
        journal.write("T %s" % request.body.decode())
        client.send_response_message(CommandResponse(command_received=request, is_executed=True))

    subscription = CommandsSubscription(
        channel=arguments.channel,
        group="group",
        on_receive_command_callback=answer,
        on_error_callback=lambda error: note("error", error),
    )
    client.subscribe_to_commands(subscription, CancellationToken())
    stop.event.wait()
    end()


if __name__ == "__main__":
    main()
