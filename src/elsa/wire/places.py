"""Messages about who is where: they come and go between rounds, over a network only.

    device                         edge server
    Ping               ->                           how far is it, and what is its clock?
                       <-          Clock            answered at once, before Register too

    cloud                          edge server
    RollCall           ->                           between rounds
                       <-          Presence         the devices that are there

A device measures the edges it knows, registers at one of them with what it measured, and the cloud
says where it belongs: `Task("move")` sends it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ping:
    """How long does an answer take, and what time is it there?"""


@dataclass(frozen=True)
class Clock:
    """The time where a Ping was answered.

    Attributes:
        microseconds: since 1970, UTC.
    """

    microseconds: int


@dataclass(frozen=True)
class Route:
    """How a device reaches an edge server.

    Attributes:
        edge: its name.
        seconds: there and back, the median of several pings.
        ahead: seconds that the edge's clock is ahead of the device's, at most half of the quickest
            ping off.
    """

    edge: str
    seconds: float
    ahead: float


@dataclass(frozen=True)
class Move:
    """A device that shall go to another edge server.

    Attributes:
        device: its name.
        edge: where to.
    """

    device: str
    edge: str


@dataclass(frozen=True)
class RollCall:
    """Who is there?

    Attributes:
        moves: devices of this edge that belong elsewhere from now on; those of an earlier roll call
            are forgotten.
    """

    moves: Sequence[Move] = ()


@dataclass(frozen=True)
class Present:
    """A device that is registered and connected.

    Attributes:
        device: its name.
        silent: seconds since it was last heard.
        routes: to the edges that it reached when it registered.
    """

    device: str
    silent: float
    routes: Sequence[Route] = ()


@dataclass(frozen=True)
class Presence:
    """Who is there.

    Attributes:
        present: one for each device.
    """

    present: Sequence[Present]
