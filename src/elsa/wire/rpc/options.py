"""How gRPC is set: sizes, keepalive, how long is waited for what."""

from dataclasses import dataclass

from elsa.errors import ConfigError

SERVICE, METHOD = "elsa.v1.Elsa", "Exchange"
NUMBER, TOKEN, PEER = "elsa-number", "elsa-token", "elsa-peer"
"""Metadata of a stream; proto/elsa/v1/elsa.proto says what they hold."""

Options = list[tuple[str, int]]
_MARGIN = 2**16
"""Bytes over the limit that are still taken in, so that the log can say who sent them."""


@dataclass(frozen=True)
class Timing:
    """How long a caller waits, in seconds.

    Attributes:
        answer: for an answer, from the first time that it asked; over that the request failed.
        reconnect: for a broken link to come back.
        first_pause: before the second attempt to reconnect; each next one waits twice as long.
        longest_pause: between two attempts.
    """

    answer: float = 60.0
    reconnect: float = 20.0
    first_pause: float = 0.1
    longest_pause: float = 2.0


def channel_options(limit: int) -> Options:
    """Of a caller, with frames of up to `limit` bytes.

    A frozen peer shows in 8 to 13 s while nothing is sent; with data on its way only the deadline
    of an answer is sure.
    """
    return [
        *_sizes(limit),
        ("grpc.keepalive_time_ms", 8_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),  # every attempt connects anew, with fresh files
    ]


def server_options(limit: int) -> Options:
    """Of a server, with frames of up to `limit` bytes."""
    return [
        *_sizes(limit),
        ("grpc.keepalive_time_ms", 8_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.so_reuseport", 0),
    ]


def local_address(text: str) -> tuple[str, int]:
    """Host and port of a server for this machine's own supervisor: PORT of 127.0.0.1, or HOST:PORT.

    Raises:
        ConfigError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or text.startswith(":"):
        raise ConfigError(f"'{text}' is no address; allowed: PORT, or HOST:PORT as in 0.0.0.0:7002")
    return host or "127.0.0.1", int(port)


def _sizes(limit: int) -> Options:
    most = min(limit + _MARGIN, 2**31 - 1)
    return [
        ("grpc.max_send_message_length", most),
        ("grpc.max_receive_message_length", most),
    ]
