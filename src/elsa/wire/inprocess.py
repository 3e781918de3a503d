"""The in-memory transport: everything is a function call, but the bytes are real."""

from collections.abc import Callable, Sequence

from elsa.wire.transport import Caller, Handler, Layer, Link, at_once, serve


class InProcess(Caller):
    """A link to `handler` in this process; what it carries is serialised both ways.

    `refused(peer, reason)` is called when a request is refused, as `serve` says.
    """

    def __init__(
        self,
        handler: Handler,
        link: Link,
        layers: Sequence[Layer] = (),
        refused: Callable[[str, str], None] | None = None,
    ) -> None:
        exchange = at_once(lambda data: serve(handler, link.caller, data, refused))
        super().__init__(*exchange, link, layers)
