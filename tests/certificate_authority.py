"""A certificate authority for tests; keys are made once a process, for making RSA keys is slow."""

from __future__ import annotations

import datetime
import ipaddress
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lbproxy.model.listener import Certificate


@lru_cache
def make_key(kind: str = "ec", index: int = 0) -> Any:
    match kind:
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "ec384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "rsa3072":
            return rsa.generate_private_key(65537, 3072)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(kind)


def key_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Signs certificates; its root signs an intermediate that signs the leaves."""

    def __init__(self, name: str = "Test") -> None:
        self.root_key = make_key("ec", hash(name))
        self.root = self._sign(f"{name} root", self.root_key, self.root_key, f"{name} root", ca=True)
        self.middle_key = make_key("ec", hash(name) + 1)
        self.middle = self._sign(f"{name} middle", self.middle_key, self.root_key, f"{name} root", ca=True)
        self._issuer = f"{name} middle"

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def leaf(
        self, *names: str, kind: str = "ec", common_name: str = "leaf", days: int = 30, key: Any = None
    ) -> x509.Certificate:
        key = key or make_key(kind)
        return self._sign(common_name, key, self.middle_key, self._issuer, names=names, days=days)

    def pem(self, *names: str, kind: str = "ec", common_name: str = "leaf", days: int = 30) -> bytes:
        """Leaf, intermediate and key."""
        leaf = self.leaf(*names, kind=kind, common_name=common_name, days=days)
        return leaf.public_bytes(Encoding.PEM) + self.middle.public_bytes(Encoding.PEM) + key_pem(make_key(kind))

    def certificate(self, *names: str, kind: str = "ec", common_name: str = "leaf", days: int = 30) -> Certificate:
        source = f"{'+'.join(names) or common_name}.{kind}.{days}.pem"
        return Certificate(source=source, pem=self.pem(*names, kind=kind, common_name=common_name, days=days))

    def _sign(
        self,
        subject: str,
        key: Any,
        issuer_key: Any,
        issuer: str,
        *,
        ca: bool = False,
        names: tuple[str, ...] = (),
        days: int = 365,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        start = min(now, now + datetime.timedelta(days=days)) - datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if ca:
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
            )
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                    **usage,
                ),
                critical=True,
            )
        if names:
            alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
