"""Whether one of Flower's servers answers, by its health endpoint."""

import logging
import ssl

import httpx

_WAIT = 5.0
"""Seconds for an answer."""


class Pulse:
    """Asks a server of this machine; call it.

    Attributes:
        reason: why there was no answer the last time.
    """

    def __init__(self, url: str, trusted: ssl.SSLContext | None = None) -> None:
        """Set up.

        Args:
            url: of its health endpoint.
            trusted: authorities, where it is asked over TLS.
        """
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for every look
        self._url, self._trusted = url, trusted
        self.reason = ""

    @property
    def mistrusted(self) -> bool:
        """Whether there was no answer because its certificate is not accepted."""
        return "CERTIFICATE_VERIFY_FAILED" in self.reason

    def __call__(self) -> bool:
        """Whether it answers."""
        verify = False if self._trusted is None else self._trusted
        try:
            return httpx.get(self._url, verify=verify, trust_env=False, timeout=_WAIT).is_success
        except httpx.HTTPError as error:
            self.reason = str(error)
            return False
