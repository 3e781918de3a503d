"""Flower's process at the cloud: sends the orders of `elsa cloud` out and brings answers back."""

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from elsa.engine.flower.door import Caller, Head
from elsa.engine.flower.parcel import pack, unpack

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry until `elsa cloud` says that it is over."""
    with Caller(str(context.run_config["door"])) as cloud:
        carry(grid, cloud)


def carry(grid: Grid, cloud: Caller) -> None:
    """Ask for orders, one after the other, and look for answers in between."""
    sent: dict[str, int] = {}  # the job that a message is of
    while True:
        head, frame = cloud.ask({"say": "next"})
        if head.get("end"):
            return
        if "job" in head:
            job = int(head.pop("job"))
            message, reason = _send(grid, head, frame)
            if message:
                sent[message] = job
            else:
                cloud.ask({"say": "failed", "job": job, "reason": reason})
        for reply in grid.pull_messages(list(sent)) if sent else ():
            job = sent.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                told, answer = {"failed": reply.error.reason}, b""
            else:
                told, answer = unpack(reply.content)
            if "failed" in told:
                cloud.ask({"say": "failed", "job": job, "reason": told["failed"]})
            else:
                cloud.ask({"say": "answer", "job": job}, answer)


def _send(grid: Grid, head: Head, frame: bytes) -> tuple[str, str]:
    """The number of the message that carries an order; or nothing, and why."""
    edge, seconds = head.pop("edge"), float(head.pop("seconds"))
    nodes = [node.node_id for node in grid.get_nodes() if node.name == edge]
    if not nodes:
        return "", f"Flower has no word of the SuperNode of {edge}"
    message = Message(pack(head, frame), nodes[0], "train.order", ttl=seconds)
    (number,) = grid.push_messages([message])
    return number or "", "" if number else "Flower's SuperLink refused the message"
