"""The daemon: how fast a change is in the kernel, what it costs at rest and at work, how fast it repairs and starts."""

import time

from bench import figures, states
from bench.daemon_lab import Daemon, Follower, StateFile, forget, inside, network, segments_out
from bench.lab import Lab, say
from bench.report import Target, plot, table
from bench.sampling import interleaved, interval, median, percentile

NAME = "daemon"
TITLE = "Daemon"

# Health checks are at their usual pace then.
WARM = 10.0
PER_SECOND = 100
# The cause of changes that nobody has asked for.
UNASKED = "probes and drains"
CHANGES = ("a limit", "a backend")
WAYS = {"file, a limit": "state file, a limit changes", "file, a backend": "state file, a backend is another one",
        "file, a number": "the same, where no other service has three backends",
        "API, a limit": "API, a limit changes", "API, a backend": "API, a backend is another one"}
STARTS = {"empty": "empty kernel", "record": "adopting, with the record", "no record": "adopting, without a record"}
DRIFTS = {"table": "`nft delete table`", "element": "`nft delete element`"}


def measure(options):
    quick = options.quick
    services, changes = (100, 10) if quick else (10_000, 100)
    with Lab() as lab:
        gateway, backends = network(lab)
        file = StateFile(lab, services)
        flags = ("--state", file.path)

        def run(*more):
            return Daemon(lab, gateway, options.tcpgw, *more)

        with inside(gateway):
            say("starting")
            starts = {kind: [] for kind in STARTS}
            for _, kind in interleaved(list(STARTS), options.repetitions(3, quick=2)):
                starts[kind].append(start(lambda: run(*flags), gateway, file.backends, kind))
            daemon = run(*flags)
            daemon.await_healthy(file.backends)
            by_the_file = with_file(daemon, backends, file, changes, quick)
            remove(daemon, gateway)
            daemon = run()
            by_the_api = with_api(daemon, file, changes)
            remove(daemon, gateway)
            file.write()
            daemon = run("--no-owner", *flags)
            daemon.await_healthy(file.backends)
            drifts = repairs(daemon, gateway, file, options.repetitions(10, quick=2))
            daemon.end()
    return {"services": services, "backends": states.PER_SERVICE, "starts": starts, "drift": drifts, **by_the_file,
            "changes": {**by_the_file["changes"], **by_the_api}}


def start(run, gateway, backends, kind):
    """Seconds from exec until it is ready, CPU seconds until then, and seconds until all backends are in the balance.
    Only `empty` begins without a table."""
    if kind == "empty":
        gateway.run("nft", "flush", "ruleset")
    if kind != "record":
        forget(gateway)
    daemon = run()
    used = daemon.usage()
    whole = daemon.await_healthy(backends) if kind == "empty" else None
    daemon.await_sync()
    daemon.end()
    return {"seconds": daemon.seconds, "cpu": sum(used), "healthy": whole}


def with_file(daemon, backends, file, changes, quick):
    say("at rest")
    time.sleep(2 if quick else WARM)
    rest = window(daemon, backends, 3 if quick else 30)
    follower = Follower(daemon)
    found = {}
    for what in CHANGES:
        say(f"{changes} changes through the file: {what}")
        found[f"file, {what}"] = by_file(file, follower, what, changes)
    say(f"{changes} changes through the file: a number of backends that no other service has")
    even(daemon, follower, file, True)
    found["file, a number"] = by_file(file, follower, "a backend", changes)
    even(daemon, follower, file, False)
    say(f"{PER_SECOND} changes per second")
    work = churn(daemon, backends, follower, file, 3 if quick else 20)
    follower.close()
    return {"rest": rest, "changes": found, "churn": work}


def even(daemon, follower, file, is_even):
    follower.await_quiet(0.5)
    file.even(is_even)
    file.write()
    daemon.await_healthy(file.backends)
    follower.await_quiet(3.0)


def with_api(daemon, file, changes):
    daemon.ask("POST", "/v1/apply", file.text().encode())
    daemon.await_healthy(file.backends)
    follower = Follower(daemon)
    found = {}
    for what in CHANGES:
        say(f"{changes} changes through the API: {what}")
        found[f"API, {what}"] = by_api(daemon, file, follower, what, changes)
    follower.close()
    daemon.ask("POST", "/v1/apply?allow_empty=true", b'{"version":1,"services":[]}')
    return found


def repairs(daemon, gateway, file, repeats):
    say("repairing")
    follower = Follower(daemon)
    found = {kind: [drift(gateway, follower, file, kind) for _ in range(repeats)] for kind in DRIFTS}
    follower.close()
    return found


def remove(daemon, gateway):
    daemon.end()
    gateway.run("nft", "flush", "ruleset")
    forget(gateway)


def window(daemon, backends, seconds, work=None):
    """What the daemon takes in a while; `work` is done until the time is over."""
    before, segments, begin = daemon.usage(), segments_out(backends), time.monotonic()
    (work or time.sleep)(seconds)
    took = time.monotonic() - begin
    used = [now - then for now, then in zip(daemon.usage(), before, strict=True)]
    return {
        "seconds": took,
        "cpu_percent": 100 * sum(used) / took,
        "user": used[0],
        "kernel": used[1],
        "megabytes": daemon.megabytes(),
        "probes_per_second": (segments_out(backends) - segments) / took,
    }


def by_file(file, follower, what, changes):
    """Of each change what its first transaction took, in microseconds: by the daemon's own clock, and from the rename
    until the event came."""
    found = {"kernel": [], "seen": [], "transactions": []}
    for _ in range(changes):
        file.change(what)
        file.prepare()
        mark = follower.mark()
        begin = time.time()
        file.rename()
        note(found, follower.await_one("committed", mark, unlike=UNASKED), begin)
        follower.await_quiet(0.05)
    return found


def by_api(daemon, file, follower, what, changes):
    """The same, from sending the whole state; and until the answer."""
    found = {"kernel": [], "seen": [], "answered": [], "transactions": []}
    for _ in range(changes):
        file.change(what)
        body = file.text().encode()
        mark = follower.mark()
        begin = time.time()
        daemon.ask("POST", "/v1/apply", body)
        found["answered"].append(round((time.time() - begin) * 1e6))
        note(found, follower.await_one("committed", mark, unlike=UNASKED), begin)
        follower.await_quiet(0.05)
    return found


def note(found, event, begin):
    found["kernel"].append(event["micros"])
    found["transactions"].append(event["transactions"])
    found["seen"].append(round((event["seen"] - begin) * 1e6))


def churn(daemon, backends, follower, file, seconds):
    """A backend of another service each 10 ms, each time a whole new file."""
    follower.await_quiet()
    mark, written = follower.mark(), 0

    def work(seconds):
        nonlocal written
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            due = int(now * PER_SECOND) + 1
            while written < due:
                file.change("a backend")
                written += 1
            file.write()
            time.sleep(max(0.0, written / PER_SECOND - (time.monotonic() - begin)))

    found = window(daemon, backends, seconds, work)
    came = [event for event in follower.since(mark) if event["event"] == "committed"]
    lost = sum(event["event"] not in ("committed", "draining", "retired", "back", "health") for event in follower.since(mark))
    found |= {
        "changed": written,
        "commits": len(came),
        "transactions": sum(event["transactions"] for event in came),
        "elements": sum(event["elements"] for event in came),
        "other_events": lost,
    }
    follower.await_quiet(0.5)
    return found


def drift(gateway, follower, file, kind):
    """Seconds from the start of nft until the daemon has heard of it, and from then until it was repaired, by the times of
    its events (in ms)."""
    follower.await_quiet(0.3)
    mark = follower.mark()
    begin = time.time()
    if kind == "table":
        gateway.run("nft", "delete", "table", "inet", "tcpgw")
    else:
        gateway.run("nft", "delete", "element", "inet", "tcpgw", "width_4_v4", f"{{ tcp . {file.services[0]['port']} }}")
    ended = time.time()
    heard = follower.await_one("drift", mark)
    repaired = follower.await_one("repaired", mark)
    return {"nft": ended - begin, "heard": heard["at"] - begin, "repair": repaired["at"] - heard["at"]}


def is_full(raw):
    return raw["services"] == 10_000


def targets(raw):
    if not is_full(raw):
        return []
    found = [Target(f"{words}: ms until the kernel has it (median)", median(raw["changes"][way]["kernel"]) / 1000, at_most=1)
             for way, words in WAYS.items()]
    rest = raw["rest"]
    found += [Target("daemon at rest, 40,000 backends: % of a core", rest["cpu_percent"], at_most=10),
              Target("daemon at rest, 40,000 backends: MB", rest["megabytes"], at_most=100)]
    found += [Target(f"{words}: ms from hearing of it until it is repaired (median)", 1000 * repair(raw, kind), at_most=50)
              for kind, words in DRIFTS.items()]
    return found


def repair(raw, kind):
    return median([run["repair"] for run in raw["drift"][kind]])


def behind(_raw):
    return []


def report(raw):
    return "\n".join([
        f"There are {raw['services']:,} services with {raw['backends']} backends each. A second namespace has the addresses of all",
        "backends and answers the probes, at the usual interval (10 s while healthy). The daemon's figures are those of its process.",
        "",
        *report_changes(raw), *report_load(raw), *report_drift(raw), *report_starts(raw),
        plot(NAME, "changes", "how long changes take"),
    ])


def ms(micros, percent):
    return f"{percentile(micros, percent) / 1000:.2f}"


def report_changes(raw):
    rows = []
    for way, words in WAYS.items():
        found = raw["changes"][way]
        rows.append([words, len(found["kernel"]), f"{median(found['transactions']):g}", ms(found["kernel"], 50),
                     ms(found["kernel"], 99), ms(found["seen"], 50), ms(found["seen"], 99),
                     ms(found["answered"], 50) if "answered" in found else ""])
    return [
        "### One service changes", "",
        "\"Kernel\" is `micros` of the event `committed`: the time from the acceptance of the new state (which was read, parsed and",
        "checked before) until the last transaction was acknowledged. It includes comparing the states, compiling the services that",
        "differ, passing the change to the kernel thread, and the transactions, but not flushing. \"Seen\" is the operator's view: the",
        "time from `rename()`, or from sending the whole state to `POST /v1/apply`, until a follower got the event. It also includes",
        "the 10 ms for which a file must not change, reading, parsing and checking all services, and, for the API, writing the store to",
        "disk. When a backend is replaced, the time ends when the old one gets no new connections; the new one serves when probes have",
        "found it healthy. The service has three backends for a moment. If no other service has three, a set and a rule are added to",
        "the kernel and removed again, and removing a rule takes the kernel 5 to 8 ms.", "",
        *table(("", "changes", "transactions", "kernel, ms, p50", "p99", "seen, ms, p50", "p99", "answer, ms, p50"), rows), "",
    ]


def report_load(raw):
    rows = []
    for name, words in (("rest", "at rest"), ("churn", f"{PER_SECOND} services change per second")):
        run = raw[name]
        rows.append([words, f"{run['seconds']:.0f} s", f"{run['cpu_percent']:.1f} %", f"{run['user']:.2f}", f"{run['kernel']:.2f}",
                     f"{run['megabytes']:.0f}", f"{run['probes_per_second']:,.0f}"])
    run = raw["churn"]
    return [
        "### At rest and at work", "",
        *table(("", "for", "CPU, of a core", "user, s", "kernel, s", "MB", "probes/s"), rows), "",
        f"At work, the first backend of {run['changed']:,} services was replaced, each time by a whole new file. The daemon made",
        f"{run['transactions']:,} transactions in {run['commits']:,} commits ({run['elements']:,} elements), including drains and probes",
        "of the new backends. CPU at rest includes the softirq time for the probes' packets that is accounted to the daemon.", "",
    ]


def report_drift(raw):
    rows = []
    for kind, words in DRIFTS.items():
        runs = raw["drift"][kind]
        heard, fixed = ([1000 * run[key] for run in runs] for key in ("heard", "repair"))
        rows.append([words, len(runs), f"{1000 * median([run['nft'] for run in runs]):.0f}", f"{median(heard):.0f}",
                     f"{median(fixed):.0f}", f"{min(fixed):.0f} to {max(fixed):.0f}"])
    return [
        "### Repairs", "",
        "The daemon runs with `--no-owner`, and `nft` changes the table. The times are those of the events `drift` and `repaired`.", "",
        *table(("", "runs", "nft itself, ms", "from its start until heard, ms", "from then until repaired, ms", "all runs"), rows), "",
    ]


def report_starts(raw):
    rows = []
    for kind, words in STARTS.items():
        runs = raw["starts"][kind]
        seconds = [run["seconds"] for run in runs]
        low, high = interval(seconds)
        whole = [run["healthy"] for run in runs if run["healthy"] is not None]
        rows.append([words, len(runs), f"{median(seconds):.2f} s", f"{low:.2f} to {high:.2f}",
                     f"{median([run['cpu'] for run in runs]):.2f} s", f"{median(whole):.2f} s" if whole else ""])
    return ["### Starts", "",
            "The time from exec until the daemon reports `READY=1`. With an empty kernel each service then has a part of its backends;",
            "the others are added when probes have found them healthy.", "",
            *table(("", "runs", "median", "all runs", "CPU until then", "all backends healthy"), rows), ""]


def plots(raw):
    figure, axes = figures.begin("One service changes", "ms", "share of changes", height=3.5)
    for way in WAYS:
        for key, line in (("kernel", "-"), ("seen", "--")):
            values = sorted(value / 1000 for value in raw["changes"][way][key])
            shares = [(number + 1) / len(values) for number in range(len(values))]
            axes.plot(values, shares, line, label=f"{way}: {'kernel' if key == 'kernel' else 'seen'}")
    axes.set_xscale("log")
    axes.legend(fontsize="x-small")
    return {"changes": figure}
