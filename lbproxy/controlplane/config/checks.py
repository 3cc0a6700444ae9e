"""What must hold between sections and between options.  No file is opened here and no name looked up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import attrs

from lbproxy.controlplane.config.actions import FixedResponseFile
from lbproxy.controlplane.config.errors import Problem
from lbproxy.controlplane.config.ingress import check_security_groups
from lbproxy.controlplane.config.options.option import ENCRYPTED, HTTP, TCP
from lbproxy.controlplane.config.options.target_group.balancing import HASHING
from lbproxy.controlplane.config.ratelimits import check_rate_limits
from lbproxy.controlplane.config.sections import ReadSection, Report
from lbproxy.controlplane.config.targets import DemoTargets
from lbproxy.controlplane.config.values import either, suggest
from lbproxy.model.discovery import EtcdSource
from lbproxy.model.listener import Bind
from lbproxy.model.rule import Action, Forward, Redirect
from lbproxy.model.target_group import HashPart, ProtocolVersion

_CONDITIONS = ("host", "path", "method", "query", "source-ip")
_PROBE_OPTIONS = ("health-check-path", "health-check-host", "matcher")
_WILDCARDS = ("0.0.0.0", "::")


@attrs.frozen(kw_only=True)
class Sections:
    """The sections of a file by their kind and name, in the order of the file."""

    settings: ReadSection | None
    listeners: Mapping[str, ReadSection]
    rules: Mapping[str, ReadSection]
    groups: Mapping[str, ReadSection]
    security_groups: Mapping[str, ReadSection]
    rate_limits: Mapping[str, ReadSection]


def check(sections: Sections, report: Report) -> None:
    """Report every contradiction."""
    if not sections.listeners and not any(map(_may_hide_listener, report.problems)):
        report.fail(None, "no listener; add a section such as [listener:web]")
    _check_binds(sections)
    for listener in sections.listeners.values():
        _check_listener(listener, sections)
    _check_rules(sections)
    for group in sections.groups.values():
        _check_group(group)
        _check_backup(group, sections.groups)
        _check_zone(group, sections.settings)
    check_rate_limits(sections.rate_limits, sections.listeners, sections.rules)
    check_security_groups(sections.security_groups, sections.listeners)


def _may_hide_listener(problem: Problem) -> bool:
    """Tell whether there may be a listener that we could not read as one: then its absence is no second mistake."""
    kind = (problem.section or "").partition(":")[0]
    return kind not in ("lbproxy", "rule", "target-group", "security-group", "rate-limit")


# Binds


def _check_binds(sections: Sections) -> None:
    taken: dict[tuple[bool, int], list[tuple[Bind, ReadSection, str]]] = {}
    for section, option, bind in _binds(sections):
        if bind.port == 0:
            continue
        same_port = taken.setdefault((":" in bind.host, bind.port), [])
        for other, owner, owner_option in same_port:
            if bind.host == other.host or bind.host in _WILDCARDS or other.host in _WILDCARDS:
                where = f"[{owner.title}] in line {owner.entries[owner_option].line}"
                overlap = "is taken by" if bind == other else f"overlaps {other} of"
                section.fail(f"{bind} {overlap} {where}; choose another port or address", option)
                break
        same_port.append((bind, section, option))


def _binds(sections: Sections) -> Iterable[tuple[ReadSection, str, Bind]]:
    for listener in sections.listeners.values():
        for bind in listener["bind"] or ():
            yield listener, "bind", bind
    if sections.settings is not None and isinstance(admin := sections.settings["admin"], Bind):
        yield sections.settings, "admin", admin
        if not ipaddress.ip_address(admin.host).is_loopback:
            changes = "" if "admin-token" in sections.settings else ", and changes are refused without admin-token"
            sections.settings.warn(f"anyone who reaches this address may read status and metrics{changes}", "admin")


# Listeners and rules


def _check_listener(listener: ReadSection, sections: Sections) -> None:
    _check_action(listener, "default-action", listener, sections)
    if listener["proxy-protocol"] and "proxy-protocol-trusted" not in listener:
        listener.fail("needs proxy-protocol-trusted with the addresses that may send the header", "proxy-protocol")
    elif "proxy-protocol-trusted" in listener and "proxy-protocol" not in listener:
        listener.warn("has no effect without proxy-protocol = on", "proxy-protocol-trusted")
    if listener["cors-preflight"] and "access-control-allow-origin" not in listener:
        listener.fail("needs access-control-allow-origin", "cors-preflight")
    if listener["xff-client-port"] and listener["xff-mode"] not in (None, "append"):
        listener.warn("has no effect unless xff-mode = append", "xff-client-port")


def _check_rules(sections: Sections) -> None:
    priorities: dict[tuple[str, int], ReadSection] = {}
    for rule in sections.rules.values():
        has_condition = any(option in rule for option in _CONDITIONS) or any(
            option.startswith(("header.", "query.")) for option in rule.entries
        )
        if not has_condition:
            rule.fail(
                "has no condition; add host, path, method, header.NAME, query.KEY or source-ip, or use default-action"
            )
        name = rule["listener"]
        if name is None:
            continue
        listener = sections.listeners.get(name)
        if listener is None:
            rule.fail(f"no such listener{suggest(name, sections.listeners)}", "listener")
            continue
        if listener.protocol is not None and listener.protocol not in HTTP:
            rule.fail(f"rules are for HTTP and HTTPS listeners; [{listener.title}] is {listener.protocol}", "listener")
            continue
        priority = rule["priority"]
        if priority is not None:
            earlier = priorities.setdefault((name, priority), rule)
            if earlier is not rule:
                line = earlier.entries["priority"].line
                rule.fail(
                    f"is taken by [{earlier.title}] in line {line}; give each rule of a listener its own", "priority"
                )
        _check_action(rule, "action", listener, sections)
        _check_rule_retries(rule)


def _check_action(section: ReadSection, option: str, listener: ReadSection, sections: Sections) -> None:
    action: Action | FixedResponseFile | None = section[option]
    protocol = listener.protocol
    if action is None or protocol is None:
        return
    if isinstance(action, Forward):
        _check_forward(section, option, action, protocol, sections.groups)
    elif protocol not in HTTP:
        section.fail(f"{protocol} listeners can only forward; write forward GROUP", option)
    elif isinstance(action, Redirect):
        if protocol == "HTTPS" and action.protocol == "http":
            section.fail("redirects from HTTPS to HTTP, which gives the encryption away; write https://", option)
        elif not changes_something(action, protocol, [bind.port for bind in listener["bind"] or ()]):
            section.fail("redirects to itself; change the protocol, host, port or path", option)


def _check_forward(
    section: ReadSection, option: str, action: Forward, protocol: str, groups: Mapping[str, ReadSection]
) -> None:
    if action.stickiness_seconds and protocol not in HTTP:
        section.fail(f"{protocol} has no cookies; remove stickiness", option)
    for weighted in action.groups:
        group = groups.get(weighted.group)
        if group is not None and len(action.groups) > 1 and _stickiness_type(group) == "app_cookie":
            section.fail(
                f"target group {weighted.group} has stickiness by app_cookie, which does not go with weights;"
                " forward to it alone",
                option,
            )
        if group is None:
            section.fail(f"no such target group as {weighted.group}{suggest(weighted.group, groups)}", option)
        elif group.protocol is not None and (group.protocol in HTTP) != (protocol in HTTP):
            wanted = either(HTTP if protocol in HTTP else ("TCP", "TLS"))
            section.fail(
                f"target group {weighted.group} speaks {group.protocol}; {protocol} listeners need one with {wanted}",
                option,
            )


def changes_something(redirect: Redirect, protocol: str, ports: Sequence[int]) -> bool:
    """Tell whether a redirect leads anywhere else: another protocol, host, port or path, as ELBv2 asks."""
    return (
        (redirect.protocol != "#{protocol}" and redirect.protocol != protocol.lower())
        or redirect.host != "#{host}"
        or (redirect.port != "#{port}" and int(redirect.port) not in ports)
        or redirect.path != "/#{path}"
    )


# Target groups


def _check_group(group: ReadSection) -> None:
    targets = group["targets"]
    if isinstance(targets, DemoTargets):
        if group.protocol in ENCRYPTED:
            group.fail("demo targets speak HTTP and TCP only; change protocol", "targets")
    elif not targets and "discovery" not in group and "registration-token" not in group:
        group.warn("has no targets: what is forwarded to it is answered with 503")
    elif (
        targets
        and not (group["discovery"] or group["registration-token"])
        and not any(target.weight for target in targets)
    ):
        group.fail("all weights are zero; give at least one target a weight from 1 to 999", "targets")
    _check_retries(group)
    _check_matcher(group)
    _check_hashing(group)
    _check_slow_start(group)
    _check_stickiness(group)
    _check_outliers(group)
    _check_queue(group)
    _check_etcd(group)
    probe = group["health-check-protocol"] if group.protocol is not None else None
    if probe == "TCP":
        for option in _PROBE_OPTIONS:
            if option in group.values:
                group.fail("is for HTTP and HTTPS probes; add health-check-protocol = HTTP", option)
    timeout, interval = group.values.get("health-check-timeout"), group["health-check-interval"]
    if timeout is not None and interval is not None and timeout > interval:
        where = "health-check-interval" if "health-check-interval" in group else "the default health-check-interval"
        group.fail(f"longer than {where} ({interval:g}s); write at most that", "health-check-timeout")


def _check_matcher(group: ReadSection) -> None:
    if group.protocol not in HTTP or not group.values.get("matcher"):
        return
    is_grpc = group["protocol-version"] == ProtocolVersion.GRPC.value
    low, high = (0, 99) if is_grpc else (200, 499)
    if any(first < low or last > high for first, last in group.values["matcher"]):
        what = "a GRPC group has gRPC's status codes, 0 to 99" if is_grpc else "200 to 499 is allowed"
        group.fail(f"out of range; {what}", "matcher")


_OF_TRIES = ("retry-on", "retry-attempts", "retry-methods", "try-timeout", "request-timeout", "hedge-delay")
_SENDING_AGAIN = ("retry-attempts", "retry-methods", "retry-budget", "circuit-breaker-max-retries")


def _check_rule_retries(rule: ReadSection) -> None:
    if rule["action"] is not None and not isinstance(rule["action"], Forward):
        for option in _OF_TRIES:
            if option in rule:
                rule.warn("has no effect, for the rule forwards nothing", option)


def _check_retries(group: ReadSection) -> None:
    if group.protocol not in HTTP:
        return
    on = group["retry-on"]
    again = on is None or on.reset or on.statuses or "try-timeout" in group or "hedge-delay" in group
    for option in _SENDING_AGAIN:
        if option in group and not again:
            group.warn("has no effect; add reset or status codes to retry-on, try-timeout or hedge-delay", option)
    for option in ("try-timeout", "hedge-delay"):
        value, limit = group.values.get(option), group["response-timeout"]
        if value is not None and limit is not None and value >= limit:
            group.warn(f"has no effect; it is not less than response-timeout ({limit:g}s)", option)


def _check_hashing(group: ReadSection) -> None:
    if group["algorithm"] is not None and group["algorithm"] not in HASHING:
        for option in ("hash-key", "hash-balance-factor"):
            if option in group:
                group.warn(f"has no effect unless algorithm = {either(HASHING)}", option)
    key = group["hash-key"]
    if group.protocol in TCP and key is not None and key.part is not HashPart.SOURCE:
        group.fail("a connection has only a source; write hash-key = source", "hash-key")


def _check_slow_start(group: ReadSection) -> None:
    if not group["slow-start"]:
        return
    if group["algorithm"] in _WITHOUT_SLOW_START:
        group.fail(f"not with algorithm = {group['algorithm']}; remove one of the two", "slow-start")
    elif group["health-check"] is False:
        group.warn("has no effect without health checks, which say when a target comes", "slow-start")


def _check_backup(group: ReadSection, groups: Mapping[str, ReadSection]) -> None:
    backup = groups.get(group["backup"] or "")
    if "backup" not in group:
        if "backup-percentage" in group:
            group.warn("has no effect without backup", "backup-percentage")
    elif group["backup"] is None:
        return  # it is reported already
    elif backup is None:
        group.fail(f"no such target group{suggest(group['backup'], groups)}", "backup")
    elif None not in (group.protocol, backup.protocol) and (group.protocol in HTTP) != (backup.protocol in HTTP):
        group.fail(f"speaks {backup.protocol}, which does not fit {group.protocol}", "backup")
    else:
        seen = {group.name}
        while backup is not None and backup.name not in seen:
            seen.add(backup.name)
            backup = groups.get(backup["backup"] or "")
        if backup is not None and backup.name == group.name:
            group.fail("leads back to this group; let one of them have no backup", "backup")


def _check_zone(group: ReadSection, settings: ReadSection | None) -> None:
    if group["cross-zone"] not in (None, "on") and (settings is None or "zone" not in settings):
        group.warn("has no effect without zone in [lbproxy]", "cross-zone")


_WITHOUT_SLOW_START = ("least_outstanding_requests", "weighted_random", "first")


def _stickiness_type(group: ReadSection) -> str | None:
    return group["stickiness-type"] if group["stickiness"] else None


def _check_stickiness(group: ReadSection) -> None:
    kind = _stickiness_type(group)
    if kind is None:
        if group["stickiness"] is False:
            for option in _STICKINESS_OPTIONS:
                if option in group:
                    group.warn("has no effect without stickiness = on", option)
    elif kind == "app_cookie" and "stickiness-app-cookie-name" not in group:
        group.fail("needs stickiness-app-cookie-name, for example JSESSIONID", "stickiness-type")
    elif kind == "source_ip" and "algorithm" in group:
        group.warn("has no effect with stickiness by source_ip, which hashes the client's address", "algorithm")


_STICKINESS_OPTIONS = (
    "stickiness-type",
    "stickiness-lb-cookie-duration",
    "stickiness-app-cookie-name",
    "stickiness-app-cookie-duration",
)


def _check_outliers(group: ReadSection) -> None:
    if group["outlier-detection"] is False:
        for option in group.entries:
            if option.startswith("outlier-") and option != "outlier-detection":
                group.warn("has no effect without outlier-detection = on", option)
    base, longest = group["outlier-base-ejection-time"], group["outlier-max-ejection-time"]
    if base is not None and longest is not None and base > longest:
        group.fail(f"longer than outlier-max-ejection-time ({longest:g}s)", "outlier-base-ejection-time")
    if group.protocol in HTTP and group["anomaly-mitigation"] and group["algorithm"] not in (None, "weighted_random"):
        group.fail("needs algorithm = weighted_random", "anomaly-mitigation")


def _check_etcd(group: ReadSection) -> None:
    given = [option for option in ("etcd-user", "etcd-password", "etcd-ca") if option in group]
    if group["discovery"] is not None and not any(isinstance(source, EtcdSource) for source in group["discovery"]):
        for option in given:
            group.warn("has no effect without an etcd: source in discovery", option)
    for option, other in (("etcd-user", "etcd-password"), ("etcd-password", "etcd-user")):
        if option in given and other not in given:
            group.fail(f"needs {other}", option)


def _check_queue(group: ReadSection) -> None:
    if group.protocol in HTTP and group["max-concurrent-requests"] == 0:
        for option in ("queue-length", "queue-timeout"):
            if option in group:
                group.warn("has no effect without max-concurrent-requests", option)
