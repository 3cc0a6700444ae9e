"""``twistd lbproxy``: loads the configuration and opens its sockets before twistd goes to the background."""

from __future__ import annotations

import resource
import sys
from typing import Any, cast

from twisted.application.service import IService
from twisted.python import usage

from lbproxy.controlplane.supervisor.composition import make_supervisor
from lbproxy.controlplane.supervisor.service import ConfigurationRefused
from lbproxy.dataplane.worker import Worker


class Options(usage.Options):
    """The options of ``twistd lbproxy``."""

    synopsis = "[-c FILE]"
    longdesc = "An elastic load balancer for HTTP, TLS and TCP.  Try: twistd -n lbproxy -c conf/lb.ini"

    def __init__(self) -> None:
        super().__init__()
        self["config"] = None

    def opt_config(self, path: str) -> None:
        """the configuration file, for example conf/lb.ini (required)"""
        self["config"] = path

    opt_c = opt_config

    def postOptions(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("which configuration file?  Say for example: twistd -n lbproxy -c conf/lb.ini")


def makeService(options: Options) -> IService:
    """Make the supervisor.

    Mistakes in the configuration go to stderr, one a line, and end the process with status 1.
    """
    from twisted.internet import reactor

    own = cast(Any, reactor)
    _raise_descriptor_limit()
    try:
        return make_supervisor(own, options["config"], lambda channel: Worker(own, channel))
    except ConfigurationRefused as refused:
        for problem in refused.problems:
            print(problem, file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(1) from None


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us, here and in the workers, which inherit it.

    The soft limit is 1,024 nearly everywhere, for programs that use select(2); a connection takes up to two.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
