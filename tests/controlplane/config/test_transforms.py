"""Changes of fields, URL and host, error pages and CORS, as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.controlplane.config.errors import ConfigurationError
from lbproxy.controlplane.config.load import load
from lbproxy.model.listener import Listener
from lbproxy.model.transform import ChangeKind, ErrorPage, FieldChange, Rewrite, Transform

SET, ADD, REMOVE = ChangeKind.SET, ChangeKind.ADD, ChangeKind.REMOVE


def load_listener(folder: Path, listener: str, rule: str = "") -> Listener:
    path = folder / "lb.ini"
    path.write_text(
        "[listener:web]\nprotocol = HTTP\nbind = 127.0.0.1:80\ndefault-action = forward app\n"
        f"{listener}\n[rule:r]\nlistener = web\npriority = 1\npath = /*\naction = forward app\n{rule}\n"
        "[target-group:app]\nprotocol = HTTP\ntargets = 127.0.0.1:8080\n"
    )
    [found] = load(path).configuration.listeners
    return found


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "sorry.html").write_text("<p>#{status}</p>")
    listener = load_listener(
        tmp_path,
        "set-request-header.X-Real-IP = #{client-ip}\n"
        "Add-Request-Header.X-Via = a; b\n"
        "remove-request-headers = X-Debug, x-internal\n"
        'set-response-header.Cache-Control = "public, max-age=60"\n'
        "remove-response-headers = X-Powered-By\n"
        "server-header = off\n"
        "strict-transport-security = max-age=1; includeSubDomains\n"
        "access-control-allow-origin = https://a\n"
        "access-control-max-age = 600\n"
        "cors-preflight = on\n"
        "error-page.5xx = text/html file:sorry.html\n"
        'error-page.503 = text/plain "later"\n',
        "url-rewrite = ^/api/(.*)$ /$1\nhost-rewrite = ^(.*)\\.old$ $1.new\nadd-response-header.X-Rule = r",
    )
    assert listener.transform == Transform(
        request=(
            FieldChange(REMOVE, "X-Debug"),
            FieldChange(REMOVE, "x-internal"),
            FieldChange(SET, "X-Real-IP", "#{client-ip}"),
            FieldChange(ADD, "X-Via", "a; b"),
        ),
        response=(
            FieldChange(REMOVE, "Server"),
            FieldChange(SET, "Strict-Transport-Security", "max-age=1; includeSubDomains"),
            FieldChange(SET, "Access-Control-Allow-Origin", "https://a"),
            FieldChange(SET, "Access-Control-Max-Age", "600"),
            FieldChange(REMOVE, "X-Powered-By"),
            FieldChange(SET, "Cache-Control", "public, max-age=60"),
        ),
    )
    [rule] = listener.rules
    assert rule.transform == Transform(
        response=(FieldChange(ADD, "X-Rule", "r"),),
        url=Rewrite("^/api/(.*)$", "/$1"),
        host=Rewrite(r"^(.*)\.old$", "$1.new"),
    )
    assert listener.cors_preflight
    assert listener.error_pages == (
        ErrorPage(first_status=503, last_status=503, content_type="text/plain", body="later"),
        ErrorPage(first_status=500, last_status=599, content_type="text/html", body="<p>#{status}</p>"),
    )


def test_without_any_nothing_is_changed(tmp_path: Path) -> None:
    listener = load_listener(tmp_path, "")
    assert listener.transform == listener.rules[0].transform == Transform()
    assert (listener.error_pages, listener.cors_preflight) == ((), False)


@pytest.mark.parametrize(
    ("listener", "rule", "message"),
    [
        ("set-request-header.Host = a", "", "host-rewrite"),
        ("set-request-header.X-Forwarded-For = a", "", "is written by lbproxy"),
        ("add-request-header.Content-Length = 5", "", "framing"),
        ("remove-request-headers = Transfer-Encoding", "", "framing"),
        ("remove-response-headers = Connection", "", "framing"),
        ("set-response-header.A B = c", "", "is not a header name"),
        ("set-response-header.A = \u00e9", "", "visible ASCII"),
        ("set-response-header.A = #{nothing}", "", "no such placeholder"),
        ("set-response-header.A =", "", "has no value"),
        ("x-frame-options = ALLOW", "", "DENY"),
        ("access-control-max-age = 1d", "", "not a whole number"),
        ("cors-preflight = on", "", "needs access-control-allow-origin"),
        ("error-page.200 = text/plain \"a\"", "", "is no status of an error"),
        ("error-page.503 = text/plain file:missing", "", "missing"),
        ("url-rewrite = a b", "", "no such option here"),
        ("", "url-rewrite = ^/a", "write a regular expression"),
        ("", "url-rewrite = ^/( /", "not a regular expression of RE2"),
        ("", "url-rewrite = (?=a) /", "not a regular expression of RE2"),
        ("", "url-rewrite = ^/a /$1", "$1 is not understood"),
        ("", "url-rewrite = ^/a /$", "$ is not understood"),
        ("", "url-rewrite = ^/a /#a", "visible ASCII without #"),
        ("", "host-rewrite = a " + "b" * 1025, "longer than 1024"),
    ],
)  # fmt: skip
def test_mistakes_are_told(tmp_path: Path, listener: str, rule: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_listener(tmp_path, listener, rule)
    assert message in str(caught.value)
