"""Network namespaces of our own, and programs in them. All of it is gone at the end, after a failure too."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.facts import ROOT

MEMORY = Path("/dev/shm")
TOPOLOGY = ROOT / "vagrant" / "topology"


class Failed(Exception):
    """A command failed, or something did not happen in time."""


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def wait_until(condition, what, seconds=10.0):
    """Waits until it is true, and gives what it gave."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


class Lab:
    """`with Lab() as lab`: a directory, and namespaces that are made as they are asked for."""

    count = 0

    def __init__(self):
        Lab.count += 1
        self.prefix = f"tb{os.getpid()}-{Lab.count}"
        # In memory, as /run is, where tcpgw keeps its record.
        self.directory = Path(tempfile.mkdtemp(prefix="tcpgw-bench-", dir=MEMORY if MEMORY.is_dir() else None))
        self.spaces, self.processes = [], []
        self.log = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for space in list(self.spaces):
            space.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def namespace(self, host, forward=False):
        """A new one, with its loopback up."""
        space = Namespace(self, host)
        subprocess.run(["ip", "netns", "add", space.name], check=True)
        self.spaces.append(space)
        space.run("ip", "link", "set", "lo", "up")
        if forward:
            space.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        return space

    def topology(self):
        """The network that vagrant/topology draws, as {host: Namespace}."""
        hosts = "client gateway b1 b2 b3 b4 peer routed".split()
        found = {host: Namespace(self, host) for host in hosts}
        # Before they are there: whatever ends it in the middle, they are removed.
        self.spaces += found.values()
        subprocess.run([TOPOLOGY, "up", self.prefix], check=True)
        return found

    def link(self, left, left_name, right, right_name):
        """A veth pair between two namespaces."""
        subprocess.run(["ip", "link", "add", left_name, "netns", left.name, "type", "veth",
                        "peer", "name", right_name, "netns", right.name], check=True)
        for space, name in ((left, left_name), (right, right_name)):
            space.run("ip", "link", "set", name, "up")

    def file(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return path


class Namespace:
    """One network namespace. What runs in it keeps tcpgw's record in a directory of its own."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host
        self.name = f"{lab.prefix}-{host}"
        self.run_directory = lab.directory / f"run-{host}"
        self.run_directory.mkdir()
        self.environment = {**os.environ, "TCPGW_RUN_DIR": str(self.run_directory), "TCPGW_CONFIG": "/dev/null"}

    def argv(self, *argv):
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def run(self, *argv, stdin=None):
        """Runs a command there to its end and gives what it printed."""
        done = subprocess.run(self.argv(*argv), input=stdin, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *argv, stdin=None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        """Starts a program there, which is killed at the end of the lab if it is still running then."""
        process = subprocess.Popen(self.argv(*argv), stdin=stdin, stdout=stdout, stderr=stderr, env=self.environment)
        self.lab.processes.append(process)
        return process

    def measure(self, *argv, allowed=(0,), timeout=None):
        """Runs a command there: seconds of the clock, in user space, in the kernel, its peak of memory in MB, what it
        said.

        None when it was still running after `timeout` seconds and was ended. The start of `ip netns exec` and of GNU
        time (3 ms) is in the figures, of every program alike. The peak is what time says: to wait4 a process has had at
        least the memory of the one that started it.
        """
        peak = self.lab.directory / "peak"
        argv = ["/usr/bin/time", "-q", "-f", "%M", "-o", peak, *argv]
        with (self.lab.directory / "measured").open("w+b") as output:
            begin = time.perf_counter()
            actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
            pid = os.posix_spawnp("ip", self.argv(*argv), self.environment, file_actions=actions, setpgroup=0)
            late = threading.Event()
            timer = timeout and threading.Timer(timeout, lambda: (late.set(), os.killpg(pid, signal.SIGKILL)))
            if timer:
                timer.start()
            try:
                _, status, usage = os.wait4(pid, 0)
            except BaseException:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            finally:
                if timer:
                    timer.cancel()
            elapsed = time.perf_counter() - begin
            output.seek(0)
            said = output.read().decode(errors="replace")
        if late.is_set():
            return None
        code = os.waitstatus_to_exitcode(status)
        if code not in allowed:
            raise Failed(f"{' '.join(map(str, argv))}: exit code {code}\n{said[-2000:]}")
        return {
            "seconds": elapsed,
            "user": usage.ru_utime,
            "kernel": usage.ru_stime,
            "megabytes": int(peak.read_text()) / 1024,
            "said": said,
        }

    def remove(self):
        """It, and what runs in it. What is not there any more is no trouble."""
        self.lab.spaces.remove(self)
        if not Path("/run/netns", self.name).exists():
            return
        pids = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout.split()
        if pids:
            subprocess.run(["kill", "-KILL", *pids], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "delete", self.name], check=False)

    def sysctl(self, values):
        for key, value in values.items():
            self.run("sysctl", "-qw", f"{key}={value}")

    def address(self, interface, *addresses):
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))

    def listens(self, port):
        """Whether a TCP socket listens on that port there."""
        return bool(self.run("ss", "-Hltn", f"sport = :{port}").strip())

    def await_listener(self, port, seconds=10.0):
        wait_until(lambda: self.listens(port), f"a listener on port {port} in {self.host}", seconds)
