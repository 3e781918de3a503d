"""The ClientApp of the Flower simulation; Ray's actors import it, so each keeps one model."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from learning import learner_of

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """The local steps of the device that this message is for."""
    config = message.content["config"]
    learner = learner_of(Path(config["folder"]), config["precision"])
    adapters, rows, loss = learner.train(
        message.content["arrays"].to_torch_state_dict(),
        int(context.node_config["partition-id"]),
        config["server-round"] - 1,
    )
    metrics = MetricRecord({"num-examples": rows, "loss": loss})
    content = RecordDict({"arrays": ArrayRecord(adapters), "metrics": metrics})
    return Message(content=content, reply_to=message)
