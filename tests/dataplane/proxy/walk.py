"""What random walks through an exchange have in common."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbproxy.dataplane.proxy.exchange import Exchange
from tests.dataplane.proxy.scene import Scene


class ExchangeWalk(RuleBasedStateMachine):
    """What the client and the clock do, whatever the targets do, and what always holds; a subclass makes the scene."""

    scene: Scene
    body_left: bool
    """Whether there is more of the request to come."""
    body: bytes
    """What the client has sent of it."""

    def ask(self, head: bytes, ended: bool) -> None:
        """Send the request; one with a body is ``ended`` or goes on."""
        with_body = head.startswith((b"POST ", b"PUT "))
        self.body_left = with_body and not ended
        self.body = b"1234" if with_body else b""
        self.scene.ask(head, self.body, not self.body_left)

    @property
    def exchange(self) -> Exchange:
        return self.scene.exchange

    def running(self) -> bool:
        return not self.exchange.done

    @precondition(lambda self: self.running() and self.body_left)
    @rule(last=st.booleans())
    def send_body(self, last: bool) -> None:
        self.body += b"xy"
        self.exchange.request_data(b"xy")
        if last and self.running():
            self.body_left = False
            self.exchange.end_request(b"")

    @rule()
    def lose_client(self) -> None:
        """Also after the end."""
        self.exchange.client_lost()

    @precondition(running)
    @rule()
    def time_out(self) -> None:
        self.exchange.timed_out()

    @invariant()
    def it_is_told_once_and_waits_for_nothing_for_ever(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        assert scene.client.done == len(scene.log.records) == int(self.exchange.done)
        if self.exchange.done:
            scene.check_over()
        else:
            assert scene.client.patience > 0

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.exchange.client_lost()
            self.scene.check_over()
