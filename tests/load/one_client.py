"""Does everything that a client of the SDK (of every release) can do, with objects that are made once and are to
outlive their server's restarts, and notes what went well: `A NUMBER` sent to a queue, `G NUMBER` received from it
and acknowledged, `E NUMBER` an event heard, `C NUMBER` a command and `Q NUMBER` a query answered, and `S NUMBER`
an event stored, but for the synchronous clients of 3.6.0 and 4.1.5, which may wait for ever for the answer to one
that was lost."""

import argparse
import asyncio

from common import Journal, Stop, note, run_until


def kind_of_client(way):
    if way == "asynchronous":
        from one_async import Everything
    else:
        try:
            from one_new import Everything
        except ImportError:
            from one_old import Everything
    return Everything


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--way", choices=["synchronous", "asynchronous"], default="synchronous")
    arguments = parser.parse_args()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    of_kind = kind_of_client(arguments.way)
    client = of_kind(arguments.address, arguments.channel, journal.write)

    def repeat(what):
        # Without one 3.6.0 does nothing in a thread.
        asyncio.set_event_loop(asyncio.new_event_loop())
        number = 0
        while not stop:
            number += 1
            try:
                what(number)
            except Exception as error:
                note(what.__name__, type(error).__name__, str(error)[:200])
                stop.pause(0.2)
            stop.pause(0.02)

    client.listen()
    whats = [client.send, client.receive, client.send_event, client.command, client.query]
    whats += [client.store] if hasattr(client, "store") else []
    run_until(stop, repeat, whats)


if __name__ == "__main__":
    main()
