"""A real etcd on random ports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.integration.harness import HOST, free_port, wait_until


class Etcd:
    """One etcd; `stop` and `start` keep its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"http://{HOST}:{free_port()}"
        self._peer = f"http://{HOST}:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *("etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync"),
                *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
                *("--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer),
                *("--initial-cluster", f"default={self._peer}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._is_ready, 30, "etcd is ready")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"etcd ended with {self._process.returncode}"
        try:
            self.ask("/v3/kv/range", key="x")
        except OSError:
            return False
        return True

    def ask(self, path: str, **body: Any) -> Any:
        """Ask the JSON gateway; keys and values are encoded here."""
        encoded = {
            name: b64encode(value.encode()).decode() if name in ("key", "value", "range_end") else value
            for name, value in body.items()
        }
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(encoded).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def put(self, key: str, value: str) -> int:
        """Set a key; give the revision."""
        return int(self.ask("/v3/kv/put", key=key, value=value)["header"]["revision"])

    def delete(self, key: str, range_end: str = "") -> int:
        more = {"range_end": range_end} if range_end else {}
        return int(self.ask("/v3/kv/deleterange", key=key, **more)["header"]["revision"])

    def compact(self, revision: int) -> None:
        self.ask("/v3/kv/compaction", revision=str(revision), physical=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process = None

    def close(self) -> None:
        self.stop()
