"""CPU time: of the whole machine, and of processes."""

import os
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PARTS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def machine():
    """Seconds since boot by what they were spent on, and `busy`: all but idle, waiting and stolen. Packets are mostly
    forwarded in softirq, which is nobody's process: only here they show."""
    numbers = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    seconds = {name: int(number) / TICKS for name, number in zip(PARTS, numbers)}
    seconds["busy"] = sum(seconds[name] for name in ("user", "nice", "system", "irq", "softirq"))
    return seconds


def since(before):
    now = machine()
    return {name: now[name] - before[name] for name in now}


def of_process(pid):
    """Seconds of a process and the children it has waited for; 0 when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, after_name[11:15])) / TICKS


def split_of_process(pid):
    """[user, kernel] seconds of a process, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(field) / TICKS for field in fields[11:13]]


def peak_megabytes(pid):
    """The most memory that a running process has had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def of_namespace(space):
    """Seconds of the processes that are now in a namespace."""
    pids = subprocess.run(["ip", "netns", "pids", space.name], capture_output=True, text=True).stdout.split()
    return sum(of_process(pid) for pid in pids)
