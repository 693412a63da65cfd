"""The control plane: how long it takes to load services, and to change some."""

import time
from dataclasses import dataclass

from bench import cpu, facts, figures, rulesets
from bench.lab import Failed, Lab, say, wait_until
from bench.report import plot, table
from bench.sampling import interleaved, interval, median, ratios
from bench.states import state

NAME = "control"
TITLE = "Control plane"

CHANGES = (1, 100)
# A peer that takes longer is ended and reported so.
PATIENCE = 150
CONTENDERS = {
    "tcpgw": "tcpgw apply",
    "nft": "nft -f",
    "kube": "kube-proxy's shape",
    "nftlb": "nftlb",
}
OPERATIONS = {
    "full": "full load",
    "nothing": "no change",
    "one": "one backend",
    "hundred": "100 backends",
    "read_back": "read back",
}


@dataclass(frozen=True)
class Size:
    """So many services x 4; `rounds` of each contender. The peers beyond nft need minutes where they get large."""

    services: int
    limits: bool
    rounds: dict


def sizes(options):
    if options.quick:
        one = {"tcpgw": 1, "nft": 1}
        return [Size(100, False, {**one, "kube": 1, "nftlb": 1}), Size(1000, False, {**one, "kube": 1}), Size(1000, True, one)]
    many, some = options.repetitions(9), options.repetitions(5)
    few = {"tcpgw": many, "nft": many}
    lot = {"tcpgw": some, "nft": some}
    return [
        Size(100, False, {**few, "kube": many, "nftlb": many}), Size(100, True, few),
        Size(1000, False, {**few, "kube": many, "nftlb": 1}), Size(1000, True, few),
        Size(5000, False, {**lot, "kube": 1}),
        Size(10000, False, lot), Size(10000, True, lot),
        Size(50000, False, lot), Size(50000, True, lot),
    ]


def measure(options):
    results = []
    for size in sizes(options):
        say(f"{size.services} services x 4{', with limits' if size.limits else ''}: {size.rounds}")
        results.append({"services": size.services, "limits": size.limits, "runs": one_size(options.tcpgw, size)})
    return {
        "versions": {"nft": facts.version("nft", "--version"), "nftlb": facts.version("nftlb", "--help")},
        "commands": COMMANDS,
        "results": results,
    }


COMMANDS = {
    "tcpgw": "tcpgw apply -q STATE",
    "nft": "nft -f RENDERED; nft -f DELTA",
    "kube": "nft -f SHAPE; nft -f CHANGE",
    "nftlb": "nftlb -e -c FARMS; curl -X POST http://127.0.0.1:5555/farms -d @CHANGE",
}


def one_size(tcpgw, size):
    runs = {name: {} for name in size.rounds}
    with Lab() as lab:
        files = Files(lab, tcpgw, size)
        for number, name in interleaved(list(size.rounds), max(size.rounds.values())):
            if number >= size.rounds[name]:
                continue
            space = lab.namespace(f"{name}-{number}", forward=True)
            for operation, figure in RUNS[name](space, tcpgw, files, size).items():
                runs[name].setdefault(operation, []).append(figure)
            space.remove()
    return runs


class Files:
    """What is to be loaded, and the same with changes."""

    def __init__(self, lab, tcpgw, size):
        self.lab = lab
        self.states = {count: lab.file(f"state-{count}.json", state(size.services, size.limits, count))
                       for count in (0, *CHANGES)}
        render = lab.namespace("render")
        texts = {count: render.run(tcpgw, "render", path) for count, path in self.states.items()}
        self.plain = lab.file("plain.nft", texts[0])
        # From the state with one change to that with a hundred, as tcpgw goes.
        steps = {1: (texts[0], texts[1]), 100: (texts[1], texts[100])}
        self.deltas = {count: lab.file(f"delta-{count}.nft", rulesets.delta(*pair)) for count, pair in steps.items()}


def run_tcpgw(space, tcpgw, files, size):
    def apply(changes):
        return timed(space, tcpgw, "apply", "-q", files.states[changes])
    found = {"full": apply(0), "nothing": apply(0), "one": apply(1), "hundred": apply(100)}
    # As if somebody else had written meanwhile: the record does not hold, the table has to be read.
    space.run("nft", "add table inet bench_other; delete table inet bench_other")
    return {**found, "read_back": apply(100)}


def run_nft(space, tcpgw, files, size):
    return {"full": timed(space, "nft", "-f", files.plain), "one": timed(space, "nft", "-f", files.deltas[1]),
            "hundred": timed(space, "nft", "-f", files.deltas[100])}


def run_kube(space, tcpgw, files, size):
    full = timed(space, "nft", "-f", files.lab.file("kube.nft", rulesets.kube(size.services)))
    if full is None:
        return {"full": None}
    # Other services, of which no endpoint was changed before.
    change = files.lab.file("kube-change.nft", rulesets.kube_change(size.services, 1))
    return {"full": full, "one": timed(space, "nft", "-f", change)}


def run_nftlb(space, tcpgw, files, size):
    farms = files.lab.file("nftlb.json", rulesets.nftlb(size.services))
    full = timed(space, "nftlb", "-e", "-k", "key", "-c", farms)
    if full is None:
        return {"full": None}
    # It says nothing when it gives up.
    loaded = space.run("nft", "list", "chains").count("chain nat-")
    if loaded < size.services:
        raise Failed(f"nftlb loaded {loaded} of {size.services} farms")
    if size.services > 100:
        return {"full": full}
    server = space.start("nftlb", "-k", "key", "-H", "127.0.0.1", "-c", farms)
    wait_until(lambda: space.listens(5555), "nftlb's server", 30)
    found = {"full": full}
    for operation, changes in zip(("one", "hundred"), CHANGES):
        change = files.lab.file("nftlb-change.json", rulesets.nftlb_change(size.services, changes))
        found[operation] = posted(space, server.pid, change)
    return found


def posted(space, pid, change):
    """A change through nftlb's API: the time of the request, CPU time of the server in steps of 10 ms."""
    before = cpu.split_of_process(pid)
    begin = time.perf_counter()
    answer = space.run("curl", "-sSf", "-H", "Key: key", "-X", "POST", "http://127.0.0.1:5555/farms", "-d", f"@{change}")
    elapsed = time.perf_counter() - begin
    if "success" not in answer:
        raise Failed(f"nftlb refused a change: {answer}")
    after = cpu.split_of_process(pid)
    return {"seconds": elapsed, "user": after[0] - before[0], "kernel": after[1] - before[1],
            "megabytes": cpu.peak_megabytes(pid)}


def timed(space, *argv):
    run = space.measure(*argv, timeout=PATIENCE)
    if run:
        run.pop("said")
    return run


RUNS = {"tcpgw": run_tcpgw, "nft": run_nft, "kube": run_kube, "nftlb": run_nftlb}


def seconds(result, name, operation):
    """Of each run; none where it was not measured or not in time."""
    return [run["seconds"] for run in result["runs"].get(name, {}).get(operation, []) if run]


def pairs(result, name, operation):
    """How many times as long as tcpgw it takes, round by round."""
    theirs = seconds(result, name, operation)
    return ratios(theirs, seconds(result, "tcpgw", operation)[:len(theirs)])


def targets(raw):
    return []


def behind(raw):
    found = {}
    for result in raw["results"]:
        for name in CONTENDERS:
            for operation in OPERATIONS:
                compared = pairs(result, name, operation) if name != "tcpgw" else []
                if compared and median(compared) < 1:
                    size = f"{result['services']:,}{' with limits' if result['limits'] else ''}"
                    found.setdefault((name, operation), []).append((size, 1 / median(compared)))
    return [f"{OPERATIONS[operation].capitalize()}: `tcpgw apply` takes longer than {CONTENDERS[name]}: "
            + ", ".join(f"{times:.1f} times at {size} services" for size, times in sizes) + "."
            for (name, operation), sizes in found.items()]


def report(raw):
    return "\n".join([
        f"`nft -f` ({raw['versions']['nft']}) loads the output of `tcpgw render` for the same state, which is the same table. The",
        "columns of user space and kernel are the CPU time of the process. tcpgw's time includes reading the state file.",
        "",
        *full_loads(raw),
        "",
        *growth(raw),
        "",
        plot(NAME, "load", "time of a full load"),
        "",
        "### Against other shapes",
        "",
        "A ruleset like that of kube-proxy, written for this benchmark and loaded by `nft -f`: one chain for each service and each",
        f"endpoint, and a map from services to chains. nftlb ({raw['versions']['nftlb']}) loads snat farms from its configuration",
        "file. Both have no limits, and are measured up to the size that takes some minutes. In brackets: the ratio to tcpgw's time.",
        "",
        *other_shapes(raw),
        "",
        "### Changes",
        "",
        "After the state was loaded: an apply that changes nothing, one that changes a backend of one service, and one that",
        "changes a backend of each of 100 services, in one run. `nft -f` gets only the elements that differ; tcpgw gets the whole",
        "state and has to find them. Read back: an apply that changes nothing, after another program has written nftables, so that",
        "tcpgw must read the table.",
        "",
        *changes(raw),
        "",
        plot(NAME, "change", "time of a change"),
        "",
        "The same change with the other programs, for the same number of services. With the ruleset like kube-proxy's it is a new",
        "endpoint chain and new rules of the service; with nftlb it is a request to its API (the server's time).",
        "",
        *other_changes(raw),
    ])


def full_loads(raw):
    rows = []
    for result in raw["results"]:
        if result["services"] == 5000:
            continue
        cells = [size(result), limited(result)]
        for name in ("tcpgw", "nft"):
            runs = result["runs"][name]["full"]
            cells += [with_interval([run["seconds"] for run in runs]), milliseconds(median([run["user"] for run in runs])),
                      milliseconds(median([run["kernel"] for run in runs])),
                      f"{median([run['megabytes'] for run in runs]):.0f}"]
        rows.append([*cells, f"{median(pairs(result, 'nft', 'full')):.1f}"])
    return table(("services x 4", "limits", "tcpgw apply, ms", "user space", "kernel", "peak MB",
                  "nft -f, ms", "user space", "kernel", "peak MB", "nft / tcpgw"), rows)


def growth(raw):
    by_size = {(result["services"], result["limits"]): median(seconds(result, "tcpgw", "full")) for result in raw["results"]}
    return [f"- {'With' if limits else 'Without'} limits, 50,000 services take "
            f"{by_size[50000, limits] / by_size[10000, limits]:.1f} times as long as 10,000."
            for limits in (False, True) if (50000, limits) in by_size and (10000, limits) in by_size]


def other_shapes(raw):
    rows = []
    for result in raw["results"]:
        if result["limits"] or not {"kube", "nftlb"} & result["runs"].keys():
            continue
        rows.append([size(result), milliseconds(median(seconds(result, "tcpgw", "full"))),
                     *(compared(result, name, "full") for name in ("nft", "kube", "nftlb"))])
    return table(("services x 4", "tcpgw apply, ms", "nft -f, ms", "kube-proxy's shape, ms", "nftlb, ms"), rows)


def other_changes(raw):
    rows = []
    for result in raw["results"]:
        if not result["limits"] and "kube" in result["runs"]:
            rows.append([size(result), milliseconds(median(seconds(result, "tcpgw", "one"))),
                         *(compared(result, name, "one") for name in ("nft", "kube", "nftlb"))])
    return table(("services x 4", "tcpgw apply, ms", "nft -f, ms", "kube-proxy's shape, ms", "nftlb, ms"), rows)


def compared(result, name, operation):
    if name not in result["runs"]:
        return ""
    runs = result["runs"][name].get(operation)
    if runs is None:
        return ""
    if None in runs:
        return f"more than {PATIENCE:,} s"
    return f"{milliseconds(median(seconds(result, name, operation)))} ({times(median(pairs(result, name, operation)))})"


def changes(raw):
    rows = []
    for result in raw["results"]:
        if result["services"] == 5000:
            continue
        full = median(seconds(result, "tcpgw", "full"))
        cells = [size(result), limited(result)]
        for operation in ("nothing", "one", "hundred"):
            runs = result["runs"]["tcpgw"][operation]
            cells.append(f"{with_interval([run['seconds'] for run in runs])}, "
                         f"{100 * median([run['seconds'] for run in runs]) / full:.0f} %")
        cells.append(f"{milliseconds(median([run['user'] for run in runs]))} + "
                     f"{milliseconds(median([run['kernel'] for run in runs]))}")
        cells += [compared(result, "nft", operation) for operation in ("one", "hundred")]
        rows.append([*cells, milliseconds(median(seconds(result, "tcpgw", "read_back")))])
    return table(("services x 4", "limits", "nothing, ms, of the full load", "one backend", "100 backends",
                  "user + kernel of that", "nft -f, one, ms (/ tcpgw)", "nft -f, 100", "read back, ms"), rows)


def times(ratio):
    return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2f}"


def size(result):
    return f"{result['services']:,}"


def limited(result):
    return "yes" if result["limits"] else "no"


def milliseconds(value):
    return f"{value * 1000:,.0f}" if value >= 0.01 else f"{value * 1000:.1f}"


def with_interval(values):
    low, high = interval(values)
    return f"{milliseconds(median(values))} [{milliseconds(low)}, {milliseconds(high)}]"


def plots(raw):
    load, axes = figures.begin("Full load, without limits", "services, 4 backends each", "seconds")
    curve(axes, raw, [(name, "full", label) for name, label in CONTENDERS.items()])
    change, axes = figures.begin("One change, without limits", "services, 4 backends each", "seconds")
    curve(axes, raw, [(name, "one", label) for name, label in CONTENDERS.items()] + [("tcpgw", "hundred", "tcpgw apply, 100 changes")])
    return {"load": load, "change": change}


def curve(axes, raw, lines):
    chosen = [result for result in raw["results"] if not result["limits"]]
    for name, operation, label in lines:
        points = [(result["services"], seconds(result, name, operation)) for result in chosen]
        points = [(services, values) for services, values in points if values]
        middles = [median(values) for _, values in points]
        spread = [interval(values) for _, values in points]
        axes.errorbar([services for services, _ in points], middles,
                      yerr=[[middle - low for middle, (low, _) in zip(middles, spread)],
                            [high - middle for middle, (_, high) in zip(middles, spread)]],
                      fmt="o-", capsize=3, label=label)
    axes.set(xscale="log", yscale="log")
    axes.legend()
