"""One run: all systems, on one machine, on one server, through one proxy. Writes docs/benchmarks/results.json.

``--quick`` takes a minute or two and is for trying out; the published figures come from a run without it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks._common import table
from benchmarks.side_by_side import page
from benchmarks.side_by_side.catalogue import ENTRIES, Entry
from benchmarks.side_by_side.contest import contest
from benchmarks.side_by_side.database import Original
from benchmarks.side_by_side.environments import ROOT, MissingError, python_for, versions
from benchmarks.side_by_side.measure import Bench, measure, measure_first
from benchmarks.side_by_side.proxy import WINDOW, Proxy
from temaki.testing import seaweedfs_server

SEED = 20_250
MB = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What is measured on a database of one size at one round trip.

    Attributes:
        size: In bytes.
        rtt: In seconds.
        counts: Of sessions for each workload.
        budget: Seconds after which no new session of a workload begins.
        systems: Only these, where given.
    """

    size: int
    rtt: float
    counts: dict[str, int]
    budget: float
    systems: tuple[str, ...] = ()


def _plan(  # noqa: PLR0917 - the table below
    size: float,
    rtt: int,
    reads: int,
    afters: int,
    commits: int,
    hundreds: int,
    firsts: int,
    systems: tuple[str, ...] = (),
) -> Plan:
    counts = {"read": reads, "read-after": afters, "commit": commits, "commit-100": hundreds, "first": firsts}
    return Plan(int(size * MB), rtt / 1000, counts, 2.0 if size < 100 else 4.0, systems)


# What moves gigabytes is asked of a few.
_LARGE = (
    "boto3, requests alone",
    "temaki etag-cached",
    "temaki etag-cached in pages",
    "by hand, one GET, one PUT",
    "by hand, boto3 transfers",
)
FULL = (
    _plan(0.1, 20, 20, 6, 8, 0, 0),
    _plan(1, 0, 200, 20, 40, 20, 7),
    _plan(1, 5, 60, 0, 20, 0, 0),
    _plan(1, 20, 40, 10, 20, 10, 7),
    _plan(1, 50, 20, 0, 10, 0, 0),
    _plan(10, 20, 8, 3, 3, 0, 0),
    _plan(100, 0, 3, 7, 2, 0, 0, ("local SQLite", *_LARGE, "temaki always-download", "django-s3-sqlite", "buckethead")),
    _plan(100, 50, 0, 2, 0, 0, 0, (*_LARGE, "temaki always-download", "buckethead")),
    _plan(300, 0, 1, 3, 1, 0, 0, _LARGE),
)
QUICK = (_plan(0.1, 0, 3, 2, 2, 2, 1), _plan(1, 20, 3, 2, 2, 0, 1))


@contextmanager
def server_behind_proxy() -> Iterator[Bench]:
    """SeaweedFS, the proxy before it, and a bucket."""
    with ExitStack() as stack:
        server = stack.enter_context(seaweedfs_server())
        parts = urlsplit(server.endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        proxy = stack.enter_context(Proxy(parts.hostname, parts.port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="temaki-bench-")))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            **server.environment,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}",
        }
        sources = folder / "sources"
        sources.mkdir()
        (sources / "benchmarks").symlink_to(ROOT / "benchmarks")
        yield Bench(server.client(read_timeout=120), server.bucket(), proxy, folder, environment, sources)


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names it."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gib": round(memory / (1 << 30)),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "gives_memory_back": _gives_memory_back(),
    }


def _gives_memory_back() -> bool:
    """Whether this is a virtual machine that gives free memory back to its host, so that it is slow to get again.

    Linux, "Free page reporting": of blocks from a certain order up to the largest, which is 10.
    """
    order = Path("/sys/module/page_reporting/parameters/page_reporting_order")
    return order.exists() and 0 <= int(order.read_text(encoding="ascii")) <= 10


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the results and the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("--output", type=Path, help="folder for results and pages (default: docs/benchmarks)")
    arguments = parser.parse_args(argv)
    plans, seconds = (QUICK, 1.5) if arguments.quick else (FULL, 3.0)
    folder: Path = arguments.output or page.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    results: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "quick": arguments.quick,
        "machine": machine(),
        "seed": SEED,
        "window": WINDOW,
        "contest": {"size": MB, "rtt": 0.020, "seconds": seconds, "writers": 8, "readers": 8},
        "systems": {},
        "cells": [],
        "contests": [],
    }
    pythons: dict[str, Path] = {}
    entries = [entry for entry in ENTRIES if arguments.only in entry.name]
    for entry in entries:
        about: dict[str, Any] = {"note": entry.note, "why_not": entry.why_not}
        try:
            pythons[entry.name] = python_for(entry)
            about["versions"] = versions(entry, pythons[entry.name])
        except MissingError as error:
            about["missing"] = str(error)
        results["systems"][entry.name] = about
    with server_behind_proxy() as bench:
        for plan in plans:
            original = Original(bench.folder / "original.sqlite", plan.size, SEED)
            for entry in entries:
                if entry.name in pythons and plan.size <= entry.largest and entry.name in (plan.systems or pythons):
                    results["cells"] += cells(bench, entry, pythons[entry.name], original, plan)
            print(f"== {plan.size / MB:g} MB, {plan.rtt * 1000:g} ms: {time.monotonic() - begin:.0f} s", flush=True)
            (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        original = Original(bench.folder / "original.sqlite", MB, SEED)
        for what in ("writers", "readers"):
            for entry in entries:
                if entry.name in pythons and what in entry.workloads:
                    found = contest(bench, entry, pythons[entry.name], original, what, 0.020, seconds)
                    results["contests"].append(found)
                    print(f"  {what}: {found}", flush=True)
    results["seconds"] = round(time.monotonic() - begin)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page.write(folder)
    show(results)


def cells(bench: Bench, entry: Entry, python: Path, original: Original, plan: Plan) -> list[dict[str, Any]]:
    """All that one system does on one plan."""
    done: list[dict[str, Any]] = []
    bench.proxy.link = type(bench.proxy.link)(plan.rtt)
    workloads = [name for name, count in plan.counts.items() if count and name in entry.workloads]
    counts = {name: plan.counts[name] for name in workloads if name != "first"}
    if counts:
        done += measure(bench, entry, python, original, counts, plan.budget)
    if "first" in workloads:
        done += measure_first(bench, entry, python, original, plan.counts["first"])
    for cell in done:
        cell.update(system=entry.name, size=plan.size, rtt=plan.rtt)
    return done


def show(results: dict[str, Any]) -> None:
    """A table of everything, for whoever runs it."""
    head = ("system", "MB", "RTT", "workload", "n", "p50 ms", "p95", "cpu ms", "peak MB", "requests", "up", "down", "")
    rows = []
    for cell in results["cells"]:
        place = [cell["system"], f"{cell['size'] / MB:g}", f"{cell['rtt'] * 1000:g}", cell["workload"]]
        if "error" in cell:
            rows.append([*place, *["-"] * 8, cell["error"][:60]])
            continue
        asked = " ".join(f"{count:g} {name}" for name, count in cell["requests"].items())
        rows.append([
            *place, str(cell["n"]), f"{cell['p50'] * 1e3:.1f}", f"{cell['p95'] * 1e3:.1f}", f"{cell['cpu'] * 1e3:.1f}",
            f"{cell['peak'] / 1e6:.0f}", asked, f"{cell['bytes_up']:,.0f}", f"{cell['bytes_down']:,.0f}",
            " ".join(name for name in ("stale", "lost") if cell.get(name)),
        ])  # fmt: skip
    table(head, rows)


if __name__ == "__main__":
    main()
