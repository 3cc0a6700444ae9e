"""Rate limits from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config.errors import ConfigurationError
from lbproxy.controlplane.config.load import load
from lbproxy.model.rate_limit import RateLimit, RateLimitKey

BASE = """
[listener:web]
protocol = HTTP
bind = 127.0.0.1:80
default-action = fixed-response 200

[listener:tcp]
protocol = TCP
bind = 127.0.0.1:90
default-action = forward db

[target-group:db]
protocol = TCP
targets = 127.0.0.1:5432

[rule:api]
listener = web
priority = 1
path = /api/*
action = fixed-response 200
"""


def limits(path: Path, text: str) -> tuple[RateLimit, ...]:
    file = path / "lb.ini"
    file.write_text(BASE + text)
    return load(file).configuration.listeners[0].rate_limits


def test_limits_of_a_listener_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        """
[rate-limit:keys]
listener = web
rule = api
key = header.X-Api-Key
rate = 600/m
burst = 50
[rate-limit:clients]
listener = web
rate = 10/s
dry-run = on
[rate-limit:rest]
listener = web
rule = default
key = all
rate = 5000/h
""",
    )
    assert found == (
        RateLimit(
            name="keys", rule="api", key=RateLimitKey.HEADER, header="x-api-key", requests=600, seconds=60.0, burst=50
        ),
        RateLimit(name="clients", requests=10, burst=10, dry_run=True),
        RateLimit(name="rest", rule="default", key=RateLimitKey.ALL, requests=5000, seconds=3600.0, burst=5000),
    )
    assert [str(each) for each in found] == [
        "600/m burst 50 by header.x-api-key",
        "10/s burst 10 by client (dry run)",
        "5000/h burst 5000 by all",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("listener = wep\nrate = 1/s", "no such listener; did you mean web?"),
        ("listener = tcp\nrate = 1/s", "is for HTTP and HTTPS listeners; [listener:tcp] is TCP"),
        ("listener = web\nrule = apl\nrate = 1/s", "[listener:web] has no such rule; did you mean api?"),
        ("listener = web", "has no rate; write for example rate = 100/s"),
        ("listener = web\nrate = 0/s", "not a rate; write for example 100/s, 600/m or 5000/h"),
        ("listener = web\nrate = 10", "not a rate; write for example 100/s, 600/m or 5000/h"),
        ("listener = web\nrate = 10/d", "not a rate; write for example 100/s, 600/m or 5000/h"),
        ("listener = web\nrate = 1/s\nkey = ip", "write client, all or header.NAME"),
        ("listener = web\nrate = 1/s\nkey = header.a b", "'a b' is not a header name"),
    ],
)
def test_a_limit_that_is_wrong_says_how(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        limits(tmp_path, f"[rate-limit:few]\n{lines}\n")
    [problem] = caught.value.problems
    assert problem.message.startswith(message)
