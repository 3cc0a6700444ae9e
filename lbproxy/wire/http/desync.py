"""How far a request strays from what everybody reads alike (AWS, "Desync mitigation mode").

The classes and reasons are those of an Application Load Balancer. A request has one number, that of the worst
that is wrong with it; numbers grow with the danger. What two readers could take for different requests is
refused by the parser whatever the mode, so some of the milder reasons are met only in refusals: see docs/protocols.md.
"""

from __future__ import annotations

COMPLIANT = 0
GET_HEAD_ZERO_CONTENT_LENGTH = 1
NON_COMPLIANT_VERSION = 2
NON_COMPLIANT_HEADER = 3
SPACE_IN_URI = 4
FIRST_AMBIGUOUS = AMBIGUOUS_URI = 5
EMPTY_HEADER = 6
SUSPICIOUS_HEADER = 7
UNDEFINED_CONTENT_LENGTH_SEMANTICS = 8
UNDEFINED_TRANSFER_ENCODING_SEMANTICS = 9
DUPLICATE_CONTENT_LENGTH = 10
BOTH_TE_CL_PRESENT = 11
FIRST_SEVERE = 12

REASONS = (
    "",
    "GetHeadZeroContentLength",
    "NonCompliantVersion",
    "NonCompliantHeader",
    "SpaceInUri",
    "AmbiguousUri",
    "EmptyHeader",
    "SuspiciousHeader",
    "UndefinedContentLengthSemantics",
    "UndefinedTransferEncodingSemantics",
    "DuplicateContentLength",
    "BothTeClPresent",
    "BadContentLength",
    "BadHeader",
    "BadMethod",
    "BadTransferEncoding",
    "BadUri",
    "BadVersion",
    "MultipleContentLength",
    "MultipleTransferEncodingChunked",
)
"""By number."""

_NUMBERS = {reason: number for number, reason in enumerate(REASONS)} | {"BadLineEnding": REASONS.index("BadHeader")}


def classification(number: int) -> str:
    """``Acceptable``, ``Ambiguous`` or ``Severe``; empty for a compliant request."""
    if number >= FIRST_SEVERE:
        return "Severe"
    if number >= FIRST_AMBIGUOUS:
        return "Ambiguous"
    return "Acceptable" if number else ""


def number_of(reason: str) -> int:
    """The number of a refusal, by its `RemoteProtocolError.reason`; `COMPLIANT` where it is about something else."""
    return _NUMBERS.get(reason, COMPLIANT)
