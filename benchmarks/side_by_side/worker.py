"""A process of one system: does what the runner asks for on its standard input, a line of JSON at a time.

Runs in the system's own environment, so it imports the standard library and that system only.
"""

from __future__ import annotations

import time

BEGIN = time.perf_counter()

import contextlib  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.side_by_side.systems.system import System


def cpu() -> float:
    """Seconds of processor that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def reset_peak() -> None:
    """Let :func:`peak` begin from here, where Linux can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak() -> int:
    """The most memory that was resident at once, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def run(system: System, workload: str, count: int, budget: float) -> dict[str, Any]:
    """Sessions one after the other: so many, or as many as begin within the budget of seconds, but one at least."""
    calls: dict[str, Callable[[int], Any]] = {
        "read": lambda _: system.read(),
        "commit": lambda number: system.commit(1, name(number)),
        "commit-100": lambda number: system.commit(100, name(number)),
    }
    stamp = time.monotonic_ns()

    def name(number: int) -> str:
        return f"changed {stamp} {number}"

    call = calls[workload]
    walls: list[float] = []
    value: Any = None
    reset_peak()
    begin, used = time.perf_counter(), cpu()
    for number in range(count):
        start = time.perf_counter()
        value = call(number)
        walls.append(time.perf_counter() - start)
        if time.perf_counter() - begin > budget:
            break
    if workload != "read":
        value = name(len(walls) - 1)
    return {"walls": walls, "cpu": (cpu() - used) / len(walls), "peak": peak(), "value": value}


def compete(system: System, what: str, until: float) -> dict[str, Any]:
    """Sessions until a moment of the monotonic clock; each with the moments of its begin and end, and its value."""
    call: Callable[[], int] = system.increment if what == "increment" else lambda: system.read()[1]
    sessions: list[tuple[float, float, int]] = []
    errors: Counter[str] = Counter()
    while (start := time.monotonic()) < until:
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - counted: no acknowledgement, whatever it is
            errors[type(error).__name__] += 1
        else:
            sessions.append((start, time.monotonic(), value))
    return {"sessions": sessions, "errors": errors}


def main() -> None:
    """Answer on what was standard output; what a system prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = json.loads(sys.argv[1])
    module = importlib.import_module(f"benchmarks.side_by_side.systems.{config['module']}")
    system: System = module.make(config)
    if config["first"]:
        system.read()
        answer: dict[str, Any] = {"wall": time.perf_counter() - BEGIN, "cpu": cpu(), "peak": peak()}
        print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["do"] == "run":
                answer = run(system, asked["workload"], asked["count"], asked["budget"])
            else:
                answer = compete(system, asked["what"], asked["until"])
        except Exception as error:  # noqa: BLE001 - the runner reports it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
