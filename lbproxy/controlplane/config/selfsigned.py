"""The certificate that ``certificates = self-signed`` stands for: made once, kept, made anew before it expires."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbproxy.controlplane.config import certificates
from lbproxy.controlplane.config.certificates import ReadCertificate
from lbproxy.controlplane.config.errors import reason_of
from lbproxy.model.listener import Certificate

FILE_NAME = "self-signed.pem"

# The longest that current browsers accept (CA/Browser Forum ballot SC-22)
_VALID_FOR = datetime.timedelta(days=397)


def self_signed(directory: str, now: datetime.datetime, *, create: bool) -> ReadCertificate:
    """Return the kept certificate, or a new one when there is none that is still good.

    A new one is written to ``directory`` (made where missing) only with ``create``.  Raises ValueError when that fails.
    """
    path = os.path.join(directory, FILE_NAME)
    with contextlib.suppress(ValueError):  # missing, damaged, foreign: a new one takes its place
        kept = certificates.read(path, now)
        if kept.not_after > now + certificates.EXPIRES_SOON:
            return kept
    pem, not_after = generate(now, socket.gethostname())
    if create:
        try:
            _write(directory, path, pem)
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {reason_of(error)}") from error
    return ReadCertificate(
        certificate=Certificate(source=path, pem=pem),
        not_after=not_after,
        files=(path,) if create else (),
    )


def generate(now: datetime.datetime, host_name: str) -> tuple[bytes, datetime.datetime]:
    """Make an ECDSA P-256 certificate for this machine; returns it with its key as PEM, and its end."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lbproxy self-signed")])
    not_after = now + _VALID_FOR
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # for clients whose clock is a little behind
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName(_names(host_name)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + key_pem, not_after


def _names(host_name: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    if host_name.isascii() and host_name.lower() not in ("", "localhost"):
        names.append(x509.DNSName(host_name.lower()))
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    return names


def _write(directory: str, path: str, pem: bytes) -> None:
    """Write a file that only we can read, whole or not at all."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
