"""A party's certificate and key as Flower knows them: keys of an authenticated SuperNode."""

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from elsa.errors import CertificateError
from elsa.wire.rpc.security import Tls


def node_key(party: Tls) -> bytes:
    """The party's own private key, in the OpenSSH form that a SuperNode reads.

    Raises:
        CertificateError: its files cannot be used.
    """
    party.check()
    key = load_pem_private_key(party.key.read_bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_node_key(party: Tls) -> bytes:
    """The public key in another party's certificate, in the form that `flwr supernode` reads.

    Raises:
        CertificateError: the certificate is absent, revoked, not of the authority or not valid now.
    """
    certificate = party.check_certificate()
    if gone := party.revocation(certificate.public_bytes(Encoding.PEM)):
        raise CertificateError(f"{party.certificate}: {gone}; make a new one with `elsa certs`")
    return certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
