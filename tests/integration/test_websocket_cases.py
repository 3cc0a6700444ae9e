"""A WebSocket server and its client see through lbproxy what they would see without: the same octets, the same end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integration.harness import Balancer, free_port, listener, target_group
from tests.integration.websocket_cases import cases
from tests.integration.websocket_ends import EchoServer, Seen, over_http1, over_http2

pytestmark = pytest.mark.integration

CASES = cases()


class World:
    """An echo server, reached straight and by three ways through a balancer."""

    def __init__(self, server: EchoServer, http: int, https: int) -> None:
        self.server = server
        self.ways: dict[str, Callable[[str, list[bytes]], Seen]] = {
            "straight": lambda path, writes: over_http1(server.port, path, writes),
            "http1": lambda path, writes: over_http1(http, path, writes),
            "tls": lambda path, writes: over_http1(https, path, writes, secure=True),
            "http2": lambda path, writes: over_http2(http, path, writes),
        }

    def run(self, way: str, writes: list[bytes]) -> tuple[Seen, Seen]:
        """What the client has seen, and what the server."""
        path = f"/{way}"
        client = self.ways[way](path, writes)
        return client, self.server.seen(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    http, https = free_port(), free_port()
    with (
        EchoServer() as server,
        Balancer(
            tmp_path_factory.mktemp("websocket"),
            listener("http", http, "forward app", http2="on")
            + listener("https", https, "forward app", "HTTPS")
            + target_group("app", server.port),
            "workers = 1",
        ),
    ):
        yield World(server, http, https)


@pytest.mark.parametrize("name", CASES)
def test_a_case_through_the_balancer_is_as_straight(world: World, name: str) -> None:
    expected = world.run("straight", CASES[name])
    assert expected[0].end == "end"
    for way in ("http1", "tls", "http2"):
        assert world.run(way, CASES[name]) == expected, way


def test_the_server_is_a_strict_one(world: World) -> None:
    """Else the cases would show nothing."""
    ends = {name: world.run("straight", CASES[name])[1].end for name in CASES if name[0] in "234567"}
    assert ends["2 ping of 126"] == ends["3 RSV 1"] == ends["4 opcode 3"] == ends["5 a text within"] == "failed 1002"
    assert ends["6 a surrogate"] == ends["6 five octets, a fragment for each octet"] == "failed 1007"
    assert ends["7 code 999"] == ends["7 close with half a code"] == "failed 1002"
    assert ends["7 code 4999"] == "close 4999"
    assert ends["6 kosme, octet by octet"] == ends["5 a ping within"] == "close 1000"
