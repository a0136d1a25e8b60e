"""Small HTTP servers that behave badly on purpose, and that record what reaches them. With TLS, if wanted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx


@dataclass
class Reply:
    """What to answer. The body is sent as it is."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass
class Recorded:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def everything(self) -> str:
        """All of it as one text, to look for secrets in."""
        return f"{self.method} {self.path} {self.headers} {self.body!r}"


@dataclass
class Web:
    """A server under way. ``reply`` may be replaced at any time."""

    url: str
    reply: Callable[[Recorded], Reply | None]
    requests: list[Recorded] = field(default_factory=list)

    @property
    def everything(self) -> str:
        """All requests as one text."""
        return "\n".join(request.everything for request in self.requests)


@contextmanager
def web(reply: Callable[[Recorded], Reply | None], tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Web]:
    """A server on a free port of this machine, or on the port that is given. Without a reply the connection ends."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Recorded(self.command, self.path, headers, body)
            running.requests.append(request)
            if (answer := running.reply(request)) is None:
                return
            with suppress(OSError):  # the client may have had enough
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.media_type)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is not None:
                try:
                    request = tls.wrap_socket(request, server_side=True)
                except OSError:  # the client does not trust us, or we do not trust it
                    return
            super().finish_request(request, client_address)
            if tls is not None:
                request.close()

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", port), Handler)
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    running = Web(f"{scheme}://{host}:{server.server_address[1]}", reply)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Losing:
    """A proxy under way: the calls whose answers it has lost, each as a method and the end of a path, and what these
    answers were.
    """

    url: str = ""
    lost: list[tuple[str, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@contextmanager
def losing_answers(server: str, *calls: tuple[str, str]) -> Iterator[Losing]:
    """A proxy that hands every call on to a server, and loses the first answer to each of these calls.

    What is given twice is lost twice.
    """
    losing = Losing()

    def reply(request: Recorded) -> Reply | None:
        headers = {name: request.headers[name] for name in _HANDED_ON if name in request.headers}
        answer = httpx.request(
            request.method, server + request.path, content=request.body, headers=headers, timeout=240
        )
        for call in calls:
            fits = request.method == call[0] and request.path.endswith(call[1])
            if fits and losing.lost.count(call) < calls.count(call):
                losing.lost.append(call)
                losing.statuses.append(answer.status_code)
                return None
        return Reply(answer.status_code, answer.content, media_type=answer.headers.get("Content-Type", ""))

    with web(reply) as proxy:
        losing.url = proxy.url
        yield losing


_HANDED_ON = ("authorization", "content-type", "accept")


@contextmanager
def dripping(
    beginning: bytes,
    drop: bytes = b"x",
    pause: float = 0.1,
    tls: ssl.SSLContext | None = None,
    heard: list[bytes] | None = None,
) -> Iterator[str]:
    """A server that sends a beginning and then a byte now and then, for ever. Gives its URL; fills ``heard``."""
    requests = [] if heard is None else heard
    stop = threading.Event()

    def drip(plain: socket.socket) -> None:
        plain.settimeout(30)
        with suppress(OSError), plain, tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
            requests.append(connection.recv(65536))
            connection.sendall(beginning)
            while not stop.wait(pause):
                connection.sendall(drop)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            worker = threading.Thread(target=drip, args=(connection,), daemon=True)
            worker.start()
            workers.append(worker)

    workers: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for worker in workers:
                worker.join()


@dataclass(frozen=True)
class Authority:
    """A private authority with a certificate for ``localhost`` and one for a client: files in PEM format."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path

    def server(self, *, wants_certificate: bool = False) -> ssl.SSLContext:
        """TLS of a server of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_cert, self.server_key)
        if wants_certificate:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def authority(folder: Path) -> Authority:
    """A new private authority, made by the ``cryptography`` package."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server", "client")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"flowyml test {name}")]) for name in keys}
    for name, key in keys.items():
        is_ca = name == "ca"
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_ca, crl_sign=is_ca, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()), critical=False)
        )
        if name == "server":
            hosts = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        signed = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return Authority(
        folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key"
    )
