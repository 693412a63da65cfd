"""Limits: what was offered, promised and delivered, over time."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import figures
from bench.lab import Failed, Lab, say
from bench.report import plot, table
from bench.sampling import median

NAME = "limits"
TITLE = "Limits over time"

PPS, BURST, MTU = 1000, 3000, 1500
INTERVAL = 0.1
# Of a small packet sender, of both together where both sides send.
OFFERED = 5 * PPS
PORTS = {"each": 2001, "shared": 2002}
BACKEND_PORT = {"each": 5201, "shared": 5202}
ADDRESSES = {4: {"public": "203.0.113.1", "backend": "10.2.0.11"}, 6: {"public": "2001:db8:1::1", "backend": "fd00:2::11"}}
HERE = Path(__file__).parent
WATCHED = ("ext", "b1")
CLOSE = 0.05


@dataclass(frozen=True)
class Case:
    """Who sends what: `to` the backend, `from` it, or `both`."""

    load: str
    way: str
    direction: str = "each"
    offloads: bool = True
    family: int = 4

    def words(self):
        size = {"full": "iperf3, full packets", "small": "small packets"}[self.load]
        way = {"to": "to the backend", "from": "from the backend", "both": "both ways"}[self.way]
        offloads = "offloads on" if self.offloads else "offloads off"
        return f"{size}, {way}, `{self.direction}`, {offloads}, IPv{self.family}"

    def short(self):
        return f"{self.way}, {self.direction}, offloads {'on' if self.offloads else 'off'}, IPv{self.family}"


CASES = (
    Case("full", "to"),
    Case("full", "to", offloads=False),
    Case("full", "from"),
    Case("full", "from", offloads=False),
    Case("full", "both", "shared"),
    Case("full", "to", family=6),
    Case("small", "to"),
    Case("small", "to", offloads=False),
    Case("small", "from"),
    Case("small", "both", "shared"),
)


def measure(options):
    seconds = 2.0 if options.quick else 15.0
    runs = options.repetitions(1)
    results = []
    with Lab() as lab:
        hosts = lab.topology()
        hosts["gateway"].run(options.tcpgw, "apply", "-q", lab.file("state.json", state()))
        for number in range(runs):
            for case in CASES:
                say(f"{case.words()}: {seconds:g} s")
                offloads(hosts, case.offloads)
                # Buckets are full again, and flows of the last case gone.
                refill(hosts["gateway"], options.tcpgw, lab)
                results.append({"case": asdict(case), "run": number, **one(hosts, case, seconds)})
    return {
        "limit": {"pps": PPS, "burst": BURST, "mtu": MTU},
        "seconds": seconds,
        "offered_small": OFFERED,
        "commands": {"full": " ".join(iperf(CASES[0], seconds)), "small": "scripts/lib/bench/dribble.py"},
        "results": results,
    }


def state():
    services = []
    for direction, port in PORTS.items():
        backends = [f"{address}:{BACKEND_PORT[direction]}" for address in (ADDRESSES[4]["backend"], f"[{ADDRESSES[6]['backend']}]")]
        services.append({"name": direction, "port": port, "backends": backends,
                         "limit": {"pps": PPS, "burst": BURST, "mtu": MTU, "direction": direction}})
    return json.dumps({"version": 1, "services": services})


def offloads(hosts, on):
    word = "on" if on else "off"
    links = [("client", "eth0"), ("gateway", "ext"), ("gateway", "b1"), ("b1", "eth0")]
    for host, interface in links:
        hosts[host].run("ethtool", "-K", interface, *(part for name in ("tso", "gso", "gro") for part in (name, word)))


def refill(gateway, tcpgw, lab):
    gateway.run(tcpgw, "teardown", "-q")
    gateway.run(tcpgw, "apply", "-q", lab.directory / "state.json")


def one(hosts, case, seconds):
    trigger = "b1" if case.load == "small" and case.way == "from" else "ext"
    senders = (Blast if case.load == "small" else Stream)(hosts, case, seconds)
    watcher = hosts["gateway"].start(sys.executable, HERE / "watch_links.py", seconds, INTERVAL, trigger, *WATCHED,
                                     stdout=subprocess.PIPE)
    if watcher.stdout.readline() != b"ready\n":
        raise Failed("watch_links did not begin")
    senders.begin()
    said, _ = watcher.communicate(timeout=seconds + 30)
    senders.end()
    if watcher.returncode != 0:
        raise Failed("watch_links saw no packet")
    samples = json.loads(said)
    return {"seconds": [sample[0] for sample in samples], **series(case, samples)}


def series(case, samples):
    """Cumulated packets and bytes: offered to the gateway, and delivered behind it."""
    columns = {("ext", "received"): 1, ("ext", "sent"): 2, ("b1", "received"): 3, ("b1", "sent"): 4}
    sides = {
        "to": [(("ext", "received"), ("b1", "sent"))],
        "from": [(("b1", "received"), ("ext", "sent"))],
    }
    chosen = sides["to"] + sides["from"] if case.way == "both" else sides[case.way]
    found = {}
    for at, unit in enumerate(("packets", "bytes")):
        for side, what in enumerate(("offered", "delivered")):
            found[f"{what}_{unit}"] = [sum(sample[columns[pair[side]]][at] for pair in chosen) for sample in samples]
    return found


class Stream:
    """iperf3 through the gateway, four connections."""

    def __init__(self, hosts, case, seconds):
        self.client = hosts["client"]
        self.command = iperf(case, seconds)
        backend, port = hosts["b1"], BACKEND_PORT[case.direction]
        self.server = backend.start("iperf3", "-s", "-p", port)
        backend.await_listener(port)

    def begin(self):
        self.process = self.client.start(*self.command)

    def end(self):
        for process in (self.process, self.server):
            stop(process)


def iperf(case, seconds):
    way = {"to": [], "from": ["-R"], "both": ["--bidir"]}[case.way]
    # Longer than it is watched: how it ends is not of interest.
    return ["iperf3", "-c", ADDRESSES[case.family]["public"], "-p", str(PORTS[case.direction]), "-P", "4",
            "-t", f"{seconds + 5:.0f}", *way]


class Blast:
    """The same small packet again and again, from one end of a connection or from both."""

    def __init__(self, hosts, case, seconds):
        addresses = ADDRESSES[case.family]
        rates = {"to": (OFFERED, 0), "from": (0, OFFERED), "both": (OFFERED / 2, OFFERED / 2)}[case.way]
        self.server = self.start(hosts["b1"], "accept", addresses["backend"], BACKEND_PORT[case.direction], rates[1], seconds)
        expect(self.server, b"listening\n")
        self.client = self.start(hosts["client"], "connect", addresses["public"], PORTS[case.direction], rates[0], seconds)
        for process in (self.client, self.server):
            expect(process, b"ready\n")
        # The handshake is over before the watch begins.
        time.sleep(0.2)

    @staticmethod
    def start(space, action, address, port, rate, seconds):
        return space.start(sys.executable, HERE / "dribble.py", action, "eth0", address, port, rate, seconds + 2,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self):
        for process in (self.client, self.server):
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def end(self):
        for process in (self.client, self.server):
            stop(process)


def expect(process, line):
    found = process.stdout.readline()
    if found != line:
        raise Failed(f"dribble said {found!r} instead of {line!r}")


def stop(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def promised(raw, result, unit):
    """What the limit lets through until each sample."""
    limit = raw["limit"]
    size = limit["mtu"] if unit == "bytes" else 1
    return [(limit["burst"] + limit["pps"] * second) * size for second in result["seconds"]]


def bound(result):
    """Which of the two buckets is the narrower one for this load."""
    return "bytes" if result["case"]["load"] == "full" else "packets"


def figures_of(raw, result):
    unit = bound(result)
    due, got = promised(raw, result, unit), result[f"delivered_{unit}"]
    # Once the burst is spent the rate alone tells.
    spent = next((at for at, (had, most) in enumerate(zip(got, due)) if had > 0.98 * most), None)
    rate = None
    if spent is not None and spent + 10 < len(got):
        time_passed = result["seconds"][-1] - result["seconds"][spent]
        rate = (got[-1] - got[spent]) / time_passed / raw["limit"]["pps"] / (raw["limit"]["mtu"] if unit == "bytes" else 1)
    return {
        "unit": unit,
        "offered": result[f"offered_{unit}"][-1],
        "promised": due[-1],
        "delivered": got[-1],
        "ratio": got[-1] / due[-1],
        "most": max(had / most for had, most in zip(got, due)),
        "rate": rate,
    }


def by_case(raw):
    """The figures of each case, the median of its runs."""
    found = {}
    for result in raw["results"]:
        found.setdefault(Case(**result["case"]), []).append(figures_of(raw, result))
    return {case: {key: median([run[key] for run in runs]) if isinstance(runs[0][key], (int, float)) else runs[0][key]
                   for key in runs[0]} for case, runs in found.items()}


def targets(raw):
    return []


def behind(raw):
    sentences = []
    for case, found in by_case(raw).items():
        if found["most"] > 1 + CLOSE:
            sentences.append(f"The limit lets {100 * found['most'] - 100:.0f} % more pass than promised ({case.words()}).")
        if found["ratio"] < 1 - CLOSE:
            sentences.append(f"{100 - 100 * found['ratio']:.0f} % of what the limit promises was not delivered ({case.words()}).")
    return sentences


def report(raw):
    rows = []
    for case, found in by_case(raw).items():
        rate = "" if found["rate"] is None else f"{found['rate']:.3f}"
        rows.append([case.words(), *(amount(found[key], found["unit"]) for key in ("offered", "promised", "delivered")),
                     f"{found['ratio']:.3f}", f"{found['most']:.3f}", rate])
    limit = raw["limit"]
    return "\n".join([
        f"A backend with `\"limit\": {{\"pps\": {limit['pps']}, \"burst\": {limit['burst']}}}` is promised a burst of "
        f"{limit['burst']:,} packets and {limit['burst'] * limit['mtu'] / 1e6:g} MB,",
        f"and then {limit['pps']:,} packets and {limit['pps'] * limit['mtu'] / 1e6:g} MB per second. Full packets reach the limit in bytes",
        "first, and small ones the limit in packets. \"Offered\" is what arrives at the gateway from the client (or the backend), and",
        "\"delivered\" what leaves it on the other side, by the counters of its interfaces,",
        f"every {INTERVAL * 1000:.0f} ms for {raw['seconds']:g} s: IP bytes, and packets as the kernel counts them (a merged packet is one).",
        f"TCP slows down when packets are dropped, so that iperf3 (`{raw['commands']['full']}`) offers less than it could. The small",
        f"packets (`{raw['commands']['small']}`) are sent at {raw['offered_small']:,} per second in any case.",
        "",
        *table(("load", "offered", "promised", "delivered", "delivered / promised", "largest ratio at any time", "rate after the burst / promised"), rows),
        "",
        plot(NAME, "bytes", "full packets: bytes over time"),
        "",
        plot(NAME, "packets", "small packets: packets over time"),
    ])


def amount(number, unit):
    return f"{number / 1e6:.2f} MB" if unit == "bytes" else f"{number:,.0f} packets"


def plots(raw):
    drawn = {}
    for load, unit, scale, label in (("full", "bytes", 1e6, "MB"), ("small", "packets", 1e3, "1,000 packets")):
        chosen = [result for result in raw["results"] if result["case"]["load"] == load and result["run"] == 0]
        figure, axes = figures.grid(len(chosen), 2, "seconds", label)
        for panel, result in zip(axes, chosen):
            panel.set_title(Case(**result["case"]).short(), fontsize="small")
            lines = {"offered": result[f"offered_{unit}"], "promised": promised(raw, result, unit),
                     "delivered": result[f"delivered_{unit}"]}
            for (name, values), style in zip(lines.items(), (":", "--", "-")):
                panel.plot(result["seconds"], [value / scale for value in values], style, label=name)
            panel.set_ylim(0, 1.6 * lines["promised"][-1] / scale)
        axes[0].legend(fontsize="small")
        drawn[unit] = figure
    return drawn
