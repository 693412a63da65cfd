"""The gateways that are compared, each in a network of its own: what its gateway does, and what clients connect to.

Behind each are four servers in four namespaces, 10.101.0.0/16 to 10.104.0.0/16, every address theirs, port 3000. Service
number N, from 0, has the four addresses of that number, one of each server: no endpoint is in two services.
"""

import json
from dataclasses import dataclass

from bench.lab import Failed, wait_until

SERVERS = 4
SERVER_PORT = 3000
FIRST_PORT = 1024
ADDRESS = "203.0.113.1"


def endpoints(number):
    return [f"10.{101 + server}.{number >> 8}.{number & 255}" for server in range(SERVERS)]


@dataclass(frozen=True)
class Line:
    """One of the gateways, with so many services. `direct`: clients connect to the servers themselves, one of the four at
    random."""

    label: str
    services: int
    prepare: object
    direct: bool = False
    tracked: bool = True

    @property
    def name(self):
        return f"{self.label}, {self.services:,}"

    @property
    def key(self):
        return f"{self.prepare.__name__}-{self.services}"

    def targets(self):
        if self.direct:
            ranges = [f"{first}+{self.services}:{SERVER_PORT}" for first in endpoints(0)]
        else:
            ranges = [f"{ADDRESS}:{FIRST_PORT}+{self.services}"]
        return [word for each in ranges for word in ("--target", each)]


class Network:
    """A line, ready to be measured."""

    def __init__(self, lab, line, options):
        self.line = line
        self.load = options.tcpgw.parent / "examples" / "load"
        hosts = lab.topology()
        self.client, self.gateway = hosts["client"], hosts["gateway"]
        for host in hosts.values():
            # Else the kernel keeps what it learnt of each pair of addresses, and the more endpoints the more of that.
            host.sysctl({"net.ipv4.tcp_no_metrics_save": 1})
        for number in range(1, SERVERS + 1):
            server = hosts[f"b{number}"]
            server.run("ip", "route", "add", "local", f"10.{100 + number}.0.0/16", "dev", "lo")
            self.gateway.run("ip", "route", "add", f"10.{100 + number}.0.0/16", "via", f"10.2.0.1{number}")
            server.start(self.load, "serve", "--listen", f"0.0.0.0:{SERVER_PORT}")
            server.await_listener(SERVER_PORT)
        line.prepare(lab, self.gateway, line.services, options)
        self.warm_up()

    def warm_up(self):
        """Neighbours are known afterwards, and every service that is asked answers."""
        found = self.measure("latency", "--samples", 200)
        if found["errors"]:
            raise Failed(f"{self.line.name}: {found['errors']}")

    def measure(self, kind, *options):
        """What the load tool says, of connections that conntrack has not seen."""
        if self.line.tracked:
            self.gateway.run("conntrack", "-F")
        return json.loads(self.client.run(self.load, kind, *self.line.targets(), *options))


def nothing(lab, gateway, services, options):
    """The kernel forwards."""


def conntrack(lab, gateway, services, options):
    gateway.run("nft", "-f", "-", stdin="""
        table inet router {
            chain forward {
                type filter hook forward priority filter; policy accept;
                ct state established,related accept
                ct state new accept
            }
        }""")


def nft(lab, gateway, services, options):
    """The least that balances by NAT, for one service: what more rules cost beyond NAT itself."""
    slots = ", ".join(f"{slot} : {address}" for slot, address in enumerate(endpoints(0)))
    gateway.run("nft", "-f", "-", stdin=f"""
        table ip nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                ip daddr {ADDRESS} tcp dport {FIRST_PORT} dnat to numgen random mod {SERVERS} map {{ {slots} }}:{SERVER_PORT}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ct status dnat masquerade
            }}
        }}""")


def tcpgw(lab, gateway, services, options, **more):
    state = {"version": 1, "services": [
        {"name": f"app-{number}", "port": FIRST_PORT + number,
         "backends": [f"{address}:{SERVER_PORT}" for address in endpoints(number)], **more}
        for number in range(services)]}
    gateway.run(options.tcpgw, "apply", "-q", "-", stdin=json.dumps(state))


def limited(lab, gateway, services, options):
    """With limits that nothing here reaches: what counting costs."""
    tcpgw(lab, gateway, services, options, limit={"pps": 1_000_000})


def haproxy(lab, gateway, services, options):
    lines = ["global", "  maxconn 4096", "  nbthread 2", "  tune.listener.multi-queue on", "defaults", "  mode tcp",
             "  balance random", "  option splice-auto", "  backlog 65535", "  maxconn 4096", "  timeout connect 5s",
             "  timeout client 60s", "  timeout server 60s"]
    for number in range(services):
        lines += [f"listen app-{number}", f"  bind {ADDRESS}:{FIRST_PORT + number} shards by-thread"]
        lines += [f"  server b{server} {address}:{SERVER_PORT}" for server, address in enumerate(endpoints(number))]
    start_proxy(lab, gateway, services, "haproxy", "-db", "-q", "-f",
                lab.file(f"haproxy-{services}.cfg", "\n".join(lines) + "\n"))


def nginx(lab, gateway, services, options):
    lines = ["load_module /usr/lib/nginx/modules/ngx_stream_module.so;", "user root;", "daemon off;", "worker_processes 2;",
             f"pid {lab.directory}/nginx-{services}.pid;", "error_log stderr crit;",
             "events { worker_connections 8192; }", "stream {", "  proxy_connect_timeout 5s;", "  proxy_half_close on;"]
    for number in range(services):
        servers = " ".join(f"server {address}:{SERVER_PORT};" for address in endpoints(number))
        lines += [f"  upstream app-{number} {{ random; {servers} }}",
                  f"  server {{ listen {ADDRESS}:{FIRST_PORT + number} reuseport backlog=65535; proxy_pass app-{number}; }}"]
    start_proxy(lab, gateway, services, "nginx", "-p", lab.directory, "-e", "stderr", "-c",
                lab.file(f"nginx-{services}.conf", "\n".join([*lines, "}"]) + "\n"))


def start_proxy(lab, gateway, services, *argv):
    said = lab.file(f"{argv[0]}-{services}.err", "")
    with said.open("wb") as errors:
        # A thousand listeners, each of them twice, and the connections.
        process = gateway.start("prlimit", "--nofile=16384:", *argv, stderr=errors)

    def ready():
        if process.poll() is not None:
            raise Failed(f"{argv[0]} with {services} services ended: {said.read_text()}")
        return gateway.listens(FIRST_PORT + services - 1)

    wait_until(ready, f"{argv[0]} with {services} services", 30)


def nftlb(lab, gateway, services, options):
    farms = [{
        "name": f"app-{number}", "family": "ipv4", "mode": "snat", "protocol": "tcp", "scheduler": "rr", "state": "up",
        "virtual-addr": ADDRESS, "virtual-ports": str(FIRST_PORT + number),
        "backends": [{"name": f"b{server}", "ip-addr": address, "port": str(SERVER_PORT), "weight": "1", "priority": "1",
                      "state": "up"} for server, address in enumerate(endpoints(number))],
    } for number in range(services)]
    gateway.run("nftlb", "-e", "-c", lab.file(f"nftlb-{services}.json", json.dumps({"farms": farms})))
