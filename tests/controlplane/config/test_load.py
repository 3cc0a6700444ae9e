"""From a file to the model."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck as Slow
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.controlplane.config.errors import ConfigurationError, Problem
from lbproxy.controlplane.config.load import AdminAddress, ControlSettings, Loaded, load
from lbproxy.controlplane.config.options.table import KINDS
from lbproxy.model.discovery import (
    Discovery,
    DockerSource,
    EtcdSource,
    FileSource,
    NamesSource,
    Protect,
    RegistrationSource,
    SrvSource,
)
from lbproxy.model.health import HealthCheck, HealthCheckProtocol
from lbproxy.model.listener import Bind, Listener, ListenerProtocol, XffMode
from lbproxy.model.retry import RetryChange, RetryPolicy
from lbproxy.model.rule import (
    FixedResponse,
    Forward,
    HeaderCondition,
    HostCondition,
    MethodCondition,
    PathCondition,
    Pattern,
    QueryCondition,
    Redirect,
    Rule,
    SourceIpCondition,
    WeightedGroup,
)
from lbproxy.model.snapshot import AccessLogSettings
from lbproxy.model.target import Target
from lbproxy.model.target_group import (
    CrossZone,
    HashKey,
    HashPart,
    OutlierDetection,
    ProtocolVersion,
    ProxyProtocolVersion,
    Stickiness,
    StickinessType,
    TargetGroup,
    TargetProtocol,
    TargetTls,
)
from tests.controlplane.config.pem import NOW, make_certificate, make_key, make_pem

WEB = """
[listener:web]
protocol = HTTP
bind = 127.0.0.1:80
default-action = forward app
"""
APP = """
[target-group:app]
protocol = HTTP
targets = 10.0.0.1:8080
"""
TCP = """
[listener:tcp]
protocol = TCP
bind = 127.0.0.1:90
default-action = forward db
[target-group:db]
protocol = TCP
targets = 10.0.0.2:5432
"""
FORWARD_APP = Forward((WeightedGroup("app"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lb.ini"


def read(path: Path, text: str, **options: Any) -> Loaded:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(path, now=NOW, environ={"GROUP": "app"}, **options)


def problems(path: Path, text: str) -> list[str]:
    """The mistakes without the folder, which differs each time."""
    with pytest.raises(ConfigurationError) as caught:
        read(path, text)
    return [
        str(attrs.evolve(problem, file=path.name)).replace(f"{path.parent}/", "") for problem in caught.value.problems
    ]


def mistake(path: Path, text: str) -> str:
    found = problems(path, text)
    assert len(found) == 1, found
    return found[0]


# What is read


def test_smallest_file(path: Path) -> None:
    loaded = read(path, WEB + APP)
    assert loaded.configuration.listeners == (
        Listener(
            name="web",
            protocol=ListenerProtocol.HTTP,
            binds=(Bind("127.0.0.1", 80),),
            default_action=FORWARD_APP,
        ),
    )
    assert loaded.configuration.target_groups == (
        TargetGroup(
            name="app",
            protocol=TargetProtocol.HTTP,
            targets=(Target(host="10.0.0.1", port=8080, address="10.0.0.1"),),
        ),
    )
    assert loaded.configuration.access_log == AccessLogSettings(destination="off", format="json")
    assert loaded.configuration.drain_timeout_seconds == 30.0
    assert loaded.settings == ControlSettings(workers=None, admin=None, state_directory=str(path.parent / "state"))
    assert loaded.lines == {
        "listener:web": 2,
        "listener:web protocol": 3,
        "listener:web bind": 4,
        "listener:web default-action": 5,
        "target-group:app": 7,
        "target-group:app protocol": 8,
        "target-group:app targets": 9,
    }
    assert (loaded.demo, loaded.files, loaded.warnings) == ({}, (), ())


def test_settings(path: Path) -> None:
    loaded = read(
        path,
        f"""
        [lbproxy]
        workers = 0
        admin = [::1]:9901
        access-log = logs/access.log
        access-log-format = alb
        drain-timeout = 5m
        state-directory = /var/lib/lbproxy
        {WEB}{APP}""".replace("        ", ""),
    )
    assert loaded.settings == ControlSettings(
        workers=0, admin=AdminAddress(host="::1", port=9901), state_directory="/var/lib/lbproxy"
    )
    assert loaded.configuration.access_log == AccessLogSettings(
        destination=str(path.parent / "logs/access.log"), format="alb"
    )
    assert loaded.configuration.drain_timeout_seconds == 300.0
    assert not (path.parent / "logs").exists()


@pytest.mark.parametrize(
    ("written", "address", "words"),
    [
        ("off", None, "None"),
        ("unix:/run/a.sock", AdminAddress(path="/run/a.sock"), "unix:/run/a.sock"),
        ("127.0.0.1:1", AdminAddress(host="127.0.0.1", port=1), "127.0.0.1:1"),
        ("[::1]:1", AdminAddress(host="::1", port=1), "[::1]:1"),
    ],
)
def test_admin_address(path: Path, written: str, address: AdminAddress | None, words: str) -> None:
    loaded = read(path, f"[lbproxy]\nadmin = {written}\n{WEB}{APP}")
    assert loaded.settings.admin == address
    assert str(loaded.settings.admin) == words


@pytest.mark.parametrize("word", ["stdout", "off"])
def test_access_log_words_are_no_paths(path: Path, word: str) -> None:
    assert read(path, f"[lbproxy]\naccess-log = {word}\n{WEB}{APP}").configuration.access_log.destination == word


def test_systemd_gives_the_state_directory(path: Path) -> None:
    path.write_text(WEB + APP)
    assert load(path, environ={"STATE_DIRECTORY": "/var/lib/lbproxy:/x"}).settings.state_directory == "/var/lib/lbproxy"
    path.write_text(f"[lbproxy]\nstate-directory = kept\n{WEB}{APP}")
    assert load(path, environ={"STATE_DIRECTORY": "/var/lib/lbproxy"}).settings.state_directory.endswith("/kept")


def test_relative_paths_start_at_the_folder_of_the_file(path: Path) -> None:
    loaded = read(path, f"[lbproxy]\nadmin = unix:run/a.sock\nstate-directory = ../kept\n{WEB}{APP}")
    assert loaded.settings.admin == AdminAddress(path=str(path.parent / "run/a.sock"))
    assert loaded.settings.state_directory == str(path.parent.parent / "kept")


def test_rules_by_priority_with_all_conditions_and_actions(path: Path) -> None:
    (path.parent / "gone.html").write_text("<p>é", encoding="utf-8")
    loaded = read(
        path,
        WEB
        + APP
        + """
[rule:second]
listener = web
priority = 20
path = /old/*
action = redirect https://#{host}:8443/#{path}?#{query} 301

[rule:third]
listener = web
priority = 30
path = /gone
action = fixed-response 410 text/html file:gone.html

[rule:first]
listener = web
priority = 10
host = API.example.com, *.example.org
path = /v1/*, regex:^/v[0-9]{1,2}/
method = GET, POST
header.X-Tenant = acme*, globex
query.version = 2
query = *debug*
source-ip = 10.0.0.0/8
action = forward app weight=90, canary weight=10

[target-group:canary]
protocol = HTTPS
targets = app.internal:443
""",
    )
    first, second, third = loaded.configuration.listeners[0].rules
    assert first == Rule(
        name="first",
        priority=10,
        conditions=(
            HostCondition((Pattern("api.example.com"), Pattern("*.example.org"))),
            PathCondition((Pattern("/v1/*"), Pattern("^/v[0-9]{1,2}/", is_regex=True))),
            MethodCondition(("GET", "POST")),
            SourceIpCondition(("10.0.0.0/8",)),
            QueryCondition(None, (Pattern("*debug*"),)),
            HeaderCondition("x-tenant", (Pattern("acme*"), Pattern("globex"))),
            QueryCondition(Pattern("version"), (Pattern("2"),)),
        ),
        action=Forward((WeightedGroup("app", 90), WeightedGroup("canary", 10))),
    )
    assert second.action == Redirect(
        status=301, protocol="https", host="#{host}", port="8443", path="/#{path}", query="#{query}"
    )
    assert third.action == FixedResponse(status=410, content_type="text/html", body="<p>é")
    assert loaded.files == (str(path.parent / "gone.html"),)


def test_listener_options(path: Path) -> None:
    (path.parent / "a.pem").write_bytes(make_pem("a"))
    loaded = read(
        path,
        """
        [listener:secure]
        protocol = HTTPS
        bind = 127.0.0.1:443,
            [::1]:443
        certificates = a.pem
        tls-policy = ELBSecurityPolicy-TLS13-1-3-2021-06
        request-header-timeout = 5s
        idle-timeout = 2m
        client-keep-alive = 10m
        xff-mode = append
        xff-client-port = on
        proxy-protocol = on
        proxy-protocol-trusted = 10.0.0.0/8, ::1
        default-action = forward ${GROUP}
        """
        + APP.replace("\n", "\n" + " " * 8),
    )
    (listener,) = loaded.configuration.listeners
    assert attrs.evolve(listener, certificates=()) == Listener(
        name="secure",
        protocol=ListenerProtocol.HTTPS,
        binds=(Bind("127.0.0.1", 443), Bind("::1", 443)),
        default_action=FORWARD_APP,
        tls_policy="ELBSecurityPolicy-TLS13-1-3-2021-06",
        request_header_timeout_seconds=5.0,
        idle_timeout_seconds=120.0,
        client_keep_alive_seconds=600.0,
        http2=True,
        xff_mode=XffMode.APPEND,
        xff_client_port=True,
        proxy_protocol=True,
        proxy_protocol_trusted=("10.0.0.0/8", "::1/128"),
    )
    assert [certificate.source for certificate in listener.certificates] == [str(path.parent / "a.pem")]


def test_names_and_sources_are_what_a_group_discovers(path: Path) -> None:
    """No name is looked up here: a configuration can be checked, and applied, while the DNS is away."""
    loaded = read(
        path,
        WEB
        + """
[target-group:app]
protocol = HTTP
targets = 10.0.0.1:80, App.internal:8443 weight=2
discovery = dns:more.internal:80
    file:lists/app.yaml, srv:_http._tcp.internal
    etcd:https://etcd.internal:2379/services/app/, docker, docker:run/engine.sock
discovery-protect = 50%
[target-group:plain]
protocol = HTTP
targets = 10.0.0.1:80
""",
    )
    assert [target.key for target in loaded.configuration.target_groups[0].targets] == ["10.0.0.1:80"]
    assert loaded.discovery == {
        "app": Discovery(
            sources=(
                NamesSource(targets=(Target(host="app.internal", port=8443, address="", weight=2),)),
                NamesSource(targets=(Target(host="more.internal", port=80, address=""),), text="dns:more.internal:80"),
                FileSource(path=str(path.parent / "lists/app.yaml"), text="file:lists/app.yaml"),
                SrvSource(name="_http._tcp.internal", text="srv:_http._tcp.internal"),
                EtcdSource(
                    url="https://etcd.internal:2379",
                    prefix="/services/app/",
                    text="etcd:https://etcd.internal:2379/services/app/",
                ),
                DockerSource(path="/var/run/docker.sock", text="docker"),
                DockerSource(path=str(path.parent / "run/engine.sock"), text="docker:run/engine.sock"),
            ),
            protect=Protect(count=1, share=0.5),
        )
    }
    assert not loaded.warnings


def test_tokens_come_from_files(path: Path) -> None:
    for name, text in (
        ("admin", "0123456789abcdef\n"),
        ("app", "# of June\nfirst-token-16-long\n\nsecond-token-16-long"),
    ):
        (path.parent / name).write_text(text)
        (path.parent / name).chmod(0o600)
    loaded = read(
        path, "[lbproxy]\nadmin-token = file:admin\n" + WEB + APP + "registration-token = file:app, file:admin\n"
    )
    assert loaded.settings.admin_tokens == ("0123456789abcdef",)
    (source,) = loaded.discovery["app"].sources
    tokens = ("first-token-16-long", "second-token-16-long", "0123456789abcdef")
    assert source == RegistrationSource(tokens=tokens)
    assert read(path, WEB + APP + "registration-token = file:admin\ndiscovery-protect = off\n").discovery[
        "app"
    ].sources == (RegistrationSource(tokens=tokens[2:], keeps=False),)
    assert "token-16" not in repr(loaded)
    assert "0123456789abcdef" not in repr(loaded.settings)
    assert set(loaded.files) == {str(path.parent / "admin"), str(path.parent / "app")}
    assert not loaded.warnings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "token cannot be read: No such file or directory"),
        ("", "token has no token; make one with: openssl rand -hex 32 > "),
        ("tiny", "token has a token that is shorter than 16 characters or has blanks in it"),
        ("0123456789 abcdef", "token has a token that is shorter than 16 characters or has blanks in it"),
        ("0123456789abcdé", "token is not ASCII text"),
    ],
)
def test_files_that_are_no_tokens(path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (path.parent / "token").write_text(content)
    found = mistake(path, WEB + APP + "registration-token = file:token\n")
    assert message in found
    assert content is None or not content or content not in found


@pytest.mark.parametrize("option", ["registration-token", "etcd-user = lb\netcd-password"])
def test_a_secret_in_the_configuration_itself_is_refused_and_not_shown(path: Path, option: str) -> None:
    found = mistake(path, WEB + APP + f"discovery = etcd:http://e:2379/app/\n{option} = 0123456789abcdef\n")
    assert "= (hidden): write file:PATH" in found
    assert "0123456789abcdef" not in found


def test_the_user_of_etcd(path: Path) -> None:
    for name, text in (("password", "s3cret word\n"), ("ca.pem", make_certificate("authority", make_key()).decode())):
        (path.parent / name).write_text(text)
        (path.parent / name).chmod(0o600)
    loaded = read(
        path,
        WEB
        + APP
        + "discovery = etcd:https://e:2379/app/\netcd-user = lb\netcd-password = file:password\netcd-ca = ca.pem\n",
    )
    (source,) = loaded.discovery["app"].sources
    assert isinstance(source, EtcdSource)
    assert (source.user, source.password) == ("lb", "s3cret word")
    assert source.authorities_pem is not None
    assert b"BEGIN CERTIFICATE" in source.authorities_pem
    assert "s3cret" not in repr(loaded)
    assert set(loaded.files) == {str(path.parent / "password"), str(path.parent / "ca.pem")}
    assert not loaded.warnings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "password cannot be read: No such file or directory"),
        (b"", "password has 0 lines; it needs one, the password"),
        (b"hush\nhush\n", "password has 2 lines; it needs one, the password"),
        (b"hush\xff", "password is not UTF-8 text"),
    ],
)
def test_files_that_are_no_passwords(path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (path.parent / "password").write_bytes(content)
    found = mistake(
        path, WEB + APP + "discovery = etcd:http://e:2379/app/\netcd-user = lb\netcd-password = file:password\n"
    )
    assert message in found
    assert "hush" not in found


@pytest.mark.parametrize(("option", "other"), [("etcd-user", "etcd-password"), ("etcd-password", "etcd-user")])
def test_a_user_of_etcd_needs_a_password(path: Path, option: str, other: str) -> None:
    (path.parent / "x").write_text("hush")
    assert f"needs {other}" in mistake(path, WEB + APP + f"discovery = etcd:http://e:2379/app/\n{option} = file:x\n")


def test_a_user_of_etcd_without_etcd_has_no_effect(path: Path) -> None:
    (path.parent / "ca.pem").write_bytes(make_certificate("authority", make_key()))
    (warning,) = read(path, WEB + APP + "discovery = docker\netcd-ca = ca.pem\n").warnings
    assert "has no effect without an etcd: source" in str(warning)


def test_a_token_that_everybody_may_read_is_told(path: Path) -> None:
    (path.parent / "token").write_text("0123456789abcdef")
    (path.parent / "token").chmod(0o644)
    (warning,) = read(path, WEB + APP + "registration-token = file:token\n").warnings
    assert "may be read by everybody" in str(warning)


def test_name_servers(path: Path) -> None:
    loaded = read(path, "[lbproxy]\nresolver = 10.0.0.53, 127.0.0.1:5353, ::1, [::2]:54\n" + WEB + APP)
    assert loaded.settings.resolver == (("10.0.0.53", 53), ("127.0.0.1", 5353), ("::1", 53), ("::2", 54))


def test_target_group_options(path: Path) -> None:
    authority = make_certificate("authority", make_key())
    (path.parent / "ca.pem").write_bytes(authority)
    loaded = read(
        path,
        WEB
        + """
[target-group:app]
protocol = HTTPS
targets = App.internal:8443 weight=2, [::1]:8443
algorithm = least_outstanding_requests
health-check = off
health-check-protocol = TCP
health-check-port = 8081
health-check-interval = 200ms
health-check-timeout = 100ms
healthy-threshold = 1
unhealthy-threshold = 10
deregistration-delay = 0
connect-timeout = 1s
response-timeout = 5m
keep-alive-timeout = 4s
max-idle-connections = 0
retry-on = reset, 500, 502-504
retry-attempts = 1
retry-methods = GET, POST
retry-budget = 10
try-timeout = 2s
request-timeout = 10s
hedge-delay = 100ms
tls-verify = off
tls-server-name = other.internal
tls-ca = ca.pem
""",
    )
    assert loaded.configuration.target_groups == (
        TargetGroup(
            name="app",
            protocol=TargetProtocol.HTTPS,
            targets=(Target(host="::1", port=8443, address="::1"),),
            algorithm="least_outstanding_requests",
            health_check=HealthCheck(
                enabled=False,
                protocol=HealthCheckProtocol.TCP,
                port=8081,
                interval_seconds=0.2,
                timeout_seconds=0.1,
                healthy_threshold=1,
                unhealthy_threshold=10,
            ),
            deregistration_delay_seconds=0.0,
            connect_timeout_seconds=1.0,
            response_timeout_seconds=300.0,
            keep_alive_seconds=4.0,
            max_idle_connections=0,
            retry=RetryPolicy(
                on_connect_failure=False,
                on_reset=True,
                statuses=((500, 500), (502, 504)),
                attempts=1,
                methods=("GET", "POST"),
                budget_percent=10,
                try_timeout_seconds=2.0,
                request_timeout_seconds=10.0,
                hedge_delay_seconds=0.1,
            ),
            tls=TargetTls(verify=False, server_name="other.internal", ca_pem=authority),
        ),
    )
    assert loaded.files == (str(path.parent / "ca.pem"),)


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ("", RetryPolicy()),
        ("retry-on = connect-failure", RetryPolicy()),
        ("retry-on = off", RetryPolicy(on_connect_failure=False)),
        ("retry-on = connect-failure, 503", RetryPolicy(statuses=((503, 503),))),
    ],
)
def test_what_is_retried(path: Path, words: str, policy: RetryPolicy) -> None:
    (group,) = read(path, WEB + APP + words + "\n").configuration.target_groups
    assert group.retry == policy


RULE = "[rule:api]\nlistener = web\npriority = 1\npath = /api/*\n"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("", RetryChange()),
        ("retry-on = off", RetryChange(on_connect_failure=False, on_reset=False, statuses=())),
        (
            "retry-on = reset, 503\nretry-attempts = 0\nretry-methods = POST\ntry-timeout = 1s\nrequest-timeout = 2s\n"
            "hedge-delay = 10ms",
            RetryChange(
                on_connect_failure=False,
                on_reset=True,
                statuses=((503, 503),),
                attempts=0,
                methods=("POST",),
                try_timeout_seconds=1.0,
                request_timeout_seconds=2.0,
                hedge_delay_seconds=0.01,
            ),
        ),
    ],
)
def test_what_a_rule_has_otherwise(path: Path, words: str, change: RetryChange) -> None:
    (listener,) = read(path, WEB + APP + RULE + "action = forward app\n" + words + "\n").configuration.listeners
    assert listener.rules[0].retry == change


@pytest.mark.parametrize(
    ("words", "path_", "matcher"),
    [
        ("", "/AWS.ALB/healthcheck", ((12, 12),)),
        ("health-check-path = /grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Check", ((0, 0),)),
        ("matcher = 0-99", "/AWS.ALB/healthcheck", ((0, 99),)),
    ],
)
def test_grpc_has_its_own_health_check(path: Path, words: str, path_: str, matcher: tuple[tuple[int, int]]) -> None:
    (group,) = read(path, f"{WEB}{APP}protocol-version = GRPC\n{words}\n").configuration.target_groups
    assert group.protocol_version is ProtocolVersion.GRPC
    assert (group.health_check.path, group.health_check.matcher) == (path_, matcher)


def test_tcp_has_its_own_defaults(path: Path) -> None:
    loaded = read(path, TCP.replace("targets", "proxy-protocol = v2\ntargets"))
    (listener,), (group,) = loaded.configuration.listeners, loaded.configuration.target_groups
    assert listener.idle_timeout_seconds == 350.0
    assert group.proxy_protocol is ProxyProtocolVersion.V2
    assert group.health_check == HealthCheck(
        protocol=HealthCheckProtocol.TCP, timeout_seconds=10.0, matcher=((200, 399),)
    )


@pytest.mark.parametrize(
    ("group", "options", "protocol", "timeout", "matcher"),
    [
        ("HTTP", "", HealthCheckProtocol.HTTP, 5.0, (200, 200)),
        ("HTTPS", "", HealthCheckProtocol.HTTPS, 5.0, (200, 200)),
        ("TCP", "", HealthCheckProtocol.TCP, 10.0, (200, 399)),
        ("TLS", "", HealthCheckProtocol.TCP, 10.0, (200, 399)),
        ("TCP", "health-check-protocol = HTTP", HealthCheckProtocol.HTTP, 6.0, (200, 399)),
        ("TCP", "health-check-protocol = HTTPS", HealthCheckProtocol.HTTPS, 10.0, (200, 399)),
        ("HTTP", "health-check-interval = 2s", HealthCheckProtocol.HTTP, 2.0, (200, 200)),
        ("HTTP", "health-check-timeout = 7s", HealthCheckProtocol.HTTP, 7.0, (200, 200)),
        ("HTTP", "health-check-interval = 1s\nhealth-check-timeout = 1s", HealthCheckProtocol.HTTP, 1.0, (200, 200)),
    ],
)
def test_health_check_defaults(
    path: Path, group: str, options: str, protocol: HealthCheckProtocol, timeout: float, matcher: tuple[int, int]
) -> None:
    loaded = read(path, f"{WEB}{APP}[target-group:x]\nprotocol = {group}\ntargets = 10.0.0.3:1\n{options}\n")
    check = loaded.configuration.target_groups[1].health_check
    assert (check.protocol, check.timeout_seconds, check.matcher) == (protocol, timeout, (matcher,))


def test_demo_targets_are_left_to_the_supervisor(path: Path) -> None:
    loaded = read(path, WEB + APP.replace("10.0.0.1:8080", "demo:3") + TCP)
    assert loaded.demo == {"app": 3}
    assert [len(group.targets) for group in loaded.configuration.target_groups] == [0, 1]


def test_certificates_by_pattern(path: Path) -> None:
    (path.parent / "tls").mkdir()
    for name in ("b.pem", "a.pem", "default.pem"):
        (path.parent / "tls" / name).write_bytes(make_pem(name, ends=3 if name == "a.pem" else 300))
    loaded = read(
        path,
        "[listener:s]\nprotocol = TLS\nbind = 127.0.0.1:1\ncertificates = tls/default.pem, tls/*.pem\n"
        "default-action = forward db\n" + TCP,
    )
    tls = path.parent / "tls"
    listener = loaded.configuration.listeners[0]
    wanted = [str(tls / name) for name in ("default.pem", "a.pem", "b.pem")]
    assert [certificate.source for certificate in listener.certificates] == wanted
    assert sorted(loaded.files) == sorted([*wanted, str(tls)])
    assert [str(warning) for warning in loaded.warnings] == [
        f"{path}:4: [listener:s] certificates = tls/default.pem, tls/*.pem: "
        f"{tls}/a.pem: certificate CN=a.pem expires on 2030-06-04; renew it soon"
    ]


SELF_SIGNED = """
[lbproxy]
access-log = logs/access.log
[listener:secure]
protocol = HTTPS
bind = 127.0.0.1:443
certificates = self-signed
default-action = forward app
[listener:other]
protocol = HTTPS
bind = 127.0.0.1:444
certificates = self-signed
default-action = forward app
"""


def test_self_signed_is_in_memory_unless_something_may_be_created(path: Path) -> None:
    loaded = read(path, SELF_SIGNED + APP)
    assert loaded.configuration.listeners[0].certificates == loaded.configuration.listeners[1].certificates
    assert [entry.name for entry in path.parent.iterdir()] == ["lb.ini"]


def test_self_signed_is_made_once(path: Path) -> None:
    loaded = read(path, SELF_SIGNED + APP, create=True)
    again = read(path, SELF_SIGNED + APP, create=True)
    assert loaded.configuration == again.configuration
    assert loaded.files == (str(path.parent / "state/self-signed.pem"),)
    assert (path.parent / "logs").is_dir()


def test_source_stands_for_the_file(path: Path) -> None:
    """A renewed certificate is read without applying edits that wait for SIGHUP."""
    (path.parent / "a.pem").write_bytes(make_pem("a"))
    text = (
        "[listener:s]\nprotocol = HTTPS\nbind = 127.0.0.1:1\ncertificates = a.pem\ndefault-action = forward app\n" + APP
    )
    loaded = read(path, text)
    (path.parent / "a.pem").write_bytes(make_pem("a"))
    path.write_text("nonsense")
    renewed = load(path, source=loaded.source, now=NOW)
    before, after = loaded.configuration.listeners[0], renewed.configuration.listeners[0]
    assert before.certificates != after.certificates
    assert attrs.evolve(after, certificates=before.certificates) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[lbproxy]\nadmin = 0.0.0.0:9901\n" + WEB + APP, "and changes are refused without admin-token"),
        (WEB + "proxy-protocol-trusted = 10.0.0.0/8\n" + APP, "has no effect without proxy-protocol = on"),
        (WEB + "xff-mode = remove\nxff-client-port = on\n" + APP, "has no effect unless xff-mode = append"),
        (
            WEB + APP + RULE + "action = fixed-response 404\nretry-attempts = 1\n",
            "has no effect, for the rule forwards nothing",
        ),
        (WEB + APP + "retry-attempts = 1\n", "has no effect; add reset or status codes to retry-on"),
        (WEB + APP + "try-timeout = 90s\n", "has no effect; it is not less than response-timeout (60s)"),
        (WEB + APP + "cross-zone = spill\n", "has no effect without zone in [lbproxy]"),
        (WEB + APP + "backup-percentage = 50\n", "has no effect without backup"),
        (WEB + APP + "slow-start = 60s\nhealth-check = off\n", "has no effect without health checks"),
        (WEB + APP + "stickiness-lb-cookie-duration = 1h\n", "has no effect without stickiness = on"),
        (TCP + "stickiness = on\nalgorithm = maglev\n", "has no effect with stickiness by source_ip"),
        (WEB + APP + "outlier-interval = 5s\n", "has no effect without outlier-detection = on"),
        (WEB + APP + "queue-length = 5\n", "has no effect without max-concurrent-requests"),
        (WEB + APP + "hash-key = path\n", "has no effect unless algorithm = maglev or rendezvous"),
    ],
)
def test_warning(path: Path, text: str, words: str) -> None:
    (warning,) = read(path, text).warnings
    assert words in str(warning)


# Target groups


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source", HashKey()),
        ("host", HashKey(HashPart.HOST)),
        ("path", HashKey(HashPart.PATH)),
        ("header.X-Tenant", HashKey(HashPart.HEADER, "x-tenant")),
        ("cookie.Session", HashKey(HashPart.COOKIE, "Session")),
        ("query.user.id", HashKey(HashPart.QUERY, "user.id")),
    ],
)
def test_hash_key(path: Path, text: str, expected: HashKey) -> None:
    read_text = WEB + APP + f"algorithm = maglev\nhash-key = {text}\nhash-balance-factor = 150\n"
    (group,) = read(path, read_text).configuration.target_groups
    assert (group.hash_key, group.hash_balance_factor) == (expected, 150)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WEB + APP, None),
        (WEB + APP + "stickiness = off\n", None),
        (WEB + APP + "stickiness = on\n", Stickiness(type=StickinessType.LB_COOKIE, duration_seconds=86400)),
        (
            WEB + APP + "stickiness = on\nstickiness-lb-cookie-duration = 1h\n",
            Stickiness(type=StickinessType.LB_COOKIE, duration_seconds=3600),
        ),
        (
            WEB
            + APP
            + "stickiness = on\nstickiness-type = app_cookie\nstickiness-app-cookie-name = SID\n"
            + "stickiness-app-cookie-duration = 2h\n",
            Stickiness(type=StickinessType.APP_COOKIE, duration_seconds=7200, cookie_name="SID"),
        ),
        (TCP + "stickiness = on\n", Stickiness(type=StickinessType.SOURCE_IP)),
    ],
)
def test_stickiness(path: Path, text: str, expected: Stickiness | None) -> None:
    (group,) = read(path, text).configuration.target_groups
    assert group.stickiness == expected


def test_what_is_done_about_failing_and_full_targets(path: Path) -> None:
    text = (
        "outlier-detection = on\noutlier-consecutive-failures = 3\noutlier-latency-factor = 0\noutlier-interval = 5s\n"
        "outlier-base-ejection-time = 10s\noutlier-max-ejection-time = 1m\noutlier-max-ejected-percentage = 50\n"
        "max-concurrent-requests = 20\nqueue-length = 7\nqueue-timeout = 250ms\n"
        "algorithm = weighted_random\nanomaly-mitigation = on\n"
    )
    rule = "[rule:first]\nlistener = web\npriority = 1\npath = /pay\nqueue-priority = 9\naction = forward app\n"
    configuration = read(path, WEB + APP + text + rule).configuration
    (group,) = configuration.target_groups
    assert group.outlier_detection == OutlierDetection(
        consecutive_failures=3,
        latency_factor=0,
        interval_seconds=5,
        base_ejection_seconds=10,
        max_ejection_seconds=60,
        max_ejected_percentage=50,
    )
    assert (group.max_concurrent_requests, group.queue_length, group.queue_timeout_seconds) == (20, 7, 0.25)
    assert group.anomaly_mitigation
    assert configuration.listeners[0].rules[0].queue_priority == 9


def test_a_tcp_group_is_watched_by_its_connections(path: Path) -> None:
    (group,) = read(path, TCP + "outlier-detection = on\n").configuration.target_groups
    assert group.outlier_detection == OutlierDetection(consecutive_failures=0, latency_factor=0)


def test_what_decides_on_the_targets_in_use(path: Path) -> None:
    settings = (
        "slow-start = 60s\ncross-zone = spill\nunhealthy-state-routing-minimum-count = 2\n"
        "unhealthy-state-routing-minimum-percentage = 40\nbackup = spare\nbackup-percentage = 50\n"
    )
    spare = APP.replace(":app", ":spare")
    text = "[lbproxy]\nzone = a\n" + WEB + APP.replace("8080", "8080 zone=b weight=2") + settings + spare
    configuration = read(path, text).configuration
    assert configuration.zone == "a"
    group, other = configuration.target_groups
    assert (group.targets[0].zone, group.targets[0].weight) == ("b", 2)
    assert (group.slow_start_seconds, group.cross_zone) == (60.0, CrossZone.SPILL)
    assert (group.minimum_healthy_count, group.minimum_healthy_percentage) == (2, 40)
    assert (group.backup, group.backup_percentage) == ("spare", 50)
    assert (other.slow_start_seconds, other.cross_zone, other.backup) == (0, CrossZone.ON, "")


# Mistakes


def test_mistake_is_one_line_with_everything(path: Path) -> None:
    assert mistake(path, WEB + "idle-timeout = 5x\n" + APP) == (
        "lb.ini:6: [listener:web] idle-timeout = 5x: not a duration; write for example 60s or 1m"
    )


def test_problem_has_its_parts(path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(path, WEB + "idle-timeout = 5x\n" + APP)
    assert caught.value.problems == (
        Problem(
            file=str(path),
            line=6,
            section="listener:web",
            option="idle-timeout",
            value="5x",
            message="not a duration; write for example 60s or 1m",
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # between sections
        (APP, "lb.ini: no listener; add a section such as [listener:web]"),
        (
            WEB + APP + "[rule:a]\nlistener = wbe\npriority = 1\npath = /\naction = forward app\n",
            "lb.ini:11: [rule:a] listener = wbe: no such listener; did you mean web?",
        ),
        (
            WEB + APP.replace(":app", ":apps"),
            "lb.ini:5: [listener:web] default-action = forward app: no such target group as app; did you mean apps?",
        ),
        (
            WEB
            + APP
            + "[rule:a]\nlistener = web\npriority = 1\npath = /\naction = forward app\n"
            + "[rule:b]\nlistener = web\npriority = 1\npath = /\naction = forward app\n",
            "lb.ini:17: [rule:b] priority = 1: is taken by [rule:a] in line 12; give each rule of a listener its own",
        ),
        (
            WEB + WEB.replace(":web", ":again") + APP,
            "lb.ini:9: [listener:again] bind = 127.0.0.1:80: 127.0.0.1:80 is taken by [listener:web] in line 4; "
            "choose another port or address",
        ),
        (
            WEB + WEB.replace(":web", ":again").replace("127.0.0.1", "0.0.0.0") + APP,
            "lb.ini:9: [listener:again] bind = 0.0.0.0:80: 0.0.0.0:80 overlaps 127.0.0.1:80 of [listener:web] in line 4"
            "; choose another port or address",
        ),
        (
            "[lbproxy]\nadmin = 127.0.0.1:80" + WEB + APP,
            "lb.ini:2: [lbproxy] admin = 127.0.0.1:80: 127.0.0.1:80 is taken by [listener:web] in line 5; "
            "choose another port or address",
        ),
        (
            TCP + APP + "[rule:a]\nlistener = tcp\npriority = 1\npath = /\naction = forward app\n",
            "lb.ini:14: [rule:a] listener = tcp: rules are for HTTP and HTTPS listeners; [listener:tcp] is TCP",
        ),
        (
            WEB.replace("forward app", "forward db") + TCP,
            "lb.ini:5: [listener:web] default-action = forward db: target group db speaks TCP; "
            "HTTP listeners need one with HTTP or HTTPS",
        ),
        (
            TCP.replace("forward db", "forward app") + APP,
            "lb.ini:5: [listener:tcp] default-action = forward app: target group app speaks HTTP; "
            "TCP listeners need one with TCP or TLS",
        ),
        (
            TCP.replace("forward db", "fixed-response 200"),
            "lb.ini:5: [listener:tcp] default-action = fixed-response 200: TCP listeners can only forward; "
            "write forward GROUP",
        ),
        # sections and options
        (
            WEB + APP + "[lissener:x]\n",
            "lb.ini:10: [lissener:x]: no such kind of section; did you mean listener?",
        ),
        (WEB + APP + "[lbproxy:x]\n", "lb.ini:10: [lbproxy:x]: takes no name; write [lbproxy]"),
        (
            WEB + APP + "[target-group: a b]\nprotocol = HTTP\ntargets = demo:1\n",
            "lb.ini:10: [target-group:a b]: not a name; it has up to 64 letters, digits, hyphens, dots and underscores",
        ),
        (
            WEB + "idle-timeot = 5s\n" + APP,
            "lb.ini:6: [listener:web] idle-timeot = 5s: no such option; did you mean idle-timeout?",
        ),
        (
            WEB + "Idle-Timeout = 5s\n" + APP,
            "lb.ini:6: [listener:web] Idle-Timeout = 5s: no such option; did you mean idle-timeout?",
        ),
        (
            WEB + "matcher = 200\n" + APP,
            "lb.ini:6: [listener:web] matcher = 200: no such option here; it belongs into a section [target-group]",
        ),
        (
            WEB + "idle-timeout =\n" + APP,
            "lb.ini:6: [listener:web] idle-timeout = : has no value; write for example idle-timeout = 2m",
        ),
        (
            WEB + "tls-policy = x\n" + APP,
            "lb.ini:6: [listener:web] tls-policy = x: is for HTTPS or TLS; this listener is HTTP: remove the line",
        ),
        (
            WEB + APP + "protocol-version = GRPC\nmatcher = 200\n",
            "lb.ini:11: [target-group:app] matcher = 200: out of range; a GRPC group has gRPC's status codes, 0 to 99",
        ),
        (
            WEB + APP + "matcher = 12\n",
            "lb.ini:10: [target-group:app] matcher = 12: out of range; 200 to 499 is allowed",
        ),
        (
            APP + "retry-on = refused\n",
            "lb.ini:5: [target-group:app] retry-on = refused: write connect-failure, reset, status codes such as"
            " 502-504, or off alone",
        ),
        (
            TCP + "response-timeout = 1s\n",
            "lb.ini:9: [target-group:db] response-timeout = 1s: is for HTTP or HTTPS; this target group is TCP: "
            "remove the line",
        ),
        (
            WEB.replace("bind = 127.0.0.1:80\n", "") + APP,
            "lb.ini:2: [listener:web]: has no bind; write for example bind = 0.0.0.0:443, [::]:443",
        ),
        (
            WEB.replace("HTTP", "UDP") + APP,
            "lb.ini:3: [listener:web] protocol = UDP: UDP is not supported by this version; "
            "write HTTP, HTTPS, TCP or TLS",
        ),
        (
            WEB.replace("HTTP", "http") + APP,
            "lb.ini:3: [listener:web] protocol = http: write HTTP, in capitals",
        ),
        (
            WEB + "proxy-protocol = on\n" + APP,
            "lb.ini:6: [listener:web] proxy-protocol = on: needs proxy-protocol-trusted with the addresses that may "
            "send the header",
        ),
        # rules
        (
            WEB + APP + "[rule:a]\nlistener = web\npriority = 1\naction = forward app\n",
            "lb.ini:10: [rule:a]: has no condition; add host, path, method, header.NAME, query.KEY or source-ip, "
            "or use default-action",
        ),
        (
            WEB + APP + "[rule:a]\nlistener = web\npriority = 0\npath = /\naction = forward app\n",
            "lb.ini:12: [rule:a] priority = 0: out of range; 1 to 50000 is allowed",
        ),
        (
            WEB + APP + "[rule:a]\nlistener = web\npriority = 1\nheader.host = x\naction = forward app\n",
            "lb.ini:13: [rule:a] header.host = x: Host is not matched as a header; write host = ...",
        ),
        (
            WEB + APP + "[rule:a]\nlistener = web\npriority = 1\npath = regex:[\naction = forward app\n",
            "lb.ini:13: [rule:a] path = regex:[: not a regular expression of RE2 (missing ]: [); "
            "it has no look-around and no back-references",
        ),
        (
            WEB + APP + "[rule:a]\nlistener = web\npriority = 1\npath = /\naction = fixed-response 200 file:none\n",
            "lb.ini:14: [rule:a] action = fixed-response 200 file:none: none cannot be read: No such file or directory",
        ),
        (
            WEB.replace("forward app", "redirect http://#{host}:80/#{path}") + APP,
            "lb.ini:5: [listener:web] default-action = redirect http://#{host}:80/#{path}: redirects to itself; "
            "change the protocol, host, port or path",
        ),
        (
            WEB.replace("forward app", "redirect /#{path}?a=b") + APP,
            "lb.ini:5: [listener:web] default-action = redirect /#{path}?a=b: redirects to itself; "
            "change the protocol, host, port or path",
        ),
        (
            WEB.replace("HTTP", "HTTPS\ncertificates = self-signed").replace("forward app", "redirect http://x/") + APP,
            "lb.ini:6: [listener:web] default-action = redirect http://x/: redirects from HTTPS to HTTP, "
            "which gives the encryption away; write https://",
        ),
        # target groups
        (
            WEB + APP + "discovery = dns:app.internal:8080, consul:app\n",
            "lb.ini:10: [target-group:app] discovery = dns:app.internal:8080, consul:app: 'consul:app': "
            "no such source; write dns:NAME:PORT, srv:NAME, file:PATH, etcd:URL/PREFIX or docker",
        ),
        (
            WEB + APP + "discovery = dns:10.0.0.1:8080\n",
            "lb.ini:10: [target-group:app] discovery = dns:10.0.0.1:8080: 10.0.0.1 is an address; write it in targets",
        ),
        (
            WEB + APP + "discovery = srv:_http.tcp..internal\n",
            "lb.ini:10: [target-group:app] discovery = srv:_http.tcp..internal: '_http.tcp..internal' is not a "
            "host name or IP address; write for example srv:_http._tcp.app.internal",
        ),
        (
            WEB + APP + "discovery = etcd:127.0.0.1:2379/app/\n",
            "lb.ini:10: [target-group:app] discovery = etcd:127.0.0.1:2379/app/: not a URL of etcd with a prefix of "
            "keys; write for example etcd:http://127.0.0.1:2379/services/app/",
        ),
        (
            WEB + APP + "discovery = etcd:http://127.0.0.1:2379/\n",
            "lb.ini:10: [target-group:app] discovery = etcd:http://127.0.0.1:2379/: has no prefix of keys; "
            "write for example etcd:http://127.0.0.1:2379/services/app/",
        ),
        (
            WEB + APP + "discovery-protect = 101%\n",
            "lb.ini:10: [target-group:app] discovery-protect = 101%: out of range; 1 to 100 is allowed; "
            "write for example 1, 50% or off",
        ),
        (
            "[lbproxy]\nresolver = ns1.internal\n" + WEB + APP,
            "lb.ini:2: [lbproxy] resolver = ns1.internal: not the address of a name server; "
            "write for example 10.0.0.53 or 127.0.0.1:5353",
        ),
        (
            WEB + APP.replace("8080", "8080, 10.0.0.1:8080 weight=3"),
            "lb.ini:9: [target-group:app] targets = 10.0.0.1:8080, 10.0.0.1:8080 weight=3: "
            "'10.0.0.1:8080 weight=3': is in the list twice",
        ),
        (
            WEB + APP.replace("8080", "8080 weight=0"),
            "lb.ini:9: [target-group:app] targets = 10.0.0.1:8080 weight=0: all weights are zero; "
            "give at least one target a weight from 1 to 999",
        ),
        (
            WEB + APP.replace("10.0.0.1:8080", "demo:3, 10.0.0.1:1"),
            "lb.ini:9: [target-group:app] targets = demo:3, 10.0.0.1:1: not a whole number; "
            "write for example demo:3, alone",
        ),
        (
            WEB + APP.replace("HTTP", "HTTPS").replace("10.0.0.1:8080", "demo:3"),
            "lb.ini:9: [target-group:app] targets = demo:3: demo targets speak HTTP and TCP only; change protocol",
        ),
        (
            WEB + APP + "algorithm = fastest\n",
            "lb.ini:10: [target-group:app] algorithm = fastest: no such algorithm; "
            "write round_robin, least_outstanding_requests, weighted_random, least_time, random_two, maglev, rendezvous"
            " or first",
        ),
        (
            WEB + APP + "stickiness = on\nstickiness-type = app_cookie\n",
            "lb.ini:11: [target-group:app] stickiness-type = app_cookie: "
            "needs stickiness-app-cookie-name, for example JSESSIONID",
        ),
        (
            WEB + APP + "stickiness = on\nstickiness-app-cookie-name = AWSALBAPP-0\n",
            "lb.ini:11: [target-group:app] stickiness-app-cookie-name = AWSALBAPP-0: "
            "names that start with AWSALB are lbproxy's own",
        ),
        (
            WEB + APP + "stickiness = on\nstickiness-lb-cookie-duration = 8d\n",
            "lb.ini:11: [target-group:app] stickiness-lb-cookie-duration = 8d: out of range; 1s to 7d is allowed",
        ),
        (
            WEB.replace("forward app", "forward app, other")
            + APP
            + "stickiness = on\nstickiness-type = app_cookie\nstickiness-app-cookie-name = SID\n"
            + APP.replace(":app", ":other"),
            "lb.ini:5: [listener:web] default-action = forward app, other: target group app has stickiness by "
            "app_cookie, which does not go with weights; forward to it alone",
        ),
        (
            WEB.replace("forward app", "forward stickiness=8d app") + APP,
            "lb.ini:5: [listener:web] default-action = forward stickiness=8d app: stickiness 8d: "
            "out of range; 1s to 7d is allowed",
        ),
        (
            TCP.replace("forward db", "forward stickiness=1h db"),
            "lb.ini:5: [listener:tcp] default-action = forward stickiness=1h db: TCP has no cookies; remove stickiness",
        ),
        (
            WEB + APP + "anomaly-mitigation = on\n",
            "lb.ini:10: [target-group:app] anomaly-mitigation = on: needs algorithm = weighted_random",
        ),
        (
            WEB + APP + "outlier-detection = on\noutlier-base-ejection-time = 10m\n",
            "lb.ini:11: [target-group:app] outlier-base-ejection-time = 10m: "
            "longer than outlier-max-ejection-time (300s)",
        ),
        (
            WEB + APP + "slow-start = 20s\n",
            "lb.ini:10: [target-group:app] slow-start = 20s: too short; write 0s for none, or 30s to 900s",
        ),
        (
            WEB + APP + "slow-start = 30s\nalgorithm = least_outstanding_requests\n",
            "lb.ini:10: [target-group:app] slow-start = 30s: not with algorithm = least_outstanding_requests; "
            "remove one of the two",
        ),
        (
            WEB + APP + "backup = ap\n",
            "lb.ini:10: [target-group:app] backup = ap: no such target group; did you mean app?",
        ),
        (
            WEB + APP + "backup = app\n",
            "lb.ini:10: [target-group:app] backup = app: leads back to this group; let one of them have no backup",
        ),
        (
            WEB + APP + "backup = db\n" + TCP,
            "lb.ini:10: [target-group:app] backup = db: speaks TCP, which does not fit HTTP",
        ),
        (
            WEB + APP.replace("8080", "8080 zone=a/b"),
            "lb.ini:9: [target-group:app] targets = 10.0.0.1:8080 zone=a/b: zone a/b: no name of a zone; "
            "it has up to 63 letters, digits, hyphens, dots and underscores",
        ),
        (
            WEB + APP.replace("8080", "8080 rack=1"),
            "lb.ini:9: [target-group:app] targets = 10.0.0.1:8080 rack=1: 'rack=1' is not understood; "
            "write 10.0.0.1:8080 weight=10 zone=a "
            "priority=1",
        ),
        (
            WEB + APP + "hash-key = cookie\n",
            "lb.ini:10: [target-group:app] hash-key = cookie: write cookie.NAME",
        ),
        (
            WEB + APP + "hash-key = uri\n",
            "lb.ini:10: [target-group:app] hash-key = uri: "
            "write source, host, path, header.NAME, cookie.NAME or query.NAME",
        ),
        (
            WEB + APP + "hash-balance-factor = 100\n",
            "lb.ini:10: [target-group:app] hash-balance-factor = 100: "
            "no target may then have its fair share; write 0 for no bound, or 101 to 1000",
        ),
        (
            TCP + "algorithm = maglev\nhash-key = path\n",
            "lb.ini:10: [target-group:db] hash-key = path: a connection has only a source; write hash-key = source",
        ),
        (
            WEB + APP + "health-check-interval = 1s\nhealth-check-timeout = 2s\n",
            "lb.ini:11: [target-group:app] health-check-timeout = 2s: longer than health-check-interval (1s); "
            "write at most that",
        ),
        (
            WEB + APP + "health-check-timeout = 31s\n",
            "lb.ini:10: [target-group:app] health-check-timeout = 31s: longer than the default health-check-interval "
            "(30s); write at most that",
        ),
        (
            WEB + APP + "health-check-protocol = TCP\nmatcher = 200\n",
            "lb.ini:11: [target-group:app] matcher = 200: is for HTTP and HTTPS probes; "
            "add health-check-protocol = HTTP",
        ),
        (
            WEB + APP.replace("HTTP", "HTTPS") + "tls-ca = none.pem\n",
            "lb.ini:10: [target-group:app] tls-ca = none.pem: none.pem cannot be read: No such file or directory",
        ),
        # syntax and the rest
        (WEB + APP + "[rule\n", "lb.ini:10: '[rule' is not a section; write [kind] or [kind:name]"),
        (
            WEB + APP + "algorithm = ${ALGORITHM}\nalgorithm = ${GROUP}\n",
            "lb.ini:11: [target-group:app] algorithm: option is there already, in line 10; "
            "give it once, with a list where it takes one",
        ),
    ],
)
def test_mistake(path: Path, text: str, message: str) -> None:
    assert message in problems(path, text)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.pem", None, "none.pem cannot be read: No such file or directory"),
        ("*.pem", None, "no file matches *.pem; write the path of a PEM file"),
        (
            "a.pem",
            make_certificate("a", make_key()),
            "a.pem has no private key; append it to the file, or put it into a.key",
        ),
        ("self-signed, a.pem", None, "write self-signed alone, or files"),
    ],
)
def test_certificate_that_cannot_be_served(path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (path.parent / name).write_bytes(content)
    text = WEB.replace("HTTP", f"HTTPS\ncertificates = {name}") + APP
    assert mistake(path, text) == f"lb.ini:4: [listener:web] certificates = {name}: {words}"


def test_all_mistakes_are_told_at_once_in_order(path: Path) -> None:
    found = problems(
        path,
        """
        [listener:web]
        protocol = HTTP
        bind = nowhere, 127.0.0.1:80
        default-action = forward nothing
        [rule:a]
        listener = web
        priority = many
        path = x, /y, z
        action = dance
        [target-group:app]
        protocol = HTTP
        targets = none_internal.:1.2
        """,
    )
    assert [line.split(":")[1] for line in found] == ["4", "5", "8", "9", "10", "13"]
    assert "'x': " in found[3]
    assert "'z': " in found[3]


def test_value_that_came_from_the_environment_is_not_shown(path: Path) -> None:
    assert "targets = ${GROUP}: " in mistake(path, WEB + APP.replace("10.0.0.1:8080", "${GROUP}"))


def test_long_and_continued_values_stay_in_one_line(path: Path) -> None:
    line = mistake(path, WEB + APP.replace("10.0.0.1:8080", "\n  x" + "\n  10.0.0.1:8080" * 20))
    assert "\n" not in line
    assert "targets = x, 10.0.0.1:8080, 10.0.0.1:8080" in line
    assert "...: 'x': " in line


def test_file_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lb\.ini: cannot be read: No such file or directory"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listener:web\n" + APP, "lb.ini:1: '[listener:web' is not a section; write [kind] or [kind:name]"),
        (WEB.replace("listener", "listner") + APP, "lb.ini:2: [listner:web]: no such kind of section; did you mean"),
        ("protocol = HTTP\n", "lb.ini:1: an option before the first section; start with a line like [lbproxy]"),
        (WEB + APP.replace("10.0.0.1:8080", "${NONE}"), "lb.ini:9: [target-group:app] targets = ${NONE}: the environ"),
    ],
)
def test_one_mistake_is_told_once(path: Path, text: str, message: str) -> None:
    assert mistake(path, text).startswith(message)


def test_access_log_that_is_a_folder(path: Path) -> None:
    text = "[lbproxy]\naccess-log = logs\n" + WEB + APP
    (path.parent / "logs").mkdir()
    assert mistake(path, text) == ("lb.ini:2: [lbproxy] access-log = logs: logs is a folder; write the path of a file")


def test_access_log_that_cannot_be_written(path: Path) -> None:
    (path.parent / "logs").mkdir()
    with pytest.raises(ConfigurationError, match=r"2: .*access-log = logs: .*logs cannot be written: Is a directory"):
        read(path, "[lbproxy]\naccess-log = logs\n" + WEB + APP, create=True)


def test_access_log_is_made_at_start_only(path: Path) -> None:
    text = "[lbproxy]\naccess-log = logs/access.log\n" + WEB + APP
    read(path, text)
    assert not (path.parent / "logs").exists()
    read(path, text, create=True)
    assert (path.parent / "logs" / "access.log").stat().st_size == 0


def test_folder_that_cannot_be_made(path: Path) -> None:
    (path.parent / "logs").write_bytes(b"a file")
    with pytest.raises(ConfigurationError, match=r"access-log = logs/access\.log: .*logs cannot be made: File exists"):
        read(path, SELF_SIGNED + APP, create=True)


# Sharing an address is no mistake when


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0.0.0.0:80", "[::]:80"),  # IPv6 sockets are IPv6 only
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ],
)
def test_binds_that_do_not_clash(path: Path, first: str, second: str) -> None:
    other = WEB.replace(":web", ":other").replace("127.0.0.1:80", second)
    assert len(read(path, WEB.replace("127.0.0.1:80", first) + other + APP).configuration.listeners) == 2


def test_thousands_of_rules_are_read_quickly(path: Path) -> None:
    rules = [
        f"[rule:{kind}{n}]\nlistener = web\npriority = {n + start}\n{kind} = {value}{n}{end}\naction = forward app\n"
        for kind, start, value, end in (("host", 1, "h", ".example.com"), ("path", 1001, "/p", "/*"))
        for n in range(1000)
    ]
    text = WEB + APP + "\n".join(rules)
    before = time.process_time()
    loaded = read(path, text)
    took = time.process_time() - before
    assert len(loaded.configuration.listeners[0].rules) == 2000
    assert took < 1.0


_VOCABULARY = """HTTP TCP TLS 127.0.0.1:80 [::1]:80 forward redirect fixed-response app weight=0 off web 1 20s /x
    https://#{host}/ 301 , ; # ${A} ${ " demo:2 unix:x regex:( regex:a{1,2} self-signed *.pem file:x 10.0.0.0/8 ::/0
    a.internal:1 * \\"""
_WORDS = st.sampled_from([*_VOCABULARY.split(), "\n "])
_NAMES = {option.name for kind in KINDS.values() for option in kind.options}
_OPTIONS = st.sampled_from(sorted(_NAMES | {"x", "header.host", "header.a b", "query.*"}))
_LINES = st.builds(
    "{} = {}".format, _OPTIONS, st.lists(_WORDS, max_size=6).map(" ".join) | st.lists(_WORDS, max_size=3).map("".join)
)
_SECTIONS = st.sampled_from(["[listener:web]", "[rule:r]", "[target-group:app]", "[lbproxy]", "[listener:other]", "[x"])
_FILES = st.lists(_SECTIONS | _LINES, max_size=40).map("\n".join)


@settings(suppress_health_check=[Slow.function_scoped_fixture], deadline=None)
@given(text=st.text() | _FILES | _FILES.map(lambda lines: WEB + lines + APP))
def test_any_text_gives_a_configuration_or_its_mistakes(path: Path, text: str) -> None:
    found = outcome(path, text)
    assert isinstance(found, Loaded) or found
    assert isinstance(found, Loaded) or not any("\n" in str(problem) for problem in found)


def outcome(path: Path, text: str) -> Loaded | tuple[Problem, ...]:
    source = text.encode("utf-8", "surrogatepass")
    try:
        return load(path, source=source, now=NOW, environ={"A": "\r;[x\n=1"})
    except ConfigurationError as error:
        return error.problems
