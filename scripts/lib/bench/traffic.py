"""What it costs to count and to log connections: in the kernel, in the daemon, and in memory."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench import flush, gateways, inject
from bench.daemon_lab import Daemon
from bench.gateways import Line, Network
from bench.lab import Failed, Lab, say
from bench.report import Target, table
from bench.sampling import interleaved, interval, median, ratios

NAME = "traffic"
TITLE = "Counting and logging connections"

# Few enough for the default size of conntrack, beside whatever else is there.
FLOWS, PER_SECOND = 100_000, 25_000
SERVICES = 10_000
ROUNDS = 3
LOG = "flows.log"
# Keys of [daemon], and whether conntrack accounts.
WAYS = {
    "plain": ("", False),
    "accounting": ("", True),
    "counting": ("count_traffic = true", True),
    "logging": ('flow_log = "{log}"', True),
    "both": ('count_traffic = true\nflow_log = "{log}"', True),
}
SHOWN = {"plain": "a daemon that does neither", "accounting": "conntrack's accounting", "counting": "`count_traffic`",
         "logging": "`flow_log`", "both": "both"}
ENDS = ("plain", "counting", "logging", "both")


def measure(options):
    return {
        "load": os.getloadavg(),
        "per_second": PER_SECOND,
        "ends": ends(options),
        "connections": connections(options),
        "hour": last_hour(options),
    }


def daemon_of(lab, gateway, options, way, state):
    """A daemon that counts and logs so, in an empty log."""
    keys, accounts = WAYS[way]
    gateway.sysctl({"net.netfilter.nf_conntrack_acct": int(accounts), "net.netfilter.nf_conntrack_timestamp": int(accounts)})
    log = lab.directory / LOG
    log.unlink(missing_ok=True)
    config = lab.file("config.toml", f"[daemon]\n{keys.format(log=log)}\n")
    return Daemon(lab, gateway, options.tcpgw, "--config", config, "--state", state)


def ends(options):
    """Connections that end, at a rate that real ones cannot have here: they are put into conntrack and deleted."""
    flows = 10_000 if options.quick else FLOWS
    found = {way: [] for way in ENDS}
    with Lab() as lab:
        gateway = lab.namespace("gateway", forward=True)
        lab.link(gateway, "in", lab.namespace("backends"), "eth0")
        gateway.address("in", f"{inject.PUBLIC}/24", "10.2.255.1/16")
        # The ports of probes are in nobody's way.
        gateway.sysctl({"net.ipv4.ip_local_port_range": "60000 65000"})
        state = lab.file("state.json", flush.state(0, max(1, flows // inject.PER_BACKEND)))
        for number, way in interleaved(list(ENDS), options.repetitions(ROUNDS)):
            say(f"{flows:,} connections end, {SHOWN[way]}, {number + 1}")
            found[way].append(end_of(lab, gateway, options, way, state, flows))
    return {"flows": flows, "runs": found}


def end_of(lab, gateway, options, way, state, flows):
    daemon = daemon_of(lab, gateway, options, way, state)
    # Only connections that begin while somebody listens are reported.
    time.sleep(1)
    flush.put(gateway, 0, flows)
    time.sleep(2)
    before = sum(daemon.usage())
    said = json.loads(gateway.run(sys.executable, Path(inject.__file__), 0, flows, PER_SECOND))
    time.sleep(3)
    spent = sum(daemon.usage()) - before
    log = lab.directory / LOG
    lines = sum(1 for _ in log.open("rb")) if log.exists() else 0
    daemon.end()
    if "flow_log" in WAYS[way][0] and lines == 0:
        raise Failed("nothing was logged")
    return {**said, "daemon": round(spent, 3), "lines": lines}


def connections(options):
    """Real ones, as fast as this machine makes them."""
    ways = list(WAYS)
    found = {way: [] for way in ways}
    with ExitStack() as labs:
        networks = {}
        for way in ways:
            say(f"prepare {SHOWN[way]}")
            networks[way] = Network(labs.enter_context(Lab()), Line(SHOWN[way], 1, prepared(way)), options)
        for number, way in interleaved(ways, 4 * options.repetitions(ROUNDS)):
            said = networks[way].measure("connect", "--seconds", 0.2 if options.quick else 1, "--seed", number + 1)
            found[way].append(round(said["connections"] / said["seconds"]))
    return found


def prepared(way):
    def prepare(lab, gateway, services, options):
        state = {"version": 1, "services": [{"name": "app", "port": gateways.FIRST_PORT, "backends": [
            f"{address}:{gateways.SERVER_PORT}" for address in gateways.endpoints(0)]}]}
        path = lab.file("state.json", json.dumps(state))
        gateway.run(options.tcpgw, "apply", "-q", path)
        daemon_of(lab, gateway, options, way, path)
        time.sleep(2)

    return prepare


def last_hour(options):
    say("the last hour's traffic")
    program = options.tcpgw.parent / "examples" / "last_hour"
    runs = [json.loads(subprocess.run([program, str(SERVICES)], check=True, capture_output=True, text=True).stdout)
            for _ in range(options.repetitions(ROUNDS))]
    return {part: {key: [run[part][key] for run in runs] for key in ("kilobytes", "sample_ms")} for part in ("names", "idle", "busy")}


def share(raw, way):
    """Of a core, beyond the daemon that does neither: median of the rounds."""
    runs = raw["ends"]["runs"]
    differences = [(one["daemon"] - plain["daemon"]) / raw["ends"]["flows"] * raw["per_second"]
                   for one, plain in zip(runs[way], runs["plain"], strict=True)]
    return median(differences) * 100, [value * 100 for value in interval(differences)]


def kernel(raw, way):
    """Microseconds of the kernel for each connection that ends, beyond those without a report."""
    runs = raw["ends"]["runs"]
    differences = [(one["kernel"] - plain["kernel"]) / raw["ends"]["flows"] * 1e6
                   for one, plain in zip(runs[way], runs["plain"], strict=True)]
    return median(differences), interval(differences)


def targets(raw):
    if raw["ends"]["flows"] != FLOWS:
        return []
    return [
        Target("25,000 connections/s that end: the daemon for the flow log, % of a core", share(raw, "logging")[0], at_most=10),
        Target("the last hour's traffic of 10,000 busy services, MB", median(raw["hour"]["busy"]["kilobytes"]) / 1024, at_most=50),
    ]


def behind(_):
    return []


def report(raw):
    return "\n\n".join((
        f"Load average of the machine at the beginning: {', '.join(f'{load:.1f}' for load in raw['load'])}, two cores.",
        report_ends(raw), report_connections(raw["connections"]), report_hour(raw["hour"])))


def report_ends(raw):
    rows = []
    for way in ENDS:
        runs = raw["ends"]["runs"][way]
        of_core, of_cores = share(raw, way)
        extra, extras = kernel(raw, way)
        is_plain = way == "plain"
        rows.append([
            SHOWN[way], f"{median([raw['ends']['flows'] / run['seconds'] for run in runs]):,.0f}",
            f"{median([run['kernel'] for run in runs]) / raw['ends']['flows'] * 1e6:.1f} µs",
            "" if is_plain else f"{extra:.1f} µs [{extras[0]:.1f}, {extras[1]:.1f}]",
            f"{median([run['daemon'] for run in runs]) / raw['ends']['flows'] * 1e6:.1f} µs",
            "" if is_plain else f"{of_core:.1f} % [{of_cores[0]:.1f}, {of_cores[1]:.1f}]",
            f"{min(run['lines'] for run in runs):,}" if "flow_log" in WAYS[way][0] else ""])
    return "\n".join([
        "### Connections that end", "",
        f"This machine does not make {raw['per_second']:,} real connections per second beside their clients and servers. So "
        f"{raw['ends']['flows']:,} established connections are put into conntrack through netlink, and deleted at that rate: the kernel "
        "reports each as it reports one that ended by itself. Processor time of the program that deletes is that of the kernel for the "
        "deletion and its report; the daemon's includes receiving the report.", "",
        *table(("daemon with", "per second", "the kernel, each", "more than with neither", "the daemon, each",
                f"of a core at {raw['per_second']:,}/s, more than with neither", "fewest lines in the log"), rows)])


def report_connections(found):
    rows = []
    for way in WAYS:
        rates = found[way]
        kept = ratios(rates, found["plain"])
        low, high = interval(kept)
        rows.append([SHOWN[way], f"{median(rates):,.0f}", "" if way == "plain" else f"{median(kept):.3f} [{low:.3f}, {high:.3f}]"])
    return "\n".join([
        "### Real connections", "",
        "Connections that are opened, answered with 64 bytes and closed, as fast as possible, through one service with four backends. Clients, "
        "gateway, daemon and servers share the processors. The lines are measured alternately; the ratio is the median of the rounds. The "
        "reports of connections that end come later, and are not in these figures. Where an interval contains 1, no difference was found.", "",
        *table(("daemon with", "connections/s", "of that with neither"), rows)])


def report_hour(hour):
    names = {"names": "their names alone", "idle": "without traffic", "busy": "with traffic in each 30 s"}
    rows = [[names[part], f"{median(values['kilobytes']) / 1024:.1f} MB", f"{median(values['sample_ms']):.2f} ms"]
            for part in names for values in (hour[part],)]
    return "\n".join(["### The last hour's traffic", "",
                      f"`examples/last_hour.rs` takes the samples of an hour of {SERVICES:,} services, one every 5 s of it. Beside it, the names "
                      "of the services, and the time of walking through them.", "",
                      *table((f"{SERVICES:,} services", "memory", "a sample, processor time"), rows)])


def plots(_):
    return {}
