"""Certificates for the cases with TLS: an authority, servers and clients below it, and a stranger."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """PEM files in a folder: `ca.crt`, `server.crt` and `.key`, `client.crt` and `.key`, `stranger.crt` and `.key`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = self._make("ca", None)
        for name in ("server", "client"):
            self._make(name, authority)
        self._make("stranger", self._make("strange-ca", None))

    def path(self, name):
        return str(self.folder / name)

    def _make(self, name, issuer):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"data plane {name}")])
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [
            x509.DNSName("localhost"),
            x509.DNSName("hub.example"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0] if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if issuer:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return subject, key

    def of_client(self, name=None, protocols=None, version=None):
        """What a client connects with: it trusts the authority, and shows the named certificate."""
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        if name:
            context.load_cert_chain(self.path(f"{name}.crt"), self.path(f"{name}.key"))
        if protocols:
            context.set_alpn_protocols(protocols)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def of_server(self, name="server", ask=False):
        """What a server listens with; with `ask` a client must show a certificate of the authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(f"{name}.crt"), self.path(f"{name}.key"))
        if ask:
            context.load_verify_locations(self.path("ca.crt"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context
