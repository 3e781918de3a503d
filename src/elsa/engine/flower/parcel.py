"""A frame and its head as the content of a Flower message."""

import json

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from elsa.engine.flower.door import Head


def pack(head: Head, frame: bytes) -> RecordDict:
    """The content of a message; Flower carries arrays in chunks, so a frame may be large."""
    array = Array(dtype="uint8", shape=(len(frame),), stype="elsa.frame", data=frame)
    return RecordDict(
        {"head": ConfigRecord({"json": json.dumps(head)}), "frame": ArrayRecord({"frame": array})}
    )


def unpack(content: RecordDict) -> tuple[Head, bytes]:
    """What `pack` was given."""
    head: Head = json.loads(str(content.config_records["head"]["json"]))
    return head, content.array_records["frame"]["frame"].data
