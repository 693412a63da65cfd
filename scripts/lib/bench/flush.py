"""Flushing: the flows of one retired backend among those of many, by tcpgw and by `conntrack -D`."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

from bench import figures, inject
from bench.lab import Failed, Lab, say
from bench.report import Target, plot, table
from bench.sampling import interleaved, interval, median, ratios

NAME = "flush"
TITLE = "Flushing flows"
WANTED = 5.0

MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
# So much that `apply` does not warn of a full table.
SPARE = 250_000
SCRIPT = Path(inject.__file__)


def measure(options):
    flows = 200_000 if options.quick else 1_000_000
    runs = options.repetitions(7, quick=2)
    with room_for(flows), Lab() as lab:
        gateway = lab.namespace("gateway", forward=True)
        backends = flows // inject.PER_BACKEND
        before, after = (lab.file(f"{name}.json", state(first, backends)) for name, first in (("before", 0), ("after", 1)))
        say(f"putting {flows:,} flows into conntrack")
        put(gateway, 0, flows)
        gateway.run(options.tcpgw, "apply", before)
        measured = {"tcpgw": [], "conntrack": []}
        for number, name in interleaved(list(measured), runs):
            say(f"{name}, {number + 1} of {runs}")
            flush = by_tcpgw if name == "tcpgw" else by_conntrack
            measured[name].append(flush(gateway, options.tcpgw, after, before))
            expect(gateway, flows - inject.PER_BACKEND, f"after {name}")
            put(gateway, 0, inject.PER_BACKEND)
        return {
            "flows": flows,
            "deleted": inject.PER_BACKEND,
            "buckets": int(gateway.run("sysctl", "-n", "net.netfilter.nf_conntrack_buckets")),
            "conntrack_version": gateway.run("conntrack", "--version").strip(),
            "commands": {"tcpgw": "tcpgw apply -o json STATE", "conntrack": " ".join(DELETE)},
            "runs": measured,
        }


DELETE = ("conntrack", "-D", "-p", "tcp", "--reply-src", inject.backend(0), "--reply-port-src", str(inject.BACKEND_PORT))


def state(first, last):
    backends = [f"{inject.backend(number)}:{inject.BACKEND_PORT}" for number in range(first, last)]
    return json.dumps({"version": 1, "services": [{"name": "app", "port": inject.PUBLIC_PORT, "backends": backends}]})


def put(gateway, first, number):
    gateway.run(sys.executable, SCRIPT, first, number)


def by_tcpgw(gateway, tcpgw, after, before):
    """Applies a state without the backend, the whole program; its own figures beside it."""
    run = gateway.measure(tcpgw, "apply", "-o", "json", after)
    said = json.loads(run.pop("said"))
    if said["flows_flushed"] != inject.PER_BACKEND:
        raise Failed(f"tcpgw flushed {said['flows_flushed']} flows instead of {inject.PER_BACKEND}")
    run["flush_seconds"] = said["flush_milliseconds"] / 1000
    gateway.run(tcpgw, "apply", before)
    return run


def by_conntrack(gateway, *_):
    run = gateway.measure(*DELETE)
    run.pop("said")
    return run


def expect(gateway, number, when):
    found = int(gateway.run("conntrack", "-C"))
    if found != number:
        raise Failed(f"{when} there are {found} flows instead of {number}")


@contextmanager
def room_for(flows):
    """nf_conntrack_max is one setting for all namespaces, of the machine: it is put back at the end."""
    had = int(MAX.read_text())
    if had >= flows + SPARE:
        yield
        return
    say(f"net.netfilter.nf_conntrack_max is {had:,}: {flows + SPARE:,} for the time of this section")
    MAX.write_text(str(flows + SPARE))
    try:
        yield
    finally:
        MAX.write_text(str(had))


def times(raw, key="seconds"):
    return [run[key] for run in raw["runs"]["tcpgw"]], [run["seconds"] for run in raw["runs"]["conntrack"]]


def faster(raw, key="seconds"):
    tcpgw, conntrack = times(raw, key)
    return ratios(conntrack, tcpgw)


def targets(raw):
    if raw["flows"] != 1_000_000:
        return []
    what = "flushing 50,000 of 1,000,000 flows, times as fast as `conntrack -D`"
    return [Target(what, median(faster(raw, "flush_seconds")), at_least=WANTED),
            Target(f"{what}: the whole of `tcpgw apply`", median(faster(raw)), at_least=WANTED)]


def behind(raw):
    ratio = median(faster(raw))
    return [f"Flushing takes {1 / ratio:.1f} times as long as with `conntrack -D`."] if ratio < 1 else []


def report(raw):
    rows = []
    for name, key, runs in (("`tcpgw apply`, the whole program", "seconds", raw["runs"]["tcpgw"]),
                            ("of it, waiting for packets on their way and flushing", "flush_seconds", raw["runs"]["tcpgw"]),
                            ("`conntrack -D`, the whole program", "seconds", raw["runs"]["conntrack"])):
        seconds = [run[key] for run in runs]
        low, high = interval(seconds)
        whole = key == "seconds"
        rows.append([
            name, f"{median(seconds):.2f} s", f"{low:.2f} to {high:.2f}",
            f"{median([run['user'] for run in runs]):.2f} s" if whole else "",
            f"{median([run['kernel'] for run in runs]):.2f} s" if whole else "",
            f"{median([run['megabytes'] for run in runs]):.0f}" if whole else "",
        ])
    whole, part = faster(raw), faster(raw, "flush_seconds")
    return "\n".join([
        f"{raw['flows']:,} established flows of one service are in conntrack ({raw['buckets']:,} buckets),",
        f"{raw['deleted']:,} for each backend. One backend leaves: `{raw['commands']['tcpgw']}` changes the rules, waits until",
        "packets that matched the old rules have passed, and deletes the flows of that backend. It is compared with",
        f"`{raw['commands']['conntrack']}` ({raw['conntrack_version']}), which only deletes flows.",
        "",
        *table(("", "median", "interval", "user space", "kernel", "peak MB"), rows),
        "",
        f"`conntrack -D` takes {median(whole):.1f} times as long as the whole of `tcpgw apply` ({spread(whole)}), and "
        f"{median(part):.1f} times as long as its flush ({spread(part)}), in {len(whole)} interleaved pairs. The kernel's walk",
        "through its table, which both need once, takes most of tcpgw's time.",
        "",
        plot(NAME, "seconds", "seconds of each run"),
    ])


def spread(values):
    low, high = interval(values)
    return f"{low:.1f} to {high:.1f}"


def plots(raw):
    figure, axes = figures.begin(f"{raw['deleted']:,} of {raw['flows']:,} flows", "run", "seconds", height=3.5)
    tcpgw, conntrack = times(raw)
    flush, _ = times(raw, "flush_seconds")
    numbers = range(1, len(tcpgw) + 1)
    axes.plot(numbers, conntrack, "s-", label="conntrack -D")
    axes.plot(numbers, tcpgw, "o-", label="tcpgw apply")
    axes.plot(numbers, flush, ".--", label="of it, waiting and flushing")
    axes.set_ylim(bottom=0)
    axes.set_xticks(list(numbers))
    axes.legend()
    return {"seconds": figure}
