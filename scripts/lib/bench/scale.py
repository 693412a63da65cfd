"""What probes leave in conntrack, what a flood of SYNs takes, and what looking costs beside a million connections."""

import json
import os
import sys
import time
from pathlib import Path

from bench import flush, inject, scale_lab, states
from bench.daemon_lab import Daemon, StateFile, inside, network
from bench.lab import Lab, say, wait_until
from bench.report import Target, table
from bench.sampling import median

NAME = "scale"
TITLE = "Many backends, many SYNs, many connections"

PROBED, FEW, SILENT = 40_000, 200, 20
# SYNs per second that are offered; pps of the limit, 0 for none; whether the backend answers.
FLOODS = ((8_000, 0, True), (12_000, 0, True), (14_000, 0, True), (18_000, 0, True), (8_000, 0, False), (12_000, 0, False),
          (18_000, 1_000, True), (18_000, 10_000, True))
CLIENTS = 100


def measure(options):
    return {
        "load": os.getloadavg(),
        "probes": probes(options),
        "floods": [flood(options, *case) for case in (FLOODS[:2] if options.quick else FLOODS)],
        "connections": connections(options),
    }


def probes(options):
    """Entries in conntrack at rest."""
    with Lab() as lab:
        gateway, _ = network(lab)
        many = 100 if options.quick else PROBED // states.PER_SERVICE
        file = StateFile(lab, many)
        with inside(gateway):
            daemon = Daemon(lab, gateway, options.tcpgw, "--state", file.path)
            await_most(daemon, file.backends)
            found = {"many": {"backends": file.backends, **entries(gateway, options)}}
            daemon.end()
    with Lab() as lab:
        gateway, backends = network(lab)
        state = json.loads(states.state(FEW // states.PER_SERVICE))
        for service in state["services"]:
            service["health"] = {"interval": "1s", "timeout": "500ms"}
        path = lab.file("state.json", json.dumps(state))
        with inside(gateway):
            daemon = Daemon(lab, gateway, options.tcpgw, "--state", path)
            await_most(daemon, FEW)
            found["few"] = {"backends": FEW, **entries(gateway, options)}
            for number in range(SILENT):
                address = states.endpoint(number * states.PER_SERVICE).split(":")[0]
                backends.run("ip", "route", "add", "blackhole", f"{address}/32")
                backends.run("nft", f"add table inet silent; add chain inet silent in {{ type filter hook prerouting priority 0; }}; "
                                    f"add rule inet silent in ip daddr {address} drop")
            time.sleep(5)
            found["silent"] = {"backends": FEW, "silent": SILENT, **entries(gateway, options)}
            daemon.end()
    return found


def await_most(daemon, backends):
    """On a busy machine some of many miss a probe now and then."""
    wait_until(lambda: daemon.about()["health"].get("healthy", 0) >= backends * 0.99, "backends to be healthy", 300)


def entries(gateway, options):
    say("entries in conntrack at rest")
    time.sleep(5 if options.quick else 15)
    counts = []
    for _ in range(5 if options.quick else 30):
        counts.append(int(gateway.run("conntrack", "-C")))
        time.sleep(1)
    return {"entries": counts}


def flood(options, offered, pps, answers):
    limit = f"a limit of {pps:,} pps" if pps else "no limit"
    say(f"{offered:,} SYNs/s, {limit}, {'answered' if answers else 'not answered'}")
    with Lab() as lab:
        hosts = lab.topology()
        gateway, client, backend = hosts["gateway"], hosts["client"], hosts["b1"]
        backend.sysctl({"net.core.somaxconn": 65535, "net.ipv4.tcp_syncookies": 2})
        if answers:
            backend.start(sys.executable, "-c", scale_lab.ACCEPTOR)
            backend.await_listener(3000)
        else:
            backend.run("nft", "add table inet silent; add chain inet silent in { type filter hook input priority 0; }; "
                               "add rule inet silent in tcp dport 3000 drop")
        service = {"name": "a", "port": 20003, "backends": ["10.2.0.11:3000"]}
        if pps:
            service["limit"] = {"pps": pps}
        gateway.run(options.tcpgw, "apply", lab.file("state.json", json.dumps({"version": 1, "services": [service]})))
        seconds = 8 if options.quick else 24
        out = lab.directory / "sent"
        process = client.start(sys.executable, Path(scale_lab.__file__), "syns", offered, seconds, stdout=out.open("w"))
        time.sleep(4 if options.quick else 10)
        honest = json.loads(client.run(sys.executable, Path(scale_lab.__file__), "clients", CLIENTS)) if answers else None
        held = [int(gateway.run("conntrack", "-C")) for _ in range(3)]
        process.wait()
        return {"offered": offered, "pps": pps, "answers": answers, "sent": json.loads(out.read_text()), "held": held,
                "clients": honest}


def connections(options):
    flows = 100_000 if options.quick else 1_000_000
    with flush.room_for(flows):
        return {"flows": flows, "without": connections_of(0, flows, options), "with": connections_of(flows, flows, options)}


def connections_of(number, room, options):
    """A gateway of its own each: ports of a daemon's probes would be in the way of flows that are put there later."""
    with Lab() as lab:
        gateway = lab.namespace("gateway", forward=True)
        # So that the public address is one of the gateway's, and the backends are routed somewhere.
        lab.link(gateway, "in", lab.namespace("backends"), "eth0")
        gateway.address("in", f"{inject.PUBLIC}/24", "10.2.255.1/16")
        path = lab.file("state.json", flush.state(0, room // inject.PER_BACKEND))
        gateway.run(options.tcpgw, "apply", path)
        with inside(gateway):
            if number:
                say(f"putting {number:,} flows into conntrack")
                flush.put(gateway, 0, number)
            return looked_at(lab, gateway, path, options)


def looked_at(lab, gateway, path, options):
    """What a daemon costs that nobody asks, and what `status` takes, through it and without it."""
    daemon = Daemon(lab, gateway, options.tcpgw, "--state", path)
    time.sleep(5)
    watched = scale_lab.observer(daemon.process.pid, 10 if options.quick else 60)
    runs = options.repetitions(5, quick=2)
    status = [gateway.measure(options.tcpgw, "status", "-o", "json", "--socket", daemon.socket, allowed=(0, 1))
              for _ in range(runs)]
    alone = [gateway.measure(options.tcpgw, "status", "-o", "json", "--socket", "none", allowed=(0, 1)) for _ in range(runs)]
    megabytes = daemon.megabytes()
    daemon.end()
    for run in status + alone:
        run.pop("said")
    return {"observer": watched, "status": status, "alone": alone, "megabytes": megabytes}


def targets(raw):
    probed = raw["probes"]["many"]
    if probed["backends"] != PROBED:
        return []
    return [Target("entries in conntrack of 40,000 probed backends at rest, the most of 30 looks", max(probed["entries"]),
                   at_most=1000)]


def behind(_):
    return []


def report(raw):
    return "\n\n".join((f"Load average of the machine at the beginning: {', '.join(f'{load:.1f}' for load in raw['load'])}, two cores.",
                        report_probes(raw["probes"]), report_floods(raw["floods"]), report_connections(raw["connections"])))


def report_probes(probes):
    names = (("many", "at the usual interval (10 s)"), ("few", "every second"),
             ("silent", f"every second, {SILENT} of them do not answer"))
    rows = [[f"{probes[name]['backends']:,}, {what}", f"{median(probes[name]['entries']):,.0f}", f"{max(probes[name]['entries']):,}"]
            for name, what in names]
    return "\n".join(["### Entries of probes in conntrack", "",
                      "The output of `conntrack -C` in the gateway's namespace, once a second, without clients.", "",
                      *table(("backends, probed", "median", "most"), rows)])


def report_floods(floods):
    rows = []
    for case in floods:
        clients = case["clients"]
        rows.append([
            f"{case['sent']['per_second']:,.0f}", f"{case['pps']:,} pps" if case["pps"] else "none",
            "yes" if case["answers"] else "no", f"{median(case['held']):,.0f}",
            "" if clients is None else f"{clients['failed']} of {clients['clients']}",
            "" if clients is None else f"{clients['slow']} of {clients['clients']}",
        ])
    return "\n".join(["### SYNs from invented addresses, to a service with one backend", "",
                      f"During the flood {CLIENTS} clients connect, 20 per second; a client without a connection after 10 s has failed. \"Ports "
                      "held\" is the number of entries in conntrack during the flood.", "",
                      *table(("SYNs/s", "limit", "backend answers", "ports held", "clients that failed", "that took over 0.9 s"),
                             rows)])


def report_connections(found):
    rows = []
    for name, flows in (("without", 0), ("with", found["flows"])):
        part = found[name]
        rows.append([f"{flows:,}", f"{part['observer']['look'] * 1000:,.0f} ms", f"{part['observer']['pause']:,.1f} s",
                     f"{part['observer']['share'] * 100:.1f} %", f"{part['observer']['daemon'] * 100:.1f} %",
                     *(f"{median([run['seconds'] for run in part[way]]):.2f} s" for way in ("status", "alone"))])
    return "\n".join(["### Cost of the daemon's looks at many connections", "",
                      "One service has established connections in conntrack. The table shows, for the daemon's thread that counts unanswered "
                      "handshakes, the CPU time of one look, the time between two, and its share of one CPU; and the share of the whole "
                      "daemon.", "",
                      *table(("connections", "a look", "between two", "its share", "the daemon's", "`status`, by the daemon",
                              "`status`, without one"), rows)])


def plots(_):
    return {}
