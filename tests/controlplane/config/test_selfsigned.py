"""The self-signed certificate."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from lbproxy.controlplane.config.selfsigned import FILE_NAME, generate, self_signed
from tests.controlplane.config.pem import NOW, make_pem


def test_it_is_for_this_machine() -> None:
    pem, not_after = generate(NOW, "Box.example")
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "box.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert certificate.not_valid_after_utc == not_after > NOW
    assert certificate.not_valid_before_utc <= NOW


def test_it_is_kept_for_the_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    first = self_signed(str(directory), NOW, create=True)
    again = self_signed(str(directory), NOW + datetime.timedelta(days=300), create=True)
    assert first.certificate == again.certificate
    assert first.files == (str(directory / FILE_NAME),)
    assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("content", [b"", b"nonsense", make_pem("localhost", ends=-1), make_pem("localhost", ends=3)])
def test_one_that_is_no_good_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    made = self_signed(str(tmp_path), NOW, create=True)
    assert (tmp_path / FILE_NAME).read_bytes() == made.certificate.pem != content


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    made = self_signed(str(tmp_path / "state"), NOW, create=False)
    assert b"PRIVATE KEY" in made.certificate.pem
    assert made.files == ()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    with pytest.raises(ValueError, match=r"state/self-signed\.pem cannot be written: (File exists|Not a directory)"):
        self_signed(str(tmp_path / "state"), NOW, create=True)
