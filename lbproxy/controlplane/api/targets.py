"""Single targets by the admin API: they register themselves, and operators decide for them.

``/target-groups/GROUP/targets/HOST:PORT``, and ``/override`` below that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import attrs
from twisted.logger import Logger
from twisted.web.server import Request

from lbproxy.controlplane.api.access import bearer, unauthorized
from lbproxy.controlplane.api.answers import Answer, BadBody, Right, Route, Routes, json_body
from lbproxy.controlplane.api.description import describe_target
from lbproxy.controlplane.state import ControlState
from lbproxy.model.target import Override, OverrideState, Target

_log = Logger()

TTL_BOUNDS_SECONDS = (1.0, 3600.0)
DEFAULT_TTL_SECONDS = 30.0
MAX_WEIGHT = 999

_STATES = ", ".join(state.value for state in OverrideState)


class Registry(Protocol):
    """Who has registered (`lbproxy.controlplane.discovery.registry.Registry`)."""

    def accepts(self, group: str) -> bool:
        """Tell whether a group takes registrations."""

    def permits(self, group: str, token: str) -> bool:
        """Tell whether the token is one of the group's."""

    def register(self, group: str, target: Target, ttl_seconds: float) -> bool:
        """Register or renew; tell whether it is new."""

    def deregister(self, group: str, key: str) -> bool:
        """End a registration; tell whether there was one."""


class Metrics(Protocol):
    """What workers have counted."""

    def totals(self) -> Mapping[str, Any]: ...


class TargetsApi:
    """The routes of single targets."""

    def __init__(
        self, state: ControlState, metrics: Metrics, registry: Registry, parse_target: Callable[[str], Target]
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._registry = registry
        self._parse_target = parse_target

    def routes(self, path: str) -> Routes | None:
        """Give the routes of a path; None for one that is not of a target."""
        match [unquote(part) for part in path.split("/")[1:]]:
            case ["target-groups", group, "targets", text]:
                return {
                    "GET": Route(self._with_target(self._show, group, text)),
                    "PUT": Route(self._with_target(self._register, group, text), Right.REGISTER),
                    "DELETE": Route(self._with_target(self._deregister, group, text), Right.REGISTER),
                }
            case ["target-groups", group, "targets", text, "override"]:
                return {
                    "PUT": Route(self._with_target(self._override, group, text), Right.CHANGE),
                    "DELETE": Route(self._with_target(self._reset, group, text), Right.CHANGE),
                }
        return None

    def _with_target(
        self, respond: Callable[[Request, str, Target], Answer], group: str, text: str
    ) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            names = {each.name for each in self._state.snapshot.configuration.target_groups}
            if group not in names:
                return _error(404, f"there is no target group {group}")
            try:
                target = self._parse_target(text)
                return respond(request, group, target)
            except (ValueError, BadBody) as error:
                return _error(400, str(error))

        return answer

    def _show(self, request: Request, group: str, target: Target) -> Answer:
        return self._described(group, target.key)

    def _described(self, group: str, key: str, status: int = 200, **more: Any) -> Answer:
        described = describe_target(self._state, group, key, self._metrics.totals())
        if described is None:
            return _error(404, f"there is no target {key} in {group}")
        return Answer.of_json(status, {"target_group": group, **described, **more})

    # Registration

    def _refusal(self, request: Request, group: str) -> Answer | None:
        if not self._registry.accepts(group):
            return _error(403, f"{group} takes no registrations: it has no registration-token")
        if not self._registry.permits(group, bearer(request)):
            _log.warn("a registration in {group} came with a wrong token", group=group)
            return unauthorized(request, f"a registration-token of {group}")
        return None

    def _register(self, request: Request, group: str, target: Target) -> Answer:
        if refusal := self._refusal(request, group):
            return refusal
        if not target.address:
            raise BadBody(f"{target.host} is no address; a target registers by its address")
        body = json_body(request)
        ttl, weight = body.pop("ttl", DEFAULT_TTL_SECONDS), body.pop("weight", target.weight)
        _refuse_others(body, "ttl, weight")
        least, most = TTL_BOUNDS_SECONDS
        if not _is_number(ttl) or not least <= ttl <= most:
            raise BadBody(f"ttl is no number of seconds from {least:g} to {most:g}")
        try:
            is_new = self._registry.register(group, attrs.evolve(target, weight=_weight(weight)), float(ttl))
        except OverflowError as error:
            return _error(507, str(error))
        return Answer.of_json(
            201 if is_new else 200, {"target_group": group, "target": target.key, "new": is_new, "ttl_seconds": ttl}
        )

    def _deregister(self, request: Request, group: str, target: Target) -> Answer:
        if refusal := self._refusal(request, group):
            return refusal
        if not self._registry.deregister(group, target.key):
            return _error(404, f"{target.key} is not registered in {group}")
        still_named = target.key in self._state.named(group)
        return Answer.of_json(200, {"target_group": group, "target": target.key, "still_named": still_named})

    # Overrides

    def _override(self, request: Request, group: str, target: Target) -> Answer:
        body = json_body(request)
        former = self._state.overrides(group).get(target.key, Override())
        state, weight = body.pop("state", former.state), body.pop("weight", former.weight)
        _refuse_others(body, "state, weight")
        try:
            state = OverrideState(state) if state is not None else None
        except ValueError:
            raise BadBody(f"state is none of {_STATES}") from None
        override = Override(state=state, weight=_weight(weight) if weight is not None else None)
        if target.key not in self._state.named(group):
            return _error(404, f"there is no target {target.key} in {group}")
        self._state.override(group, target.key, override)
        _log.info(
            "an operator decides for {target} in {group}: {what}", target=target.key, group=group, what=_say(override)
        )
        return self._described(group, target.key)

    def _reset(self, request: Request, group: str, target: Target) -> Answer:
        if target.key not in self._state.overrides(group):
            return _error(404, f"nothing was decided for {target.key} in {group}")
        self._state.override(group, target.key, None)
        _log.info("an operator decides for {target} in {group}: nothing more", target=target.key, group=group)
        return Answer.of_json(200, {"target_group": group, "target": target.key})


def _error(status: int, text: str) -> Answer:
    return Answer.of_json(status, {"error": text})


def _refuse_others(body: Mapping[str, Any], known: str) -> None:
    if body:
        raise BadBody(f"{', '.join(sorted(body))}: not known; there are {known}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _weight(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_WEIGHT:
        raise BadBody(f"weight is no number from 0 to {MAX_WEIGHT}")
    return value


def _say(override: Override) -> str:
    parts = [override.state.value] if override.state is not None else []
    parts += [f"weight {override.weight}"] if override.weight is not None else []
    return ", ".join(parts) or "nothing"
