"""Certificates of a listener: reading them, and which of them a server name gets.

Nothing here is done for a connection; `lbproxy.dataplane.listener.tls` turns the choices into
OpenSSL contexts once.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Certificate

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@attrs.frozen(kw_only=True, eq=False)
class LoadedCertificate:
    """A certificate that can be served."""

    source: str
    """Where it came from, for messages."""

    chain: tuple[x509.Certificate, ...]
    """The leaf first, then what else was in the file, in its order."""

    key: PrivateKey = attrs.field(repr=False)

    kind: str
    """``ECDSA``, ``RSA``, ``ED25519`` or ``ED448``; OpenSSL holds one certificate of each kind in a context."""

    names: frozenset[str]
    """Server names in lower case, exact or with ``*`` as the whole first label."""

    @property
    def chain_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def rank(self) -> tuple[int, datetime.datetime]:
        """Greater is preferred among certificates of one kind: ELB takes the longer key, then the later expiry."""
        bits = self.key.key_size if isinstance(self.key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else 0
        return bits, self.chain[0].not_valid_after_utc


def load_certificate(certificate: Certificate) -> LoadedCertificate:
    """Read a chain with its key, in any order; the leaf is the certificate that the key belongs to.

    Raises `InvalidModel` naming the certificate's source.
    """
    source = certificate.source
    try:
        found = x509.load_pem_x509_certificates(certificate.pem)
    except ValueError as error:
        raise InvalidModel(source, f"holds no readable PEM certificate ({error})") from error
    key = _load_key(certificate)
    kind = _kind(key)
    if kind is None:
        raise InvalidModel(source, "the private key must be ECDSA, RSA, Ed25519 or Ed448")
    try:
        leaf = next((each for each in found if each.public_key() == key.public_key()), None)
        names = _names(leaf) if leaf is not None else frozenset()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise InvalidModel(source, f"holds a malformed certificate ({error})") from error
    if leaf is None:
        raise InvalidModel(source, "the private key belongs to none of its certificates")
    chain = (leaf, *(each for each in found if each != leaf))
    return LoadedCertificate(source=source, chain=chain, key=key, kind=kind, names=names)


def _load_key(certificate: Certificate) -> PrivateKey:
    if b"PRIVATE KEY-----" not in certificate.pem:
        raise InvalidModel(certificate.source, "holds no private key; put chain and key into one file")
    try:
        return load_pem_private_key(certificate.pem, password=None)  # type: ignore[return-value]  # _kind checks
    except TypeError as error:
        raise InvalidModel(certificate.source, "the private key is encrypted; store it without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidModel(certificate.source, f"the private key cannot be read ({error})") from error


def _kind(key: object) -> str | None:
    match key:
        case ec.EllipticCurvePrivateKey():
            return "ECDSA"
        case rsa.RSAPrivateKey():
            return "RSA"
        case ed25519.Ed25519PrivateKey():
            return "ED25519"
        case ed448.Ed448PrivateKey():
            return "ED448"
    return None


def _names(leaf: x509.Certificate) -> frozenset[str]:
    """DNS names of the subjectAltName, or the common name where there is no such extension (RFC 9525 section 2)."""
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return frozenset(name.lower().rstrip(".") for name in names)


def choose_for_names(certificates: Sequence[LoadedCertificate]) -> dict[str, tuple[LoadedCertificate, ...]]:
    """For each name that some certificate has: the best certificate of each kind.

    An exact name that lacks a kind takes it from a wildcard certificate that covers the name, so that a
    client without ECDSA is served even if the only certificate with exactly its name is an ECDSA one.
    """
    by_name: dict[str, list[LoadedCertificate]] = {}
    for certificate in certificates:
        for name in certificate.names:
            by_name.setdefault(name, []).append(certificate)
    choices = {}
    for name, exact in by_name.items():
        best = _best_of_each_kind(by_name.get(wildcard_of(name), ()))
        best.update(_best_of_each_kind(exact))
        choices[name] = tuple(best.values())
    return choices


def choose_default(certificates: Sequence[LoadedCertificate]) -> tuple[LoadedCertificate, ...]:
    """The first certificate, with the best ones of other kinds that are good for all its names."""
    first = certificates[0]
    best = _best_of_each_kind(each for each in certificates if each.names >= first.names)
    best[first.kind] = first
    return tuple(best.values())


def wildcard_of(name: str) -> str:
    """The wildcard name that would cover this one: one label is all that ``*`` stands for."""
    return "*" + name[name.find(".") :] if "." in name else ""


def _best_of_each_kind(certificates: Iterable[LoadedCertificate]) -> dict[str, LoadedCertificate]:
    best: dict[str, LoadedCertificate] = {}
    for certificate in certificates:
        known = best.get(certificate.kind)
        if known is None or certificate.rank > known.rank:
            best[certificate.kind] = certificate
    return best
