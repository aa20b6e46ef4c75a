"""A member of a group of readers of a stored channel that stops reading and is killed: `python killed_member.py
SDK CHANNEL GROUP` is that member, where SDK is `old`, `mid` or `new`. What another one then gets is checked here too."""

import signal
import subprocess
import sys

from support import ADDRESS, PEER_ADDRESS, SECONDS_MAX, pb, raw_stub, settle, unique, until

# Half of them for each member: twice as much as a connection may have on its way.
EVENTS, BODY_BYTES = 256, 64 << 10
# More than the transport takes: the SDKs' clients grant 4 MiB, and the server's buffers are less than 1 MiB.
ON_THE_WAY_MAX = 96
REST = 20


def member_at(address, sdk, channel, group):
    if sdk == "mid":
        from mid import EventsStoreType, Listening

        return Listening(address).store(channel, EventsStoreType.StartFromFirst, group)
    if sdk == "old":
        from old import EventsStoreType, subscribe_to_store

        start = EventsStoreType.StartFromFirst
        return subscribe_to_store(channel, start, group=group, address=address)
    from new import EventStoreStartPosition, Subscription

    return Subscription(address=address).store(
        channel, EventStoreStartPosition.StartFromFirst, group
    )


def store(channel, count):
    events = [
        pb.Event(ClientID="store", Channel=channel, Body=bytes(BODY_BYTES), Store=True)
        for _ in range(count)
    ]
    results = raw_stub().SendEventsStream(iter(events), timeout=SECONDS_MAX)
    assert [result.Sent for result in results] == [True] * count


def check(sdk):
    """What a killed member did not get another one does, but for what was on its way."""
    # Only the tests have it, not the member.
    from admin import subscribers

    channel, group = unique("store"), "g"
    store(channel, 1)
    command = [sys.executable, "killed_member.py", sdk, channel, group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout.readline() == "1\n"
            with member_at(PEER_ADDRESS, sdk, channel, group) as other:
                until(lambda: subscribers(channel) == 2, what="two members")
                killed.send_signal(signal.SIGSTOP)
                store(channel, EVENTS)
                other.inbox.wait(EVENTS // 4)
                settle([other.inbox])
                killed.kill()
                until(lambda: subscribers(channel) == 1, what="the end of the killed member")
                store(channel, REST)
                wanted = EVENTS + REST - ON_THE_WAY_MAX
                until(lambda: len(other.inbox.now()) >= wanted, what="the rest")
                settle([other.inbox])
                got = [event.sequence for event in other.inbox.now()]
        finally:
            killed.kill()
    assert len(set(got)) == len(got), "nothing comes twice"
    # The first was the killed one's.
    assert set(got) <= set(range(2, EVENTS + REST + 2))
    assert set(range(EVENTS + 2, EVENTS + REST + 2)) <= set(got), "what came after the kill"


def main(sdk, channel, group):
    member = member_at(ADDRESS, sdk, channel, group)
    told = 0
    while True:
        for event in member.inbox.wait(told + 1, 600)[told:]:
            print(event.sequence, flush=True)
            told += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
