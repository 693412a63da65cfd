"""A daemon in a namespace, the backends that it probes, and what one asks it."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from bench import cpu, states
from bench.lab import Failed, wait_until

GATEWAY, BACKENDS = "10.1.0.1", "10.1.0.2"
NETWORK = "10.2.0.0/15"
CLONE_NEWNET = 0x40000000
# Accepts what gets that far: most probes end with a reset before.
ACCEPTOR = """
import selectors, socket
chosen = selectors.DefaultSelector()
for port in (3000, 3001):
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    chosen.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in chosen.select():
        try:
            key.fileobj.accept()[0].close()
        except OSError:
            pass
"""


def network(lab):
    """The gateway, and one namespace that has the addresses of all backends."""
    gateway, backends = lab.namespace("gateway", forward=True), lab.namespace("backends")
    lab.link(gateway, "in", backends, "eth0")
    gateway.address("in", f"{GATEWAY}/24")
    backends.address("eth0", f"{BACKENDS}/24")
    gateway.run("ip", "route", "add", NETWORK, "via", BACKENDS)
    backends.run("ip", "route", "add", "local", NETWORK, "dev", "lo")
    backends.start(sys.executable, "-c", ACCEPTOR)
    backends.await_listener(3001)
    return gateway, backends


def segments_out(space):
    """TCP segments that a namespace has sent; to a probe the backends send one, the SYN-ACK."""
    head, numbers = (line.split() for line in space.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:"))
    return int(numbers[head.index("OutSegs")])


class StateFile:
    """A state file as an orchestrator writes it: whole, beside the old one, then renamed. One service at a time changes:
    its limit (one element for each backend and direction) or its first backend (to another port). While one is replaced its
    service has three: a few others have three, too, unless they are told to have as many as all."""

    FEWER = (1, 2, 3)

    def __init__(self, lab, services):
        made = json.loads(states.state(services))["services"]
        for service in made:
            service["drain_timeout"] = "1s"
        self.spare = {index: made[index]["backends"].pop() for index in self.FEWER}
        self.services, self.texts = made, [json.dumps(service) for service in made]
        self.path, self.beside = lab.directory / "state.json", lab.directory / "state.json.new"
        self.number = 0
        self.write()

    @property
    def backends(self):
        return sum(len(service["backends"]) for service in self.services)

    def even(self, even):
        """Whether all have as many backends; only the text."""
        for index, spare in self.spare.items():
            service = self.services[index]
            service["backends"] = service["backends"][:3] + ([spare] if even else [])
            self.texts[index] = json.dumps(service)

    def text(self):
        return '{"version":1,"services":[' + ",".join(self.texts) + "]}"

    def prepare(self):
        self.beside.write_text(self.text())

    def rename(self):
        self.beside.rename(self.path)

    def write(self):
        self.prepare()
        self.rename()

    def change(self, what):
        """Another service each time, spread over all of them; only the text."""
        index = self.number * 7919 % len(self.services)
        self.number += 1
        service = self.services[index]
        if what == "a limit":
            service["limit"] = {"pps": 1000 + self.number}
        else:
            address, port = service["backends"][0].split(":")
            service["backends"][0] = f"{address}:{6001 - int(port)}"
        self.texts[index] = json.dumps(service)


class Daemon:
    """One that was started and is ready. Its store is in memory, as all of a lab, unless `store` says where."""

    def __init__(self, lab, gateway, tcpgw, *flags, store=None):
        self.socket = lab.directory / "api.sock"
        told = lab.directory / "notify.sock"
        told.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(told))
            notify.settimeout(60)
            argv = gateway.argv(tcpgw, "daemon", "--socket", self.socket, "--store", store or lab.directory / "store.db",
                                *flags)
            environment = {**gateway.environment, "NOTIFY_SOCKET": str(told)}
            self.log = (lab.directory / "daemon.log").open("w+")
            self.begin = time.perf_counter()
            self.process = subprocess.Popen(argv, env=environment, stdout=self.log, stderr=self.log)
            lab.processes.append(self.process)
            try:
                while b"READY=1" not in notify.recv(4096):
                    pass
            except TimeoutError:
                raise Failed(f"the daemon was not ready in 60 s\n{self.said()}") from None
            self.seconds = time.perf_counter() - self.begin

    def said(self):
        self.log.seek(0)
        return self.log.read()[-2000:]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=30) != 0:
            raise Failed(f"the daemon ended with {self.process.returncode}\n{self.said()}")

    def usage(self):
        """[user, kernel] seconds."""
        return cpu.split_of_process(self.process.pid)

    def megabytes(self):
        """Of it in memory now."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))

    def connect(self):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(60)
        connected.connect(str(self.socket))
        return connected

    def ask(self, method, path, body=b""):
        with self.connect() as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
                               f"content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        head, _, text = answer.partition(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")):
            raise Failed(f"{method} {path}: {answer[:1000].decode(errors='replace')}")
        return text

    def about(self):
        return json.loads(self.ask("GET", "/v1/daemon"))

    def await_healthy(self, backends, seconds=60):
        """Until all backends are; the seconds since exec."""
        wait_until(lambda: self.about()["health"].get("healthy") == backends, "backends to be healthy", seconds)
        self.await_sync()
        return time.perf_counter() - self.begin

    def await_sync(self, seconds=30):
        answers = []

        def is_in_sync():
            try:
                answers.append(self.ask("GET", "/v1/healthz"))
                return True
            except Failed as failure:
                answers.append(failure)
                return False

        try:
            wait_until(is_in_sync, "the kernel to hold what is desired", seconds)
        except Failed as failure:
            raise Failed(f"{failure}: {answers[-1]}\n{self.said()}") from None


class Follower(threading.Thread):
    """Follows the events of a daemon; each gets the time at which it came, `seen`, by the clock of time.time()."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.connection = daemon.connect()
        self.connection.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        self.events, self.changed, self.closed = [], threading.Condition(), False
        self.start()

    def run(self):
        rest = b""
        try:
            while piece := self.connection.recv(1 << 16):
                now = time.time()
                *lines, rest = (rest + piece).split(b"\n")
                found = [json.loads(line[5:]) for line in lines if line.startswith(b"data:")]
                with self.changed:
                    self.events += [{**event, "seen": now} for event in found]
                    self.changed.notify_all()
        except OSError:
            pass

    def mark(self):
        """Where the events are that come from now on."""
        with self.changed:
            return len(self.events)

    def since(self, mark):
        with self.changed:
            return self.events[mark:]

    def await_one(self, kind, mark, seconds=20.0, unlike=None):
        """The first of a kind from there on, of another cause than `unlike`."""
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                for event in self.events[mark:]:
                    if event["event"] == kind and (unlike is None or event["cause"] != unlike):
                        return event
                if not self.changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise Failed(f"no event `{kind}` in {seconds:g} s: {self.events[mark:][-5:]}")

    def await_quiet(self, seconds=0.25, most=60.0):
        """Until nothing has come for that long."""
        end = time.monotonic() + most
        before = -1
        while before != (before := self.mark()) and time.monotonic() < end:
            time.sleep(seconds)

    def close(self):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.join(5)


@contextmanager
def inside(space):
    """This process in a namespace for a while: the daemon answers only to those of its own, and looks at the main thread."""
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{space.name}", "rb") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def enter(namespace):
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise Failed(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def forget(gateway):
    """No record of what was written any more: a run or a daemon has to read the kernel."""
    for entry in gateway.run_directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
