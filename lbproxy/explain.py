"""What would happen to this request?  Answered by the router and the balancer that serve the traffic.

A pure function of a configuration (or a snapshot) and a request.  What it cannot know without
the running workers, the place in the rotation and what is in flight, counts as zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from random import Random
from typing import Any
from urllib.parse import SplitResult, urlsplit

import attrs

from lbproxy.dataplane.balancer import Balancer, Circumstances, Hashing, make_balancer
from lbproxy.dataplane.router.ingress import TCP, admitting_rule
from lbproxy.dataplane.router.limits import limits_for
from lbproxy.dataplane.router.redirect import expand
from lbproxy.dataplane.router.request import PlainRequest, RoutableRequest
from lbproxy.dataplane.router.table import Match, RuleTrace, Table
from lbproxy.dataplane.router.transform import is_preflight
from lbproxy.model.availability import is_good, serving_group
from lbproxy.model.discovery import Discovery, NamesSource
from lbproxy.model.listener import Bind, Listener, ListenerProtocol, PathNormalization
from lbproxy.model.retry import RetryChange
from lbproxy.model.rule import Action, FixedResponse, Redirect
from lbproxy.model.snapshot import Configuration, GroupState, Snapshot
from lbproxy.model.target import RegisteredTarget, Target, TargetHealth, TargetReason, TargetState
from lbproxy.model.target_group import StickinessType, TargetGroup
from lbproxy.wire.errors import RemoteProtocolError
from lbproxy.wire.http.path import use_normalized_path
from lbproxy.wire.http1.head import RequestHead, scan_request

Health = Mapping[str, Mapping[str, TargetHealth]]
"""By target group name and target key (``host:port``)."""

_PROTOCOLS = {
    "http": ListenerProtocol.HTTP,
    "ws": ListenerProtocol.HTTP,
    "https": ListenerProtocol.HTTPS,
    "wss": ListenerProtocol.HTTPS,
    "tcp": ListenerProtocol.TCP,
    "tls": ListenerProtocol.TLS,
}
_DEFAULT_PORTS = {ListenerProtocol.HTTP: 80, ListenerProtocol.HTTPS: 443}


@attrs.frozen(kw_only=True)
class CandidateExplanation:
    """A target of a group, and when its turn comes."""

    target: str
    """``host:port``."""
    weight: int
    share: int
    """Per cent of the weight that it gets now."""
    state: str
    reason: str = ""
    """ELBv2 reason code that goes with the state."""
    description: str = ""
    zone: str = ""
    order: int | None = None
    """1 for the first choice, then the order of failover; None if it gets no traffic."""


@attrs.frozen(kw_only=True)
class GroupExplanation:
    """A target group of a forward action."""

    name: str
    weight: int
    share: float
    """Part of the traffic, 0 to 1."""
    algorithm: str
    fail_open: bool
    """No target is known to be healthy, so all are used."""
    candidates: tuple[CandidateExplanation, ...]
    """In the order to try, those without traffic last."""
    retries: tuple[str, ...] = ()
    """When this request goes to another target than its first, and the times that bound it; for HTTP and HTTPS."""


@attrs.frozen(kw_only=True)
class Explanation:
    """The way of one request from the listener to what answers it."""

    url: str
    method: str
    source: str
    listener: str | None
    """None when no listener takes the URL; then there is nothing more but notes."""
    listener_protocol: str | None = None
    binds: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    """Those of the listener; without any everybody may connect."""
    admitted_by: str | None = None
    """The security group and its rule that let the client in; None when none does, or none is needed."""
    rules: tuple[RuleTrace, ...] = ()
    """Up to and including the one that matched; ``default`` when none did."""
    changes: tuple[str, ...] = ()
    """What is changed in the request and in its answer."""
    rate_limits: tuple[str, ...] = ()
    """Those that the request counts for, in the order in which they are asked."""
    action: str | None = None
    """``forward``, ``redirect`` or ``fixed-response``; ``refuse`` or ``cors-preflight`` for a request that no rule
    sees, ``deny`` for a connection that security groups do not let in."""
    groups: tuple[GroupExplanation, ...] = ()
    """For forward."""
    status: int | None = None
    """For redirect, fixed-response and refuse."""
    reason: str | None = None
    """For refuse and deny: the access log's ``error_reason`` or the cause of metrics."""
    location: str | None = None
    """For redirect."""
    content_type: str | None = None
    """For fixed-response."""
    body: str | None = None
    """For fixed-response."""
    notes: tuple[str, ...] = ()
    """What a reader should know before believing the above."""

    def to_json(self) -> dict[str, Any]:
        """The same as values that the `json` module takes."""
        return attrs.asdict(self)

    def to_text(self) -> str:
        """The same for a terminal, in lines without colour."""
        has_requests = self.listener_protocol in (None, "HTTP", "HTTPS")
        what = f"{self.method} {self.url}" if has_requests else f"connection to {self.url}"
        lines = [f"{what} from {self.source}"]
        if self.listener is None:
            lines.append("listener none takes this URL")
        else:
            lines.append(f"listener {self.listener} ({self.listener_protocol} {', '.join(self.binds)})")
            if self.security_groups:
                names = ", ".join(self.security_groups)
                lines.append(f"security groups {names}: {self.admitted_by or 'no rule lets ' + self.source + ' in'}")
            lines += _rule_lines(self.rules) if has_requests else []
            lines += [f"rate limit {limit}" for limit in self.rate_limits]
            lines += self._action_lines()
            lines += [f"change: {change}" for change in self.changes]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _action_lines(self) -> list[str]:
        if self.action == "redirect":
            return [f"redirect {self.status} to {self.location}"]
        if self.action == "fixed-response":
            return [f"fixed-response {self.status} {self.content_type}: {self.body}".rstrip()]
        if self.action == "cors-preflight":
            return ["answered with 204, before any rule: it asks ahead of a request from another origin"]
        if self.action == "deny":
            return [f"closed before a byte is read ({self.reason})"]
        if self.action == "refuse":
            return [f"refused with {self.status} {self.reason}, before any rule"]
        lines = []
        for group in self.groups:
            fail_open = ", fail open" if group.fail_open else ""
            share = f"weight {group.weight}, {group.share:.1%} of the traffic"
            lines.append(f"forward to {group.name} ({share}; {group.algorithm}{fail_open})")
            rows = [
                (
                    "-" if candidate.order is None else f"{candidate.order}.",
                    candidate.target,
                    f"weight {candidate.weight}"
                    + ("" if candidate.share == 100 else f" x {candidate.share} %")
                    + (candidate.zone and f", zone {candidate.zone}"),
                    candidate.state,
                    " ".join(text for text in (candidate.reason, candidate.description) if text),
                )
                for candidate in group.candidates
            ]
            lines += [f"  {row}" for row in _aligned(rows)]
            lines += [f"  {line}" for line in group.retries]
        return lines


@attrs.frozen
class _Chosen:
    listener: Listener
    bind: Bind | None


def explain(
    configuration: Configuration | Snapshot,
    url: str,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    source: str = "127.0.0.1",
    health: Health | None = None,
    listener: str | None = None,
    demo: Mapping[str, int] | None = None,
    discovery: Mapping[str, Discovery] | None = None,
    targets: Mapping[str, Mapping[str, Target]] | None = None,
) -> Explanation:
    """Follow a request through listener, rules, target groups and targets.

    A URL without a scheme is ``http``; ``tcp`` and ``tls`` are for listeners of these
    protocols.  A ``Host`` among ``headers`` replaces the URL's for the rules.  ``source`` is the
    client's address.  ``health`` is what is known of the targets; without it a snapshot's states
    count, and a configuration's targets are ``initial``.  ``listener`` names one where the
    URL does not lead to it.  ``demo`` says how many targets lbproxy itself starts for a group, and ``discovery`` where
    one finds more.

    Raises `ValueError` for what is not a URL, or not an address.
    """
    ip_address(source)
    parts = _split_url(url)
    listeners = _configuration(configuration).listeners
    notes: list[str] = []
    chosen = _choose_listener(listeners, parts, listener, notes)
    url = parts.geturl()
    if chosen is None:
        return Explanation(url=url, method=method, source=source, listener=None, notes=tuple(notes))

    explanation = Explanation(
        url=url,
        method=method,
        source=source,
        listener=chosen.listener.name,
        listener_protocol=chosen.listener.protocol.value,
        binds=tuple(str(bind) for bind in chosen.listener.binds),
    )
    if chosen.listener.security_groups:
        explanation = _explain_admission(explanation, configuration, chosen, parts)
        if explanation.action == "deny":
            return attrs.evolve(explanation, notes=tuple(notes))
    request: RoutableRequest = PlainRequest()
    try:
        if chosen.listener.protocol.is_http:
            request = head = _request(parts, method, headers)
            mode = chosen.listener.path_normalization
            if mode is not PathNormalization.OFF and use_normalized_path(head, strict=mode is PathNormalization.STRICT):
                notes.append(f"the rules and the target see the path {head.path.decode('ascii')}")
    except RemoteProtocolError as error:
        notes.append(str(error))
        return attrs.evolve(explanation, action="refuse", status=error.status, reason=error.reason, notes=tuple(notes))
    if chosen.listener.cors_preflight and isinstance(request, RequestHead) and is_preflight(request):
        return attrs.evolve(explanation, action="cors-preflight", status=204, notes=tuple(notes))
    table = Table.compile(chosen.listener, Random(0))
    match = table.match(request, source)
    limits = limits_for(chosen.listener.rate_limits, request, match.rule_name, source)
    explanation = attrs.evolve(
        explanation,
        rules=table.trace(request, source),
        rate_limits=tuple(f"{limit.name}: {limit}" for limit in limits),
        action=match.action_text,
        changes=tuple(_changes(match, request, notes)),
    )
    if match.forward is not None:
        unknown = {} if health is not None or isinstance(configuration, Snapshot) else _unknown(demo, discovery)
        asked = request if chosen.listener.protocol.is_http else None
        if targets is not None:
            configuration = _with_targets(_configuration(configuration), targets)
        groups = _explain_groups(configuration, match, method, health, asked, source, unknown, notes)
        return attrs.evolve(explanation, groups=groups, notes=tuple(notes))
    return attrs.evolve(explanation, notes=tuple(notes), **_explain_answer(match.action, request, chosen, parts))


def _configuration(configuration: Configuration | Snapshot) -> Configuration:
    return configuration.configuration if isinstance(configuration, Snapshot) else configuration


# Security groups


def _explain_admission(
    explanation: Explanation, configuration: Configuration | Snapshot, chosen: _Chosen, parts: SplitResult
) -> Explanation:
    groups = {group.name: group for group in _configuration(configuration).security_groups}
    attached = chosen.listener.security_groups
    port = chosen.bind.port if chosen.bind is not None else parts.port or 0
    found = admitting_rule(groups, attached, TCP, port, explanation.source)
    if found is None:
        return attrs.evolve(explanation, security_groups=attached, action="deny", reason="SecurityGroupDenied")
    name, rule = found
    return attrs.evolve(explanation, security_groups=attached, admitted_by=f"{name} lets it in: {rule}")


# The URL and its listener


def _split_url(url: str) -> SplitResult:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PROTOCOLS:
        raise ValueError(f"{url}: the scheme is {parts.scheme}, it should be one of {', '.join(_PROTOCOLS)}")
    if not parts.hostname:
        raise ValueError(f"{url}: there is no host in it")
    try:
        parts.port  # noqa: B018 (a property that raises)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error
    return parts


def _choose_listener(
    listeners: Sequence[Listener], parts: SplitResult, name: str | None, notes: list[str]
) -> _Chosen | None:
    protocol = _PROTOCOLS[parts.scheme]
    if name is not None:
        return _listener_by_name(listeners, protocol, name, notes)

    speaking = [listener for listener in listeners if listener.protocol is protocol]
    port = parts.port or _DEFAULT_PORTS.get(protocol)
    found = [_Chosen(listener, bind) for listener in speaking for bind in listener.binds if bind.port == port]
    if found:
        return _closest(found, parts.hostname or "", notes)
    if parts.port is None and speaking:
        # often a port is mapped somewhere in front of us
        first = speaking[0]
        if port is not None:
            notes.append(f"no {protocol.value} listener has port {port}; this is for {first.name}")
        _note_several([listener.name for listener in speaking], notes)
        return _Chosen(first, first.binds[0] if first.binds else None)
    others = [listener for listener in listeners if any(bind.port == port for bind in listener.binds)]
    notes += [
        f"listener {other.name} has port {port} but speaks {other.protocol.value}, not {protocol.value}"
        for other in others
    ]
    if not others:
        known = ", ".join(f"{listener.name} ({_binds(listener)})" for listener in listeners) or "none at all"
        notes.append(f"no {protocol.value} listener has port {port}; there is {known}")
    return None


def _listener_by_name(
    listeners: Sequence[Listener], protocol: ListenerProtocol, name: str, notes: list[str]
) -> _Chosen | None:
    for listener in listeners:
        if listener.name == name:
            if listener.protocol is not protocol:
                notes.append(f"listener {name} speaks {listener.protocol.value}, not {protocol.value}")
            return _Chosen(listener, listener.binds[0] if listener.binds else None)
    names = ", ".join(listener.name for listener in listeners) or "none at all"
    notes.append(f"there is no listener {name}; there is {names}")
    return None


def _closest(found: Sequence[_Chosen], host: str, notes: list[str]) -> _Chosen:
    """Of the listeners at a port, one bound to the very address in the URL, else to all addresses, else any."""
    exact = [chosen for chosen in found if chosen.bind is not None and _same_address(chosen.bind.host, host)]
    everywhere = [chosen for chosen in found if chosen.bind is not None and chosen.bind.host in ("0.0.0.0", "::")]
    best = exact or everywhere or list(found)
    _note_several([chosen.listener.name for chosen in best], notes)
    return best[0]


def _same_address(bind: str, host: str) -> bool:
    try:
        return ip_address(bind) == ip_address(host)
    except ValueError:
        return False


def _note_several(names: Iterable[str], notes: list[str]) -> None:
    first, *others = dict.fromkeys(names)
    if others:
        notes.append(
            f"several listeners could take this: {first} is shown, name another ({', '.join(others)}) to see it"
        )


def _binds(listener: Listener) -> str:
    return ", ".join([listener.protocol.value, *(str(bind) for bind in listener.binds)])


# The request


def _request(parts: SplitResult, method: str, headers: Iterable[tuple[str, str]]) -> RequestHead:
    """Write the request as a client would, and read it as a listener does.

    Raises `RemoteProtocolError` where the listener refuses it.
    """
    fields = list(headers)
    given = {name.lower() for name, _ in fields}
    if "host" not in given:
        fields.insert(0, ("Host", _authority(parts)))
    if parts.scheme in ("ws", "wss") and "upgrade" not in given:
        fields += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    head = scan_request("\r\n".join([*lines, "", ""]).encode())
    if head is None:
        raise RemoteProtocolError("the request's head has no end", reason="BadRequest")
    return head


def _authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        host = host.encode("idna").decode()
    return host if parts.port is None else f"{host}:{parts.port}"


# The action


def _changes(match: Match, request: RoutableRequest, notes: list[str]) -> Iterator[str]:
    """What the listener and the rule change, in words."""
    transform = match.transform
    if transform is None:
        return
    if match.forward is not None and isinstance(request, RequestHead):
        try:
            for what, before, after in (
                ("path and query", request.target, transform.rewrite_target(request.target)),
                ("host", request.authority, transform.rewrite_authority(request.authority)),
            ):
                if before != after:
                    yield f"{what}: {after.decode('ascii', 'backslashreplace')}"
        except RemoteProtocolError as error:
            notes.append(f"the answer is 500 {error.reason}: {error}")
        if transform.request is not None:
            yield from (f"request: {change}" for change in transform.request.describe())
    if transform.response is not None:
        yield from (f"answer: {change}" for change in transform.response.describe())


def _explain_answer(action: Action, request: RoutableRequest, chosen: _Chosen, parts: SplitResult) -> dict[str, Any]:
    if isinstance(action, Redirect):
        protocol = chosen.listener.protocol.value
        port = chosen.bind.port if chosen.bind is not None and chosen.bind.port else parts.port or 80
        location = expand(action, request, protocol, port, request.host)
        return {"status": action.status, "location": location.decode("ascii", "backslashreplace")}
    assert isinstance(action, FixedResponse)
    return {"status": action.status, "content_type": action.content_type, "body": action.body}


def _with_targets(configuration: Configuration, targets: Mapping[str, Mapping[str, Target]]) -> Configuration:
    """The configuration with these targets of its groups, too, or in place of those with the same keys."""
    return attrs.evolve(
        configuration,
        target_groups=tuple(
            attrs.evolve(
                group,
                targets=tuple(
                    {**{target.key: target for target in group.targets}, **targets.get(group.name, {})}.values()
                ),
            )
            for group in configuration.target_groups
        ),
    )


def _explain_groups(
    configuration: Configuration | Snapshot,
    match: Match,
    method: str,
    health: Health | None,
    request: RoutableRequest | None,
    source: str,
    unknown: Mapping[str, str],
    notes: list[str],
) -> tuple[GroupExplanation, ...]:
    groups = {group.name: group for group in _configuration(configuration).target_groups}
    zone = _configuration(configuration).zone
    if isinstance(configuration, Snapshot) and health is None:
        states = configuration.groups
    else:
        states = {
            name: _group_state(group, None if health is None else health.get(name, {}))
            for name, group in groups.items()
        }
    explanations = []
    assert match.forward is not None
    for name, weight, share in match.forward.shares:
        if name not in groups:
            notes.append(f"there is no target group {name}")
            continue
        serving = serving_group(name, groups, states, zone)
        if serving != name:
            notes.append(f"too few targets of {name} are healthy: its backup {serving} does its work")
        group, state = groups[serving], states.get(serving, GroupState())
        balancer = make_balancer(
            # A draw from a fixed seed: the order is one of those possible, and the same each time.
            Circumstances(group=group, state=state, cells=_IdleCells(), random=Random(0), zone=zone)
        )
        order = list(balancer.candidates(request, source))
        _note_order(balancer, group, state, order, request, source, unknown.get(serving, ""), notes)
        explained = _explain_group(balancer, group, state, order, weight, share)
        explanations.append(attrs.evolve(explained, retries=tuple(_explain_retries(group, match.retry, method))))
    return tuple(explanations)


def _unknown(demo: Mapping[str, int] | None, discovery: Mapping[str, Discovery] | None) -> Mapping[str, str]:
    """By target group: the targets that only the running lbproxy knows, in words."""
    unknown = {name: f"{count} demo targets" for name, count in (demo or {}).items()}
    for name, found in (discovery or {}).items():
        texts = [
            ", ".join(target.key for target in source.targets) if isinstance(source, NamesSource) else source.text
            for source in found.sources
        ]
        unknown[name] = f"targets from {', '.join(texts)}"
    return unknown


def _explain_retries(group: TargetGroup, change: RetryChange | None, method: str) -> Iterator[str]:
    policy = group.retry if change is None else change.applied_to(group.retry)
    if policy.is_default or not group.protocol.is_http:
        return
    if not policy.on_connect_failure:
        yield "no other target is tried when one cannot be connected to"
    if policy.sends_again:
        causes = ["after a reset"] if policy.on_reset else []
        if policy.statuses:
            ranges = (str(low) if low == high else f"{low}-{high}" for low, high in policy.statuses)
            causes.append(f"instead of an answer with {', '.join(ranges)}")
        if policy.try_timeout_seconds is not None:
            causes.append(f"after {policy.try_timeout_seconds:g}s without an answer")
        if policy.hedge_delay_seconds is not None:
            causes.append(f"beside the first after {policy.hedge_delay_seconds:g}s")
        if method in policy.methods:
            times = "once more" if policy.attempts == 1 else f"up to {policy.attempts} times more"
            yield f"sent {times}, each to another target: {'; '.join(causes)}"
            yield f"as long as that is no more than {policy.budget_percent}% of the group's requests"
        else:
            yield f"{method} is sent once: it is not among retry-methods"
    if policy.request_timeout_seconds is not None:
        yield f"all in all at most {policy.request_timeout_seconds:g}s"


def _explain_group(
    balancer: Balancer,
    group: TargetGroup,
    state: GroupState,
    order: Sequence[RegisteredTarget],
    weight: int,
    share: float,
) -> GroupExplanation:
    used = {target.cell for target in order}
    return GroupExplanation(
        name=group.name,
        weight=weight,
        share=share,
        algorithm=group.algorithm,
        fail_open=balancer.fail_open,
        candidates=(
            *(_candidate(target, number) for number, target in enumerate(order, 1)),
            *(_candidate(target, None) for target in state.targets if target.cell not in used),
        ),
    )


def _note_order(
    balancer: Balancer,
    group: TargetGroup,
    state: GroupState,
    order: Sequence[RegisteredTarget],
    request: RoutableRequest | None,
    source: str,
    unknown: str,
    notes: list[str],
) -> None:
    """Say what a reader should know of the order of candidates."""
    if unknown:
        notes.append(f"{group.name} has {unknown}, known only to the lbproxy that runs: ask it with --admin")
    elif not state.targets:
        notes.append(f"target group {group.name} has no targets: the answer is 503")
    elif not order:
        notes.append(f"target group {group.name} has no target that may take traffic: the answer is 503")
    elif balancer.fail_open and any(map(is_good, order)):
        notes.append(f"too few targets of {group.name} are known to be healthy: it fails open, all are used")
    elif balancer.fail_open:
        notes.append(f"no target of {group.name} is known to be healthy: it fails open, all are used")
    if len(order) > 1 and group.algorithm in _ORDER_NOTES and not isinstance(balancer, Hashing):
        notes.append(f"{group.name}: {_ORDER_NOTES[group.algorithm]}")
    if group.stickiness is not None and group.stickiness.type is not StickinessType.SOURCE_IP:
        notes.append(f"{group.name}: with a valid cookie of {group.stickiness.type.value} its target is the first")
    if len(order) > 1 and isinstance(balancer, Hashing):
        if balancer.key_of(request, source) is None:
            notes.append(f"{group.name}: the request has no {balancer.key}, so it takes its turn as in round robin")
        else:
            notes.append(f"{group.name}: every request with the same {balancer.key} has this order")


_ORDER_NOTES = {
    "round_robin": "each request starts one further in the order",
    "least_outstanding_requests": "the order is that of an idle group; under load the least busy is first",
    "weighted_random": "the order is drawn anew for each request",
    "least_time": "the order is drawn as if nothing were known; the better of two drawn targets is first",
    "random_two": "the order is drawn for an idle group; the less busy of two drawn targets is first",
    "first": "the first takes all; the others stand by",
}


def _candidate(target: RegisteredTarget, order: int | None) -> CandidateExplanation:
    return CandidateExplanation(
        target=target.target.key,
        weight=target.target.weight,
        share=target.share,
        zone=target.target.zone,
        state=target.health.state.value,
        reason=target.health.reason.value,
        description="; ".join(filter(None, (target.health.description, target.share_reason))),
        order=order,
    )


# Target states


class _IdleCells:
    """Shared cells of a group that has served nothing yet."""

    def __getitem__(self, index: Any, /) -> Any:
        return [0] if isinstance(index, slice) else 0

    def __setitem__(self, index: int, value: int, /) -> None:
        pass


def _group_state(group: TargetGroup, known: Mapping[str, TargetHealth] | None) -> GroupState:
    """The group's targets with what is known of them; those known but not configured are added.

    So demo targets, and others that the configuration does not name one by one, are shown as well.
    """
    configured = {target.key: target for target in group.targets}
    for key in known or {}:
        if key not in configured:
            host, _, port = key.rpartition(":")
            host = host.strip("[]")
            configured[key] = Target(host=host, port=int(port), address=host)
    return GroupState(
        targets=tuple(
            RegisteredTarget(target=target, health=_health_of(group, key, known), cell=number)
            for number, (key, target) in enumerate(configured.items(), 1)
        )
    )


def _health_of(group: TargetGroup, key: str, known: Mapping[str, TargetHealth] | None) -> TargetHealth:
    if known is not None:
        return known.get(key, _NOT_REGISTERED)
    if not group.health_check.enabled:
        return TargetHealth(state=TargetState.UNAVAILABLE, reason=TargetReason.HEALTH_CHECK_DISABLED)
    return TargetHealth(state=TargetState.INITIAL, reason=TargetReason.REGISTRATION_IN_PROGRESS)


_NOT_REGISTERED = TargetHealth(
    state=TargetState.UNUSED,
    reason=TargetReason.NOT_REGISTERED,
    description="The running configuration does not have it",
)


# Text


def _rule_lines(traces: Sequence[RuleTrace]) -> list[str]:
    rows = []
    for trace in traces:
        where = f"(priority {trace.priority}):" if trace.priority else "(no rule matched):"
        verdict = "yes" if trace.matched else "no"
        why = "" if trace.failed is None else f"- {trace.failed}: wanted {' or '.join(trace.wanted)}, saw {trace.seen}"
        rows.append((f"rule {trace.rule_name}", where, verdict, why))
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
