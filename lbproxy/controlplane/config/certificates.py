"""Certificates from PEM files, checked before any worker sees them."""

from __future__ import annotations

import datetime
import glob
import itertools
import os
import re
from collections.abc import Iterable, Sequence

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from lbproxy.controlplane.config.errors import reason_of
from lbproxy.model.listener import Certificate

EXPIRES_SOON = datetime.timedelta(days=14)

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@attrs.frozen(kw_only=True)
class ReadCertificate:
    """A certificate with what reading it brought to light."""

    certificate: Certificate
    not_after: datetime.datetime
    files: tuple[str, ...]
    """Absolute paths of what was read: the file, and the key's where that is apart."""
    warnings: tuple[str, ...] = ()
    """An operator should know, but it can be served."""


def find(pattern: str, folder: str) -> list[str]:
    """Absolute paths of the file, or the files, that a pattern names.

    A relative one starts at ``folder``.  Matches are sorted; ``*.key`` files are passed over, since they belong to
    the certificate beside them.  Raises ValueError when there is no match.
    """
    whole = os.path.join(folder, pattern)
    if not glob.has_magic(pattern):
        return [os.path.normpath(whole)]
    matches = sorted(path for path in glob.glob(whole) if not path.endswith(".key") and os.path.isfile(path))
    if not matches:
        raise ValueError(f"no file matches {os.path.normpath(whole)}; write the path of a PEM file")
    return [os.path.normpath(path) for path in matches]


def folder_of(pattern: str, folder: str) -> str | None:
    """The folder where the pattern would find a new file; None if it names one file, or files in many folders."""
    start = os.path.dirname(pattern)
    if not glob.has_magic(pattern) or glob.has_magic(start):
        return None
    return os.path.normpath(os.path.join(folder, start))


def read(path: str, now: datetime.datetime) -> ReadCertificate:
    """Read one chain with its key.

    The key is in the file itself or in ``X.key`` beside ``X.pem`` or ``X.crt``.  Raises ValueError, naming the file,
    when it cannot be served: unreadable, no or another certificate's key, encrypted, leaf not first.
    """
    certificates, keys = _blocks(path)
    files = [path]
    key_path = os.path.splitext(path)[0] + ".key"
    if not keys and key_path != path and os.path.exists(key_path):
        keys = _blocks(key_path)[1]
        files.append(key_path)
    if not certificates:
        raise ValueError(f"{path} has no certificate; it needs the chain in PEM, leaf first")
    if not keys:
        raise ValueError(f"{path} has no private key; append it to the file, or put it into {key_path}")
    if len(keys) > 1:
        raise ValueError(f"{files[-1]} has {len(keys)} private keys; leave only the leaf's")
    chain = [_load_certificate(path, block) for block in certificates]
    _check_key(path, chain, _load_key(files[-1], keys[0]))
    return ReadCertificate(
        certificate=Certificate(source=path, pem=b"\n".join((*certificates, keys[0], b""))),
        not_after=chain[0].not_valid_after_utc,
        files=tuple(files),
        warnings=tuple(_warnings(path, chain, now)),
    )


def read_authorities(path: str) -> bytes:
    """Read certificates to trust; raises ValueError, naming the file."""
    certificates, _ = _blocks(path)
    if not certificates:
        raise ValueError(f"{path} has no certificate; it needs the authorities' certificates in PEM")
    for block in certificates:
        _load_certificate(path, block)
    return b"\n".join((*certificates, b""))


def read_bytes(path: str) -> bytes:
    """Read a file; raises ValueError with the path and the reason."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from error


def _blocks(path: str) -> tuple[list[bytes], list[bytes]]:
    """The PEM blocks of a file: certificates and private keys; others (parameters, say) do not matter."""
    found = [(match[1], match[0]) for match in _BLOCK.finditer(read_bytes(path))]
    return (
        [block for label, block in found if label == b"CERTIFICATE"],
        [block for label, block in found if label.endswith(b"PRIVATE KEY")],
    )


def _load_certificate(path: str, block: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} has a certificate that cannot be read: {error}") from error


def _load_key(path: str, block: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(block, password=None)
    except TypeError as error:
        raise ValueError(
            f"the private key in {path} is encrypted; decrypt it, for example with openssl pkey"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the private key in {path} cannot be read: {_first_line(error)}") from error


def _check_key(path: str, chain: Sequence[x509.Certificate], key: PrivateKeyTypes) -> None:
    ours = _public_bytes(key.public_key())
    matching = [_public_bytes(certificate.public_key()) == ours for certificate in chain]
    if matching[0]:
        return
    if any(matching):
        raise ValueError(f"{path} is out of order: put the key's own certificate first, then the intermediate ones")
    raise ValueError(f"the private key does not belong to the certificate in {path}")


def _public_bytes(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _warnings(path: str, chain: Sequence[x509.Certificate], now: datetime.datetime) -> Iterable[str]:
    for certificate in chain:
        name = certificate.subject.rfc4514_string() or "without subject"
        if certificate.not_valid_after_utc < now:
            yield f"{path}: certificate {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it"
        elif certificate.not_valid_after_utc < now + EXPIRES_SOON:
            yield f"{path}: certificate {name} expires on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it soon"
        if certificate.not_valid_before_utc > now:
            yield f"{path}: certificate {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    for issued, issuer in itertools.pairwise(chain):
        if issued.issuer != issuer.subject:
            name = issued.subject.rfc4514_string()
            yield f"{path}: the certificate after {name} is not its issuer's; clients may not find the chain"


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(".")
