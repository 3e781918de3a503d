"""Flower's process at an edge, a new one for each message: hands an order to `elsa edge`."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from elsa.engine.flower.door import Caller
from elsa.engine.flower.parcel import pack, unpack

app = ClientApp()


@app.train("order")
def order(message: Message, context: Context) -> Message:
    """The edge's answer to an order, or why there is none."""
    head, frame = unpack(message.content)
    try:
        with Caller(str(context.node_config["door"])) as edge:
            told, answer = edge.ask(head, frame, message.metadata.ttl)
    except (OSError, EOFError) as error:
        told, answer = {"failed": f"elsa edge did not answer: {error!r}"}, b""
    return Message(pack(told, answer), reply_to=message)
