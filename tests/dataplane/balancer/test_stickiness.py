"""Who comes back to whom, for how long, and what the cookies look like."""

from __future__ import annotations

import re
from random import Random

import pytest

from lbproxy.dataplane.balancer.seal import Seal
from lbproxy.dataplane.balancer.stickiness import GroupStickiness, TargetStickiness, target_stickiness
from lbproxy.dataplane.router.groups import GroupChoice
from lbproxy.dataplane.router.request import PlainRequest
from lbproxy.model.rule import Forward, WeightedGroup
from lbproxy.model.target import RegisteredTarget
from lbproxy.model.target_group import Stickiness, StickinessType, TargetGroup, TargetProtocol

from .states import SOURCE, balancer, number_of, target, weighted

LB = Stickiness(type=StickinessType.LB_COOKIE, duration_seconds=60.0)
APP = Stickiness(type=StickinessType.APP_COOKIE, duration_seconds=60.0, cookie_name="SID")
NOW = 1_800_000_000.25
ONE, TWO = target(1), target(2)
NOTHING = PlainRequest()


class Answer:
    """An answer with these Set-Cookie fields."""

    def __init__(self, *cookies: bytes) -> None:
        self.cookies = list(cookies)

    def field_values(self, name: bytes) -> list[bytes]:
        return self.cookies if name == b"set-cookie" else []


def make(
    stickiness: Stickiness, *targets: RegisteredTarget, seal: Seal | None = None, name: str = "app"
) -> TargetStickiness:
    group = TargetGroup(name=name, protocol=TargetProtocol.HTTP, stickiness=stickiness)
    made = target_stickiness(group, targets or (ONE, TWO), seal or SEAL)
    assert made is not None
    return made


SEAL = Seal()


def cookies(fields: bytes) -> dict[bytes, bytes]:
    return dict(re.findall(rb"Set-Cookie: ([^=]+)=([^;]*);", fields))


def with_cookies(**values: bytes) -> PlainRequest:
    line = b"; ".join(b"%b=%b" % (name.replace("_", "-").encode(), value) for name, value in values.items())
    return PlainRequest(fields=[(b"cookie", line)])


# lb_cookie


def test_the_cookies_of_an_answer() -> None:
    fields = make(LB).fields(NOTHING, Answer(), ONE, NOW)
    value = cookies(fields)[b"AWSALB"]
    expires = b"Fri, 22 Jan 2027 08:00:00 GMT"
    assert fields == (
        b"Set-Cookie: AWSALB=%b; Expires=%b; Path=/\r\n"
        b"Set-Cookie: AWSALBCORS=%b; Expires=%b; Path=/; SameSite=None; Secure\r\n"
    ) % (value, expires, value, expires)
    assert b"10.0.0.1" not in fields


@pytest.mark.parametrize("name", ["AWSALB", "AWSALBCORS"])
def test_a_client_comes_back_to_its_target(name: str) -> None:
    value = cookies(make(LB).fields(NOTHING, Answer(), TWO, NOW))[b"AWSALB"]
    assert make(LB).target(with_cookies(other=b"1", **{name: value}), NOW + 30) is TWO


def test_without_a_cookie_a_client_is_free() -> None:
    assert make(LB).target(NOTHING, NOW) is None
    assert make(LB).target(with_cookies(other=b"1"), NOW) is None


def test_a_cookie_binds_for_its_duration_from_the_last_answer_on() -> None:
    sticky = make(LB)
    value = cookies(sticky.fields(NOTHING, Answer(), ONE, NOW))[b"AWSALB"]
    assert sticky.target(with_cookies(AWSALB=value), NOW + 59) is ONE
    assert sticky.target(with_cookies(AWSALB=value), NOW + 61) is None
    renewed = cookies(sticky.fields(NOTHING, Answer(), ONE, NOW + 50))[b"AWSALB"]
    assert sticky.target(with_cookies(AWSALB=renewed), NOW + 100) is ONE


def test_a_target_that_cannot_serve_binds_nobody() -> None:
    value = cookies(make(LB, ONE, TWO).fields(NOTHING, Answer(), ONE, NOW))[b"AWSALB"]
    assert make(LB, TWO).target(with_cookies(AWSALB=value), NOW) is None


@pytest.mark.parametrize("value", [b"", b"garbage", b"%41", b"A" * 100])
def test_what_is_no_cookie_of_ours_binds_nobody(value: bytes) -> None:
    assert make(LB).target(with_cookies(AWSALB=value), NOW) is None


def test_a_cookie_of_another_group_or_from_the_future_binds_nobody() -> None:
    value = cookies(make(LB, name="other").fields(NOTHING, Answer(), ONE, NOW))[b"AWSALB"]
    assert make(LB).target(with_cookies(AWSALB=value), NOW) is None
    future = cookies(make(LB).fields(NOTHING, Answer(), ONE, NOW + 1000))[b"AWSALB"]
    assert make(LB).target(with_cookies(AWSALB=future), NOW) is None


def test_a_cookie_is_sealed_once_a_second_and_target() -> None:
    sticky = make(LB)
    first = sticky.fields(NOTHING, Answer(), ONE, NOW)
    assert sticky.fields(NOTHING, Answer(), ONE, NOW + 0.5) is first
    assert sticky.fields(NOTHING, Answer(), TWO, NOW) != first
    assert sticky.fields(NOTHING, Answer(), ONE, NOW + 1) != first


def test_another_worker_with_the_same_keys_knows_the_cookie() -> None:
    one, other = Seal(), Seal()
    value = cookies(make(LB, seal=one).fields(NOTHING, Answer(), ONE, NOW))[b"AWSALB"]
    assert make(LB, seal=other).target(with_cookies(AWSALB=value), NOW) is None
    for seal in (one, other):
        seal.use([bytes(40)])
    value = cookies(make(LB, seal=one).fields(NOTHING, Answer(), ONE, NOW + 1))[b"AWSALB"]
    assert make(LB, seal=other).target(with_cookies(AWSALB=value), NOW + 1) is ONE


# app_cookie


def test_the_application_decides_who_is_bound() -> None:
    sticky = make(APP)
    assert sticky.fields(NOTHING, Answer(), ONE, NOW) == b""
    assert sticky.fields(NOTHING, Answer(b"XSID=1", b"a=SID=1"), ONE, NOW) == b""
    fields = sticky.fields(NOTHING, Answer(b"a=1; Path=/", b"SID=abc; HttpOnly"), ONE, NOW)
    assert list(cookies(fields)) == [b"AWSALBAPP-0"]
    assert b"; Expires=Fri, 15 Jan 2027 08:01:00 GMT; Path=/\r\n" in fields


def test_both_cookies_have_to_come_back() -> None:
    sticky = make(APP)
    value = cookies(sticky.fields(NOTHING, Answer(b"SID=abc"), TWO, NOW))[b"AWSALBAPP-0"]
    assert sticky.target(with_cookies(SID=b"abc", AWSALBAPP_0=value), NOW) is TWO
    assert sticky.target(with_cookies(AWSALBAPP_0=value), NOW) is None
    assert sticky.target(with_cookies(SID=b"abc"), NOW) is None
    assert sticky.target(with_cookies(SID=b"abc", AWSALBAPP_0=value), NOW + 61) is None


def test_a_bound_client_is_not_bound_again_unless_its_target_is_another_one() -> None:
    sticky = make(APP)
    value = cookies(sticky.fields(NOTHING, Answer(b"SID=abc"), ONE, NOW))[b"AWSALBAPP-0"]
    request = with_cookies(SID=b"abc", AWSALBAPP_0=value)
    assert sticky.fields(request, Answer(), ONE, NOW) == b""
    later = make(APP, TWO)
    moved = cookies(later.fields(request, Answer(), TWO, NOW + 1))[b"AWSALBAPP-0"]
    assert later.target(with_cookies(SID=b"abc", AWSALBAPP_0=moved), NOW + 1) is TWO


def test_a_cookie_of_one_kind_is_none_of_the_other() -> None:
    value = cookies(make(LB).fields(NOTHING, Answer(), ONE, NOW))[b"AWSALB"]
    assert make(APP).target(with_cookies(SID=b"abc", AWSALBAPP_0=value), NOW) is None


# Target groups


def choice(seconds: float = 60.0, canary: int = 10) -> GroupChoice:
    forward = Forward((WeightedGroup("app", 90), WeightedGroup("canary", canary)), seconds)
    return GroupChoice(forward, Random(1))


@pytest.mark.parametrize("name", ["AWSALBTG", "AWSALBTGCORS"])
def test_a_client_stays_with_its_group(name: str) -> None:
    sticky = GroupStickiness(SEAL)
    fields = sticky.fields("canary", NOW)
    assert list(cookies(fields)) == [b"AWSALBTG", b"AWSALBTGCORS"]
    request = with_cookies(**{name: cookies(fields)[b"AWSALBTG"]})
    assert sticky.group(choice(), request, NOW + 59) == "canary"
    assert sticky.group(choice(), request, NOW + 61) is None


def test_a_group_without_a_share_keeps_nobody() -> None:
    sticky = GroupStickiness(SEAL)
    request = with_cookies(AWSALBTG=cookies(sticky.fields("canary", NOW))[b"AWSALBTG"])
    assert sticky.group(choice(canary=0), request, NOW) is None
    other = with_cookies(AWSALBTG=cookies(sticky.fields("gone", NOW))[b"AWSALBTG"])
    assert sticky.group(choice(), other, NOW) is None
    assert sticky.group(choice(), NOTHING, NOW) is None
    assert sticky.group(choice(), with_cookies(AWSALBTG=b"x"), NOW) is None


# source_ip


def test_source_ip_hashes_the_address_in_place_of_the_algorithm() -> None:
    sticky = Stickiness(type=StickinessType.SOURCE_IP)
    found = balancer("round_robin", weighted([1, 1, 1]), stickiness=sticky)
    assert len({number_of(found.pick(None, SOURCE)) for _ in range(20)}) == 1
    assert len({number_of(found.pick(None, f"192.0.2.{number}")) for number in range(50)}) == 3
    group = TargetGroup(name="db", protocol=TargetProtocol.TCP, stickiness=sticky)
    assert target_stickiness(group, (ONE,), SEAL) is None
