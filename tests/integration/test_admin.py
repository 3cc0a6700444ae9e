"""The admin API over real sockets, asked by the commands that operators use."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbproxy.cli.client import AdminClient
from lbproxy.controlplane.api.admin import AdminService, why_not_unix
from lbproxy.controlplane.api.targets import TargetsApi
from lbproxy.controlplane.config.targets import parse_target
from lbproxy.controlplane.state import ControlState
from tests.controlplane.api.test_admin import Address, FakeMetrics, FakeRegistry, FakeSupervisor
from tests.controlplane.fakes import FakeCells, make_configuration, make_group, make_target

pytestmark = pytest.mark.integration


class AdminOverSocketsTests(TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "admin.sock")

    def service(self, address: Address) -> AdminService:
        cells = FakeCells()
        state = ControlState(reactor, cells, cells)  # type: ignore[arg-type]
        state.configure(make_configuration(make_group(make_target(1))), 1)
        targets = TargetsApi(state, FakeMetrics(), FakeRegistry(), parse_target)
        return AdminService(reactor, address, state, FakeMetrics(), FakeSupervisor(), targets)

    def start(self, address: Address) -> AdminService:
        service = self.service(address)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def ask(self, address: str) -> Any:
        client = AdminClient(address)
        reloaded = await deferToThread(client.post, "/reload")
        self.assertEqual(reloaded[0], 200)
        return await deferToThread(client.get, "/status")

    async def test_over_tcp(self) -> None:
        listening: Any = self.start(Address(port=0)).listening
        status = await self.ask(f"127.0.0.1:{listening.getHost().port}")
        self.assertEqual(status["target_groups"][0]["targets"][0]["state"], "initial")

    async def test_over_a_unix_socket_that_only_its_owner_may_open(self) -> None:
        self.start(Address(path=self.path))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual((await self.ask(f"unix:{self.path}"))["workers"][0]["pid"], 42)

    async def test_the_socket_file_goes_with_the_service(self) -> None:
        service = self.service(Address(path=self.path))
        service.startService()
        await service.stopService()  # type: ignore[misc]
        self.assertFalse(os.path.exists(self.path))

    async def test_a_stale_socket_file_is_replaced(self) -> None:
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(self.path)
        self.start(Address(path=self.path))
        await self.ask(f"unix:{self.path}")

    async def test_a_path_is_tried_before_the_start(self) -> None:
        self.assertIsNone(why_not_unix(self.path))
        self.assertEqual(os.listdir(self.directory), [])
        self.assertEqual(why_not_unix(self.path + "/x/y"), "No such file or directory")

    async def test_a_socket_in_use_and_other_files_are_left_alone(self) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen()
            self.assertEqual(why_not_unix(self.path), "another process listens there")
            self.assertRaises(CannotListenError, self.service(Address(path=self.path)).startService)
        os.unlink(self.path)
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertEqual(why_not_unix(self.path), "it exists and is no socket")
        self.assertRaises(CannotListenError, self.service(Address(path=self.path)).startService)
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
