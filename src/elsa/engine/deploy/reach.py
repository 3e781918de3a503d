"""How far a device is from the edge servers it knows, and whose clock is right.

A ping is answered at once, whatever else the edge is doing. Of several, the median is the time
there and back; the quickest says best how far the clocks are apart, as in NTP (RFC 5905): the edge
answered half way between sending and hearing, give or take half of that ping.
"""

import logging
import statistics
from collections.abc import Callable, Mapping
from contextlib import closing
from time import monotonic, time
from typing import Protocol

from elsa.errors import LinkError, ProtocolError, UntrustedError
from elsa.roles.exchange import expect
from elsa.wire.messages import Message
from elsa.wire.places import Clock, Ping, Route
from elsa.wire.transport import Transport

PINGS = 5
"""Pings that count; one before them makes the connection."""
SKEW = 60.0
"""Seconds that clocks may be apart before a device says so: certificates have dates."""
_log = logging.getLogger(__name__)


def measure(
    edge: str,
    link: Transport,
    clock: Callable[[], float] = monotonic,
    today: Callable[[], float] = time,
) -> Route:
    """Ping an edge.

    Args:
        edge: its name.
        link: to it.
        clock: monotonic seconds.
        today: seconds since 1970.

    Raises:
        LinkError: it cannot be reached.
        ProtocolError: it does not let this device in.
    """
    expect(Clock, link.call(Ping()))
    took: list[float] = []
    ahead: list[float] = []
    for _ in range(PINGS):
        began, sent = clock(), today()
        answer: Message = link.call(Ping())
        took.append(clock() - began)
        ahead.append(expect(Clock, answer).microseconds / 1e6 - sent - took[-1] / 2)
    off = ahead[took.index(min(took))]
    if abs(off) > SKEW:
        _log.warning(
            "the clock of %s is %.0f s %s this machine's: certificates may be refused for their "
            "dates",
            edge,
            abs(off),
            "ahead of" if off > 0 else "behind",
        )
    return Route(edge, statistics.median(took), off)


class Closable(Transport, Protocol):
    """A link that can be closed."""

    def close(self) -> None:
        """Hang up."""
        ...


def survey(links: Mapping[str, Callable[[], Closable]]) -> dict[str, Route]:
    """The edges that answer, by name.

    Args:
        links: each edge's name, and what makes a link to it.

    Raises:
        ProtocolError: none answers, and one of them does not let this device in.
        UntrustedError: none answers, and the certificate of one of them was revoked.
    """
    routes: dict[str, Route] = {}
    refused: ProtocolError | UntrustedError | None = None
    for edge, make in links.items():
        try:
            with closing(make()) as link:
                routes[edge] = measure(edge, link)
            _log.info("%s is %.3g ms away", edge, 1e3 * routes[edge].seconds)
        except (ProtocolError, UntrustedError) as error:
            _log.warning("%s: %s", edge, error)
            refused = error
        except LinkError as error:
            _log.info("%s is out of reach: %s", edge, error)
    if refused is not None and not routes:
        raise refused
    return routes


def nearest(routes: Mapping[str, Route], wanted: str) -> str:
    """The edge that is wanted, if it answered; else the one that is least far; empty for none."""
    if wanted in routes:
        return wanted
    return min(routes, key=lambda edge: routes[edge].seconds, default="")
