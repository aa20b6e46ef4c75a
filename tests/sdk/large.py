"""Messages of more than 4 MiB, prepared for the tests."""

from support import number_of, numbered

LARGE = bytes(range(256)) * (5 * 4096)
# With all else that is in a message these are less than 4 MiB.
ALMOST = LARGE[: (4 << 20) - 1024]
TAKES_ALL = {"max_send_size": 100 << 20, "max_receive_size": 100 << 20}
# What the SDK says of requests whose stream broke.
DISCONNECTED = "Error: Disconnected from server"


def large(of, channel, number, **fields):
    return of(**{**numbered("large", channel, number), "body": LARGE, **fields})


def shown(messages):
    return [(one.sequence, one.receive_count, number_shown(one)) for one in messages]


def number_shown(one):
    """That of a message or event; its body is the one that was sent."""
    number = int(one.metadata[1:])
    if one.id.startswith("large"):
        assert one.body == LARGE
    else:
        assert number_of(one.body) == number
    return number
