"""Sustained churn: new connections at full rate for a minute, and the counters that tell why they become fewer."""

from bench import figures
from bench.churn_lab import LINES, SCENARIOS, run
from bench.lab import say
from bench.report import plot, table

NAME = "churn"
TITLE = "Sustained churn"

FIRST, LAST = 5, 10
# Who keeps that much less of its rate than the line that it is compared with is behind.
CLOSE = 0.9


def measure(options):
    results = []
    for scenario in SCENARIOS:
        seconds = min(scenario.seconds, 4) if options.quick else scenario.seconds
        for line in scenario.lines:
            say(f"{scenario.title}: {LINES[line]}, {seconds} s")
            results.append({"scenario": scenario.name, "line": line, "seconds": seconds,
                            **run(scenario, line, seconds, options)})
    return {"runs": results}


def rate(result, part):
    """Connections per second within the first seconds (the very first one left out) or the last."""
    seconds = result["per_second"]
    chosen = seconds[1:1 + FIRST] if part == "first" else seconds[-LAST:]
    return sum(chosen) / max(1, len(chosen))


def total(result, counter):
    return sum(second[counter] for second in result["counters"])


def by_line(raw, scenario):
    return {result["line"]: result for result in raw["runs"] if result["scenario"] == scenario.name}


def targets(raw):
    return []


def kept(result):
    """How much of the rate is left at the end. Runs one after the other differ in more than their rules; what each keeps
    of its own rate can be compared."""
    return rate(result, "last") / max(1.0, rate(result, "first"))


def behind(raw):
    found = []
    for scenario in SCENARIOS:
        results = by_line(raw, scenario)
        ours, theirs = results.get("tcpgw"), results.get(scenario.lines[0])
        if ours and theirs and ours is not theirs and kept(ours) < CLOSE * kept(theirs):
            found.append(f"Sustained churn, {scenario.title}: the rate at the end is {kept(ours):.2f} of that at the beginning; with "
                         f"{LINES[scenario.lines[0]]} it is {kept(theirs):.2f}.")
    return found


def report(raw):
    text = [INTRODUCTION]
    for scenario in SCENARIOS:
        results = by_line(raw, scenario)
        if not results:
            continue
        rows = [row(line, results[line]) for line in scenario.lines if line in results]
        text += [f"**{scenario.title[0].upper()}{scenario.title[1:]}.** {scenario.about}", "", *table(HEAD, rows), "",
                 plot(NAME, scenario.name, scenario.title), ""]
    return "\n".join(text)


HEAD = ("", f"connections/s, first {FIRST} s", f"last {LAST} s", "handshakes of 0.9 s and more", "failed",
        "p50, p99 of `connect()`, ms", "PAWSTimewait", "TCPSynRetrans", "entries, most", "insert_failed", "search_restart")


def row(line, result):
    times = result["connect_us"]
    most = max((second["entries"] for second in result["counters"]), default=0)
    return [LINES[line], f"{rate(result, 'first'):,.0f}", f"{rate(result, 'last'):,.0f}", f"{times['retried']:,}",
            f"{sum(result['errors'].values()):,}", f"{times['p50'] / 1000:.1f}, {times['p99'] / 1000:.0f}",
            f"{total(result, 'PAWSTimewait'):,}", f"{total(result, 'TCPSynRetrans'):,}", f"{most:,}",
            f"{total(result, 'insert_failed'):,}", f"{total(result, 'search_restart'):,}"]


INTRODUCTION = """\
Clients open new connections, 256 at a time, as fast as possible (or at a fixed rate, where the text says so): connect, request,
answer of 64 bytes, close. A backend that closes first holds the peer's address and port for 60 s (TIME_WAIT), with the last
timestamp of the connection. If a SYN from the same address and port has a lower timestamp, because it is of another client for
example, the backend answers with a bare ACK (PAWS, RFC 7323), and the client has to repeat the SYN. `PAWSTimewait` and
`TCPTimeWaitOverflow` are counters of the backends, `TCPSynRetrans` of the clients, and `insert_failed`, `search_restart` and the
entries of conntrack on the gateway. "nft" means hand-written rules of the usual kind: `dnat to numgen random mod N map {...}` and
`masquerade`.
"""


def plots(raw):
    drawn = {}
    for scenario in SCENARIOS:
        results = by_line(raw, scenario)
        if not results:
            continue
        figure, (above, below) = figures.grid(2, 1, "seconds", "per second")
        above.set_title("connections", fontsize="small")
        below.set_title("PAWSTimewait (solid), TCPSynRetrans (dotted)", fontsize="small")
        for number, line in enumerate(line for line in scenario.lines if line in results):
            result, color = results[line], f"C{number}"
            above.plot(range(1, len(result["per_second"]) + 1), result["per_second"], color=color, label=LINES[line])
            seconds = [second["second"] for second in result["counters"]]
            for counter, style in (("PAWSTimewait", "-"), ("TCPSynRetrans", ":")):
                below.plot(seconds, [second[counter] for second in result["counters"]], style, color=color)
        above.set_ylim(bottom=0)
        above.legend(fontsize="small")
        drawn[scenario.name] = figure
    return drawn
