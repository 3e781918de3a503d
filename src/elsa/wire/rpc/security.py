"""Who a party is on the network: certificates under mutual TLS, or a mere name on loopback.

A party's name is the common name of its certificate. A caller reads its files again for every new
connection, so they can be replaced while it runs; a server reads its own once.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from elsa.errors import CertificateError, ConfigError

AUTHORITY, REVOKED = "ca.pem", "revoked.txt"
"""Files of a folder of certificates that are there once: the authority, and serial numbers."""


@dataclass(frozen=True)
class Tls:
    """Mutual TLS: both ends show a certificate of one authority.

    Attributes:
        folder: of certificates: ca.pem, NAME.pem and NAME.key; revoked.txt, if there, lists serial
            numbers in hexadecimal, a line each, of those to have nothing to do with; the reason
            may follow.
        name: of this party.
    """

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        """This party's certificate."""
        return self.folder / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        """This party's private key."""
        return self.folder / f"{self.name}.key"

    @property
    def authority(self) -> Path:
        """Certificate of the authority that all parties trust; several while one is replaced."""
        return self.folder / AUTHORITY

    @property
    def revoked(self) -> Path:
        """List of revoked certificates; need not be there."""
        return self.folder / REVOKED

    def check(self) -> None:
        """See that the files are there, belong together and are valid now.

        Raises:
            CertificateError: with the file, the subject and the reason.
        """
        own = self.check_certificate()
        try:
            key = load_pem_private_key(_read(self.key), None)
        except (ValueError, TypeError) as error:
            raise CertificateError(
                f"{self.key} (for subject {subject_of(own)}): is no private key without a "
                f"password ({error})"
            ) from error
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*spki) != own.public_key().public_bytes(*spki):
            raise CertificateError(
                f"{self.key}: is not the key of {self.certificate} (subject {subject_of(own)})"
            )

    def check_certificate(self) -> x509.Certificate:
        """This party's certificate, once it is seen to be of it, of the authority and valid now.

        Raises:
            CertificateError: with the file, the subject and the reason.
        """
        (own, *_), authorities = _certificates(self.certificate), _certificates(self.authority)
        _check_dates(self.certificate, own)
        issuers = [it for it in authorities if _issued(own, it)]
        if not issuers:
            raise CertificateError(
                f"{self.certificate} (subject {subject_of(own)}): was not issued by any of "
                f"{self.authority} (subject {', '.join(map(subject_of, authorities))}); its issuer "
                f"is {own.issuer.rfc4514_string()}: take both from one authority"
            )
        _check_dates(self.authority, issuers[0])
        if common_name(own) != self.name:
            raise CertificateError(
                f"{self.certificate} (subject {subject_of(own)}): is not of '{self.name}'"
            )
        return own

    def revocation(self, certificate: bytes) -> str:
        """Subject and reason, if the list names the serial number of this PEM certificate.

        Raises:
            CertificateError: the list cannot be read.
        """
        path = self.revoked
        if not path.exists():
            return ""
        shown = x509.load_pem_x509_certificate(certificate)
        for line in _read(path).decode(errors="replace").splitlines():
            serial, _, reason = line.strip().partition(" ")
            if not serial or serial.startswith("#"):
                continue
            try:
                revoked = int(serial.replace(":", ""), 16) == shown.serial_number
            except ValueError as error:
                raise CertificateError(
                    f"{path}: {error}; allowed: on each line a serial number in hexadecimal, and "
                    "a reason if you like"
                ) from error
            if revoked:
                return (
                    f"the certificate of {subject_of(shown)}, serial {shown.serial_number:x}, was "
                    f"revoked: {reason.strip(' #') or 'no reason is given'}"
                )
        return ""


@dataclass(frozen=True)
class Loopback:
    """No TLS: for parties of one machine that trust each other, by explicit choice.

    Attributes:
        name: of this party; nothing proves it.
    """

    name: str


Security = Tls | Loopback


def check_address(address: str, security: Security) -> str:
    """`address`, if it is HOST:PORT and may be used so.

    Raises:
        ConfigError: it is none, or not of this machine where there is no TLS.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"'{address}' is no address; allowed: HOST:PORT, as in 10.0.0.4:7001")
    if isinstance(security, Loopback) and not _is_loopback(host.strip("[]")):
        raise ConfigError(
            f"{address}: only 127.0.0.1, ::1 and localhost may do without TLS; "
            "make certificates with `elsa certs`"
        )
    return address


def channel(
    address: str, security: Security, options: list[tuple[str, int]], shown: bytes = b""
) -> grpc.Channel:
    """A new connection to a server, not yet made.

    Args:
        address: HOST:PORT.
        security: who calls.
        options: of gRPC.
        shown: the one certificate to trust, in PEM; empty for all of the authority.

    Raises:
        CertificateError: this party's files cannot be used.
    """
    if isinstance(security, Loopback):
        return grpc.insecure_channel(address, options)
    security.check()
    credentials = grpc.ssl_channel_credentials(
        shown or _read(security.authority), _read(security.key), _read(security.certificate)
    )
    return grpc.secure_channel(address, credentials, options)


def bind(server: grpc.Server, address: str, security: Security) -> int:
    """Let a server listen; return its port.

    Raises:
        CertificateError: this party's files cannot be used.
        RuntimeError: the address is taken or not of this machine.
    """
    if isinstance(security, Loopback):
        return int(server.add_insecure_port(address))
    security.check()
    # Not gRPC's dynamic credentials: 1.85 crashes when callers connect while they are fetched.
    credentials = grpc.ssl_server_credentials(
        [(_read(security.key), _read(security.certificate))], _read(security.authority), True
    )
    return int(server.add_secure_port(address, credentials))


def common_name(certificate: x509.Certificate) -> str:
    """The name of the party that a certificate is of; empty if it has none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def subject_of(certificate: x509.Certificate) -> str:
    """A certificate's subject, for people."""
    return certificate.subject.rfc4514_string()


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CertificateError(f"{path}: is no PEM certificate ({error})") from error


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_dates(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        when = "expired" if now > last else "is not valid yet"
        raise CertificateError(
            f"{path} (subject {subject_of(certificate)}): {when}; valid from "
            f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}: "
            "make a new one with `elsa certs`, or set the clock"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{path}: cannot be read ({error.strerror}); `elsa certs` makes certificates"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
