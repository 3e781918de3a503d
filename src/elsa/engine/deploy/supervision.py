"""What a party of a deployment tells whoever watches over it."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Supervision:
    """How a cloud or an edge is watched over.

    Attributes:
        metrics: PORT or HOST:PORT for Prometheus to scrape; empty for none.
        ready: told whether the party can do its work.
    """

    metrics: str = ""
    ready: Callable[[bool], None] = field(default=lambda _: None)
