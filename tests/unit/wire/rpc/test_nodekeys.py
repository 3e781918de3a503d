"""A certificate's key as Flower takes it: the same key, and none of a certificate that is bad."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from elsa.errors import CertificateError
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.nodekeys import node_key, public_node_key
from elsa.wire.rpc.security import REVOKED, Tls

RAW = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_authority(tmp_path)
    for name in ("edge-0", "edge-1"):
        issue(tmp_path, Party(name, "edge"), 1)
    return tmp_path


def test_the_cloud_registers_the_key_that_the_edge_signs_with(folder: Path) -> None:
    own = load_ssh_private_key(node_key(Tls(folder, "edge-0")), None)
    (folder / "edge-0.key").unlink()  # the cloud has no key of an edge
    known = load_ssh_public_key(public_node_key(Tls(folder, "edge-0")))
    other = load_ssh_public_key(public_node_key(Tls(folder, "edge-1")))
    assert own.public_key().public_bytes(*RAW) == known.public_bytes(*RAW)
    assert known.public_bytes(*RAW) != other.public_bytes(*RAW)


def test_a_revoked_foreign_or_wrongly_named_certificate_gives_no_key(folder: Path) -> None:
    edge = Tls(folder, "edge-0")
    serial = x509.load_pem_x509_certificate(edge.certificate.read_bytes()).serial_number
    (folder / REVOKED).write_text(f"{serial:x}\n", encoding="utf-8")
    with pytest.raises(CertificateError, match=r"edge-0\.pem.*revoked"):
        public_node_key(edge)
    (folder / "edge-0.pem").write_bytes((folder / "edge-1.pem").read_bytes())
    with pytest.raises(CertificateError, match="is not of 'edge-0'"):
        public_node_key(edge)
    (folder / "ca.key").unlink()
    make_authority(folder)
    with pytest.raises(CertificateError, match="was not issued by any"):
        public_node_key(Tls(folder, "edge-1"))
