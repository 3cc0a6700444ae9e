"""The classes of desync mitigation are those of AWS."""

from __future__ import annotations

import pytest

from lbproxy.wire.http import desync
from lbproxy.wire.http.desync import REASONS, classification, number_of

CLASSES = {
    "Acceptable": {"GetHeadZeroContentLength", "NonCompliantHeader", "NonCompliantVersion", "SpaceInUri"},
    "Ambiguous": {
        "AmbiguousUri",
        "BothTeClPresent",
        "DuplicateContentLength",
        "EmptyHeader",
        "SuspiciousHeader",
        "UndefinedContentLengthSemantics",
        "UndefinedTransferEncodingSemantics",
    },
    "Severe": {
        "BadContentLength",
        "BadHeader",
        "BadTransferEncoding",
        "BadUri",
        "BadMethod",
        "BadVersion",
        "MultipleContentLength",
        "MultipleTransferEncodingChunked",
    },
    "": {""},
}


def test_every_reason_has_its_class() -> None:
    found: dict[str, set[str]] = {}
    for number, reason in enumerate(REASONS):
        found.setdefault(classification(number), set()).add(reason)
    assert found == CLASSES


def test_numbers_and_reasons_agree() -> None:
    for name in CLASSES["Ambiguous"] | CLASSES["Acceptable"]:
        constant = "".join("_" + letter if letter.isupper() else letter for letter in name).upper()[1:]
        assert REASONS[getattr(desync, constant)] == name


@pytest.mark.parametrize(
    ("reason", "told"),
    [("BadLineEnding", "Severe"), ("BadUri", "Severe"), ("BothTeClPresent", "Ambiguous"), ("UriTooLong", "")],
)
def test_a_refusal_has_a_class_if_it_may_be_an_attack(reason: str, told: str) -> None:
    assert classification(number_of(reason)) == told
