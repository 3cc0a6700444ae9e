"""A real etcd on random ports."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.certificate_authority import Authority
from tests.integration.harness import HOST, free_port, wait_until


class Etcd:
    """One etcd; `stop` and `start` keep its data.  ``options`` are more of its command line.

    With ``tls`` it speaks TLS, with a certificate of that authority.
    """

    def __init__(self, folder: Path, *options: str, tls: Authority | None = None) -> None:
        self._folder = folder
        self._options = options
        self._token = ""
        self._context = None
        self.url = f"http://{HOST}:{free_port()}"
        if tls is not None:
            self.url = self.url.replace("http:", "https:")
            (folder / "etcd.pem").write_bytes(tls.pem(HOST))
            self._options += ("--cert-file", str(folder / "etcd.pem"), "--key-file", str(folder / "etcd.pem"))
            self._context = ssl.create_default_context(cadata=tls.root_pem.decode())
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
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._is_ready, 30, "etcd is ready")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"etcd ended with {self._process.returncode}"
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10, context=self._context) as response:
                return bool(json.load(response)["health"] == "true")
        except OSError:
            return False

    def ask(self, path: str, **body: Any) -> Any:
        """Ask the JSON gateway; keys and values are encoded here."""
        encoded = {
            name: b64encode(value.encode()).decode() if name in ("key", "value", "range_end") else value
            for name, value in body.items()
        }
        headers = {"Authorization": self._token} if self._token else {}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(encoded).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=10, context=self._context) as response:
            return json.load(response)

    def secure(self, user: str, password: str, prefix: str) -> None:
        """Switch authentication on, with a user who may read these keys; we go on as root."""
        for name, word, role in (("root", "root's", "root"), (user, password, "reader")):
            self.ask("/v3/auth/user/add", name=name, password=word)
            self.ask("/v3/auth/role/add", name=role)
            self.ask("/v3/auth/user/grant", user=name, role=role)
        key, end = (b64encode(text.encode()).decode() for text in (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)))
        self.ask("/v3/auth/role/grant", name="reader", perm={"permType": "READ", "key": key, "range_end": end})
        self.ask("/v3/auth/enable")
        self.log_in()

    def log_in(self) -> None:
        """Get a token for root, after the one of before has ended."""
        self._token = ""
        self._token = self.ask("/v3/auth/authenticate", name="root", password="root's")["token"]

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
