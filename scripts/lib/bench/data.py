"""The data plane: connections, first packets, requests and bytes, through tcpgw and through what else there is."""

from contextlib import ExitStack
from dataclasses import dataclass

from bench import cpu, gateways
from bench.data_report import NAME, behind, plots, report, targets
from bench.facts import version
from bench.gateways import Line, Network
from bench.lab import Failed, Lab, say
from bench.sampling import interleaved

__all__ = ["NAME", "TITLE", "behind", "measure", "plots", "report", "targets"]

TITLE = "Data plane"

ROUNDS = 20
LINES = (
    Line("plain routing", 1, gateways.nothing, direct=True, tracked=False),
    Line("routing with conntrack", 1, gateways.conntrack, direct=True),
    Line("routing with conntrack", 30_000, gateways.conntrack, direct=True),
    Line("tcpgw", 1, gateways.tcpgw),
    Line("tcpgw", 1_000, gateways.tcpgw),
    Line("tcpgw", 30_000, gateways.tcpgw),
    Line("tcpgw with limits", 1, gateways.limited),
    Line("nft, two rules", 1, gateways.nft),
    Line("nftlb", 1, gateways.nftlb),
    Line("HAProxy", 1, gateways.haproxy, tracked=False),
    Line("HAProxy", 1_000, gateways.haproxy, tracked=False),
    Line("nginx", 1, gateways.nginx, tracked=False),
    Line("nginx", 1_000, gateways.nginx, tracked=False),
)


@dataclass(frozen=True)
class Load:
    """What clients do: a command of the load tool, and the figures of a run from what it says and the CPU time."""

    name: str
    options: tuple
    quick: tuple
    figures: object

    def command(self, quick):
        return self.name.split("-")[0], *(self.quick if quick else self.options)


def connections(said, busy):
    done = said["connections"] + said["afterwards"]
    return {"rate": said["connections"] / said["seconds"], "cpu_us": busy / done * 1e6, "retried": said["connect_us"]["retried"]}


def first_packets(said, busy):
    return {percentile: said["connect_us"][percentile] for percentile in ("p50", "p99", "p99.9")}


def requests(said, busy):
    return {"rate": said["requests"] / said["seconds"], "cpu_us": busy / said["requests"] * 1e6}


def transfer(said, busy):
    return {"rate": said["bytes_per_second"], "cpu_s_per_gb": busy / said["bytes"] * 1e9}


LOADS = (
    Load("connect", ("--seconds", 0.6), ("--seconds", 0.2), connections),
    Load("latency", ("--samples", 3000), ("--samples", 300), first_packets),
    Load("request", ("--seconds", 0.4), ("--seconds", 0.1), requests),
    Load("stream-up", ("--direction", "up", "--connections", 8, "--seconds", 0.4),
         ("--direction", "up", "--connections", 8, "--seconds", 0.1), transfer),
    Load("stream-down", ("--direction", "down", "--connections", 8, "--seconds", 0.4),
         ("--direction", "down", "--connections", 8, "--seconds", 0.1), transfer),
)


def measure(options):
    rounds = options.repetitions(ROUNDS)
    with ExitStack() as labs:
        networks, missing = prepare(labs, options)
        results = {load.name: {key: [] for key in networks} for load in LOADS}
        troubles = {}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for load in LOADS:
                for key in in_turn(list(networks), number):
                    found, trouble = one(networks[key], load, options.quick, number)
                    results[load.name][key].append(found)
                    for what in trouble:
                        troubles.setdefault(key, {}).setdefault(load.name, []).append(f"round {number + 1}: {what}")
    return {
        "rounds": rounds,
        "lines": [{"key": line.key, "label": line.label, "services": line.services} for line in LINES if line.key in networks],
        "missing": missing,
        "commands": [" ".join(map(str, ("load", *load.command(options.quick)))) for load in LOADS],
        "versions": {"HAProxy": version("haproxy", "-v"), "nginx": version("nginx", "-v"),
                     "nftlb": version("dpkg-query", "-W", "-f", "${Package} ${Version}", "nftlb")},
        "results": {load: {key: columns(runs) for key, runs in lines.items()} for load, lines in results.items()},
        "troubles": troubles,
    }


def prepare(labs, options):
    """{key: Network} of the lines that work, and why others do not. A peer that fails does not take the rest with it."""
    networks, missing = {}, {}
    for line in LINES:
        say(f"prepare {line.name}")
        with ExitStack() as lab:
            try:
                networks[line.key] = Network(lab.enter_context(Lab()), line, options)
            except Failed as failure:
                say(f"{line.name} cannot be measured: {failure}")
                missing[line.name] = str(failure)[:500]
            else:
                labs.enter_context(lab.pop_all())
    return networks, missing


def in_turn(names, number):
    return [name for turn, name in interleaved(names, number + 1) if turn == number]


def one(network, load, quick, number):
    """The figures of one run, and what went wrong in it. None when there are no figures."""
    before = cpu.machine()
    try:
        # Everyone's choice of targets is the same within a round.
        said = network.measure(*load.command(quick), "--seed", number + 1)
    except Failed as failure:
        return None, [str(failure)[:500]]
    busy = cpu.since(before)["busy"]
    trouble = [f"{times} x {error}" for error, times in said["errors"].items()]
    try:
        return load.figures(said, busy), trouble
    except (TypeError, ZeroDivisionError):
        return None, [*trouble, "nothing was done"]


def columns(runs):
    """{figure: [of each round]} of [{figure: value}], null where a run failed."""
    names = next((list(run) for run in runs if run), [])
    return {name: [run and round(run[name], 3) for run in runs] for name in names}
