"""The add-on: what provisioning takes, what many resources cost, and how soon an app's page is there."""

import itertools
import json
import os
import tempfile
import time
from pathlib import Path

from bench import flush, inject
from bench.addon_lab import (AT, FIRST_PORT, Flush, Owner, PlainPlatform, Platform, configure, listens, plain_server,
                             provision_many, timed)
from bench.daemon_lab import Daemon, inside, network
from bench.facts import ROOT
from bench.lab import Failed, Lab, say
from bench.report import Target, table
from bench.sampling import interleaved, median, percentile

NAME = "addon"
TITLE = "The add-on"

FEW, RESOURCES = 1_000, 10_000
# So many are provisioned one after the other where the processor's time of one is taken.
COUNTED = 200
# Seconds after which the daemon reads an app's traffic no more.
UNWATCHED = 22
# Seconds after which the daemon has given back what it needed for a moment only: it does so every minute.
REST = 62
# First views of a page, and later ones.
FIRST, LATER = 2, 200
CONNECTIONS = 16
# Provisions that wait for the disk together, and by how many connections.
AT_ONCE, ASKERS = 640, 32
LINES = {"memory": "provision, store in memory", "disk": "provision, store on disk", "flush": "one flush of 4 KiB on that disk",
         "nginx": "nginx, which answers the same request and keeps nothing"}


def measure(options):
    return {"load": os.getloadavg(), "nice": os.nice(0), "provision": provision(options), **many(options)}


def provision(options):
    """Seconds of each request, one after the other on one connection, with the store in memory and on a disk; beside it a flush
    of that disk, and a plain answer."""
    rounds = 10 if options.quick else 300
    found, at_once = {name: [] for name in LINES}, {}
    # On the disk that the build is on: a temporary directory is in memory on many machines.
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=target) as disk, Lab() as lab:
        found_at = filesystem(Path(disk))
        gateway, _ = network(lab)
        plain_server(lab, gateway)
        flags = ("--config", configure(lab))
        line = Flush(Path(disk))
        with inside(gateway):
            plain = PlainPlatform()
            for place, store in (("memory", None), ("disk", Path(disk) / "store.db")):
                say(f"provisioning, store in {place}")
                daemon = Daemon(lab, gateway, options.tcpgw, *flags, store=store)
                listens()
                platform = Platform()
                platform.provision("the-first")
                work = {place: platform.provision, "flush": lambda _: line.once(), "nginx": plain.provision_nothing}
                for number, name in interleaved(list(work), rounds):
                    found[name].append(timed(work[name], f"app-{number}"))
                platform.close()
                if place == "disk":
                    at_once = together(40 if options.quick else AT_ONCE)
                gateway.run(options.tcpgw, "teardown", "--socket", daemon.socket)
                daemon.end()
            plain.close()
            line.close()
    return {"seconds": found, "at once": at_once, "filesystem": found_at}


def together(count):
    """Provisions by many connections at the same time."""
    say(f"provisioning, {ASKERS} at once, store on disk")
    seconds, each = provision_many((f"at-once-{number}" for number in range(count)), ASKERS)
    return {"count": count, "connections": ASKERS, "seconds": seconds, "each": each}


def filesystem(path):
    """The type of the file system that a directory is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    within = [(place, kind) for place, kind in mounts if path.is_relative_to(place)]
    return max(within, key=lambda mount: len(mount[0]))[1]


def many(options):
    """Memory and pages with many resources."""
    few, count = (60, 200) if options.quick else (FEW, RESOURCES)
    counted = 20 if options.quick else COUNTED
    flows = 10_000 if options.quick else 2 * inject.PER_BACKEND
    with flush.room_for(flows), Lab() as lab:
        gateway, _ = network(lab)
        gateway.address("in", f"{inject.PUBLIC}/24")
        gateway.sysctl({"net.netfilter.nf_conntrack_acct": 1})
        flags = ("--config", configure(lab))
        with inside(gateway):
            say(f"{count:,} resources")
            daemon = Daemon(lab, gateway, options.tcpgw, *flags)
            listens()
            time.sleep(5)
            memory = {"none": daemon.megabytes()}
            platform = Platform()
            resource = platform.provision("app-of-the-page", inject.PUBLIC_PORT)
            apps = (f"app-{number}" for number in range(count - 1))
            one, seconds = {}, 0
            there = 1
            for goal in (few, count):
                seconds += provision_many(itertools.islice(apps, goal - there - counted), CONNECTIONS)[0]
                daemon.await_sync()
                one[goal] = one_by_one(daemon, list(itertools.islice(apps, counted)))
                one[goal]["page"] = some_pages(resource, counted)
                there = goal
            daemon.await_sync()
            time.sleep(5 if options.quick else REST)
            memory["provisioned"] = daemon.megabytes()
            daemon.end()
            daemon = Daemon(lab, gateway, options.tcpgw, *flags)
            listens()
            daemon.await_sync()
            time.sleep(5 if options.quick else REST)
            memory["started again"] = daemon.megabytes()
            with_backends(daemon, resource)
            found = {"without": pages(daemon, resource, options)}
            say(f"putting {flows:,} flows into conntrack")
            flush.put(gateway, 0, flows)
            found["with"] = pages(daemon, resource, options)
            platform.close()
            daemon.end()
    return {"resources": count, "flows": flows, "megabytes": memory, "seconds": seconds, "pages": found,
            "one by one": one}


def one_by_one(daemon, apps):
    """Seconds of each request, and of the processor's time that the daemon takes for one."""
    platform = Platform()
    before = sum(daemon.usage())
    seconds = [timed(platform.provision, app) for app in apps]
    used = sum(daemon.usage()) - before
    platform.close()
    return {"seconds": seconds, "processor": used / len(apps)}


def some_pages(resource, count):
    """Seconds of pages of an app without containers, but for the first."""
    owner = Owner(resource)
    owner.page()
    seconds = []
    for _ in range(count):
        time.sleep(0.02)
        seconds.append(timed(owner.page))
    owner.close()
    return seconds


def with_backends(daemon, resource):
    backends = [f"{inject.backend(number)}:{inject.BACKEND_PORT}" for number in range(2)]
    daemon.ask("PATCH", f"/v1/services/addon-{resource}", json.dumps({"backends": backends}).encode())
    daemon.await_healthy(len(backends))


def pages(daemon, resource, options):
    """Seconds until a page is there: the first one of an app that nobody has looked at for a while, and those that follow; what the
    daemon's thread that reads traffic takes meanwhile of one CPU."""
    say("pages")
    owner = Owner(resource)
    first, again = [], []
    for _ in range(1 if options.quick else FIRST):
        # Until it is not read any more; the daemon closes connections on which nothing comes.
        owner.close()
        time.sleep(UNWATCHED)
        first.append(timed(owner.page))
    before, begin = daemon.usage(), time.monotonic()
    for _ in range(20 if options.quick else LATER):
        again.append(timed(owner.page))
        time.sleep(0.05)
    used = [now - then for now, then in zip(daemon.usage(), before)]
    text = owner.page()
    if "Open connections" not in text:
        raise Failed(f"http://{AT[0]}:{AT[1]}{owner.path} has no readings")
    owner.close()
    return {"first": first, "again": again, "bytes": owner.size, "share": sum(used) / (time.monotonic() - begin)}


def targets(raw):
    if raw["resources"] != RESOURCES:
        return []
    seconds, memory, processor = raw["provision"]["seconds"], raw["megabytes"], by_count(raw, "processor")
    most = max(memory["provisioned"], memory["started again"])
    slow = [time * 1000 for part in raw["pages"].values() for time in (*part["first"], percentile(part["again"], 99))]
    return [
        Target("provision, without the disk's flush, median in ms", median(seconds["memory"]) * 1000, at_most=5),
        Target(f"provision, the daemon's processor time at {RESOURCES:,} resources of that at {FEW:,}",
               processor[RESOURCES] / processor[FEW], at_most=1.5),
        Target(f"{RESOURCES:,} resources, MB of the daemon's memory", most - memory["none"], at_most=30),
        Target(f"an app's page at {RESOURCES:,} resources, the slowest of first views and the 99th percentile of others, in ms",
               max(slow), at_most=50),
    ]


def behind(raw):
    seconds = raw["provision"]["seconds"]
    ratio = median(seconds["memory"]) / median(seconds["nginx"])
    return [f"Provisioning, without the flush, takes {ratio:.1f} times as long as an answer of nginx, which stores nothing."] if ratio > 1 else []


def report(raw):
    shared = (f"When the section began, {raw['load'][0]:.1f} processes waited for a processor (load average of one minute)"
              + (f"; the benchmark had priority over them (nice {raw['nice']})." if raw["nice"] < 0 else "."))
    return "\n\n".join((shared, report_provision(raw["provision"]), report_many(raw), report_pages(raw)))


def report_provision(raw):
    rows = [[what, *(f"{value * 1000:.2f} ms" for value in
                     (median(raw["seconds"][name]), percentile(raw["seconds"][name], 90), percentile(raw["seconds"][name], 99)))]
            for name, what in LINES.items()]
    at_once = raw["at once"]
    rate = at_once["count"] / at_once["seconds"]
    return "\n".join(["### Provisioning", "",
                      "Requests of the dialect Scalingo, one after the other on one connection, for the daemon's first hundreds of resources. Each "
                      "answered resource is in the store; if the store is on a disk, it was flushed. The lines were measured alternately. The disk's "
                      f"file system is {raw['filesystem']}.", "",
                      *table(("", "median", "90 %", "99 %"), rows), "",
                      f"Requests that wait at the same time share a flush. {at_once['count']} provisions over {at_once['connections']} connections, with the "
                      f"store on a disk, ran at {rate:,.0f} per second. Each took {median(at_once['each']) * 1000:.1f} ms (median; 99 %: "
                      f"{percentile(at_once['each'], 99) * 1000:.1f} ms), including the time of the requesting programs."])


def report_many(raw):
    memory = raw["megabytes"]
    rows = [[name, f"{value:.1f} MB", f"{value - memory['none']:.1f} MB"] for name, value in memory.items()]
    provisions = [[f"{count:,}", *(f"{value * 1000:.2f} ms" for value in
                                   (median(one["seconds"]), percentile(one["seconds"], 99), one["processor"], median(one["page"]),
                                    percentile(one["page"], 99)))]
                  for count, one in sorted((int(count), one) for count, one in raw["one by one"].items())]
    return "\n".join([f"### {raw['resources']:,} resources", "",
                      "Requests one after the other, with the store in memory, at this number of resources. The requesting program shares the "
                      "machine's processors:", "",
                      *table(("resources", "provision, median", "99 %", "the daemon's processor time of each",
                              "page without containers, median", "99 %"), provisions), "",
                      f"The other resources were provisioned over {CONNECTIONS} connections in {raw['seconds']:.1f} s. The resident memory of the daemon "
                      "without resources, a minute after that, and a minute after it was restarted with them:", "",
                      *table(("", "memory", "more than with none"), rows)])


def by_count(raw, key):
    """{resources: value} of those that were provisioned one after the other. JSON has made texts of the numbers."""
    return {int(count): one[key] for count, one in raw["one by one"].items()}


def report_pages(raw):
    rows = []
    for name, flows in (("without", 0), ("with", raw["flows"])):
        part = raw["pages"][name]
        rows.append([f"{flows:,}", *(f"{value * 1000:.1f} ms" for value in
                                     (max(part["first"]), median(part["again"]), percentile(part["again"], 99))),
                     f"{part['share'] * 100:.1f} %"])
    return "\n".join([f"### An app's page at {raw['resources']:,} resources", "",
                      "One browser requests the page of an app with two containers, up to 20 times per second. A first view is a request on a new "
                      "connection for a page that has not been open for a while; it waits for a reading of conntrack. "
                      f"The page has {raw['pages']['with']['bytes']:,} bytes.", "",
                      *table(("connections of the app", "first view, slowest", "later, median", "later, 99 %", "the daemon's share of one CPU"),
                             rows)])


def plots(_):
    return {}
