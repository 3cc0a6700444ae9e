"""Right answers first, then the load, and what it has cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from cases import BODY, CONNECTIONS, H2_CONNECTIONS, H2_STREAMS, IDLE_CONNECTIONS, MESSAGE, Case, Tool, Unit
from processes import cpu_seconds, memory_mib, pinned

HERE = Path(__file__).parent
WARM_UP_SECONDS = 1
SETTLE_SECONDS = 1.0
"""From the last connection until the memory of all is looked at."""

CALL_FIELDS = ("-H", "content-type: application/grpc", "-H", "te: trailers")

Result = dict[str, float]


@attrs.define
class Sample:
    """One measurement of one proxy in one case."""

    cost: float
    """What the case's unit says: CPU microseconds, CPU seconds or KiB."""
    rate: float
    """Requests per second, or GB per second."""
    p50_ms: float
    p99_ms: float
    memory_mib: float
    errors: int


@attrs.frozen(kw_only=True)
class Load:
    """How to put load on one proxy that runs."""

    case: Case
    port: int
    cpus: Sequence[int]
    """For the tool."""
    work: Path
    rate: float = 0
    """Requests a second of a paced case."""

    def run(self, seconds: int) -> Result:
        """Let the tool work and give its summary."""
        match self.case.tool:
            case Tool.WRK:
                return self._run_wrk(seconds)
            case Tool.H2LOAD:
                return self._run_h2load(seconds)
            case Tool.OWN:
                return self._run_own(seconds)

    def _output(self, command: list[str], seconds: int) -> str:
        return subprocess.run(
            pinned(command, self.cpus), capture_output=True, text=True, timeout=seconds + 30, check=True
        ).stdout

    def _run_wrk(self, seconds: int) -> Result:
        scheme = "https" if self.case.port == "HTTPS" else "http"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "templates" / "wrk.lua")]
        command += [*self.case.options, f"{scheme}://127.0.0.1:{self.port}/"]
        if self.case.rules:
            command += ["--", "rules"]
        summary: Result = json.loads(self._output(command, seconds).rpartition("JSON ")[2])
        return summary

    def _run_h2load(self, seconds: int) -> Result:
        log = self.work / "h2load.log"
        log.unlink(missing_ok=True)
        command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", "-D", str(seconds), f"--log-file={log}"]
        if self.case.call:
            command += [*CALL_FIELDS, "-d", str(self.work / "message")]
        output = self._output([*command, f"https://127.0.0.1:{self.port}/"], seconds)
        if "Application protocol: h2" not in output:
            raise SystemExit(f"h2load was not given HTTP/2:\n{output}")
        answers = [line.split("\t") for line in log.read_text().splitlines()]
        good = [int(took) for _, status, took in answers if status == "200"]
        if not good:
            raise SystemExit(f"h2load got no answer:\n{output}")
        good.sort()
        return {
            "requests": len(good),
            "seconds": seconds,
            "p50_ms": good[len(good) // 2] / 1e3,
            "p99_ms": good[len(good) * 99 // 100] / 1e3,
            "errors": 0,
            "not_2xx": len(answers) - len(good),
        }

    def _own_command(self, *more: str) -> list[str]:
        return [str(self.work / "load"), "-p", str(self.port), "-u", self.case.path, *self.case.options, *more]

    def _run_own(self, seconds: int) -> Result:
        pace = ["-r", f"{self.rate:.0f}"] if self.rate else []
        result: Result = json.loads(self._output(self._own_command("-s", str(seconds), *pace), seconds))
        # the first connections have nothing to resume
        least, most = {None: (0, 0), False: (0, 0), True: (result["requests"] - CONNECTIONS, result["requests"])}[
            self.case.resumes
        ]
        if not least <= result["resumed"] <= most:
            raise SystemExit(f"{self.case.name}: {result['resumed']} of {result['requests']} handshakes were resumed")
        return result

    def measure(self, pid: int, seconds: int) -> Sample:
        """What the process and its children spend on this load."""
        if self.case.unit is Unit.CONNECTION:
            return self._measure_idle(pid)
        self.run(WARM_UP_SECONDS)
        before = cpu_seconds(pid)
        result = self.run(seconds)
        used = cpu_seconds(pid) - before
        if self.case.unit is Unit.GIGABYTE:
            amount = cost_of = result["bytes"] / 1e9
        else:
            amount, cost_of = result["requests"], result["requests"] / 1e6
        if not amount:
            raise SystemExit(f"{self.case.name}: nothing was answered")
        return Sample(
            used / cost_of,
            amount / result["seconds"],
            result["p50_ms"],
            result["p99_ms"],
            memory_mib(pid),
            int(result["errors"] + result["not_2xx"]),
        )

    def _measure_idle(self, pid: int) -> Sample:
        before = memory_mib(pid)
        command = pinned(self._own_command(), self.cpus)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            try:
                result = json.loads(process.stdout.readline())
                time.sleep(SETTLE_SECONDS)
                memory = memory_mib(pid)
                process.stdin.close()
                left = json.loads(process.stdout.readline())["left"]
            except ValueError:
                raise SystemExit(f"{self.case.name}: not all connections were served") from None
        errors = int(result["errors"] + result["not_2xx"]) + IDLE_CONNECTIONS - left
        return Sample((memory - before) * 1024 / IDLE_CONNECTIONS, 0, 0, 0, memory, errors)

    def check_answers(self) -> None:
        """Fail unless the proxy does what is to be measured."""
        tls = self.case.port in ("HTTPS", "GRPC")
        message = MESSAGE if self.case.call else None
        end = time.monotonic() + 5  # until both targets are known to be healthy
        while True:
            seen = [ask(self.port, "/", tls=tls, content=message) for _ in range(4)]
            if set(seen) == {(200, f"{target}{BODY}".encode()) for target in "AB"}:
                break
            if time.monotonic() > end:
                raise SystemExit(f"{self.case.name}: wrong answers, or not from both targets: {seen}")
            time.sleep(0.1)
        check = (self.work / "files" / "check").read_bytes()
        if self.case.path != "/" and ask(self.port, "/files/check", tls=tls) != (200, check):
            raise SystemExit(f"{self.case.name}: the file arrived changed")
        if self.case.upload and ask(self.port, "/", content=bytes(1 << 20)) != (200, b"%d" % (1 << 20)):
            raise SystemExit("upload: not all arrived")
        if self.case.rules:
            self._check_rules()
        if self.case.call:
            self._check_trailers()

    def _check_trailers(self) -> None:
        command = ["nghttp", "-v", "--no-verify-peer", *CALL_FIELDS, "-d", str(self.work / "message")]
        seen = self._output([*command, f"https://127.0.0.1:{self.port}/"], 5)
        if "grpc-status: 0" not in seen:
            raise SystemExit(f"grpc: no trailers:\n{seen}")

    def _check_rules(self) -> None:
        for n in (0, 1, 2, 499, 500, 998, 999):
            right = (200, f"{'AB'[n % 2]}{BODY}".encode())
            for host, path in ((f"h{n:04}.bench.example", "/"), ("other.example", f"/p{n:04}/x")):
                seen = ask(self.port, path, host)
                if seen != right:
                    raise SystemExit(f"rules: {host}{path} went wrong: {seen}")


def ask(
    port: int, path: str, host: str = "127.0.0.1", tls: bool = False, content: bytes | None = None
) -> tuple[int, bytes]:
    """Send one request on a connection of its own, a POST if there is content."""
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET" if content is None else "POST", path, content, {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()


def compile_generator(work: Path) -> None:
    """Make ``load`` of ``load.c``."""
    compiler = os.environ.get("CC", "gcc").split()
    command = [*compiler, "-O2", "-o", str(work / "load"), str(HERE / "load.c"), "-lssl", "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"load.c does not compile: apt install gcc libssl-dev\n{done.stderr}")
