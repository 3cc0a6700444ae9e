"""What `lbproxy explain` says is what the running balancer does, for every kind of condition and action."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from lbproxy.controlplane.config.load import load
from lbproxy.explain import explain
from tests.integration.harness import HOST, Balancer, HttpTarget, connection, free_port, read_answer, wait_until

pytestmark = pytest.mark.integration

CONFIGURATION = """
[listener:web]
protocol = HTTP
bind = {host}:{port}
default-action = forward app

[rule:exact-host]
listener = web
priority = 10
host = api.example.com
path = /v1/*, /v2/?
action = forward api

[rule:any-host]
listener = web
priority = 20
host = *.example.org, regex:^shop[0-9]+\\.
method = GET, HEAD
action = fixed-response 410 text/plain "moved away\\n"

[rule:tenant]
listener = web
priority = 30
header.X-Tenant = acme*, globex
action = forward api weight=1, app weight=1

[rule:version]
listener = web
priority = 40
query.version = 2, beta*
action = redirect https://#{{host}}:8443/new/#{{path}}?#{{query}} 302

[rule:debug]
listener = web
priority = 45
query = *debug*
action = fixed-response 204

[rule:pattern]
listener = web
priority = 50
path = regex:^/(cat|dog)s?$, */end
source-ip = 127.0.0.0/8
action = forward nobody

[rule:elsewhere]
listener = web
priority = 60
source-ip = 10.0.0.0/8
action = fixed-response 403

[rule:short]
listener = web
priority = 70
path = /???
method = POST
action = forward api

[target-group:app]
protocol = HTTP
targets = {host}:{app}
health-check = off

[target-group:api]
protocol = HTTP
targets = {host}:{api}
health-check = off

[target-group:nobody]
protocol = HTTP
"""
METHODS = ["GET", "GET", "GET", "HEAD", "POST", "POST", "get", "PURGE", "TRACE", "B AD"]
HOSTS = ["api.example.com", "API.Example.Com", "a.example.org", "example.org", "shop42.x", "shop.x", "localhost", "a b"]
PATHS = [
    "/",
    "/v1/",
    "/v1/x/y",
    "/v1",
    "/v2/x",
    "/v2/xy",
    "/V1/x",
    "/cat",
    "/dogs",
    "/cows",
    "/a/end",
    "/abc",
    "/%61",
    "/ü",
]
QUERIES = ["", "", "version=2", "version=BETA1", "a=1&version=2", "version=3", "x=debugging", "?version=2", "version"]
FIELDS: list[list[tuple[str, str]]] = [
    [],
    [],
    [("X-Tenant", "ACME corp")],
    [("x-tenant", "initech"), ("X-Tenant", "globex")],
    [("X-Tenant", "no globex")],
    [("X Tenant", "globex")],
    [("X-Tenant", "")],
]


class Question:
    """One generated request."""

    def __init__(self, random: random.Random, port: int) -> None:
        self.method = random.choice(METHODS)
        path, query = random.choice(PATHS), random.choice(QUERIES)
        self.target = path + (f"?{query}" if query else "")
        self.url = f"http://{HOST}:{port}{self.target}"
        self.fields = [("Host", random.choice(HOSTS)), *random.choice(FIELDS)]

    def ask(self, port: int) -> int:
        """Send it; give the status."""
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.fields)]
        with connection(port) as client:
            client.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            answer = read_answer(client) if self.method != "HEAD" else client.recv(65536)
        return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def targets() -> Any:
    with HttpTarget("app") as app, HttpTarget("api") as api:
        yield app.port, api.port


def test_explain_tells_what_happens(tmp_path: Path, targets: tuple[int, int]) -> None:
    port = free_port()
    text = CONFIGURATION.format(host=HOST, port=port, app=targets[0], api=targets[1])
    random_ = random.Random(1)
    questions = [Question(random_, port) for _ in range(500)]
    with Balancer(tmp_path, text, options="workers = 1") as balancer:
        statuses = [question.ask(port) for question in questions]
        wait_until(lambda: len(balancer.access_log()) == len(questions), what="a line for each request")
        lines = balancer.access_log()
        configuration = load(balancer.path).configuration
    seen = set()
    for question, status, line in zip(questions, statuses, lines, strict=True):
        told = explain(configuration, question.url, method=question.method, headers=question.fields)
        rule = told.rules[-1].rule_name if told.rules else ""
        seen.add((rule, told.action))
        context = f"{vars(question)}\n{told.to_text()}\n{line}"
        assert (line["rule"], line["action"]) == (
            rule,
            "" if told.action == "refuse" else told.action,
        ), context
        if told.action == "refuse":
            assert (status, line["error_reason"]) == (told.status, told.reason), context
        elif told.action == "forward":
            assert line["target_group"] in {group.name for group in told.groups}, context
            assert (status == 503) == all(not group.candidates for group in told.groups), context
        else:
            location = (told.location or "").lower()  # a host is the same in any letter case
            assert (status, line["redirect_url"].lower()) == (told.status, location), context
    rules = {"exact-host", "any-host", "tenant", "version", "debug", "pattern", "short", "default", ""}
    assert {rule for rule, _ in seen} == rules
