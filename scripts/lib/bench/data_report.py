"""What the raw data of the data plane says: tables, targets, where tcpgw is behind, and plots."""

from dataclasses import dataclass

from bench import figures
from bench.report import Target, plot, table
from bench.sampling import interval, median, ratios

NAME = "data"


@dataclass(frozen=True)
class Figure:
    """One figure of a load. `scale` and `form` write it; where less is better, `more` is False."""

    load: str
    name: str
    title: str
    unit: str
    scale: float = 1.0
    form: str = ",.0f"
    more: bool = True

    def write(self, value):
        return format(value * self.scale, self.form)

    def write_all(self, values):
        low, high = interval(values)
        return f"{self.write(median(values))} [{self.write(low)}, {self.write(high)}]"


CONNECTIONS = Figure("connect", "rate", "Connections", "connections/s")
LATENCY = Figure("latency", "p50", "First packet", "connect(), µs, p50", form=".1f", more=False)
REQUESTS = Figure("request", "rate", "Requests and answers", "requests/s")
UP = Figure("stream-up", "rate", "Bytes to the servers", "GB/s", 1e-9, ".2f")
DOWN = Figure("stream-down", "rate", "Bytes from the servers", "GB/s", 1e-9, ".2f")
RATES = (CONNECTIONS, REQUESTS, UP, DOWN)
TAILS = (LATENCY, Figure("latency", "p99", "", "p99", form=".1f", more=False),
         Figure("latency", "p99.9", "", "p99.9", form=".1f", more=False))
CPU = {
    "connect": Figure("connect", "cpu_us", "", "CPU, µs per connection", form=".1f", more=False),
    "request": Figure("request", "cpu_us", "", "CPU, µs per request", form=".1f", more=False),
    "stream-up": Figure("stream-up", "cpu_s_per_gb", "", "CPU, s per GB", form=".2f", more=False),
    "stream-down": Figure("stream-down", "cpu_s_per_gb", "", "CPU, s per GB", form=".2f", more=False),
}
PROXIES = ("haproxy", "nginx")


def values(raw, figure, key):
    """Of each round, None where a run failed; nothing where the line was not measured."""
    return raw["results"][figure.load].get(key, {}).get(figure.name, [])


def pairs(raw, figure, above, below):
    """The ratios of the rounds that have both."""
    both = [pair for pair in zip(values(raw, figure, above), values(raw, figure, below)) if all(pair)]
    return ratios(*zip(*both)) if both else []


def lines(raw):
    """{key: line}, in the order of the report."""
    return {line["key"]: line for line in raw["lines"]}


def middle(found):
    return median(found) if found else None


def targets(raw):
    return [
        *(Target(f"connections/s of routing with conntrack, {words(services)}",
                 middle(pairs(raw, CONNECTIONS, f"tcpgw-{services}", f"conntrack-{services}")), at_least=0.9)
          for services in (1, 30_000)),
        *(Target(f"connections/s of the better of HAProxy and nginx, {words(services)}", against_proxies(raw, services),
                 at_least=1.3) for services in (1, 1_000)),
        *(Target(f"{figure.title.lower()} of routing with conntrack, {words(services)}",
                 middle(pairs(raw, figure, f"tcpgw-{services}", f"conntrack-{services}")), at_least=0.9)
          for figure in (UP, DOWN) for services in (1, 30_000)),
        Target("first-packet latency (p50) at 30,000 services of that at 1",
               middle(pairs(raw, LATENCY, "tcpgw-30000", "tcpgw-1")), at_most=1.1),
    ]


def words(services):
    return "1 service" if services == 1 else f"{services:,} services"


def against_proxies(raw, services):
    """In each round the better one; None unless both were measured."""
    rounds = zip(*(values(raw, CONNECTIONS, f"{name}-{services}") for name in ("tcpgw", *PROXIES)))
    return middle([ours / max(proxies) for ours, *proxies in rounds if ours and all(proxies)])


def reference(raw, key):
    """The line of tcpgw that a line is compared with: as many services; itself with one service."""
    line = lines(raw)[key]
    wanted = "tcpgw-1" if key.startswith("tcpgw-") else f"tcpgw-{line['services']}"
    return wanted if wanted in lines(raw) and wanted != key else None


def behind(raw):
    sentences = []
    for figure in (*RATES, *TAILS):
        lost = [loss for key in lines(raw) if (loss := behind_line(raw, figure, key))]
        if lost:
            what = figure.title or f"First packet, {figure.unit}"
            what = f"{what} ({figure.unit})" if figure.title else what
            sentences.append(f"{what}: tcpgw has {'less' if figure.more else 'more'} than {'; '.join(lost)}.")
    return sentences + slower_with_more(raw)


def behind_line(raw, figure, key):
    """Where even the better end of the interval says so."""
    ours = reference(raw, key)
    if ours is None or key.startswith(("tcpgw-", "limited-")):
        return None
    found = pairs(raw, figure, ours, key)
    if not found:
        return None
    low, high = interval(found)
    if (high >= 1) if figure.more else (low <= 1):
        return None
    line = lines(raw)[key]
    return f"{line['label']} with {words(line['services'])} ({100 * abs(median(found) - 1):.0f} %)"


def slower_with_more(raw):
    found = []
    for figure in (*RATES, LATENCY):
        compared = pairs(raw, figure, "tcpgw-30000", "tcpgw-1")
        if compared and ((interval(compared)[1] < 1) if figure.more else (interval(compared)[0] > 1)):
            found.append(f"{figure.title} ({figure.unit}): {100 * abs(median(compared) - 1):.0f} % "
                         f"{'less' if figure.more else 'more'} with 30,000 services than with 1.")
    return found


def report(raw):
    return "\n".join([
        "A client, a gateway and four servers run in a network namespace each, with veth links; all share the CPUs. Every",
        "service has four backends, one on each server, and no endpoint is in two services. The client chooses a service at",
        "random; in lines without balancing, one of the servers' addresses (as many as there are endpoints). A round runs every",
        f"load with every line, alternately forwards and backwards; there are {raw['rounds']} rounds. Conntrack is emptied before each run.",
        "There is one client address, whose timestamps only grow, so that TIME_WAIT has no effect (the section on churn measures",
        "that). Backends are chosen at random, except by nftlb, which uses turns. HAProxy and nginx have two threads or workers with",
        "`SO_REUSEPORT`. The limits of \"tcpgw with limits\" are never reached. CPU is that of the whole machine, including clients",
        "and servers. `tcpgw / it` is the median of the ratios within a round, to tcpgw with as many services; for tcpgw itself it is",
        "that line / tcpgw with 1 service.",
        "",
        *trouble(raw),
        "### Connections: connect, ask, 64 bytes of answer, close",
        "",
        *rate_table(raw, CONNECTIONS),
        "",
        plot(NAME, "rates", "connections, requests and bytes per second"),
        "",
        "### First packet: connect() to a random service",
        "",
        "The connections are opened one after the other. A proxy completes the handshake at the gateway, before it connects to a",
        "server. Its figures therefore do not include the way to a server and back, as all others do.",
        "",
        *latency_table(raw),
        "",
        *growth(raw),
        plot(NAME, "latency", "first-packet latency"),
        "",
        "### Requests and answers on 64 connections that are held",
        "",
        *rate_table(raw, REQUESTS),
        "",
        "### Bytes to the servers, 8 connections",
        "",
        *rate_table(raw, UP),
        "",
        "### Bytes from the servers, 8 connections",
        "",
        *rate_table(raw, DOWN),
        "",
        f"Loads: {', '.join(f'`{command}`' for command in raw['commands'])} (`examples/load`). "
        f"{', '.join(version for version in raw['versions'].values() if version)}.",
    ])


def trouble(raw):
    said = [f"- {name} was not measured: {one_line(why)}" for name, why in raw["missing"].items()]
    for key, loads in raw["troubles"].items():
        line = lines(raw)[key]
        for load, found in loads.items():
            said.append(f"- {line['label']}, {words(line['services'])}, {load}: {one_line('; '.join(found))}")
    return ["What went wrong:", "", *said, ""] if said else []


def one_line(text):
    return " ".join(text.split())[:300]


def rows(raw, figure, more):
    for key, line in lines(raw).items():
        found = [value for value in values(raw, figure, key) if value]
        if found:
            yield [line["label"], f"{line['services']:,}", figure.write_all(found), *(column(key) for column in more)]


def compared(raw, figure, key):
    ours = reference(raw, key)
    if ours is None:
        return ""
    own = key.startswith("tcpgw-")
    found = pairs(raw, figure, *((key, ours) if own else (ours, key)))
    if not found:
        return ""
    low, high = interval(found)
    return f"{median(found):.2f} [{low:.2f}, {high:.2f}]"


def middle_of(raw, figure, key):
    found = [value for value in values(raw, figure, key) if value is not None]
    return figure.write(median(found)) if found else ""


def rate_table(raw, figure):
    cost = CPU[figure.load]
    columns = [lambda key: compared(raw, figure, key), lambda key: middle_of(raw, cost, key),
               lambda key: compared(raw, cost, key)]
    head = ["line", "services", figure.unit, "tcpgw / it", cost.unit, "tcpgw / it"]
    if figure is CONNECTIONS:
        head.append("SYNs sent again")
        columns.append(lambda key: int(sum(filter(None, raw["results"]["connect"][key]["retried"]))))
    return table(head, rows(raw, figure, columns))


def latency_table(raw):
    columns = [lambda key: compared(raw, LATENCY, key)]
    for tail in TAILS[1:]:
        columns += [lambda key, tail=tail: middle_of(raw, tail, key), lambda key, tail=tail: compared(raw, tail, key)]
    head = ["line", "services", LATENCY.unit, "tcpgw / it", "p99", "tcpgw / it", "p99.9", "tcpgw / it"]
    return table(head, rows(raw, LATENCY, columns))


def growth(raw):
    """How much of the difference between one service and many is the rest of the network's: what clients, routes and
    servers remember is more, too."""
    names = (("tcpgw", "tcpgw-30000", "tcpgw-1"), ("routing with conntrack", "conntrack-30000", "conntrack-1"),
             ("tcpgw from 1,000 on", "tcpgw-30000", "tcpgw-1000"))
    found = [(name, pairs(raw, LATENCY, many, few)) for name, many, few in names]
    said = []
    for name, ratio in found:
        if ratio:
            low, high = interval(ratio)
            said.append(f"{median(ratio):.2f} [{low:.2f}, {high:.2f}] with {name}")
    if not said:
        return []
    return [f"p50 at 30,000 services, of that at 1: {'; '.join(said)}.",
            "The part of this increase that routing with conntrack also has is not due to the gateway's rules: clients, conntrack",
            "and servers use other ports and addresses each time, and their lookups miss the caches.", ""]


def plots(raw):
    rates, panels = figures.grid(len(RATES), 2, "median, and where it is with 95 % confidence", "", width=10, height=3.6)
    for panel, figure in zip(panels, RATES):
        panel.set_title(figure.unit if figure in (CONNECTIONS, REQUESTS) else f"{figure.title}, {figure.unit}", fontsize="small")
        draw(panel, raw, figure, "o")
        panel.set_xlim(left=0)
        panel.locator_params(axis="x", nbins=5)
    latency, (panel,) = figures.grid(1, 1, "connect() to a random service, µs", "", height=4.5)
    for tail, mark in zip(TAILS, "os^"):
        draw(panel, raw, tail, mark, label=tail.name)
    panel.set_xscale("log")
    panel.legend(fontsize="small")
    return {"rates": rates, "latency": latency}


def draw(panel, raw, figure, mark, label=None):
    names, middles, lows, highs = [], [], [], []
    for key, line in lines(raw).items():
        found = [value * figure.scale for value in values(raw, figure, key) if value]
        if not found:
            continue
        low, high = interval(found)
        names.append(f"{line['label']}, {line['services']:,}")
        middles.append(median(found))
        lows.append(middles[-1] - low)
        highs.append(high - middles[-1])
    panel.errorbar(middles, names, xerr=[lows, highs], fmt=mark, capsize=3, label=label)
    if not panel.yaxis_inverted():
        panel.invert_yaxis()
    panel.tick_params(labelsize="small")
