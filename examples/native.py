"""A topic, a queue and requests on one Flotilla node, through the native protocol (docs/native.md)."""

import os
import queue
import threading

import grpc
from flotilla.v1 import flotilla_pb2 as pb
from flotilla.v1 import flotilla_pb2_grpc

ADDRESS = os.environ.get("FLOTILLA_ADDRESS", "localhost:50000")


class Stream:
    """Both sides of one call."""

    def __init__(self, call):
        self.requests = queue.SimpleQueue()
        self.answers = call(iter(self.requests.get, None))

    def ask(self, request):
        self.requests.put(request)
        return next(self.answers)

    def close(self):
        """Ends this side; the server ends the other when it is done."""
        self.requests.put(None)
        for rest in self.answers:
            raise AssertionError(f"unexpected: {rest}")


with grpc.insecure_channel(ADDRESS) as channel:
    broker = flotilla_pb2_grpc.BrokerStub(channel)

    # Durable when it is answered; sent again with the same numbers it is stored once.
    publish = Stream(broker.Publish)
    orders = [pb.Record(body=f"order {number}".encode()) for number in range(3)]
    batch = pb.PublishRequest(
        batch=1, topic="orders", records=orders, producer=f"shop-{os.getpid()}", first_sequence=1
    )
    first = publish.ask(batch)
    again = publish.ask(batch)
    print("stored at", list(first.offsets), "again at", list(again.offsets))
    publish.close()

    # Reads from the first on, and says how far it got.
    subscribe = Stream(broker.Subscribe)
    start = pb.SubscribeRequest.Open(topic="orders", offset=first.offsets[0], exclusive="printer")
    assert subscribe.ask(pb.SubscribeRequest(open=start)).WhichOneof("kind") == "opened"
    read = 0
    while read < 3:
        for delivery in next(subscribe.answers).deliveries.deliveries:
            print("read", delivery.offset, delivery.record.body.decode())
            read += 1
    subscribe.requests.put(pb.SubscribeRequest(done_upto=delivery.offset))
    subscribe.close()

    # A queue: what is leased is this stream's until it says what became of it.
    send = Stream(broker.Send)
    sent = send.ask(pb.SendRequest(batch=1, queue="jobs", records=[pb.Record(body=b"resize 1")]))
    assert not sent.errors and not sent.HasField("error"), sent
    send.close()
    consume = Stream(broker.Consume)
    lease = pb.ConsumeRequest.Lease(request=1, queue="jobs", messages_max=10, wait_ms=2_000)
    leased = consume.ask(pb.ConsumeRequest(leases=[lease])).leased[0]
    for message in leased.messages:
        print("working on", message.record.body.decode(), "received", message.receive_count)
    done = pb.ConsumeRequest.Settle(request=2, queue="jobs", lease=leased.lease)
    print("acknowledged", consume.ask(pb.ConsumeRequest(settles=[done])).settled[0].count)
    consume.close()

    # Requests: whoever serves a subject is asked, and the answer comes back to whoever asked.
    serve = Stream(broker.Serve)
    shop = pb.ServeRequest.Open(pattern="price.*", group="shop")
    assert serve.ask(pb.ServeRequest(open=shop)).HasField("opened")

    def answer():
        for frame in serve.answers:
            for call in frame.calls:
                if call.name == "price.silk":
                    continue  # Nobody knows: the request times out.
                reply = pb.ServeRequest.Reply(call=call.call, record=pb.Record(body=b"12.50"))
                serve.requests.put(pb.ServeRequest(replies=[reply]))

    shopkeeper = threading.Thread(target=answer)
    shopkeeper.start()
    request = Stream(broker.Request)
    for number, (name, timeout_ms) in enumerate(
        [("price.tea", 2_000), ("price.silk", 200), ("weather", 2_000)]
    ):
        question = pb.RequestBatch.Item(request=number, name=name, timeout_ms=timeout_ms)
        reply = request.ask(pb.RequestBatch(requests=[question])).replies[0]
        if reply.WhichOneof("outcome") == "record":
            print(name, "costs", reply.record.body.decode())
        else:
            print(name, "failed:", pb.Error.Code.Name(reply.error.code))
    request.close()
    serve.requests.put(None)
    shopkeeper.join()
