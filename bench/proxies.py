"""The proxies: how each is started and configured for a case, alike in all that counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from cases import BODY, DOWNLOAD_BYTES, MESSAGE, RULES, Case

TEMPLATES = Path(__file__).parent / "templates"
PORTS = ("HTTP", "HTTPS", "TCP", "GRPC")
TARGETS = ("TARGET_A", "TARGET_B", "GRPC_A", "GRPC_B")
SINKS = ("SINK_A", "SINK_B")
"""Stand for the targets where uploads are measured."""

Values = dict[str, str]


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


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def prepare(work: Path) -> Values:
    """Make ports, certificate and files; write the target's configuration."""
    names = (*PORTS, *TARGETS, *SINKS)
    values = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    values |= {"WORK": str(work), "BODY": BODY}
    key, certificate = work / "key.pem", work / "certificate.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    (work / "message").write_bytes(MESSAGE)
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
    """Write every proxy's files for a case."""
    rules = rule_texts(case)
    values = {**values, "WORKERS": str(case.workers)}
    if case.upload:
        values |= {target: values[sink] for target, sink in zip(TARGETS, SINKS, strict=False)}
    for name, own_rules in (("haproxy.cfg", "HAPROXY"), ("nginx.conf", ""), ("lb.ini", "LBPROXY")):
        text = (TEMPLATES / name).read_text()
        for key, value in {"RULES": rules.get("RULES_" + own_rules, ""), **rules, **values}.items():
            text = text.replace(f"@{key}@", value)
        (work / name).write_text(text)
    (work / "hosts.map").write_text("".join(f"h{n:04}.bench.example {'ab'[n % 2]}\n" for n in range(RULES)))
    (work / "paths.map").write_text("".join(f"/p{n:04}/ {'ab'[n % 2]}\n" for n in range(RULES)))


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
