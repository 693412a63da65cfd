"""What a scrape of the metrics takes, and what it costs the daemon, with many services."""

import http.client
import json
import os
import sys
import time

from bench import states
from bench.chromium import browser
from bench.daemon import UNASKED
from bench.daemon_lab import Daemon, Follower, StateFile, inside, network
from bench.lab import Lab, say, wait_until
from bench.report import Target, table
from bench.sampling import median, percentile

NAME = "metrics"
TITLE = "Metrics"

SERVICES = 10_000
PUBLIC, CLIENT = "10.4.0.1", "10.4.0.2"
# Connections to each service, so that nearly all of its four backends have counted some: each one misses 3 % of them.
CONNECTIONS = 12
CALLER = """
import socket, struct, sys
address, first, services, rounds = sys.argv[1], *map(int, sys.argv[2:])
for _ in range(rounds):
    for port in range(first, first + services):
        with socket.create_connection((address, port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""
AT, PLAIN = ("127.0.0.1", 9464), ("127.0.0.1", 9465)
# Longer than a reading is shown, where it takes a tenth of this of the processor.
PAUSE = 5.0
# Seconds in which the daemon has returned once what it needed for a moment only: it does so every minute. Until then it keeps it, so that
# two moments cannot be compared, but the most and the least of two such times can.
REST = 62
READS = b"tcpgw_kernel_reads_total "
FAILURES = b"tcpgw_kernel_read_failures_total "
# Pages of the dashboard, and what they are in the report.
PAGES = {"/": "overview", "/services": "table of services", "/services?sort=pace": "the same, sorted by new connections",
         "/services?q=app-77": "the same, filtered", "/services/app-77": "a service"}
SCOPES = {"service": "/metrics?scope=service", "backend": "/metrics?scope=backend"}


def measure(options):
    count = 100 if options.quick else SERVICES
    rounds = options.repetitions(20, quick=3)
    with Lab() as lab:
        gateway, _ = network(lab)
        file = StateFile(lab, count)
        rest_probes(file)
        config = lab.file("config.toml", f'[web]\nlisten = "{AT[0]}:{AT[1]}"\n')
        with inside(gateway):
            daemon = Daemon(lab, gateway, options.tcpgw, "--config", config, "--state", file.path)
            wait_until(lambda: daemon.about()["health"].get("healthy", 0) >= file.backends * 0.99, "backends to be healthy", 300)
            connect(lab, gateway, count)
            time.sleep(3 if options.quick else REST)
            before = memory_of(daemon, 3 if options.quick else REST)
            forget_peak(daemon)
            counted = await_counts(count)
            found = {scope: scrapes(path, rounds, options) for scope, path in SCOPES.items()}
            plain = {scope: beside(lab, gateway, path, rounds) for scope, path in SCOPES.items()}
            shown = pages(lab, gateway, rounds)
            during = {"most": daemon_peak(daemon)}
            after = memory_of(daemon, 3 if options.quick else REST)
            delays = changes(daemon, file, 10 if options.quick else 100)
            answers = orders(daemon, 3 if options.quick else 20)
            daemon.end()
    return {"load": os.getloadavg(), "services": count, "backends": states.PER_SERVICE, "connections": counted, "scrapes": found, "plain": plain, "pages": shown,
            "megabytes": {"before": before, "during": during, "after": after}, "changes": delays, "orders": answers}


def connect(lab, gateway, services):
    """Lets a client connect to each service several times."""
    client = lab.namespace("client")
    lab.link(gateway, "out", client, "eth0")
    gateway.address("out", f"{PUBLIC}/24")
    client.address("eth0", f"{CLIENT}/24")
    say(f"{services * CONNECTIONS:,} connections")
    client.run(sys.executable, "-c", CALLER, PUBLIC, states.FIRST_PORT, services, CONNECTIONS)


def await_counts(services):
    """Waits until the metrics count the connections, and returns their number. A handshake that is begun anew at another backend, since the
    first one did not answer in time, counts again."""
    expected = services * CONNECTIONS
    wait_until(lambda: connections() >= expected, f"{expected:,} connections to be counted", 60)
    return connections()


def connections():
    name = b"tcpgw_service_connections_total{"
    lines = get(SCOPES["service"])[1].splitlines()
    return sum(int(float(line.rsplit(b" ", 1)[1])) for line in lines if line.startswith(name))


def rest_probes(file):
    """Probes are rare and patient: what the metrics cost beside them, on a machine that does other things too, is measured here."""
    for index, service in enumerate(file.services):
        service["health"] = {"interval": "60s", "timeout": "20s"}
        file.texts[index] = json.dumps(service)
    file.write()


def get(path, at=AT):
    """Seconds and the text."""
    connection = http.client.HTTPConnection(*at, timeout=60)
    begin = time.perf_counter()
    connection.request("GET", path)
    text = connection.getresponse().read()
    seconds = time.perf_counter() - begin
    connection.close()
    return seconds, text


def value(text, name=READS):
    return next(int(line[len(name):]) for line in text.splitlines() if line.startswith(name))


def scrapes(path, rounds, options):
    """Seconds of scrapes that read the kernel, and of those that come at once after one."""
    say(f"{path}, load average {os.getloadavg()[0]:.1f}")
    fresh, again, loads = [], [], []
    text = get(path)[1]
    last, failed = value(text), value(text, FAILURES)
    while len(fresh) < rounds:
        time.sleep(1.2 if options.quick else PAUSE)
        seconds, text = get(path)
        number = value(text)
        if number > last:
            fresh.append(seconds)
            loads.append(os.getloadavg()[0])
            again.append(get(path)[0])
        last = number
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    failures = value(text, FAILURES) - failed
    say(f"{path}: {series:,} series, {len(text) / 1e6:.1f} MB, median {median(fresh) * 1000:.0f} ms, best {min(fresh) * 1000:.0f} ms, "
        f"load average {median(loads):.1f}, {failures} reads of the kernel failed")
    return {"fresh": fresh, "again": again, "loads": loads, "failures": failures, "bytes": len(text), "series": series}


def beside(lab, gateway, path, rounds):
    """Seconds in which nginx sends the same text from a file."""
    folder = lab.directory / "plain"
    is_first = not folder.exists()
    folder.mkdir(exist_ok=True)
    (folder / "metrics").write_bytes(get(path)[1])
    if is_first:
        start_nginx(lab, gateway, folder)
    return [get("/metrics", PLAIN)[0] for _ in range(rounds)]


def start_nginx(lab, gateway, folder):
    text = "\n".join((
        "user root;", "daemon off;", "worker_processes 1;", f"pid {lab.directory}/nginx.pid;", "error_log stderr crit;", "events {}",
        "http {", "access_log off;", f"server {{ listen {PLAIN[0]}:{PLAIN[1]}; root {folder}; }}", "}", ""))
    gateway.start("nginx", "-p", lab.directory, "-e", "stderr", "-c", lab.file("plain.conf", text))
    gateway.await_listener(PLAIN[1])


def pages(lab, gateway, rounds):
    """Seconds of the dashboard's pages, and milliseconds in a browser, where one is installed; an empty page of nginx beside them."""
    say("pages of the dashboard")
    (lab.directory / "plain" / "empty.html").write_text("<!doctype html><title>empty</title>")
    urls = {"empty": (PLAIN, "/empty.html"), **{path: (AT, path) for path in PAGES}}
    found = {name: {"seconds": [], "browser": []} for name in urls}
    with browser(lab, gateway) as chosen:
        for _ in range(min(rounds, 10)):
            for name, (at, path) in urls.items():
                seconds, text = get(path, at)
                found[name]["seconds"].append(seconds)
                found[name]["bytes"] = len(text)
                if chosen:
                    found[name]["browser"].append(chosen.open(f"http://{at[0]}:{at[1]}{path}"))
    return found


def memory_of(daemon, seconds):
    """Megabytes of the daemon during some time: the least, after it has returned memory, and the most."""
    forget_peak(daemon)
    least, end = daemon.megabytes(), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.25)
        least = min(least, daemon.megabytes())
    return {"least": least, "most": daemon_peak(daemon)}


def forget_peak(daemon):
    """The most memory at any time is that from now on (proc(5), clear_refs)."""
    with open(f"/proc/{daemon.process.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def daemon_peak(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def changes(daemon, file, count):
    """Microseconds of changes through the file, by the daemon's clock: without scrapes, and each beside one."""
    follower = Follower(daemon)
    found = {"alone": [], "beside": []}
    for number in range(2 * count):
        name = ("alone", "beside")[number % 2]
        file.change("a limit")
        file.prepare()
        follower.await_quiet(0.05)
        mark = follower.mark()
        if name == "beside":
            ask_and_leave(SCOPES["backend"])
        file.rename()
        found[name].append(follower.await_one("committed", mark, unlike=UNASKED)["micros"])
        time.sleep(0.6)
    follower.close()
    return found


def orders(daemon, count):
    """Seconds of orders through the API, until the answer: a service comes, changes, and leaves. The last one frees its port, and waits
    until what was counted there is known as that service's."""
    say("orders")
    found = {"create": [], "change": [], "remove": []}
    for number in range(count):
        name = f"order-{number}"
        service = {"name": name, "port": 20_000 + number, "backends": ["10.3.250.1:3000"],
                   "health": {"interval": "60s", "timeout": "20s"}}
        for order, method, body in (("create", "PUT", service), ("change", "PUT", {**service, "max_flows": 1000}), ("remove", "DELETE", None)):
            text = json.dumps(body).encode() if body else b""
            begin = time.perf_counter()
            daemon.ask(method, f"/v1/services/{name}", text)
            found[order].append(time.perf_counter() - begin)
            time.sleep(0.3)
    return found


def ask_and_leave(path):
    """Begins a scrape, whose text nobody reads."""
    connection = http.client.HTTPConnection(*AT, timeout=60)
    connection.request("GET", path)


def targets(raw):
    if raw["services"] != SERVICES:
        return []
    scrapes, memory, delays = raw["scrapes"], raw["megabytes"], raw["changes"]
    return [
        Target("10,000 services, a scrape of services, median in ms", median(scrapes["service"]["fresh"]) * 1000, at_most=100),
        Target("10,000 services x 4, a scrape with ?scope=backend, median in ms", median(scrapes["backend"]["fresh"]) * 1000,
               at_most=300),
        Target("10,000 services x 4, the most memory with scrapes, MB above the most without", memory["during"]["most"] - memory["before"]["most"],
               at_most=50),
        Target("10,000 services, the slowest page of the dashboard in a browser, median in ms",
               max((median([page["milliseconds"] for page in raw["pages"][path]["browser"]]) for path in PAGES if raw["pages"][path]["browser"]),
                   default=None), at_most=1000),
        Target("10,000 services, an order that frees a port, median in ms", median(raw["orders"]["remove"]) * 1000, at_most=500),
        Target("a change beside a scrape, median of that without one", median(delays["beside"]) / median(delays["alone"]), at_most=1.5),
    ]


def behind(_):
    return []


def report(raw):
    names = {"service": "services", "backend": "services and backends"}
    rows = [[names[scope], f"{part['series']:,}", f"{part['bytes'] / 1e6:.1f} MB",
             *(f"{value * 1000:.0f} ms" for value in (min(part["fresh"]), median(part["fresh"]), percentile(part["fresh"], 90),
                                                       median(part["again"]), median(raw["plain"][scope]))),
             f"{median(part['loads']):.1f}", str(part["failures"])]
            for scope, part in raw["scrapes"].items()]
    memory, delays = raw["megabytes"], raw["changes"]
    return "\n".join([
        f"The gateway has {raw['services']:,} services with {raw['backends']} backends each, and has counted {raw['connections']:,} connections to them. Load average of the machine at the end: "
        f"{', '.join(f'{load:.1f}' for load in raw['load'])}, two cores. A first scrape reads the kernel; one that follows at once shows the "
        "same reading. The requesting program shares the machine's processors: the time in which nginx sends it the same text from a file is "
        "beside. The load average is that during these scrapes: on a machine that does nothing else it is below 1. Where a read of the kernel "
        "failed, the figures are too low, and flows are missing.", "",
        *table(("scrape of", "series", "text", "first, best", "first, median", "first, 90 %", "that follows, median", "nginx, median",
                "load average", "failed reads"), rows), "",
        f"Memory of the daemon: {in_megabytes(memory['before'])} in a minute without scrapes, which counts these connections; at most "
        f"{memory['during']['most']:.0f} MB during scrapes and requests of pages; {in_megabytes(memory['after'])} in the minute after the last one. Once a "
        "minute it returns memory that it needed for a moment only, and reaches the smaller figure. "
        f"A change of a limit is in the kernel after {median(delays['alone']) / 1000:.1f} ms (median; "
        f"99 %: {percentile(delays['alone'], 99) / 1000:.1f} ms), and beside a scrape with backends after {median(delays['beside']) / 1000:.1f} ms "
        f"({percentile(delays['beside'], 99) / 1000:.1f} ms).", "", report_orders(raw["orders"]), "", *report_pages(raw["pages"])])


def in_megabytes(memory):
    return f"{memory['least']:.0f} to {memory['most']:.0f} MB"


def report_orders(found):
    create, change, remove = (f"{median(found[order]) * 1000:.0f} ms" for order in ("create", "change", "remove"))
    return (f"An order through the API is answered after {create} (a new service), {change} (a changed one) and {remove} (one that is removed: "
            f"at most {max(found['remove']) * 1000:.0f} ms), medians. The last one waits until the kernel's counters are read, so that what was "
            "counted on the port belongs to the service that had it.")


def report_pages(pages):
    rows = []
    for name, page in pages.items():
        shown = page["browser"]
        rows.append([PAGES.get(name, "an empty page of nginx"), f"{page['bytes'] / 1000:,.1f} kB", f"{median(page['seconds']) * 1000:.0f} ms",
                     f"{max(page['seconds']) * 1000:.0f} ms", f"{max((one['rows'] for one in shown), default=0)}",
                     f"{median([one['milliseconds'] for one in shown]):.0f} ms" if shown else "not measured"])
    return ["### The dashboard", "",
            "With the same number of services. A page has a bounded number of rows, whatever the number of services. \"In a browser\" is the time "
            "from the request until headless Chromium has loaded and laid out the page with its style, script and plot.", "",
            *table(("page", "text", "answer, median", "slowest", "rows", "in a browser, median"), rows)]


def plots(_):
    return {}
