"""Look for bytes that break a codec, guided by coverage: ``python -m tests.fuzz.run NAME... --seconds 10``.

Needs atheris (``pip install '.[fuzz]'``) and works with ``LBPROXY_NATIVE=off``, for only Python code tells which way it
took. The corpus is `tests/fuzz/corpus/NAME.txt`, an input in each line as a Python literal; ``--keep`` writes there
what adds to the coverage. What breaks a property is printed, and belongs into the corpus once it is mended.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

CORPUS = Path(__file__).parent / "corpus"
MAX_KEPT_BYTES = 400
"""Of an input: longer ones teach little more, and have to be read by people."""


MAX_KEPT = 120
"""Inputs for one property; they are run with the tests."""


def read_corpus(name: str) -> list[bytes]:
    """The inputs kept for a property."""
    file = CORPUS / f"{name}.txt"
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    return [ast.literal_eval(line) for line in lines]


def write_corpus(name: str, inputs: set[bytes]) -> None:
    """Keep these inputs, the shortest first."""
    chosen = sorted(inputs, key=lambda data: (len(data), data))
    (CORPUS / f"{name}.txt").write_text("".join(f"{data!r}\n" for data in chosen), encoding="ascii")


def fuzz(name: str, folder: str) -> None:
    """Run in a process of its own, which ends here; ``folder`` takes what adds to the coverage."""
    import atheris

    from tests.fuzz.properties import PROPERTIES

    for package in ("lbproxy.wire", "lbproxy.telemetry"):
        for function in _functions(package):
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], folder, *os.environ["LBPROXY_FUZZ"].split()], PROPERTIES[name])
    atheris.Fuzz()


def _functions(package: str) -> Iterator[FunctionType]:
    """All functions and methods of a package's modules."""
    for module in [module for name, module in sys.modules.items() if name.startswith(package)]:
        places = [module, *(value for value in vars(module).values() if isinstance(value, type))]
        for place in places:
            for value in vars(place).values():
                plain = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                    yield plain


def run(name: str, seconds: int, keep: bool) -> int:
    """Fuzz one property; return the exit status."""
    kept = set(read_corpus(name))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as less:
        for number, data in enumerate(sorted(kept)):
            (Path(folder) / f"{number}").write_bytes(data)
        options = f"-max_total_time={seconds} -timeout=10 -max_len=2000 -verbosity=0 -artifact_prefix={less}/crash-"
        status = _start(name, folder, options)
        for crash in Path(less).glob("crash-*"):
            print(f"{name}: broken by {crash.read_bytes()!r}", flush=True)
        if keep and not status:
            found = {file.read_bytes() for file in Path(folder).iterdir()} - kept
            short = sorted((data for data in found if len(data) <= MAX_KEPT_BYTES), key=len)
            write_corpus(name, kept | set(short[: max(0, MAX_KEPT - len(kept))]))
    return status


def _start(name: str, folder: str, options: str) -> int:
    environment = {**os.environ, "LBPROXY_FUZZ": options, "LBPROXY_NATIVE": "off"}
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, "--in", folder], env=environment, check=False
    ).returncode


def main() -> int:
    """Fuzz what the command line names, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=int, default=10, help="for each (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="write the corpus")
    parser.add_argument("--in", dest="folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        with contextlib.suppress(KeyboardInterrupt):
            fuzz(arguments.names[0], arguments.folder)
    from tests.fuzz.properties import PROPERTIES

    failed = [name for name in arguments.names or PROPERTIES if run(name, arguments.seconds, arguments.keep)]
    print(f"broken: {', '.join(failed)}" if failed else "nothing is broken")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
