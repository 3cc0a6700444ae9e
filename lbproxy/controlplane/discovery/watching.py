"""For sources that can be listed and watched: list, watch for changes, and begin again when the watch ends.

A list once in a while, though the watch still stands, finds out that nobody is at its other end any more.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lbproxy.controlplane.discovery.jsonapi import ApiError

_log = Logger()

LIST_INTERVAL_SECONDS = 60.0
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0
JITTER = 0.2


class ListAgain(Exception):
    """The watch cannot go on from where it was; the message, if there is one, is a problem for the operator."""


class ListAndWatch:
    """Runs both in turn until it is stopped."""

    def __init__(
        self,
        clock: IReactorTime,
        list_once: Callable[[], Coroutine[Any, Any, None]],
        watch: Callable[[], Coroutine[Any, Any, None]],
        failed: Callable[[str], None],
        *,
        resumes: bool = False,
    ) -> None:
        """``list_once`` and ``watch`` raise `ApiError`, ``watch`` also `ListAgain`.

        With ``resumes`` a watch that ended or broke goes on from where it was; else, and each minute, comes a list.
        """
        self._clock = clock
        self._list = list_once
        self._watch = watch
        self._failed = failed
        self._resumes = resumes
        self._next_list = clock.seconds()
        """When to list, rather than to go on with the watch."""
        self._retry = FIRST_RETRY_SECONDS
        self._is_established = False
        self._random = Random()
        self._running: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stop(self) -> None:
        """End what is under way."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    def established(self) -> None:
        """The watch stands: when it ends after this, the next one may begin at once."""
        self._is_established = True
        self._retry = FIRST_RETRY_SECONDS

    async def _run(self) -> None:
        while not self._stopped:
            self._is_established = False
            try:
                await self._once()
            except DeferredTimeout:
                self._next_list = self._clock.seconds()
                continue
            except ListAgain as reason:
                self._next_list = self._clock.seconds()
                if str(reason):
                    self._failed(str(reason))
            except Exception as error:
                if self._stopped:
                    return
                if not isinstance(error, ApiError):
                    _log.failure("a source could not be read")
                self._failed(str(error) or type(error).__name__)
            else:
                if self._is_established:
                    continue
            await deferLater(self._clock, self._retry * (1 + JITTER * self._random.random()))
            self._retry = min(2 * self._retry, LONGEST_RETRY_SECONDS)

    async def _once(self) -> None:
        """List if it is time to, and watch until that ends, fails, or it is time for a list."""
        if self._clock.seconds() >= self._next_list:
            await self._list()
            self._retry = FIRST_RETRY_SECONDS
            self._next_list = self._clock.seconds() + LIST_INTERVAL_SECONDS
        seconds = self._next_list - self._clock.seconds()
        if not self._resumes:
            self._next_list = 0.0
        await Deferred.fromCoroutine(self._watch()).addTimeout(seconds, self._clock)
