"""Certificates: a fault is said with file, subject and reason; who has none stays out."""

import datetime
import logging
import re
import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from elsa.errors import CertificateError, ElsaError, LinkError, ProtocolError, UntrustedError
from elsa.wire.messages import Accepted
from elsa.wire.rpc import authority, client
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Loopback, Security, Tls
from elsa.wire.rpc.server import RpcServer
from elsa.wire.transport import Link

HOSTS = ("127.0.0.1", "localhost")
QUICK = Timing(answer=10, reconnect=0.5, first_pause=0.05, longest_pause=0.1)
PARTIES = (Party("edge-0", "edge", HOSTS), Party("device-0", "device"), Party("device-1", "device"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "certificates")


@pytest.fixture(params=["", "00\n"], ids=["no list", "a list of revoked ones"])
def either(request: pytest.FixtureRequest, folder: Path) -> Path:
    """Without a list, gRPC alone looks at what a server shows; with one, the caller before it."""
    if request.param:
        (folder / "revoked.txt").write_text(request.param)
    return folder


def make(folder: Path) -> Path:
    make_authority(folder)
    for party in PARTIES:
        issue(folder, party, 30)
    return folder


def serve(security: Security) -> RpcServer:
    names = ["device-0", "device-1"]
    return RpcServer(lambda *_: Accepted(), "127.0.0.1:0", security, callers=names)


def call(address: str, security: Security) -> None:
    link = Rpc(address, Link("device_edge", security.name, "edge-0"), security, timing=QUICK)
    try:
        link.call(Accepted())
    finally:
        link.close()


def test_what_is_issued_can_be_used_and_keys_are_for_their_owner_alone(folder: Path) -> None:
    for party in PARTIES:
        Tls(folder, party.name).check()
    for key in folder.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    assert not list(folder.glob(".*"))


def test_nothing_is_replaced_unless_asked_for(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    make(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert issue(folder, PARTIES[1], 30, renew=True)
    changed = {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"device-0.pem", "device-0.key"}
    Tls(folder, "device-0").check()


def expired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_EARLY", datetime.timedelta(days=3))
    issue(folder, PARTIES[1], -2, renew=True)


def early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_EARLY", datetime.timedelta(days=-3))
    issue(folder, PARTIES[1], 30, renew=True)


def foreign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make(folder.parent / "other")
    for name in ("device-0.pem", "device-0.key"):
        (folder / name).write_bytes((other / name).read_bytes())


def of_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("pem", "key"):
        (folder / f"device-0.{end}").write_bytes((folder / f"device-1.{end}").read_bytes())


def key_of_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "device-0.key").write_bytes((folder / "device-1.key").read_bytes())


def no_certificate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "device-0.pem").write_text("-----BEGIN CERTIFICATE-----\n")


def no_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "device-0.key").unlink()


@pytest.mark.parametrize(
    ("breakage", "file", "reason"),
    [
        (expired, "device-0.pem", r"subject CN=device-0,OU=device.*: expired; valid from"),
        (early, "device-0.pem", r"subject CN=device-0,OU=device.*: is not valid yet"),
        (
            foreign,
            "device-0.pem",
            r"subject CN=device-0,OU=device.*: was not issued by any of .*ca\.pem",
        ),
        (of_another, "device-0.pem", r"subject CN=device-1,OU=device.*: is not of 'device-0'"),
        (key_of_another, "device-0.key", r"is not the key of .*subject CN=device-0,OU=device"),
        (no_certificate, "device-0.pem", "is no PEM certificate"),
        (no_key, "device-0.key", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, breakage: object, file: str, reason: str
) -> None:
    breakage(folder, monkeypatch)  # type: ignore[operator]
    with pytest.raises(CertificateError, match=reason) as caught:
        Tls(folder, "device-0").check()
    assert str(folder / file) in str(caught.value)
    with pytest.raises(CertificateError):
        call("127.0.0.1:1", Tls(folder, "device-0"))


def test_foreign_authority_is_kept_out_by_both_ends(either: Path, tmp_path: Path) -> None:
    folder = either
    other = make(tmp_path / "other")
    # a server that takes callers of either authority, and whose own is the other one
    rogue = make(tmp_path / "rogue")
    with (rogue / "ca.pem").open("ab") as trusted:
        trusted.write((folder / "ca.pem").read_bytes())
    with serve(Tls(rogue, "edge-0")) as server:
        with pytest.raises(LinkError, match=r"may not accept the other's certificate"):
            call(server.address, Tls(folder, "device-0"))
        call(server.address, Tls(rogue, "device-0"))
    with serve(Tls(folder, "edge-0")) as server:
        with pytest.raises(LinkError, match=r"may not accept the other's certificate"):
            call(server.address, Tls(other, "device-0"))
        call(server.address, Tls(folder, "device-0"))
    # a caller that trusts the server's authority but shows a certificate of its own
    mixed = tmp_path / "mixed"
    make(mixed)
    with serve(Tls(folder, "edge-0")) as server:
        (mixed / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
        with pytest.raises(ElsaError):
            call(server.address, Tls(mixed, "device-0"))
        call(server.address, Tls(folder, "device-1"))


def test_caller_without_tls_is_kept_out(folder: Path) -> None:
    with serve(Tls(folder, "edge-0")) as server:
        with pytest.raises(LinkError):
            call(server.address, Loopback("device-0"))
        call(server.address, Tls(folder, "device-0"))


def test_device_is_no_server(either: Path) -> None:
    issue(either, Party("device-1", "device", HOSTS), 30, renew=True)
    with serve(Tls(either, "device-1")) as server, pytest.raises(LinkError):
        call(server.address, Tls(either, "device-0"))


def test_server_of_another_host_is_not_trusted(either: Path) -> None:
    issue(either, Party("edge-0", "edge", ("10.0.0.4",)), 30, renew=True)
    with serve(Tls(either, "edge-0")) as server, pytest.raises(LinkError):
        call(server.address, Tls(either, "device-0"))


def test_revoked_certificate_is_refused_and_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = x509.load_pem_x509_certificate((folder / "device-0.pem").read_bytes())
    says = f"certificate of .*CN=device-0.*, serial {own.serial_number:x}, was revoked: lost in May"
    with serve(Tls(folder, "edge-0")) as server, caplog.at_level(logging.WARNING):
        link = Link("device_edge", "device-0", "edge-0")
        with closing(Rpc(server.address, link, Tls(folder, "device-0"), timing=QUICK)) as inside:
            inside.call(Accepted())
            (folder / "revoked.txt").write_text(
                f"# lost ones\n\n{own.serial_number:X} lost in May\n"
            )
            with pytest.raises(ProtocolError, match=says):  # whoever is in goes with its next word
                inside.call(Accepted())
        with pytest.raises(ProtocolError, match=says):
            call(server.address, Tls(folder, "device-0"))
        call(server.address, Tls(folder, "device-1"))
    assert len(re.findall(says, caplog.text)) == 2


def test_server_whose_certificate_was_revoked_is_not_spoken_with(folder: Path) -> None:
    own = x509.load_pem_x509_certificate((folder / "edge-0.pem").read_bytes())
    other = x509.load_pem_x509_certificate((folder / "device-1.pem").read_bytes())
    says = rf"revoked\.txt: .*CN=edge-0.*, serial {own.serial_number:x}, was revoked: stolen"
    heard: list[str] = []
    names, link = ["device-0"], Link("device_edge", "device-0", "edge-0")

    def handle(peer: str, _: object) -> Accepted:
        heard.append(peer)
        return Accepted()

    with (
        RpcServer(handle, "127.0.0.1:0", Tls(folder, "edge-0"), callers=names) as server,
        closing(Rpc(server.address, link, Tls(folder, "device-0"), timing=QUICK)) as inside,
    ):
        inside.call(Accepted())
        (folder / "revoked.txt").write_text(f"{other.serial_number:x}\n")
        inside.call(Accepted())  # its certificate is looked at, and good
        with (folder / "revoked.txt").open("a") as lines:
            lines.write(f"{own.serial_number:x} stolen\n")
        for _ in range(2):
            with pytest.raises(UntrustedError, match=says):
                inside.call(Accepted())
        assert len(heard) == 2
        (folder / "revoked.txt").write_text("nonsense\n")
        with pytest.raises(CertificateError, match=r"revoked.txt: .* allowed: on each line"):
            inside.call(Accepted())


def test_server_that_answers_with_another_certificate_than_it_showed_gets_no_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(folder, Party("edge-1", "edge", HOSTS), 30)
    monkeypatch.setattr(
        client, "shown_certificate", lambda *_: (folder / "edge-1.pem").read_bytes()
    )
    (folder / "revoked.txt").write_text("")
    with serve(Tls(folder, "edge-0")) as server, pytest.raises(LinkError, match="no answer"):
        call(server.address, Tls(folder, "device-0"))
    with serve(Tls(folder, "edge-1")) as server:
        call(server.address, Tls(folder, "device-0"))


def test_list_of_revoked_certificates_that_cannot_be_read_lets_nobody_new_in(
    folder: Path, tmp_path: Path
) -> None:
    servers = shutil.copytree(folder, tmp_path / "of the server")
    with serve(Tls(servers, "edge-0")) as server:
        link = Link("device_edge", "device-0", "edge-0")
        with closing(Rpc(server.address, link, Tls(folder, "device-0"), timing=QUICK)) as inside:
            inside.call(Accepted())
            (servers / "revoked.txt").write_text("device-1\n")
            with pytest.raises(ProtocolError, match=r"revoked.txt: .* allowed: on each line"):
                call(server.address, Tls(folder, "device-1"))
            inside.call(Accepted())


def test_caller_s_certificate_is_replaced_while_both_run(folder: Path) -> None:
    security = Tls(folder, "device-0")
    with serve(Tls(folder, "edge-0")) as server:
        call(server.address, security)
        before = security.certificate.read_bytes()
        issue(folder, PARTIES[1], 30, renew=True)
        assert security.certificate.read_bytes() != before
        call(server.address, security)


def test_many_callers_connect_at_once(folder: Path) -> None:
    # gRPC's dynamic credentials crashed here, the whole process with them.
    failed: list[ElsaError] = []

    def connect(name: str) -> None:
        try:
            call(server.address, Tls(folder, name))
        except ElsaError as error:
            failed.append(error)

    names = [f"device-{number}" for number in range(24)]
    for name in names:
        issue(folder, Party(name, "device"), 30)
    serving = RpcServer(lambda *_: Accepted(), "127.0.0.1:0", Tls(folder, "edge-0"), callers=names)
    with serving as server:
        threads = [threading.Thread(target=connect, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not failed


def test_authority_is_replaced_step_by_step(folder: Path, tmp_path: Path) -> None:
    new = make(tmp_path / "new")
    both = (folder / "ca.pem").read_bytes() + (new / "ca.pem").read_bytes()
    for each in (folder, new):
        (each / "ca.pem").write_bytes(both)
    with serve(Tls(folder, "edge-0")) as server:
        call(server.address, Tls(folder, "device-0"))  # of the old one
        call(server.address, Tls(new, "device-1"))  # of the new one
