"""Stickiness on the way of a request: from the client's cookie to the target, and back into the answer."""

from __future__ import annotations

import re

from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.target_group import Stickiness, StickinessType

from .doubles import World, answer, request

LB = {"stickiness": Stickiness(type=StickinessType.LB_COOKIE)}
APP = {"stickiness": Stickiness(type=StickinessType.APP_COOKIE, cookie_name="SID")}


def cookies(data: bytes) -> dict[str, str]:
    return dict(re.findall(r"Set-Cookie: ([^=]+)=([^;\r]*)", data.decode()))


def ask(world: World, *fields: str, reply: bytes = answer()) -> tuple[str, bytes]:
    """Who was asked, and the answer; on a new client connection and a new one to the target."""
    client = world.client()
    client.deliver(request("/", *fields))
    asked = world.connector.attempts[-1].target.key
    target = world.target()
    target.deliver(reply)
    target.reset()
    return asked, client.take()


def cookie(**values: str) -> str:
    return "Cookie: " + "; ".join(f"{name}={value}" for name, value in values.items())


def test_without_stickiness_there_is_no_cookie() -> None:
    _, data = ask(World(targets=2))
    assert b"Set-Cookie" not in data


def test_a_client_comes_back_to_its_target() -> None:
    world = World(targets=3, group=LB)
    first, data = ask(world)
    given = cookies(data)
    assert set(given) == {"AWSALB", "AWSALBCORS"}
    for _ in range(4):
        again, data = ask(world, cookie(**given))
        assert again == first
        assert set(cookies(data)) == {"AWSALB", "AWSALBCORS"}
    others = {ask(world)[0] for _ in range(3)}
    assert len(others) == 3


def test_a_target_that_cannot_be_reached_is_left_and_the_answer_binds_to_the_next() -> None:
    world = World(targets=3, group=LB)
    first, data = ask(world)
    client = world.client()
    client.deliver(request("/", cookie(**cookies(data))))
    assert world.connector.attempts[-1].target.key == first
    world.connector.attempts[-1].fail()
    second = world.connector.attempts[-1].target.key
    assert second != first
    target = world.target()
    target.deliver(answer())
    target.reset()
    assert ask(world, cookie(**cookies(client.take())))[0] == second


def test_a_cookie_that_is_not_ours_is_overwritten() -> None:
    world = World(targets=2, group=LB)
    _, data = ask(world, cookie(AWSALB="garbage"))
    assert cookies(data)["AWSALB"] != "garbage"


def test_the_answer_of_the_balancer_itself_binds_nobody() -> None:
    world = World(targets=1, group=LB)
    client = world.client()
    client.deliver(request())
    world.connector.attempts[-1].fail()
    data = client.take()
    assert data.startswith(b"HTTP/1.1 502")
    assert b"Set-Cookie" not in data


def test_an_upgraded_connection_binds_its_client_too() -> None:
    world = World(targets=2, group=LB)
    client = world.client()
    client.deliver(request("/", "Connection: upgrade", "Upgrade: websocket"))
    world.target().deliver(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert set(cookies(client.take())) == {"AWSALB", "AWSALBCORS"}


def test_the_application_says_who_is_bound() -> None:
    world = World(targets=3, group=APP)
    _, data = ask(world)
    assert cookies(data) == {}
    first, data = ask(world, reply=answer(b"hello", "Set-Cookie: SID=1; Path=/"))
    given = cookies(data)
    assert set(given) == {"SID", "AWSALBAPP-0"}
    for _ in range(4):
        again, data = ask(world, cookie(**given))
        assert (again, cookies(data)) == (first, {})


def test_a_client_stays_with_its_target_group() -> None:
    action = Forward((WeightedGroup("app", 500), WeightedGroup("canary", 500)), 60.0)
    world = World(targets=1, default_action=action)
    _, data = ask(world)
    given = cookies(data)
    assert set(given) == {"AWSALBTG", "AWSALBTGCORS"}
    first = world.log.records[-1].target_group
    for _ in range(20):
        ask(world, cookie(AWSALBTG=given["AWSALBTG"]))
    assert {record.target_group for record in world.log.records} == {first}
    for _ in range(20):
        ask(world)
    assert {record.target_group for record in world.log.records} == {"app", "canary"}


def test_both_kinds_of_cookies_go_together() -> None:
    world = World(targets=2, group=LB, default_action=Forward((WeightedGroup("app"), WeightedGroup("canary")), 60.0))
    _, data = ask(world)
    assert set(cookies(data)) == {"AWSALB", "AWSALBCORS", "AWSALBTG", "AWSALBTGCORS"}
