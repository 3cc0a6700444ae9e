#!/usr/bin/env python3
"""Measure what a request costs: lbproxy beside HAProxy and nginx, on this machine.

    python bench/bench.py                      everything, some fifteen minutes
    python bench/bench.py --only https --rounds 5 --seconds 5
    python bench/bench.py --proxies haproxy,nginx --json

Run it with the interpreter of the environment that lbproxy is installed in.  The rest are Debian packages:
haproxy nginx-light libnginx-mod-stream wrk nghttp2-client openssl util-linux gcc libssl-dev; a proxy that is
missing is left out.
docs/performance.md tells the method and how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import attrs
from cases import CASES, IDLE_CONNECTIONS, Case, Unit
from loads import Load, Sample, compile_generator
from processes import running
from proxies import PORTS, SINKS, TARGETS, commands, machine, prepare, write_configuration

Samples = dict[str, dict[str, list[Sample]]]


class Bench:
    """The target runs; a proxy at a time is started, checked, put under load and ended."""

    def __init__(self, work: Path, proxies: list[str], seconds: int) -> None:
        self.work = work
        self.proxies = proxies
        self.seconds = seconds
        self.cpus = sorted(os.sched_getaffinity(0))
        if len(self.cpus) < 2:
            print("only one CPU: everything shares it, expect noise", file=sys.stderr)
        self.values = prepare(work)
        self.commands = commands(work)
        self.paced_rate = 0.0

    def run(self, cases: list[Case], rounds: int) -> Samples:
        """Measure every proxy in every case, in turn, so that what disturbs the machine meets all alike."""
        os.sched_setaffinity(0, self.cpus[-1:])
        samples: Samples = {case.name: {name: [] for name in self.proxies} for case in cases}
        target = ["nginx", "-c", str(self.work / "target.conf")]
        sink = [sys.executable, str(Path(__file__).parent / "sink.py"), *(self.values[name] for name in SINKS)]
        with (
            running(target, self.cpus[-1:], self.ports(TARGETS), self.work / "target.log"),
            running(sink, self.cpus[-1:], self.ports(SINKS), self.work / "sink.log"),
        ):
            for number in range(rounds):
                for case in cases:
                    write_configuration(self.work, self.values, case)
                    if case.paced and not self.paced_rate:
                        reference = reference_of(self.proxies)
                        self.paced_rate = self.measure(attrs.evolve(case, paced=False), reference).rate / 2
                        print(f"half of {reference}'s capacity: {self.paced_rate:.0f}/s", file=sys.stderr)
                    first = number % len(self.proxies)
                    for name in self.proxies[first:] + self.proxies[:first]:
                        sample = self.measure(case, name)
                        samples[case.name][name].append(sample)
                        print(f"round {number + 1} {case.name:<14} {name:<8} {sample.cost:8.2f}", file=sys.stderr)
        return samples

    def ports(self, names: tuple[str, ...]) -> list[int]:
        return [int(self.values[name]) for name in names]

    def measure(self, case: Case, proxy: str) -> Sample:
        """One sample, from a fresh start of the proxy."""
        own, others = self.cpus[:1], self.cpus[-1:]
        if case.shared_cpus:
            own = others = self.cpus[:2]
        with running(self.commands[proxy], own, self.ports(PORTS), self.work / f"{proxy}.log") as pid:
            rate = self.paced_rate if case.paced else 0
            load = Load(case=case, port=int(self.values[case.port]), cpus=others, work=self.work, rate=rate)
            load.check_answers()
            return load.measure(pid, self.seconds)


def reference_of(proxies: list[str]) -> str:
    """The one that the others are compared with."""
    return "haproxy" if "haproxy" in proxies else proxies[0]


def medians(samples: list[Sample]) -> Sample:
    columns = zip(*map(attrs.astuple, samples), strict=True)
    *values, errors = (list(column) for column in columns)
    return Sample(*map(statistics.median, values), errors=sum(errors))


def table(samples: Samples) -> str:
    """Markdown, to be read in a terminal as well."""
    lines = [machine()]
    for case in CASES:
        if case.name not in samples:
            continue
        cost, rate = case.unit.value
        results = {name: medians(each) for name, each in samples[case.name].items()}
        reference = reference_of(list(results))
        lines += ["", case.title, ""]
        lines.append(
            f"| {'proxy':<8} | {cost:>14} | to {reference:<7} | {rate:>10} | p50 ms | p99 ms | memory MiB | errors |"
        )
        lines.append(f"| {'-' * 8} | {'-' * 13}: | ---------: | ---------: | -----: | -----: | ---------: | -----: |")
        for name, result in results.items():
            rate = p50 = p99 = ""
            if case.unit is Unit.REQUEST:
                rate, p50, p99 = f"{result.rate:.0f}", f"{result.p50_ms:.2f}", f"{result.p99_ms:.2f}"
            elif case.unit is Unit.GIGABYTE:
                rate = f"{result.rate:.2f}"
            ratio = f"{result.cost / results[reference].cost:.2f}" if results[reference].cost else ""
            lines.append(
                f"| {name:<8} | {result.cost:14.2f} | {ratio:>10} | {rate:>10} | {p50:>6} | {p99:>6} "
                f"| {result.memory_mib:10.1f} | {result.errors:6d} |"
            )
    return "\n".join(lines)


def require_tools() -> None:
    for tool in ("nginx", "wrk", "h2load", "openssl", "taskset", "gcc"):
        if not shutil.which(tool):
            raise SystemExit(
                f"{tool} is missing: apt install haproxy nginx-light libnginx-mod-stream wrk nghttp2-client openssl "
                "util-linux gcc libssl-dev"
            )


def allow_descriptors() -> None:
    """All that are allowed, for the children; enough for the idle connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < IDLE_CONNECTIONS * 1.5:
        raise SystemExit(f"{most} descriptors are too few: ulimit -Hn 20000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], help="may be repeated")
    parser.add_argument("--proxies", help="a list with commas; else all that are installed")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON instead of the table")
    options = parser.parse_args()
    require_tools()
    available = commands(Path())
    proxies = options.proxies.split(",") if options.proxies else list(available)
    for name in proxies:
        if name not in available:
            raise SystemExit(f"{name} is not installed; there are: {', '.join(available)}")
    if not options.proxies and len(available) < 3:
        print(f"measuring only {', '.join(available)}; the others are not installed", file=sys.stderr)
    allow_descriptors()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    with tempfile.TemporaryDirectory(prefix="lbproxy-bench-") as folder:
        work = Path(folder)
        compile_generator(work)
        samples = Bench(work, proxies, max(options.seconds, 1)).run(cases, max(options.rounds, 1))
    if any(sample.errors for case in samples.values() for each in case.values() for sample in each):
        print("some requests failed: look at the errors before the figures", file=sys.stderr)
    if options.json:
        print(json.dumps(samples, default=attrs.asdict, indent=1))
    else:
        print(table(samples))


if __name__ == "__main__":
    main()
