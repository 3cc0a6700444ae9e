"""What a configuration adds, over both versions of HTTP alike: cookies, pages, preflights, rewrites, fields."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.harness import HOST, Balancer, HttpTarget, free_port

pytestmark = pytest.mark.integration

CONFIGURATION = """
[listener:plain]
protocol = HTTP
bind = {host}:{plain}
http2 = on
default-action = forward app
cors-preflight = on
access-control-allow-origin = https://app.example.com
error-page.503 = text/html "<h1>#{{status}} #{{reason}}</h1>"
set-response-header.x-listener = yes
remove-response-headers = x-target

[listener:secure]
protocol = HTTPS
bind = {host}:{secure}
certificates = self-signed
default-action = forward app
strict-transport-security = max-age=60

[rule:api]
listener = plain
priority = 1
path = /api/*
action = forward app
url-rewrite = ^/api/(.*)$ /$1?was=api
host-rewrite = ^(.*)\\.example\\.com$ $1.internal
set-request-header.x-client = #{{client-ip}} by #{{protocol}}
add-request-header.x-more = two
remove-request-headers = x-secret, cookie

[rule:empty]
listener = plain
priority = 2
path = /empty
action = forward empty

[target-group:app]
protocol = HTTP
targets = {host}:{one}, {host}:{two}
health-check = off
stickiness = on

[target-group:empty]
protocol = HTTP
health-check = off
"""


class World:
    def __init__(self, plain: int, secure: int) -> None:
        self.plain = plain
        self.secure = secure


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    plain, secure = free_port(), free_port()
    with HttpTarget("one") as one, HttpTarget("two") as two:
        text = CONFIGURATION.format(host=HOST, plain=plain, secure=secure, one=one.port, two=two.port)
        with Balancer(tmp_path_factory.mktemp("both"), text, "workers = 1"):
            yield World(plain, secure)


every_version = pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])


class Answer:
    """What curl got."""

    def __init__(self, output: str) -> None:
        head, _, self.body = output.partition("\r\n\r\n")
        line, *fields = head.split("\r\n")
        self.version, self.status = line.split(" ")[:2]
        self.fields: dict[str, list[str]] = {}
        for field in fields:
            name, _, value = field.partition(":")
            self.fields.setdefault(name.lower(), []).append(value.strip())


def curl(*arguments: str) -> Answer:
    asked = ["curl", "-s", "-S", "-i", "-k", "--max-time", "10", *arguments]
    return Answer(subprocess.run(asked, capture_output=True, check=True).stdout.decode())


@every_version
def test_stickiness(world: World, version: str) -> None:
    url = f"http://{HOST}:{world.plain}/"
    first = curl(version, url)
    assert first.version == ("HTTP/1.1" if version == "--http1.1" else "HTTP/2")
    cookies = [value.partition(";")[0] for value in first.fields["set-cookie"]]
    assert [cookie.partition("=")[0] for cookie in cookies] == ["AWSALB", "AWSALBCORS"]
    again = {curl(version, "-H", f"Cookie: {'; '.join(cookies)}", url).body for _ in range(6)}
    assert again == {first.body}
    assert {curl(version, url).body for _ in range(4)} == {"one\n", "two\n"}, "without the cookie, each in turn"


@every_version
def test_a_cookie_of_one_version_holds_for_the_other(world: World, version: str) -> None:
    url = f"http://{HOST}:{world.plain}/"
    first = curl("--http1.1", url)
    cookie = first.fields["set-cookie"][0].partition(";")[0]
    # in pieces, as a client of HTTP/2 may send it (RFC 9113 section 8.2.3)
    again = {curl(version, "-H", f"Cookie: a=b; {cookie}; c=d", url).body for _ in range(4)}
    assert again == {first.body}


@every_version
def test_custom_pages_of_errors(world: World, version: str) -> None:
    answer = curl(version, f"http://{HOST}:{world.plain}/empty")
    assert (answer.status, answer.body) == ("503", "<h1>503 Service Unavailable</h1>")
    assert answer.fields["content-type"] == ["text/html"]
    assert answer.fields["content-length"] == [str(len(answer.body))]
    assert answer.fields["x-listener"] == ["yes"]


@every_version
def test_a_preflight_is_answered(world: World, version: str) -> None:
    asked = ["-X", "OPTIONS", "-H", "Origin: https://app.example.com", "-H", "Access-Control-Request-Method: PUT"]
    answer = curl(version, *asked, f"http://{HOST}:{world.plain}/api/x")
    assert (answer.status, answer.body) == ("204", "")
    assert answer.fields["access-control-allow-origin"] == ["https://app.example.com"]
    assert "content-length" not in answer.fields


@every_version
def test_rewrites_and_fields_of_requests(world: World, version: str) -> None:
    asked = ["-H", "Host: shop.example.com", "-H", "X-Secret: 1", "-H", "Cookie: a=b", "-H", "X-Client: forged"]
    answer = curl(version, *asked, "-H", "X-More: one", f"http://{HOST}:{world.plain}/api/headers")
    seen = json.loads(answer.body)
    assert seen["path"] == "/headers?was=api"
    fields = [(name.lower(), value) for name, value in seen["headers"]]
    assert ("host", "shop.internal") in fields
    assert [value for name, value in fields if name == "x-client"] == [f"{HOST} by http"]
    assert [value for name, value in fields if name == "x-more"] == ["one", "two"]
    assert {"x-secret", "cookie"}.isdisjoint(name for name, _ in fields)


@every_version
def test_fields_of_answers(world: World, version: str) -> None:
    answer = curl(version, f"http://{HOST}:{world.plain}/")
    assert answer.fields["x-listener"] == ["yes"]
    assert "x-target" not in answer.fields


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_over_tls_too(world: World, version: str) -> None:
    answer = curl(version, f"https://{HOST}:{world.secure}/")
    assert answer.version == ("HTTP/1.1" if version == "--http1.1" else "HTTP/2")
    assert answer.fields["strict-transport-security"] == ["max-age=60"]
    assert answer.fields["x-target"] in (["one"], ["two"])
    assert len(answer.fields["set-cookie"]) == 2
