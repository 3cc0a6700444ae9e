"""For sources that can be listed and watched: list, watch for changes, and list again when the watch ends.

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


class ListAndWatch:
    """Runs both in turn until it is stopped."""

    def __init__(
        self,
        clock: IReactorTime,
        list_once: Callable[[], Coroutine[Any, Any, None]],
        watch: Callable[[], Coroutine[Any, Any, None]],
        failed: Callable[[str], None],
    ) -> None:
        """``list_once`` and ``watch`` raise `ApiError`; a watch that returns is followed by a list."""
        self._clock = clock
        self._list = list_once
        self._watch = watch
        self._failed = failed
        self._retry = FIRST_RETRY_SECONDS
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

    async def _run(self) -> None:
        while not self._stopped:
            try:
                await self._list()
                self._retry = FIRST_RETRY_SECONDS
                await Deferred.fromCoroutine(self._watch()).addTimeout(LIST_INTERVAL_SECONDS, self._clock)
            except DeferredTimeout:
                continue
            except Exception as error:
                if self._stopped:
                    return
                if not isinstance(error, ApiError):
                    _log.failure("a source could not be read")
                self._failed(str(error) or type(error).__name__)
            else:
                continue
            await deferLater(self._clock, self._retry * (1 + JITTER * self._random.random()))
            self._retry = min(2 * self._retry, LONGEST_RETRY_SECONDS)
