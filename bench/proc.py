"""What Linux tells about processes: CPU time, memory and descriptors, with all their children."""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.programs import NotInstalledError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KERNEL_THREADS = 2
"""The parent of all kernel threads; what they do is done for somebody else, so they count for nobody."""

CPUCLOCK_SCHED = 2
"""Linux: the clock of all that a process has run, in user and in system mode."""

MOST_DESCRIPTORS = 100_000
"""More than any work needs."""


class Process(NamedTuple):
    """One line of /proc/<pid>/stat. The CPU seconds include those of children that were waited for."""

    pid: int
    parent: int
    cpu_s: float


class Memory(NamedTuple):
    """In MB of 10^6 bytes. PSS shares the pages that several processes map among them; RSS counts them for each."""

    pss_mb: float
    rss_mb: float


def processes() -> dict[int, Process]:
    found = (_read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return {process.pid: process for process in found if process is not None}


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None  # It ended while the list was read.
    # The second field is the name in parentheses, which may hold anything; user, system and children's times follow.
    fields = stat[stat.rindex(")") + 2 :].split()
    return Process(pid, int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_S)


def family(root: int, everyone: dict[int, Process]) -> Iterator[Process]:
    """A process and all below it."""
    if root in everyone:
        yield everyone[root]
    for process in everyone.values():
        if process.parent == root:
            yield from family(process.pid, everyone)


def cpu_seconds(root: int) -> float:
    """CPU time of a process and all below it that live, by the clock of each, which counts nanoseconds.

    /proc tells it in ticks of 10 ms, a twentieth of what some works take.
    """
    return sum(time.clock_gettime(_cpu_clock(process.pid)) for process in family(root, processes()))


def _cpu_clock(pid: int) -> int:
    """clock_getcpuclockid(3), which Python has for its own threads alone."""
    return ~pid << 3 | CPUCLOCK_SCHED


def cpu_seconds_of_others() -> float:
    """CPU time of all processes that are neither this one, nor below it, nor part of the kernel."""
    everyone = processes()
    left_out = {p.pid for p in family(os.getpid(), everyone)} | {p.pid for p in family(KERNEL_THREADS, everyone)}
    return sum(process.cpu_s for process in everyone.values() if process.pid not in left_out)


def memory(root: int) -> Memory:
    pss_kb = rss_kb = 0
    for process in family(root, processes()):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            name, *value = line.split()
            if name == "Pss:":
                pss_kb += int(value[0])
            elif name == "Rss:":
                rss_kb += int(value[0])
    return Memory(pss_kb * 1024 / 1e6, rss_kb * 1024 / 1e6)


def forget_peak(root: int) -> None:
    """The peak is what it is now."""
    for process in family(root, processes()):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_rss_mb(root: int) -> float:
    """The largest RSS since then, of each process."""
    peak_kb = 0
    for process in family(root, processes()):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kb += int(status.partition("VmHWM:")[2].split()[0])
    return peak_kb * 1024 / 1e6


def descriptors(root: int) -> int:
    """How many file descriptors a process and its children have open."""
    return sum(len(os.listdir(f"/proc/{process.pid}/fd")) for process in family(root, processes()))


def raise_descriptor_limit() -> None:
    """As far as the system allows: for this process, and for the brokers and clients that it starts from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_descriptors(count: int) -> None:
    """Raises NotInstalledError where one process may not open that many."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        raise NotInstalledError(f"{count:,} file descriptors are needed, and {soft:,} allowed (ulimit -Hn)")
