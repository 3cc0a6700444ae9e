"""The table of options, and the manual made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config.manual import manual
from lbproxy.controlplane.config.options.option import Option
from lbproxy.controlplane.config.options.table import KINDS, default_of, rows
from lbproxy.model.health import HealthCheck
from lbproxy.model.listener import Bind, Listener, ListenerProtocol
from lbproxy.model.rule import Forward
from lbproxy.model.snapshot import Configuration
from lbproxy.model.target_group import TargetGroup, TargetProtocol

ROOT = Path(__file__).parents[3]


OPTIONS = [(name, option) for name, kind in KINDS.items() for option in kind.options]


@pytest.mark.parametrize("option", [pytest.param(option, id=f"{kind} {option.name}") for kind, option in OPTIONS])
def test_example_and_default_are_right(option: Option) -> None:
    option.form.parse(option.example)
    if option.default is not None:
        option.form.parse(option.default)
    assert option.form.text
    assert option.effect.endswith(".")
    assert not (option.required and option.default)
    assert (option.check_name is None) == (option.prefix is None)


def test_rows_of_one_name_are_for_different_protocols() -> None:
    for kind, option in OPTIONS:
        protocols = [protocol for row in rows(kind, option.prefix or option.name) for protocol in row.protocols]
        assert len(protocols) == len(set(protocols)), option.name


def test_free_names_find_their_row() -> None:
    assert [row.name for row in rows("rule", "header.X-Tenant")] == ["header.NAME"]
    assert [row.name for row in rows("rule", "query.version")] == ["query.KEY"]
    assert [row.name for row in rows("rule", "query")] == ["query"]
    assert rows("rule", "header.") == rows("rule", "header") == rows("rule", "nothing.x") == ()


@pytest.mark.parametrize("protocol", list(ListenerProtocol))
def test_listener_defaults_are_those_of_the_model(protocol: ListenerProtocol) -> None:
    model = Listener(name="a", protocol=protocol, binds=(Bind("::", 1),), default_action=Forward(()))
    http = protocol.is_http
    assert default_of("listener", "idle-timeout", protocol.value) == (60.0 if http else 350.0)
    assert default_of("listener", "request-header-timeout", protocol.value) == model.request_header_timeout_seconds
    assert default_of("listener", "client-keep-alive", protocol.value) == (
        model.client_keep_alive_seconds if http else None
    )
    assert default_of("listener", "xff-mode", protocol.value) == (model.xff_mode.value if http else None)
    assert default_of("listener", "tls-policy", protocol.value) in (None, model.tls_policy)
    assert default_of("listener", "proxy-protocol", protocol.value) == model.proxy_protocol


def test_target_group_defaults_are_those_of_the_model() -> None:
    model = TargetGroup(name="a", protocol=TargetProtocol.HTTP)
    check = HealthCheck()
    wanted = {
        "algorithm": model.algorithm,
        "deregistration-delay": model.deregistration_delay_seconds,
        "connect-timeout": model.connect_timeout_seconds,
        "response-timeout": model.response_timeout_seconds,
        "keep-alive-timeout": model.keep_alive_seconds,
        "max-idle-connections": model.max_idle_connections,
        "retry-attempts": model.retry.attempts,
        "retry-methods": model.retry.methods,
        "retry-budget": model.retry.budget_percent,
        "try-timeout": model.retry.try_timeout_seconds,
        "request-timeout": model.retry.request_timeout_seconds,
        "hedge-delay": model.retry.hedge_delay_seconds,
        "health-check": check.enabled,
        "health-check-protocol": check.protocol.value,
        "health-check-port": check.port,
        "health-check-path": check.path,
        "health-check-host": check.host,
        "health-check-interval": check.interval_seconds,
        "health-check-timeout": check.timeout_seconds,
        "healthy-threshold": check.healthy_threshold,
        "unhealthy-threshold": check.unhealthy_threshold,
        "matcher": check.matcher,
    }
    assert {name: default_of("target-group", name, "HTTP") for name in wanted} == wanted
    assert default_of("lbproxy", "drain-timeout", None) == Configuration().drain_timeout_seconds


def test_committed_manual_is_current() -> None:
    committed = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert committed == manual(), "run python -m lbproxy.controlplane.config.manual > docs/configuration.md"
