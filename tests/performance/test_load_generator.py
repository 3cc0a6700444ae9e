"""The load generator of ``bench/`` does not take wrong answers for right ones."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import RawTarget, read_head, wait_until

SOURCE = Path(__file__).parents[2] / "bench" / "load.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not shutil.which("gcc"):
        pytest.skip("gcc, which compiles the load generator, is not installed")
    found = str(tmp_path_factory.mktemp("load") / "load")
    done = subprocess.run(["gcc", "-o", found, SOURCE, "-lssl", "-lcrypto"], capture_output=True, text=True)
    if "openssl" in done.stderr and "No such file" in done.stderr:
        pytest.skip("the headers of OpenSSL (libssl-dev), which the load generator needs, are not installed")
    assert not done.returncode, done.stderr
    return found


def run(program: str, serve: Callable[[socket.socket], None], *options: str) -> dict[str, float]:
    with RawTarget(serve) as target:
        command = [program, "-p", str(target.port), "-c", "2", "-s", "1", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    result: dict[str, float] = json.loads(done.stdout) if done.stdout else {"requests": 0, "errors": 1001}
    return result


def forever(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(skt: socket.socket) -> None:
        while read_head(skt):
            skt.sendall(answer)

    return serve


RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def test_right_answers_are_counted(program: str) -> None:
    result = run(program, forever(RIGHT), "-e", "5", "-r", "200")
    assert (result["errors"], result["not_2xx"], result["bytes"]) == (0, 0, 5 * result["requests"])
    assert 195 <= result["requests"] <= 201, "the rate is kept"


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT.replace(b"5", b"4"),
        RIGHT[:-5].replace(b"5", b"6") + b"hello!",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"hello" + RIGHT,
    ],
)
def test_another_length_or_none_is_an_error(program: str, answer: bytes) -> None:
    result = run(program, forever(answer), "-e", "5")
    assert result["errors"] > 0
    assert result["requests"] == 0


def test_a_cut_answer_is_an_error(program: str) -> None:
    def serve(skt: socket.socket) -> None:
        read_head(skt)
        skt.sendall(RIGHT[:-1])

    assert run(program, serve)["requests"] == 0


def test_another_status_is_told(program: str) -> None:
    result = run(program, forever(RIGHT.replace(b"200", b"503")), "-r", "100")
    assert result["not_2xx"] == result["requests"] > 0


def test_uploads_that_did_not_arrive_whole_are_errors(program: str) -> None:
    def serve(skt: socket.socket) -> None:
        left = 100_000 - len(read_head(skt).partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(skt.recv(65536))
        skt.sendall(RIGHT[:-5] + b"99999")

    result = run(program, serve, "-b", "100000")
    assert result["errors"] > 0
    assert result["requests"] == 0


def test_idle_connections_that_are_gone_are_told(program: str) -> None:
    gone = []

    def serve(skt: socket.socket) -> None:
        read_head(skt)
        skt.sendall(RIGHT)
        skt.shutdown(socket.SHUT_WR)
        gone.append(skt)

    with RawTarget(serve) as target:
        command = [program, "-p", str(target.port), "-c", "3", "-i"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert json.loads(process.stdout.readline())["requests"] == 3
            wait_until(lambda: len(gone) == 3)
            output, _ = process.communicate("", timeout=10)
    assert json.loads(output) == {"left": 0}
