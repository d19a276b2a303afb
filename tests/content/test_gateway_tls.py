"""Gateways behind TLS: vouched for or refused, and bounded in time just the same."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ledger.content import (
    Cid,
    ContentMissing,
    GatewayServer,
    GatewayStore,
    Limits,
    MemoryStore,
    write_reply,
)

SMALL = {"a": b"first", "d/b": b"second"}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that only its own file vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "gateway.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + signed.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def tls_gateway(memory: MemoryStore, certificate: Path) -> Iterator[str]:
    """Our gateway behind TLS; a request for the digest 00… gets one byte and then silence."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stop = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path.endswith(str(Cid.raw(bytes(32)))):
                self.wfile.write(b"H")
                stop.wait(60)
            else:
                write_reply(self, GatewayServer(memory).handle(path, query))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    stop.set()
    server.shutdown()
    server.server_close()


def test_a_gateway_behind_tls_is_read_when_its_certificate_is_vouched_for(
    memory: MemoryStore, tls_gateway: str, certificate: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = memory.put_directory(SMALL)
    with pytest.raises(ContentMissing, match="CERTIFICATE_VERIFY_FAILED"):
        GatewayStore([tls_gateway]).get_directory(digest, limits)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert GatewayStore([tls_gateway]).get_directory(digest, limits) == SMALL


def test_the_deadline_holds_behind_tls(tls_gateway: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(ContentMissing, match=r"not done after 0.5 s"):
        GatewayStore([tls_gateway], timeout_s=0.5).get_raw(bytes(32), 100)
