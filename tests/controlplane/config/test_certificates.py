"""Reading certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config import certificates
from tests.controlplane.config.pem import NOW, key_pem, make_certificate, make_key, make_pem

LEAF_KEY, AUTHORITY_KEY = make_key(), make_key()
LEAF = make_certificate("www.example.com", LEAF_KEY, issuer="authority", issuer_key=AUTHORITY_KEY)
AUTHORITY = make_certificate("authority", AUTHORITY_KEY)
KEY = key_pem(LEAF_KEY)


def write(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "content", [LEAF + AUTHORITY + KEY, KEY + LEAF + AUTHORITY, b"text\n" + LEAF + KEY + AUTHORITY]
)
def test_chain_and_key_in_one_file(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, "a.pem", content)
    read = certificates.read(path, NOW)
    assert read.certificate.source == path
    assert read.certificate.pem == LEAF + AUTHORITY + KEY
    assert read.files == (path,)
    assert read.warnings == ()


@pytest.mark.parametrize("name", ["a.pem", "a.crt"])
def test_key_in_the_file_beside(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, LEAF)
    key_path = write(tmp_path, "a.key", KEY)
    read = certificates.read(path, NOW)
    assert read.certificate.pem == LEAF + KEY
    assert read.files == (path, key_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no certificate"),
        (KEY, "has no certificate"),
        (LEAF, "has no private key"),
        (LEAF + AUTHORITY + key_pem(make_key()), "does not belong"),
        (AUTHORITY + LEAF + KEY, "out of order"),
        (LEAF + KEY + KEY, "2 private keys"),
        (LEAF + key_pem(LEAF_KEY, b"password"), "is encrypted"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + KEY, "cannot be read"),
        (LEAF + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path, "a.pem", content)
    with pytest.raises(ValueError, match=words) as caught:
        certificates.read(path, NOW)
    assert path in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.pem cannot be read: No such file"):
        certificates.read(str(tmp_path / "a.pem"), NOW)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (make_pem("a", ends=-1), "CN=a expired on 2030-05-31"),
        (make_pem("a", ends=5), "CN=a expires on 2030-06-06; renew it soon"),
        (make_pem("a", starts=1), "CN=a is not valid before 2030-06-02"),
        (LEAF + make_certificate("other", AUTHORITY_KEY) + KEY, "is not its issuer's"),
    ],
)
def test_what_can_be_served_though_it_is_odd_gives_a_warning(tmp_path: Path, content: bytes, words: str) -> None:
    read = certificates.read(write(tmp_path, "a.pem", content), NOW)
    assert len(read.warnings) == 1
    assert words in read.warnings[0]


def test_pattern_names_files_in_order_without_keys(tmp_path: Path) -> None:
    for name in ("b.pem", "a.pem", "a.key", "c.crt"):
        write(tmp_path, name, b"")
    (tmp_path / "folder").mkdir()
    folder = str(tmp_path)
    assert certificates.find("*", folder) == [str(tmp_path / name) for name in ("a.pem", "b.pem", "c.crt")]
    assert certificates.find("x/../none.pem", folder) == [str(tmp_path / "none.pem")]
    with pytest.raises(ValueError, match="no file matches"):
        certificates.find("*.none", folder)


@pytest.mark.parametrize(("pattern", "found"), [("tls/*.pem", "/etc/tls"), ("tls/a.pem", None), ("*/a*.pem", None)])
def test_folder_to_watch(pattern: str, found: str | None) -> None:
    assert certificates.folder_of(pattern, "/etc") == found


def test_authorities(tmp_path: Path) -> None:
    assert certificates.read_authorities(write(tmp_path, "ca.pem", b"words\n" + AUTHORITY + LEAF)) == AUTHORITY + LEAF
    with pytest.raises(ValueError, match="has no certificate"):
        certificates.read_authorities(write(tmp_path, "ca.pem", b""))
