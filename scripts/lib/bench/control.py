"""The control plane: how long it takes to load, and to change."""

import time

from bench.lab import Lab, say
from bench.report import Target, plot, table
from bench.sampling import summary
from bench.states import state
from bench import figures

NAME = "control"
TITLE = "Control plane"


def measure(options):
    sizes = (100, 1000) if options.quick else (100, 1000, 10000, 50000)
    runs = options.repetitions(5)
    results = []
    for services in sizes:
        for limits in (False, True):
            say(f"{services} services x 4{', with limits' if limits else ''}: {runs} interleaved runs")
            results.append({"services": services, "limits": limits, "runs": one_size(options.tcpgw, services, limits, runs)})
    return {"results": results}


def one_size(tcpgw, services, limits, runs):
    figures = {key: [] for key in ("apply", "nft", "nothing", "one", "hundred", "read_back")}
    with Lab() as lab:
        files = {changes: lab.file(f"state-{changes}.json", state(services, limits, changes)) for changes in (0, 1, 100)}
        plain = lab.file("plain.nft", lab.namespace("render").run(tcpgw, "render", files[0]))
        for number in range(runs):
            space = lab.namespace(f"apply-{number}", forward=True)
            for key, changes in (("apply", 0), ("nothing", 0), ("one", 1), ("hundred", 100)):
                figures[key].append(space.measure(tcpgw, "apply", "-q", files[changes]))
            # As if somebody else had written meanwhile: the record does not hold, the table has to be read.
            space.run("nft", "add table inet bench_other; delete table inet bench_other")
            figures["read_back"].append(space.measure(tcpgw, "apply", "-q", files[100]))
            space.remove()
            space = lab.namespace(f"nft-{number}")
            figures["nft"].append(space.measure("nft", "-f", plain))
            space.remove()
    return figures


def targets(raw):
    return []


def behind(raw):
    return []


def report(raw):
    rows = []
    for result in raw["results"]:
        cells = [f"{result['services']:,}", "yes" if result["limits"] else "no"]
        for key in ("apply", "nft", "nothing", "one", "hundred", "read_back"):
            cells.append(f"{summary([run['seconds'] for run in result['runs'][key]])['median'] * 1000:.0f}")
        rows.append(cells)
    head = ("services x 4", "limits", "apply, ms", "nft -f", "nothing", "one backend", "100 backends", "read back")
    return "\n".join([*table(head, rows), "", plot(NAME, "load", "time of a full load")])


def plots(raw):
    figure, axes = figures.begin("Full load", "services, 4 backends each", "seconds")
    for key in ("apply", "nft"):
        chosen = [result for result in raw["results"] if not result["limits"]]
        axes.plot([result["services"] for result in chosen],
                  [summary([run["seconds"] for run in result["runs"][key]])["median"] for result in chosen], "o-", label=key)
    axes.set(xscale="log", yscale="log")
    axes.legend()
    return {"load": figure}
