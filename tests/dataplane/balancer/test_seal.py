"""Cookie values that only we can make and read."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.balancer.seal import MAX_VALUE_BYTES, Seal

ONE, TWO = bytes(range(40)), bytes(range(40, 80))


def seal_with(*keys: bytes) -> Seal:
    seal = Seal()
    seal.use(keys)
    return seal


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_what_is_sealed_opens(text: bytes, context: bytes) -> None:
    value = seal_with(ONE).seal(text, context)
    assert seal_with(ONE).open(value, context) == text


def test_two_values_of_one_text_have_nothing_in_common_but_the_name_of_the_key() -> None:
    seal = seal_with(ONE)
    first, second = (base64.urlsafe_b64decode(seal.seal(b"10.0.0.1:80", b"") + b"==") for _ in range(2))
    assert first[:8] == second[:8]
    assert first[8:20] != second[8:20]
    assert b"10.0.0.1" not in first


def test_an_old_key_opens_and_the_newest_seals() -> None:
    old = seal_with(ONE).seal(b"x", b"")
    both = seal_with(TWO, ONE)
    assert both.open(old, b"") == b"x"
    assert seal_with(TWO).open(both.seal(b"x", b""), b"") == b"x"
    assert seal_with(TWO).open(old, b"") is None


def test_a_key_that_is_taken_away_opens_nothing_any_more() -> None:
    seal = seal_with(ONE)
    value = seal.seal(b"x", b"")
    assert seal.open(value, b"") == b"x"
    seal.use([TWO])
    assert seal.open(value, b"") is None


def test_a_value_is_for_one_context() -> None:
    seal = seal_with(ONE)
    value = seal.seal(b"x", b"target app")
    assert seal.open(value, b"target other") is None
    assert seal.open(value, b"target app") == b"x"
    assert seal.open(value, b"target other") is None


def test_any_change_of_a_value_is_noticed() -> None:
    seal = seal_with(ONE)
    data = base64.urlsafe_b64decode(seal.seal(b"10.0.0.1:80", b"") + b"=")
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        assert seal.open(base64.urlsafe_b64encode(bytes(changed)).rstrip(b"="), b"") is None, index


@pytest.mark.parametrize(
    "value",
    [b"", b"=", b"A", b"AA", b"not base64!", b"a%2Bb", b"\xff", b"A" * 60, b"A" * (MAX_VALUE_BYTES + 4)],
)
def test_what_is_no_value_does_not_open(value: bytes) -> None:
    assert seal_with(bytes(40)).open(value, b"") is None


@given(st.binary(max_size=200))
def test_nothing_that_a_client_sends_is_an_error(value: bytes) -> None:
    assert seal_with(bytes(40)).open(value, b"") is None


def test_a_url_encoded_value_is_refused() -> None:
    """As ELB does, and a client that mangles cookies is better told early."""
    seal = seal_with(ONE)
    value = seal.seal(b"x", b"")
    assert seal.open(value + b"%3D", b"") is None
    assert seal.open(value + b"=", b"") is None
