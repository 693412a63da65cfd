"""What the figures depend on: the machine, the kernel, the versions."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def gather():
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "kernel": platform.release().split("-")[0],
        "cpus": os.cpu_count(),
        "cpu": field("/proc/cpuinfo", r"model name\s*: (.*)") or platform.machine(),
        "memory_gb": round(int(field("/proc/meminfo", r"MemTotal:\s*(\d+)")) / 1024**2),
    }


def commit():
    """The commit that was measured, with a plus when what is committed was changed since."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if found.returncode != 0:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock"],
                             capture_output=True, text=True)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def version(*argv):
    """The first line that a program says about its version, None where there is no such program."""
    try:
        said = subprocess.run(argv, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    lines = (said.stdout + said.stderr).strip().splitlines()
    return lines[0] if lines else ""


def field(path, pattern):
    found = re.search(pattern, Path(path).read_text())
    return found and found.group(1)


def describe(facts):
    return (f"{facts['when']}, commit {facts['commit']}, Linux {facts['kernel']}, "
            f"{facts['cpus']} CPUs ({facts['cpu']}), {facts['memory_gb']} GB")
