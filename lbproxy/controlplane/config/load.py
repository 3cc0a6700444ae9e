"""The way from a configuration file to the model.

`load` blocks: it reads files.  Whoever has a reactor calls it in a thread.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from lbproxy.controlplane.config import certificates, ini, selfsigned
from lbproxy.controlplane.config.actions import MAX_BODY_BYTES, FixedResponseFile
from lbproxy.controlplane.config.certificates import ReadCertificate
from lbproxy.controlplane.config.checks import Sections, check
from lbproxy.controlplane.config.errors import ConfigurationError, Problem, reason_of
from lbproxy.controlplane.config.ingress import security_group
from lbproxy.controlplane.config.options.listener import SELF_SIGNED
from lbproxy.controlplane.config.options.rule import header_of, query_key_of
from lbproxy.controlplane.config.options.table import default_of
from lbproxy.controlplane.config.ratelimits import rate_limit
from lbproxy.controlplane.config.retries import retry_change, retry_policy
from lbproxy.controlplane.config.sections import ReadSection, Report, read_sections
from lbproxy.controlplane.config.targets import DemoTargets, TargetText
from lbproxy.controlplane.config.tokens import password_of, tokens_of
from lbproxy.controlplane.config.transforms import error_pages_of, transform_of
from lbproxy.model.discovery import (
    Discovery,
    DockerSource,
    EtcdSource,
    FileSource,
    NamesSource,
    Protect,
    RegistrationSource,
    Source,
)
from lbproxy.model.health import GRPC_DEFAULT_PATH, GRPC_HEALTH_PATH, HealthCheck, HealthCheckProtocol
from lbproxy.model.listener import (
    Bind,
    Certificate,
    DesyncMitigationMode,
    Listener,
    ListenerProtocol,
    PathNormalization,
    XffMode,
)
from lbproxy.model.rate_limit import RateLimit
from lbproxy.model.rule import (
    Action,
    Condition,
    FixedResponse,
    HeaderCondition,
    HostCondition,
    MethodCondition,
    PathCondition,
    QueryCondition,
    Rule,
    SourceIpCondition,
)
from lbproxy.model.snapshot import AccessLogSettings, Configuration
from lbproxy.model.target_group import (
    CrossZone,
    OutlierDetection,
    ProtocolVersion,
    ProxyProtocolVersion,
    Stickiness,
    StickinessType,
    TargetGroup,
    TargetProtocol,
    TargetTls,
)

# A TCP group's HTTP probe has a shorter default than its TCP and HTTPS ones (ELBv2 CreateTargetGroup)
_NLB_HTTP_PROBE_TIMEOUT_SECONDS = 6.0

_MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its closing zero


@attrs.frozen(kw_only=True)
class AdminAddress:
    """Where the admin API listens: either ``host`` and ``port``, or ``path``."""

    host: str | None = None
    port: int | None = None
    """0 lets the kernel pick one."""
    path: str | None = None
    """Absolute path of a UNIX socket."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class ControlSettings:
    """What the supervisor alone needs to know."""

    workers: int | None
    """None is one for each CPU; 0 runs the worker in the supervisor's process."""
    admin: AdminAddress | None
    """None: no admin API."""
    state_directory: str
    """Absolute; it need not exist."""
    admin_tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    """Who sends one of these may change things by the admin API."""
    resolver: tuple[tuple[str, int], ...] = ()
    """Name servers, address and port; empty: those of the system."""


@attrs.frozen(kw_only=True)
class Loaded:
    """A configuration file without a mistake."""

    configuration: Configuration
    settings: ControlSettings
    demo: Mapping[str, int]
    """How many demo targets each of these target groups wants; the group's own ``targets`` are empty."""
    discovery: Mapping[str, Discovery]
    """What these target groups discover: the names among their ``targets``, and ``discovery``."""
    files: tuple[str, ...]
    """Absolute paths of what was read besides the configuration file (certificates, keys, bodies), and the folders in
    which a pattern may find another certificate: for `watch.FileWatch`."""
    lines: Mapping[str, int]
    """Where each section begins, and where its options are: ``listener:web`` -> 12, ``listener:web bind`` -> 14."""
    warnings: tuple[Problem, ...]
    source: bytes = attrs.field(repr=False)
    """The file's content.  Given to `load` again it reads only the other files anew, which is what a renewed
    certificate asks for: edits of the file itself wait for SIGHUP."""


def load(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    source: bytes | None = None,
    environ: Mapping[str, str] = os.environ,
    now: datetime.datetime | None = None,
) -> Loaded:
    """Read a configuration file with everything that it refers to.

    Relative paths start at the file's folder.  Only with ``create`` is anything written: the self-signed certificate
    and an empty access log, with missing folders for both; without, a certificate that would be made is made in memory.
    ``source`` stands for the file's content.  Raises `ConfigurationError` with all mistakes.
    """
    file = os.fspath(path)
    report = Report(file)
    if source is None:
        source = _read_source(file)
    raw_sections, syntax_problems = ini.parse(source, file, environ)
    report.problems.extend(syntax_problems)
    sections = _by_kind(read_sections(raw_sections, report))
    check(sections, report)
    files = _Files(
        folder=os.path.dirname(os.path.abspath(file)),
        create=create,
        now=now or datetime.datetime.now(datetime.timezone.utc),
        sections=sections,
        own_state_directory=environ.get("STATE_DIRECTORY", "").partition(":")[0],
    )
    files.read_all()
    if report.problems:
        raise ConfigurationError(_in_order(report.problems))
    return Loaded(
        configuration=_configuration(sections, files),
        settings=files.settings,
        demo={
            name: group["targets"].count
            for name, group in sections.groups.items()
            if isinstance(group["targets"], DemoTargets)
        },
        discovery={
            name: discovery
            for name, group in sections.groups.items()
            if (discovery := _discovery(group, files)).sources
        },
        files=tuple(files.read),
        lines=dict(_lines(raw_sections)),
        warnings=_in_order(report.warnings),
        source=source,
    )


def _lines(sections: Iterable[ini.Section]) -> Iterator[tuple[str, int]]:
    for section in sections:
        yield section.title, section.line
        for entry in section.entries:
            yield f"{section.title} {entry.option}", entry.line


def _read_source(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise ConfigurationError((Problem(file=file, message=f"cannot be read: {reason}"),)) from error


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))


def _by_kind(read: list[ReadSection]) -> Sections:
    def named(kind: str) -> dict[str, ReadSection]:
        return {section.name: section for section in read if section.kind == kind}

    return Sections(
        settings=next((section for section in read if section.kind == "lbproxy"), None),
        listeners=named("listener"),
        rules=named("rule"),
        groups=named("target-group"),
        rate_limits=named("rate-limit"),
        security_groups=named("security-group"),
    )


# What is outside of the file: certificates, bodies, names


@attrs.define(eq=False)
class _Files:
    """Reads what the sections refer to, reporting what cannot be read where it is referred to."""

    folder: str
    create: bool
    now: datetime.datetime
    sections: Sections
    own_state_directory: str
    """What systemd made for us (``StateDirectory=``), or empty."""

    read: dict[str, None] = attrs.Factory(dict)
    """Absolute paths, in the order of reading."""
    certificates: dict[str, tuple[Certificate, ...]] = attrs.Factory(dict)
    """By listener."""
    bodies: dict[FixedResponseFile, str] = attrs.Factory(dict)
    authorities: dict[str, bytes] = attrs.Factory(dict)
    """By target group."""
    tokens: dict[str, tuple[str, ...]] = attrs.field(factory=dict, repr=False)
    """By target group."""
    etcd_passwords: dict[str, str] = attrs.field(factory=dict, repr=False)
    """By target group."""
    etcd_authorities: dict[str, bytes] = attrs.Factory(dict)
    """By target group."""
    settings: ControlSettings = attrs.field(init=False)
    access_log: str = "off"

    _certificates_by_path: dict[str, ReadCertificate] = attrs.Factory(dict)
    _self_signed: ReadCertificate | None = None

    def read_all(self) -> None:
        self._settings()
        for listener in self.sections.listeners.values():
            self._certificates(listener)
            self._body(listener, "default-action")
            for option, _ in listener.starting_with("error-page."):
                self._body(listener, option)
        for rule in self.sections.rules.values():
            self._body(rule, "action")
        for group in self.sections.groups.values():
            self._authorities(group, "tls-ca", self.authorities)
            self._authorities(group, "etcd-ca", self.etcd_authorities)
            self._password(group, "etcd-password", self.etcd_passwords)
            self.tokens[group.name] = self._tokens(group, "registration-token")

    def absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.folder, path))

    def _settings(self) -> None:
        section = self.sections.settings
        admin = None if section is None else section["admin"]
        admin_address = None
        if isinstance(admin, Bind):
            admin_address = AdminAddress(host=admin.host, port=admin.port)
        elif admin is not None and section is not None:
            path = self.absolute(admin)
            if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
                section.fail(f"longer than the {_MAX_SOCKET_PATH_BYTES} bytes of a socket's path: {path}", "admin")
            admin_address = AdminAddress(path=path)
        self.settings = ControlSettings(
            workers=_setting(section, "workers"),
            admin=admin_address,
            state_directory=self._state_directory(section),
            admin_tokens=() if section is None else self._tokens(section, "admin-token"),
            resolver=_setting(section, "resolver") or (),
        )
        log = _setting(section, "access-log")
        self.access_log = log if log in ("off", "stdout", None) else self.absolute(log)
        if self.create and section is not None and os.path.isabs(self.access_log or ""):
            try:
                os.makedirs(os.path.dirname(self.access_log), exist_ok=True)
            except OSError as error:
                section.fail(f"{os.path.dirname(self.access_log)} cannot be made: {reason_of(error)}", "access-log")
                return
            if (reason := _why_not_writable(self.access_log)) is not None:
                section.fail(f"{self.access_log} cannot be written: {reason}", "access-log")
        elif section is not None and os.path.isdir(self.access_log or ""):
            section.fail(f"{self.access_log} is a folder; write the path of a file", "access-log")

    def _state_directory(self, section: ReadSection | None) -> str:
        if self.own_state_directory and (section is None or "state-directory" not in section):
            return self.own_state_directory
        return self.absolute(_setting(section, "state-directory") or ".")

    def _certificates(self, listener: ReadSection) -> None:
        patterns: tuple[str, ...] | None = listener.values.get("certificates")
        if patterns is None:
            return
        if SELF_SIGNED in patterns and len(patterns) > 1:
            listener.fail(f"write {SELF_SIGNED} alone, or files", "certificates")
            return
        found: dict[str, ReadCertificate] = {}
        for pattern in patterns:
            try:
                for read in self._matching(pattern):
                    found[read.certificate.source] = read
            except ValueError as error:
                listener.fail(str(error), "certificates")
        for read in found.values():
            self.read.update(dict.fromkeys(read.files))
            for warning in read.warnings:
                listener.warn(warning, "certificates")
        self.certificates[listener.name] = tuple(read.certificate for read in found.values())

    def _matching(self, pattern: str) -> Iterator[ReadCertificate]:
        if pattern == SELF_SIGNED:
            yield self._read_self_signed()
            return
        if (folder := certificates.folder_of(pattern, self.folder)) is not None:
            self.read[folder] = None
        mistakes = []
        for path in certificates.find(pattern, self.folder):
            try:
                yield self._read_certificate(path)
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("; ".join(mistakes))

    def _read_certificate(self, path: str) -> ReadCertificate:
        if path not in self._certificates_by_path:  # listeners often share them
            self._certificates_by_path[path] = certificates.read(path, self.now)
        return self._certificates_by_path[path]

    def _read_self_signed(self) -> ReadCertificate:
        if self._self_signed is None:
            directory = self.settings.state_directory
            self._self_signed = selfsigned.self_signed(directory, self.now, create=self.create)
        return self._self_signed

    def _body(self, section: ReadSection, option: str) -> None:
        action = section.values.get(option)
        if not isinstance(action, FixedResponseFile):
            return
        path = self.absolute(action.path)
        try:
            data = certificates.read_bytes(path)
            if len(data) > MAX_BODY_BYTES:
                raise ValueError(f"{path} is longer than {MAX_BODY_BYTES // 1024} KiB")
            self.bodies[action] = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            section.fail(f"{path} is not UTF-8 text", option)
        except ValueError as error:
            section.fail(str(error), option)
        self.read[path] = None

    def _tokens(self, section: ReadSection, option: str) -> tuple[str, ...]:
        """The lines of the files with tokens."""
        tokens: dict[str, None] = {}
        for written in section.values.get(option, ()):
            path = self.absolute(written)
            self.read[path] = None
            try:
                found = tokens_of(certificates.read_bytes(path), path)
            except ValueError as error:
                section.fail(str(error), option)
                continue
            tokens.update(dict.fromkeys(found))
            self._warn_if_public(path, section, option)
        return tuple(tokens)

    def _password(self, group: ReadSection, option: str, into: dict[str, str]) -> None:
        written = group.values.get(option)
        if written is None:
            return
        path = self.absolute(written)
        self.read[path] = None
        try:
            into[group.name] = password_of(certificates.read_bytes(path), path)
        except ValueError as error:
            group.fail(str(error), option)
            return
        self._warn_if_public(path, group, option)

    def _warn_if_public(self, path: str, section: ReadSection, option: str) -> None:
        if os.stat(path).st_mode & stat.S_IROTH:
            section.warn(f"{path} may be read by everybody on this machine; chmod o-r it", option)

    def _authorities(self, group: ReadSection, option: str, into: dict[str, bytes]) -> None:
        written = group.values.get(option)
        if written is None:
            return
        path = self.absolute(written)
        try:
            into[group.name] = certificates.read_authorities(path)
        except ValueError as error:
            group.fail(str(error), option)
        self.read[path] = None


def _why_not_writable(path: str) -> str | None:
    """Say why no line can be appended to this file, or None; like the workers, makes the file where it is missing."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return None  # to open a pipe may wait for its reader
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except OSError as error:
        return reason_of(error)
    return None


def _setting(section: ReadSection | None, option: str) -> Any:
    return default_of("lbproxy", option, None) if section is None else section[option]


# The model, from sections that are known to be right


def _configuration(sections: Sections, files: _Files) -> Configuration:
    rules: dict[str, list[Rule]] = {}
    for rule in sections.rules.values():
        rules.setdefault(rule["listener"], []).append(_rule(rule, files))
    return Configuration(
        listeners=tuple(
            _listener(
                listener,
                tuple(sorted(rules.get(name, ()), key=lambda rule: rule.priority)),
                tuple(rate_limit(limit) for limit in sections.rate_limits.values() if limit["listener"] == name),
                files,
            )
            for name, listener in sections.listeners.items()
        ),
        target_groups=tuple(_target_group(group, files) for group in sections.groups.values()),
        security_groups=tuple(security_group(group) for group in sections.security_groups.values()),
        access_log=AccessLogSettings(
            destination=files.access_log, format=_setting(sections.settings, "access-log-format")
        ),
        drain_timeout_seconds=_setting(sections.settings, "drain-timeout"),
        zone=_setting(sections.settings, "zone") or "",
    )


def _listener(
    section: ReadSection, rules: tuple[Rule, ...], rate_limits: tuple[RateLimit, ...], files: _Files
) -> Listener:
    protocol = ListenerProtocol(section.protocol)
    only: dict[str, Any] = {}
    if protocol.is_http:
        only.update(
            client_keep_alive_seconds=section["client-keep-alive"],
            min_request_rate=section["min-request-rate"],
            min_response_rate=section["min-response-rate"],
            slow_client_grace_seconds=section["slow-client-grace"],
            max_requests_per_connection=section["max-requests-per-connection"],
            http2=section["http2"],
            http2_max_concurrent_streams=section["http2-max-concurrent-streams"],
            xff_mode=XffMode(section["xff-mode"]),
            xff_client_port=section["xff-client-port"],
            desync_mitigation_mode=DesyncMitigationMode(section["desync-mitigation-mode"]),
            transform=transform_of(section),
            error_pages=error_pages_of(section, files.bodies),
            cors_preflight=section["cors-preflight"],
            path_normalization=PathNormalization(section["path-normalization"]),
            drop_invalid_header_fields=section["drop-invalid-header-fields"],
        )
    if protocol.is_encrypted:
        only.update(certificates=files.certificates[section.name], tls_policy=section["tls-policy"])
    return Listener(
        name=section.name,
        protocol=protocol,
        binds=section["bind"],
        default_action=_action(section["default-action"], files),
        rules=rules,
        request_header_timeout_seconds=section["request-header-timeout"],
        idle_timeout_seconds=section["idle-timeout"],
        rate_limits=rate_limits,
        security_groups=section["security-groups"] or (),
        max_connections=section["max-connections"],
        max_connections_per_client=section["max-connections-per-client"],
        proxy_protocol=section["proxy-protocol"],
        proxy_protocol_trusted=section["proxy-protocol-trusted"] or (),
        **only,
    )


def _rule(section: ReadSection, files: _Files) -> Rule:
    return Rule(
        name=section.name,
        priority=section["priority"],
        conditions=tuple(_conditions(section)),
        transform=transform_of(section),
        action=_action(section["action"], files),
        queue_priority=section["queue-priority"],
        retry=retry_change(section),
    )


def _conditions(section: ReadSection) -> list[Condition]:
    values = section.values
    conditions: list[Condition] = []
    if "host" in values:
        conditions.append(HostCondition(values["host"]))
    if "path" in values:
        conditions.append(PathCondition(values["path"]))
    if "method" in values:
        conditions.append(MethodCondition(values["method"]))
    if "source-ip" in values:
        conditions.append(SourceIpCondition(values["source-ip"]))
    if "query" in values:
        conditions.append(QueryCondition(None, values["query"]))
    for option, patterns in section.starting_with("header."):
        conditions.append(HeaderCondition(header_of(option), patterns))
    for option, patterns in section.starting_with("query."):
        conditions.append(QueryCondition(query_key_of(option), patterns))
    return conditions


def _action(action: Action | FixedResponseFile, files: _Files) -> Action:
    if isinstance(action, FixedResponseFile):
        return FixedResponse(status=action.status, content_type=action.content_type, body=files.bodies[action])
    return action


def _target_group(section: ReadSection, files: _Files) -> TargetGroup:
    protocol = TargetProtocol(section.protocol)
    targets: tuple[TargetText, ...] | DemoTargets = section["targets"] or ()
    only: dict[str, Any] = {}
    if protocol.is_http:
        only.update(
            response_timeout_seconds=section["response-timeout"],
            keep_alive_seconds=section["keep-alive-timeout"],
            max_idle_connections=section["max-idle-connections"],
            max_concurrent_requests=section["max-concurrent-requests"],
            queue_length=section["queue-length"],
            queue_timeout_seconds=section["queue-timeout"],
            circuit_breaker_max_requests=section["circuit-breaker-max-requests"],
            anomaly_mitigation=section["anomaly-mitigation"],
            retry=retry_policy(section),
            protocol_version=ProtocolVersion(section["protocol-version"]),
        )
    else:
        only.update(proxy_protocol=ProxyProtocolVersion(section["proxy-protocol"]))
    if protocol.is_encrypted:
        only.update(
            tls=TargetTls(
                verify=section["tls-verify"],
                server_name=section["tls-server-name"],
                ca_pem=files.authorities.get(section.name),
            )
        )
    return TargetGroup(
        name=section.name,
        protocol=protocol,
        targets=()
        if isinstance(targets, DemoTargets)
        else tuple(target for each in targets if (target := each.target()).address),
        algorithm=section["algorithm"],
        hash_key=section["hash-key"],
        hash_balance_factor=section["hash-balance-factor"],
        stickiness=_stickiness(section),
        outlier_detection=_outlier_detection(section),
        slow_start_seconds=section["slow-start"],
        cross_zone=CrossZone(section["cross-zone"]),
        minimum_healthy_count=section["unhealthy-state-routing-minimum-count"],
        minimum_healthy_percentage=section["unhealthy-state-routing-minimum-percentage"],
        backup=section["backup"] or "",
        backup_percentage=section["backup-percentage"],
        health_check=_health_check(section, protocol),
        deregistration_delay_seconds=section["deregistration-delay"],
        connect_timeout_seconds=section["connect-timeout"],
        **only,
    )


def _outlier_detection(section: ReadSection) -> OutlierDetection | None:
    if not section["outlier-detection"]:
        return None
    return OutlierDetection(
        # what a TCP connection is good for is not seen
        consecutive_failures=section["outlier-consecutive-failures"] or 0,
        latency_factor=section["outlier-latency-factor"] or 0,
        interval_seconds=section["outlier-interval"],
        base_ejection_seconds=section["outlier-base-ejection-time"],
        max_ejection_seconds=section["outlier-max-ejection-time"],
        max_ejected_percentage=section["outlier-max-ejected-percentage"],
    )


def _stickiness(section: ReadSection) -> Stickiness | None:
    if not section["stickiness"]:
        return None
    kind = StickinessType(section["stickiness-type"])
    if kind is StickinessType.SOURCE_IP:
        return Stickiness(type=kind)
    option = "stickiness-app-cookie-duration" if kind is StickinessType.APP_COOKIE else "stickiness-lb-cookie-duration"
    return Stickiness(
        type=kind, duration_seconds=section[option], cookie_name=section["stickiness-app-cookie-name"] or ""
    )


def _discovery(section: ReadSection, files: _Files) -> Discovery:
    targets: tuple[TargetText, ...] | DemoTargets = section["targets"] or ()
    names = () if isinstance(targets, DemoTargets) else (each.target() for each in targets)
    named = tuple(target for target in names if not target.address)
    protect: Protect = section["discovery-protect"]
    sources: list[Source] = [NamesSource(targets=named)] if named else []
    for source in section["discovery"] or ():
        if isinstance(source, FileSource | DockerSource):
            source = attrs.evolve(source, path=files.absolute(source.path))
        elif isinstance(source, EtcdSource):
            source = attrs.evolve(
                source,
                user=section["etcd-user"] or "",
                password=files.etcd_passwords.get(section.name, ""),
                authorities_pem=files.etcd_authorities.get(section.name),
            )
        sources.append(source)
    if tokens := files.tokens.get(section.name):
        sources.append(RegistrationSource(tokens=tokens, keeps=protect.count > 0))
    return Discovery(sources=tuple(sources), protect=protect)


def _health_check(section: ReadSection, protocol: TargetProtocol) -> HealthCheck:
    probe = HealthCheckProtocol(section["health-check-protocol"])
    interval: float = section["health-check-interval"]
    timeout: float = section["health-check-timeout"]
    if "health-check-timeout" not in section:
        if not protocol.is_http and probe is HealthCheckProtocol.HTTP:
            timeout = _NLB_HTTP_PROBE_TIMEOUT_SECONDS
        timeout = min(timeout, interval)
    path, matcher = section["health-check-path"], section["matcher"]
    if protocol.is_http and section["protocol-version"] == ProtocolVersion.GRPC.value:
        if "health-check-path" not in section:
            path = GRPC_DEFAULT_PATH
        if "matcher" not in section:
            matcher = ((0, 0),) if path == GRPC_HEALTH_PATH else ((12, 12),)
    return HealthCheck(
        enabled=section["health-check"],
        protocol=probe,
        port=section["health-check-port"],
        path=path,
        host=section["health-check-host"],
        interval_seconds=interval,
        timeout_seconds=timeout,
        healthy_threshold=section["healthy-threshold"],
        unhealthy_threshold=section["unhealthy-threshold"],
        matcher=matcher,
    )
