"""The networks in which churn is measured: who connects to what, through which rules, and who counts."""

import json
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Failed, Lab, wait_until

PUBLIC = ("203.0.113.1", "203.0.113.2")
PUBLIC_PORT, BACKEND_PORT = 20003, 3000
BACKENDS = ("b1", "b2", "b3", "b4")
ADDRESSES = {name: f"10.2.0.1{number}" for number, name in enumerate(BACKENDS, 1)}
CROWD = "198.18.0.10+4000"
AT_A_TIME = 256
# Three more addresses of the gateway on the backends' link, for the line that has several.
MORE = ("10.2.0.101", "10.2.0.102", "10.2.0.103")
SOURCES = ("10.2.0.1", *MORE)

LINES = {
    "conntrack": "routing with conntrack",
    "nft": "nft (numgen, masquerade)",
    "tcpgw": "tcpgw",
    "tcpgw4": "tcpgw, 4 source addresses",
}


@dataclass(frozen=True)
class Scenario:
    """`swap`: after a third of the time the two services exchange their backends."""

    name: str
    title: str
    about: str
    lines: tuple
    seconds: int = 60
    backends: tuple = BACKENDS
    crowd: bool = False
    client_closes: bool = False
    rate: int | None = None
    swap: bool = False


SCENARIOS = (
    Scenario("one", "one client, backends close first",
             "The client uses each port again every few seconds, and its timestamps only grow.", ("conntrack", "tcpgw")),
    Scenario("client", "one client, it closes first",
             "The client holds its ports itself; with `net.ipv4.tcp_tw_reuse=1` it uses them again after a second.",
             ("tcpgw",), seconds=30, client_closes=True),
    Scenario("swap", "two services exchange their backends",
             "After a third of the time the endpoints of two services, on two public addresses, change places, and the earlier "
             "flows are flushed. A client has other timestamps towards each public address, so that some backends get lower "
             "timestamps than before.", ("nft", "tcpgw"), swap=True),
    Scenario("crowd", "4,000 clients behind one address, backends close first",
             "Each client has timestamps of its own. After some seconds all of the 64,512 ports to each of the four backends "
             "are in TIME_WAIT, and are used again.", ("nft", "tcpgw"), crowd=True),
    Scenario("rate", "4,000 clients, 3,000 connections/s to one backend",
             "The rate is higher than one address can sustain: 64,512 ports in 65 s are 992 per second.",
             ("tcpgw", "tcpgw4"), seconds=45, crowd=True, backends=("b1",), rate=3000),
)


def run(scenario, line, seconds, options):
    """One line of a scenario in a network of its own: what the load tool says, and counters by second."""
    load = options.tcpgw.parent / "examples" / "load"
    with Lab() as lab:
        hosts = lab.topology()
        client, gateway = hosts["client"], hosts["gateway"]
        servers = [hosts[name].start(load, "serve", "--listen", f"0.0.0.0:{BACKEND_PORT}") for name in scenario.backends]
        for name in scenario.backends:
            hosts[name].await_listener(BACKEND_PORT)
        if scenario.client_closes:
            client.sysctl({"net.ipv4.tcp_tw_reuse": 1})
        for address in MORE if line == "tcpgw4" else ():
            gateway.address("br0", f"{address}/24")
        prepare(scenario, line, gateway, options, swapped=False)
        argv = [load, "connect", "--concurrency", AT_A_TIME, "--seconds", seconds,
                "--close", "client" if scenario.client_closes else "server", *targets(scenario, line)]
        argv += ["--sources", CROWD] if scenario.crowd else []
        argv += ["--rate", scenario.rate] if scenario.rate else []
        process = client.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        events = [(seconds / 3, lambda: prepare(scenario, line, gateway, options, swapped=True))] if scenario.swap else []
        counters = watch(process, servers, gateway, seconds, events)
        said, trouble = process.communicate()
        if process.returncode != 0:
            raise Failed(f"load connect: {trouble.decode(errors='replace')}")
        found = json.loads(said)
        return {key: found[key] for key in ("per_second", "afterwards", "errors", "connect_us", "whole_us")} | {
            "counters": counters}


def targets(scenario, line):
    if line == "conntrack":
        wanted = [f"{ADDRESSES[name]}:{BACKEND_PORT}" for name in scenario.backends]
    else:
        wanted = [f"{address}:{PUBLIC_PORT}" for address in PUBLIC[:2 if scenario.swap else 1]]
    return [word for target in wanted for word in ("--target", target)]


def services(scenario, swapped):
    """{public address: backends}"""
    if not scenario.swap:
        return {PUBLIC[0]: scenario.backends}
    halves = [scenario.backends[:2], scenario.backends[2:]]
    return dict(zip(PUBLIC, reversed(halves) if swapped else halves))


def prepare(scenario, line, gateway, options, swapped):
    wanted = services(scenario, swapped)
    if line == "conntrack":
        gateway.run("nft", "-f", "-", stdin="""
            table inet router {
                chain forward {
                    type filter hook forward priority filter; policy accept;
                    ct state established,related accept
                    ct state new accept
                }
            }""")
    elif line == "nft":
        gateway.run("nft", "-f", "-", stdin=hand_written(wanted))
        if swapped:
            gateway.run("conntrack", "-F")
    else:
        more = {"source_addresses": SOURCES} if line == "tcpgw4" else {}
        state = {"version": 1, "services": [
            {"name": f"app-{number}", "port": PUBLIC_PORT, "addresses": [address], **more,
             "backends": [f"{ADDRESSES[name]}:{BACKEND_PORT}" for name in names]}
            for number, (address, names) in enumerate(wanted.items())]}
        gateway.run(options.tcpgw, "apply", "-q", "-", stdin=json.dumps(state))


def hand_written(wanted):
    def rule(address, names):
        slots = ", ".join(f"{slot} : {ADDRESSES[name]} . {BACKEND_PORT}" for slot, name in enumerate(names))
        return f"ip daddr {address} tcp dport {PUBLIC_PORT} dnat to numgen random mod {len(names)} map {{ {slots} }}"

    rules = "\n".join(rule(address, names) for address, names in wanted.items())
    return f"""
        table ip peer
        delete table ip peer
        table ip peer {{
            chain balance {{
                type nat hook prerouting priority dstnat; policy accept;
                {rules}
            }}
            chain source {{
                type nat hook postrouting priority srcnat; policy accept;
                ct status dnat masquerade
            }}
        }}"""


def watch(client, servers, gateway, seconds, events):
    """What grew within each second, until the client is done or time is up. `events` happen beside it, at their seconds."""
    # Until `ip netns exec` has entered it, the counters of the process are those of the machine.
    wait_until(lambda: is_elsewhere(client), "the client is in its network namespace")
    begin = time.monotonic()
    timers = [threading.Timer(at, what) for at, what in events]
    for timer in timers:
        timer.start()
    found, before = [], count(client, servers, gateway)
    for second in range(1, seconds + 1):
        time.sleep(max(0.0, begin + second - time.monotonic()))
        if client.poll() is not None:
            break
        now = count(client, servers, gateway)
        if now["TCPSynRetrans"] < before["TCPSynRetrans"]:
            # It has just ended, and its counters with it.
            break
        grown = {name: now[name] - before[name] for name in now if name != "entries"}
        found.append({"second": second, "entries": now["entries"], **grown})
        before = now
    for timer in timers:
        timer.join()
    return found


def count(client, servers, gateway):
    counters = {"PAWSTimewait": 0, "TCPTimeWaitOverflow": 0}
    for server in servers:
        said = tcp_counters(server.pid)
        for name in counters:
            counters[name] += said.get(name, 0)
    counters["TCPSynRetrans"] = tcp_counters(client.pid).get("TCPSynRetrans", 0)
    said = gateway.run("sh", "-c", "conntrack -S; cat /proc/sys/net/netfilter/nf_conntrack_count")
    for name in ("insert_failed", "search_restart", "clash_resolve", "drop", "early_drop"):
        counters[name] = sum(int(number) for number in re.findall(rf"\b{name}=(\d+)", said))
    counters["entries"] = int(said.split()[-1])
    return counters


def is_elsewhere(process):
    """Whether it is in another network namespace than this program, or has ended."""
    try:
        return os.stat(f"/proc/{process.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return process.poll() is not None


def tcp_counters(pid):
    """The TcpExt counters of a process's network namespace; none when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/net/netstat").read_text().splitlines()
    except OSError:
        return {}
    names, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
    return dict(zip(names, map(int, values)))
