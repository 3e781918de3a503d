"""A development authority: it issues the certificates of a federation's parties.

For trying things out, and for networks that have no authority of their own. Whoever holds ca.key
can become any party: keep it on a machine that plays no other role. Nothing else needs it.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from elsa.errors import CertificateError
from elsa.wire.rpc.security import AUTHORITY

Role = Literal["cloud", "edge", "device"]
KEY = "ca.key"
AUTHORITY_DAYS = 3650
_EARLY = datetime.timedelta(minutes=5)
"""A certificate is valid from a little before it is made: clocks differ."""
_USES = {
    "cloud": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "edge": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "device": [ExtendedKeyUsageOID.CLIENT_AUTH],
}


@dataclass(frozen=True)
class Party:
    """Whom a certificate is for.

    Attributes:
        name: its common name, as the config numbers it: "edge-0", "device-3", "cloud".
        role: what it may be used for: an edge may be a server, and the cloud if it has hosts.
        hosts: names and addresses under which others reach it.
    """

    name: str
    role: Role
    hosts: Sequence[str] = ()


def make_authority(folder: Path) -> None:
    """Write ca.pem and ca.key, unless they are there.

    Raises:
        CertificateError: the folder cannot be written.
    """
    if (folder / AUTHORITY).exists() and (folder / KEY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("elsa development authority", "authority")
    builder = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write(folder, KEY, _private(key), 0o600)
    _write(folder, AUTHORITY, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), 0o644)


def issue(folder: Path, party: Party, days: int, *, renew: bool = False) -> bool:
    """Write NAME.pem and NAME.key by the authority of the folder.

    Args:
        folder: holds ca.pem and ca.key.
        party: whom for.
        days: how long it is valid.
        renew: whether to replace those that are there.

    Returns:
        Whether anything was written.

    Raises:
        CertificateError: the authority's files cannot be used, or the folder cannot be written.
    """
    if (folder / f"{party.name}.pem").exists() and not renew:
        return False
    authority, signing = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    uses = list(_USES[party.role])
    if party.role == "cloud" and party.hosts:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(party.name, party.role), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if party.hosts:
        hosts = x509.SubjectAlternativeName([_host(host) for host in party.hosts])
        builder = builder.add_extension(hosts, critical=False)
    certificate = builder.sign(signing, hashes.SHA256())
    _write(folder, f"{party.name}.key", _private(key), 0o600)
    _write(folder, f"{party.name}.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    return True


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = load_pem_private_key((folder / KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(
            f"{folder}: {AUTHORITY} and {KEY} of the authority cannot be used ({error})"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / KEY}: is not a key that `elsa certs` made")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(name: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(folder: Path, name: str, content: bytes, mode: int) -> None:
    """Atomically, and never readable for others where `mode` forbids it."""
    path, partial = folder / name, folder / f".{name}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
        partial.replace(path)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be written ({error.strerror})") from error
