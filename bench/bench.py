#!/usr/bin/env python3
"""Measure what a request costs: lbproxy beside HAProxy and nginx, on this machine, with wrk.

    python bench/bench.py                      everything, some five minutes
    python bench/bench.py --only https --rounds 5 --seconds 5
    python bench/bench.py --proxies haproxy,nginx --json

Run it with the interpreter of the environment that lbproxy is installed in.  The rest are
Debian packages: haproxy nginx-light libnginx-mod-stream wrk nghttp2-client openssl util-linux; a proxy that is
missing is left out.
docs/performance.md tells the method and how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

TEMPLATES = Path(__file__).parent / "templates"
TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 64
H2_CONNECTIONS = 8
H2_STREAMS = 32
WARM_UP_SECONDS = 1
DOWNLOAD_BYTES = 1 << 30
BODY = "x" * 127
RULES = 1000
"""Host rules, and as many path rules."""

Values = dict[str, str]


@attrs.frozen
class Case:
    """One kind of load."""

    name: str
    title: str
    port: str = "HTTP"
    wrk: tuple[str, ...] = ()
    wrk_script: tuple[str, ...] = ()
    rules: bool = False


CASES = (
    Case("keepalive", f"HTTP keep-alive, {CONNECTIONS} connections"),
    Case("oneshot", "HTTP, one connection per request", wrk=("-H", "Connection: close")),
    Case("https", f"HTTPS keep-alive, {CONNECTIONS} connections", port="HTTPS"),
    Case("http2", f"HTTP/2 over TLS, {H2_CONNECTIONS} connections x {H2_STREAMS} streams", port="HTTPS"),
    Case("tcp", f"TCP ping-pong, {CONNECTIONS} connections", port="TCP"),
    Case("download", "1 GiB download (per GB instead of per request)"),
    Case("rules", f"HTTP keep-alive, {2 * RULES:,} rules", wrk_script=("--", "rules"), rules=True),
)


@attrs.define
class Sample:
    """One measurement of one proxy in one case."""

    cost: float
    """CPU microseconds of the proxy per request; for a download CPU seconds per GB."""
    rate: float
    """Requests per second; for a download GB per second."""
    p50_ms: float
    p99_ms: float
    memory_mib: float
    errors: int


# Processes and what they cost


def stat_of(pid: int) -> list[str]:
    """Read /proc/PID/stat from the state on (proc(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(root: int) -> list[int]:
    """The process and its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat_of(int(entry))[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the whole tree, children that it has waited for included."""
    ticks = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, stat_of(pid)[11:15]))
    return ticks / TICKS


def memory_mib(root: int) -> float:
    """Proportional set size of the tree: shared pages are shared out, so that the sum is what it takes."""
    kib = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib / 1024


def pinned(command: list[str], cpu: int | None) -> list[str]:
    return command if cpu is None else ["taskset", "-c", str(cpu), *command]


@contextlib.contextmanager
def running(command: list[str], cpu: int | None, ports: list[int], log: Path) -> Iterator[int]:
    """Run a server until its ports are open and the block is done; give its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(command, cpu),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        for port in ports:
            wait_open(port, process, log)
        yield process.pid
    finally:
        stop(process)


def wait_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args[-1]!r} does not serve port {port}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it has started."""
    family = process_tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == process.pid:  # the id may have gone to another process meanwhile
                os.kill(pid, signal.SIGKILL)


# The proxies


def commands(work: Path) -> dict[str, list[str]]:
    """How to start each proxy that is installed."""
    twistd = Path(sys.executable).parent / "twistd"
    found = {
        "haproxy": ["haproxy", "-db", "-f", str(work / "haproxy.cfg")],
        "nginx": ["nginx", "-c", str(work / "nginx.conf")],
        "lbproxy": [sys.executable, str(twistd), "-n", "--pidfile=", "lbproxy", "-c", str(work / "lb.ini")],
    }
    if not shutil.which("haproxy"):
        del found["haproxy"]
    if not twistd.exists() or not lbproxy_installed():
        del found["lbproxy"]
    return found


def lbproxy_installed() -> bool:
    """Ask twistd itself, in a process of its own."""
    script = "from twisted.application.app import service, reactors; from twisted.plugin import getPlugins\n"
    script += "import sys; sys.exit('lbproxy' not in [p.tapname for p in getPlugins(service.IServiceMaker)])"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def rule_texts(case: Case) -> Values:
    """The rules in each proxy's own words; rule N leads to target a (even) or b (odd)."""
    texts = {"RULES_HAPROXY": "", "HOST_RULES": "", "PATH_RULES": "", "RULES_LBPROXY": ""}
    if not case.rules:
        return texts
    numbers = [(n, "ab"[n % 2]) for n in range(RULES)]
    # HAProxy tries one use_backend after the other; many rules go into a map
    texts["RULES_HAPROXY"] = (
        "    http-request set-var(txn.group) req.hdr(host),host_only,lower,map_str(@WORK@/hosts.map)\n"
        "    http-request set-var(txn.group) path,map_beg(@WORK@/paths.map) unless { var(txn.group) -m found }\n"
        "    use_backend %[var(txn.group)] if { var(txn.group) -m found }"
    )
    texts["HOST_RULES"] = "\n".join(f"    h{n:04}.bench.example {group};" for n, group in numbers)
    texts["PATH_RULES"] = "\n".join(
        f"    location ^~ /p{n:04}/ {{ proxy_pass http://{group}; }}" for n, group in numbers
    )
    rule = "[rule:{0}{1}]\nlistener = web\npriority = {2}\n{3}\naction = forward {4}\n"
    texts["RULES_LBPROXY"] = "\n".join(
        [rule.format("h", n, n + 1, f"host = h{n:04}.bench.example", group) for n, group in numbers]
        + [rule.format("p", n, n + 1 + RULES, f"path = /p{n:04}/*", group) for n, group in numbers]
    )
    return texts


def write_configuration(work: Path, values: Values, case: Case) -> None:
    rules = rule_texts(case)
    for name, own_rules in (("haproxy.cfg", "HAPROXY"), ("nginx.conf", ""), ("lb.ini", "LBPROXY")):
        text = (TEMPLATES / name).read_text()
        for key, value in {"RULES": rules.get("RULES_" + own_rules, ""), **rules, **values}.items():
            text = text.replace(f"@{key}@", value)
        (work / name).write_text(text)
    (work / "hosts.map").write_text("".join(f"h{n:04}.bench.example {'ab'[n % 2]}\n" for n in range(RULES)))
    (work / "paths.map").write_text("".join(f"/p{n:04}/ {'ab'[n % 2]}\n" for n in range(RULES)))


# Right answers, then the load


def get(port: int, path: str, host: str = "127.0.0.1", tls: bool = False) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()


def check_answers(case: Case, port: int, work: Path) -> None:
    """Fail unless the proxy does what is to be measured."""
    tls = case.port == "HTTPS"
    end = time.monotonic() + 5  # until both targets are known to be healthy
    while True:
        seen = [get(port, "/", tls=tls) for _ in range(4)]
        if set(seen) == {(200, f"{target}{BODY}".encode()) for target in "AB"}:
            break
        if time.monotonic() < end:
            time.sleep(0.1)
            continue
        raise SystemExit(f"{case.name}: wrong answers, or not from both targets: {seen}")
    if case.name == "download" and get(port, "/files/check") != (200, (work / "files" / "check").read_bytes()):
        raise SystemExit("download: the file arrived changed")
    if case.rules:
        for n in (0, 1, 2, 499, 500, 998, 999):
            right = (200, f"{'AB'[n % 2]}{BODY}".encode())
            for host, path in ((f"h{n:04}.bench.example", "/"), ("other.example", f"/p{n:04}/x")):
                if get(port, path, host) != right:
                    raise SystemExit(f"rules: {host}{path} went wrong: {get(port, path, host)}")


def run_wrk(case: Case, port: int, seconds: int, cpu: int | None) -> dict[str, float]:
    scheme = "https" if case.port == "HTTPS" else "http"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(TEMPLATES / "wrk.lua"), *case.wrk]
    command += [f"{scheme}://127.0.0.1:{port}/", *case.wrk_script]
    done = subprocess.run(
        pinned(command, cpu), capture_output=True, text=True, timeout=seconds + 30, check=True, env=os.environ
    )
    summary: dict[str, float] = json.loads(done.stdout.rpartition("JSON ")[2])
    return summary


def run_h2load(port: int, seconds: int, cpu: int | None, work: Path) -> dict[str, float]:
    """The same figures of a load with HTTP/2."""
    log = work / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", "-D", str(seconds), f"--log-file={log}"]
    command.append(f"https://127.0.0.1:{port}/")
    done = subprocess.run(pinned(command, cpu), capture_output=True, text=True, timeout=seconds + 30, check=True)
    if "Application protocol: h2" not in done.stdout:
        raise SystemExit(f"h2load was not given HTTP/2:\n{done.stdout}")
    answers = [line.split("\t") for line in log.read_text().splitlines()]
    good = [int(took) for _, status, took in answers if status == "200"]
    if not good:
        raise SystemExit(f"h2load got no answer:\n{done.stdout}")
    good.sort()
    return {
        "requests": len(good),
        "seconds": seconds,
        "p50_ms": good[len(good) // 2] / 1e3,
        "p99_ms": good[len(good) * 99 // 100] / 1e3,
        "errors": 0,
        "not_2xx": len(answers) - len(good),
    }


def download(port: int) -> float:
    """Fetch the large file, throw it away; give the seconds it took."""
    buffer = bytearray(1 << 20)
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/files/large")
        answer = connection.getresponse()
        received = 0
        while count := answer.readinto(buffer):
            received += count
    if answer.status != 200 or received != DOWNLOAD_BYTES:
        raise SystemExit(f"download: status {answer.status}, {received} bytes")
    return time.monotonic() - start


def measure(case: Case, port: int, pid: int, seconds: int, cpu: int | None, work: Path) -> Sample:
    if case.name == "download":
        before = cpu_seconds(pid)
        took = download(port)
        gigabytes = DOWNLOAD_BYTES / 1e9
        used = cpu_seconds(pid) - before
        return Sample(used / gigabytes, gigabytes / took, took * 1e3, took * 1e3, memory_mib(pid), 0)

    def load(duration: int) -> dict[str, float]:
        return run_h2load(port, duration, cpu, work) if case.name == "http2" else run_wrk(case, port, duration, cpu)

    load(WARM_UP_SECONDS)
    before = cpu_seconds(pid)
    result = load(seconds)
    used = cpu_seconds(pid) - before
    requests = max(result["requests"], 1)
    return Sample(
        used * 1e6 / requests,
        requests / result["seconds"],
        result["p50_ms"],
        result["p99_ms"],
        memory_mib(pid),
        int(result["errors"] + result["not_2xx"]),
    )


# The whole


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def prepare(work: Path) -> Values:
    """Make ports, certificate and files; write the target's configuration."""
    names = ("HTTP", "HTTPS", "TCP", "TARGET_A", "TARGET_B")
    values = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    values |= {"WORK": str(work), "BODY": BODY}
    key, certificate = work / "key.pem", work / "certificate.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    (work / "both.pem").write_text(certificate.read_text() + key.read_text())
    files = work / "files"
    files.mkdir()
    (files / "check").write_bytes(os.urandom(1 << 20))
    with (files / "large").open("wb") as large:
        large.truncate(DOWNLOAD_BYTES)  # sparse: it takes no room
    os.chmod(work, 0o755)  # nginx' worker may run as another user
    text = (TEMPLATES / "target.conf").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (work / "target.conf").write_text(text)
    return values


def run(proxies: list[str], cases: list[Case], rounds: int, seconds: int) -> dict[str, dict[str, list[Sample]]]:
    """Measure every proxy in every case, in turn, so that what disturbs the machine meets all alike."""
    cpus = sorted(os.sched_getaffinity(0))
    proxy_cpu, load_cpu = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    if load_cpu is None:
        print("only one CPU: nothing is pinned, expect noise", file=sys.stderr)
    else:
        os.sched_setaffinity(0, {load_cpu})
    samples: dict[str, dict[str, list[Sample]]] = {case.name: {name: [] for name in proxies} for case in cases}
    with tempfile.TemporaryDirectory(prefix="lbproxy-bench-") as folder:
        work = Path(folder)
        values = prepare(work)
        target = ["nginx", "-c", str(work / "target.conf")]
        targets = [int(values["TARGET_A"]), int(values["TARGET_B"])]
        ports = [int(values[name]) for name in ("HTTP", "HTTPS", "TCP")]
        available = commands(work)
        with running(target, load_cpu, targets, work / "target.log"):
            for number in range(rounds):
                for case in cases:
                    write_configuration(work, values, case)
                    first = number % len(proxies)
                    for name in proxies[first:] + proxies[:first]:
                        with running(available[name], proxy_cpu, ports, work / f"{name}.log") as pid:
                            port = int(values[case.port])
                            check_answers(case, port, work)
                            sample = measure(case, port, pid, seconds, load_cpu, work)
                        samples[case.name][name].append(sample)
                        print(f"round {number + 1} {case.name:<10} {name:<8} {sample.cost:8.2f}", file=sys.stderr)
    return samples


def medians(samples: list[Sample]) -> Sample:
    columns = zip(*map(attrs.astuple, samples), strict=True)
    *values, errors = (list(column) for column in columns)
    return Sample(*map(statistics.median, values), errors=sum(errors))


def table(samples: dict[str, dict[str, list[Sample]]]) -> str:
    """Markdown, to be read in a terminal as well."""
    lines = [machine()]
    for case in CASES:
        if case.name not in samples:
            continue
        units = ("CPU s/GB", "GB/s") if case.name == "download" else ("CPU us/request", "requests/s")
        lines += ["", case.title, ""]
        lines.append(
            f"| {'proxy':<8} | {units[0]:>14} | to haproxy | {units[1]:>10} | p50 ms | p99 ms | memory MiB | errors |"
        )
        lines.append(f"| {'-' * 8} | {'-' * 13}: | ---------: | ---------: | -----: | -----: | ---------: | -----: |")
        results = {name: medians(each) for name, each in samples[case.name].items()}
        reference = results.get("haproxy")
        for name, result in results.items():
            latency = f"{result.p50_ms:6.2f} | {result.p99_ms:6.2f}"
            if case.name == "download":
                latency = f"{'':6} | {'':6}"
            ratio = f"{result.cost / reference.cost:10.2f}" if reference and reference.cost else " " * 10
            places = 2 if case.name == "download" else 0
            lines.append(
                f"| {name:<8} | {result.cost:14.2f} | {ratio} | {result.rate:10.{places}f} "
                f"| {latency} | {result.memory_mib:10.1f} | {result.errors:6d} |"
            )
    return "\n".join(lines)


def machine() -> str:
    """Say what the figures were measured on."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    haproxy = ["missing"]
    if shutil.which("haproxy"):
        haproxy = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=False).stdout.split(" ")[2:3]
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.strip()
    return (
        f"{os.cpu_count()} x {model}, Linux {os.uname().release}, Python {sys.version.split()[0]}, "
        f"haproxy/{''.join(haproxy)}, {nginx.rpartition(' ')[2]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], help="may be repeated")
    parser.add_argument("--proxies", help="a list with commas; else all that are installed")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON instead of the table")
    options = parser.parse_args()
    for tool in ("nginx", "wrk", "h2load", "openssl", "taskset"):
        if not shutil.which(tool):
            raise SystemExit(
                f"{tool} is missing: apt install haproxy nginx-light libnginx-mod-stream wrk nghttp2-client openssl"
            )
    available = commands(Path())
    proxies = options.proxies.split(",") if options.proxies else list(available)
    for name in proxies:
        if name not in available:
            raise SystemExit(f"{name} is not installed; there are: {', '.join(available)}")
    if not options.proxies and len(available) < 3:
        print(f"measuring only {', '.join(available)}; the others are not installed", file=sys.stderr)
    cases = [case for case in CASES if not options.only or case.name in options.only]
    samples = run(proxies, cases, max(options.rounds, 1), max(options.seconds, 1))
    if any(sample.errors for case in samples.values() for each in case.values() for sample in each):
        print("some requests failed: look at the errors before the figures", file=sys.stderr)
    if options.json:
        print(json.dumps(samples, default=attrs.asdict, indent=1))
    else:
        print(table(samples))


if __name__ == "__main__":
    main()
