"""Stickiness: a client comes back to the target, or target group, that served it before.

What a client is bound to is in a cookie that it brings back; nothing is remembered here, so any worker, and the next
one after a restart, can tell.  A cookie that cannot be read, is too old, or names what cannot serve now is as none:
the algorithm picks, and the answer binds the client anew.

* ``lb_cookie``: AWSALB, renewed with each answer.  AWSALBCORS is the same for requests from other sites.
* ``app_cookie``: AWSALBAPP-0, made when the target sets the application's own cookie; both have to come back.
* Group stickiness of a forward action: AWSALBTG and AWSALBTGCORS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Protocol

from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.router.groups import GroupChoice
from lbproxy.dataplane.router.request import RoutableRequest
from lbproxy.model.target import RegisteredTarget
from lbproxy.model.target_group import Stickiness, StickinessType, TargetGroup
from lbproxy.wire.http.cookies import cookie_value

COOKIE_SECONDS = 7 * 86400
"""Browsers keep a cookie for a week (ELB); how long it binds is inside, and up to the target group."""

_MAX_AHEAD_SECONDS = 300
"""A cookie from the future by more than this is not believed: some machine's clock was wrong."""

_TIME_BYTES = 5


class Answer(Protocol):
    """What is looked at of a target's answer."""

    def field_values(self, name: bytes) -> list[bytes]:
        """Values of the fields of this lower-case name."""
        ...


class TargetStickiness:
    """``lb_cookie`` of one target group in one of its states."""

    def __init__(self, group: TargetGroup, stickiness: Stickiness, targets: Sequence[RegisteredTarget], seal: Seal):
        """``targets`` are those that may take traffic."""
        self._context = b"target " + group.name.encode()
        self._duration = stickiness.duration_seconds
        self._by_key: Mapping[bytes, RegisteredTarget] = {each.target.key.encode(): each for each in targets}
        self._seal = seal
        self._fields: dict[int, tuple[int, bytes]] = {}

    def target(self, request: RoutableRequest, now: float) -> RegisteredTarget | None:
        """The target that the request is bound to; ``now`` is Unix time."""
        lines = request.field_values(b"cookie")
        if not lines:
            return None
        value = cookie_value(lines, b"AWSALB") or cookie_value(lines, b"AWSALBCORS")
        return None if value is None else self._bound(value, now)

    def fields(self, request: RoutableRequest, answer: Answer, target: RegisteredTarget, now: float) -> bytes:
        """Field lines that bind the client to the target that answered.  The same for all clients within a second."""
        second = int(now)
        made_at, lines = self._fields.get(target.cell, (0, b""))
        if made_at != second:
            lines = set_cookie(b"AWSALB", self._value(target, second), second)
            self._fields[target.cell] = second, lines
        return lines

    def _value(self, target: RegisteredTarget, second: int) -> bytes:
        return self._seal.seal(second.to_bytes(_TIME_BYTES, "big") + target.target.key.encode(), self._context)

    def _bound(self, value: bytes, now: float) -> RegisteredTarget | None:
        name = _read(self._seal, value, self._context, self._duration, now)
        return None if name is None else self._by_key.get(name)


class AppStickiness(TargetStickiness):
    """``app_cookie``: binds only clients to whom the application gave its own cookie."""

    def __init__(self, group: TargetGroup, stickiness: Stickiness, targets: Sequence[RegisteredTarget], seal: Seal):
        super().__init__(group, stickiness, targets, seal)
        self._context = b"app " + group.name.encode()
        self._name = stickiness.cookie_name.encode()

    def target(self, request: RoutableRequest, now: float) -> RegisteredTarget | None:
        lines = request.field_values(b"cookie")
        if not lines or cookie_value(lines, self._name) is None:
            return None
        value = cookie_value(lines, b"AWSALBAPP-0")
        return None if value is None else self._bound(value, now)

    def fields(self, request: RoutableRequest, answer: Answer, target: RegisteredTarget, now: float) -> bytes:
        """None, unless the answer sets the application's cookie, or the client was bound to a target that has gone."""
        if cookie_value(map(_without_attributes, answer.field_values(b"set-cookie")), self._name) is None:
            lines = request.field_values(b"cookie")
            if cookie_value(lines, self._name) is None or cookie_value(lines, b"AWSALBAPP-0") is None:
                return b""
            if self.target(request, now) is target:
                return b""
        second = int(now)
        return b"Set-Cookie: AWSALBAPP-0=%b; Expires=%b; Path=/\r\n" % (
            self._value(target, second),
            _date(second + int(self._duration)),
        )


class GroupStickiness:
    """Which of a forward action's target groups a client is bound to."""

    _CONTEXT = b"group"

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._fields: dict[str, tuple[int, bytes]] = {}

    def group(self, choice: GroupChoice, request: RoutableRequest, now: float) -> str | None:
        """The group's name, if the action still gives it traffic."""
        lines = request.field_values(b"cookie")
        if not lines:
            return None
        value = cookie_value(lines, b"AWSALBTG") or cookie_value(lines, b"AWSALBTGCORS")
        if value is None:
            return None
        name = _read(self._seal, value, self._CONTEXT, choice.stickiness_seconds, now)
        if name is None:
            return None
        group = name.decode()
        return group if any(known == group and share > 0 for known, _, share in choice.shares) else None

    def fields(self, group: str, now: float) -> bytes:
        """Field lines that bind the client to this group."""
        second = int(now)
        made_at, lines = self._fields.get(group, (0, b""))
        if made_at != second:
            value = self._seal.seal(second.to_bytes(_TIME_BYTES, "big") + group.encode(), self._CONTEXT)
            lines = set_cookie(b"AWSALBTG", value, second)
            self._fields[group] = second, lines
        return lines


def target_stickiness(group: TargetGroup, targets: Sequence[RegisteredTarget], seal: Seal) -> TargetStickiness | None:
    """What the group's clients are bound by, if by a cookie."""
    stickiness = group.stickiness
    if stickiness is None or stickiness.type is StickinessType.SOURCE_IP:
        return None
    kind = AppStickiness if stickiness.type is StickinessType.APP_COOKIE else TargetStickiness
    return kind(group, stickiness, targets, seal)


def set_cookie(name: bytes, value: bytes, second: int) -> bytes:
    """The field lines of a cookie and of its twin for requests from other sites."""
    expires = _date(second + COOKIE_SECONDS)
    return (
        b"Set-Cookie: %b=%b; Expires=%b; Path=/\r\nSet-Cookie: %bCORS=%b; Expires=%b; Path=/; SameSite=None; Secure\r\n"
    ) % (name, value, expires, name, value, expires)


def _read(seal: Seal, value: bytes, context: bytes, duration: float, now: float) -> bytes | None:
    """What a cookie says, unless it is older than it may be."""
    text = seal.open(value, context)
    if text is None:
        return None
    age = now - int.from_bytes(text[:_TIME_BYTES], "big")
    return text[_TIME_BYTES:] if -_MAX_AHEAD_SECONDS <= age <= duration else None


def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def _without_attributes(line: bytes) -> bytes:
    return line.partition(b";")[0]
