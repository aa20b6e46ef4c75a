"""Reads stored events by one subscription of the SDK's own client (3.6.0 or newer), which is to outlive its server's
restarts, and notes the sequence of each event that comes."""

import argparse

from common import Journal, Stop, end, note
from kubemq.pubsub import Client, EventsStoreSubscription

try:
    from kubemq.pubsub import EventsStoreType as Start
except ImportError:
    from kubemq.pubsub.events_store_subscription import EventStoreStartPosition as Start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--name", default="live")
    arguments = parser.parse_args()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    client = Client(address=arguments.address, client_id=arguments.name)
    subscription = EventsStoreSubscription(
        channel=arguments.channel,
        events_store_type=Start.StartFromFirst,
        on_receive_event_callback=lambda event: journal.write("R %d" % event.sequence),
        on_error_callback=lambda error: note("told", str(error)[:200]),
    )
    client.subscribe_to_events_store(subscription)
    stop.event.wait()
    end()


if __name__ == "__main__":
    main()
