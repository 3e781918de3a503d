"""The certificate that a server shows, looked at before a caller says a word to it.

gRPC tells a caller no more of it than that it is valid. So where a list of revoked certificates is
there, a handshake of its own asks for it; the link then trusts this very certificate and no other,
and whoever answers there with another, as valid as it may be, gets none.
"""

import socket
import ssl

from elsa.errors import UntrustedError
from elsa.wire.rpc.security import Tls


def shown_certificate(address: str, security: Tls, seconds: float) -> bytes:
    """The certificate of a server, in PEM; valid, for its host, and not revoked.

    Args:
        address: HOST:PORT.
        security: who calls, whom it trusts, and what was revoked.
        seconds: until the server must have answered.

    Raises:
        UntrustedError: it was revoked; with the list, the subject and the reason.
        CertificateError: the list cannot be read.
        OSError: nobody answers there, or shows what this party trusts.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    context = ssl.create_default_context(cafile=str(security.authority))
    context.load_cert_chain(security.certificate, security.key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), seconds) as line,
        context.wrap_socket(line, server_hostname=host) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    shown = ssl.DER_cert_to_PEM_cert(certificate).encode()
    if gone := security.revocation(shown):
        raise UntrustedError(f"{address} is not spoken with: {security.revoked}: {gone}")
    return shown
