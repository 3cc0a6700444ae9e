"""Reading certificates and choosing among them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from lbproxy.dataplane.listener.certificates import (
    LoadedCertificate,
    choose_default,
    choose_for_names,
    load_certificate,
    wildcard_of,
)
from lbproxy.model.errors import InvalidModel
from lbproxy.model.listener import Certificate
from tests.certificate_authority import Authority, key_pem, make_key

CA = Authority()


def load(*names: str, kind: str = "ec", days: int = 30, common_name: str = "leaf") -> LoadedCertificate:
    return load_certificate(CA.certificate(*names, kind=kind, days=days, common_name=common_name))


def test_names_come_from_the_alternative_names_in_lower_case() -> None:
    loaded = load("WWW.Example.com", "*.example.com", "192.0.2.1", common_name="ignored.example.com")
    assert loaded.names == {"www.example.com", "*.example.com"}


def test_the_common_name_counts_without_alternative_names() -> None:
    assert load(common_name="old.example.com").names == {"old.example.com"}


def test_blocks_may_be_in_any_order() -> None:
    """The leaf is found by its key."""
    leaf = CA.leaf("a.example.com")
    middle = CA.middle.public_bytes(Encoding.PEM)
    pem = key_pem(make_key("ec")) + middle + leaf.public_bytes(Encoding.PEM)
    loaded = load_certificate(Certificate(source="x.pem", pem=pem))
    assert loaded.chain == (leaf, CA.middle)
    assert loaded.chain_pem == leaf.public_bytes(Encoding.PEM) + middle


@pytest.mark.parametrize(("kind", "name"), [("ec", "ECDSA"), ("rsa", "RSA"), ("ed25519", "ED25519")])
def test_kinds_of_keys(kind: str, name: str) -> None:
    assert load("a.example.com", kind=kind).kind == name


def _leaf_pem() -> bytes:
    return CA.leaf("a.example.com").public_bytes(Encoding.PEM)


def _encrypted_key() -> bytes:
    return make_key("ec").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def _dsa_key() -> bytes:
    return key_pem(dsa.generate_private_key(1024))


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "no readable PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no readable PEM certificate"),
        (_leaf_pem(), "no private key"),
        (_leaf_pem() + key_pem(make_key("rsa")), "belongs to none of its certificates"),
        (_leaf_pem() + _encrypted_key(), "is encrypted"),
        (_leaf_pem() + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (_leaf_pem() + _dsa_key(), "must be ECDSA, RSA"),
    ],
    ids=["empty", "garbage", "no key", "other key", "encrypted", "broken key", "dsa"],
)
def test_bad_files_are_named(pem: bytes, message: str) -> None:
    with pytest.raises(InvalidModel, match=message) as caught:
        load_certificate(Certificate(source="tls/site.pem", pem=pem))
    assert caught.value.field == "tls/site.pem"
    assert "\n" not in str(caught.value)


def test_longer_key_wins_then_later_expiry() -> None:
    """ELB's order among certificates of one kind."""
    short, long, late = (load("a.com", kind="rsa"), load("a.com", kind="rsa3072"), load("a.com", kind="rsa", days=60))
    assert choose_for_names([short, long, late])["a.com"] == (long,)
    assert choose_for_names([short, late])["a.com"] == (late,)
    assert choose_for_names([late, short])["a.com"] == (late,)


def test_a_name_gets_the_best_of_each_kind() -> None:
    ecdsa, rsa = load("a.com"), load("a.com", "b.com", kind="rsa")
    choices = choose_for_names([rsa, ecdsa])
    assert set(choices["a.com"]) == {ecdsa, rsa}
    assert choices["b.com"] == (rsa,)


def test_an_exact_name_fills_missing_kinds_from_a_wildcard() -> None:
    exact, wild_rsa, wild_ecdsa = load("a.x.com"), load("*.x.com", kind="rsa"), load("*.x.com", days=300)
    assert set(choose_for_names([wild_rsa, wild_ecdsa, exact])["a.x.com"]) == {exact, wild_rsa}


def test_default_is_the_first_with_its_twins() -> None:
    first, better, twin, other = load("a.com"), load("a.com", days=90), load("a.com", kind="rsa"), load("b.com")
    assert set(choose_default([first, better, twin, other])) == {first, twin}
    assert choose_default([other, first, twin]) == (other,)


def test_wildcard_of() -> None:
    assert wildcard_of("a.example.com") == "*.example.com"
    assert wildcard_of("localhost") == ""
