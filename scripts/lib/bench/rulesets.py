"""The same services as other programs want them: a change as nft text, kube-proxy's shape, nftlb's configuration."""

import json

from bench.states import FIRST_PORT, PER_SERVICE, endpoint, spread

PUBLIC = "203.0.113.1"


def elements(ruleset):
    """{(kind, set): [element]} of a ruleset that tcpgw rendered, one element per line."""
    found, current, inside = {}, None, False
    for line in ruleset.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in ("set", "map") and words[2] == "{":
            current = (words[0], words[1])
        if line.strip().startswith("elements = {"):
            inside = True
            line = line.partition("{")[2]
        if inside:
            inside = not line.rstrip().endswith("}")
            found.setdefault(current, []).append(line.strip().rstrip("},").strip())
    return found


def delta(old, new):
    """What leads from one rendered ruleset to another, as text for `nft -f`: for whoever knows what has changed."""
    old, new = elements(old), elements(new)
    lines = {"delete": [], "add": []}
    for kind, name in sorted(old.keys() | new.keys()):
        had, wanted = set(old.get((kind, name), ())), set(new.get((kind, name), ()))
        for verb, chosen in (("delete", had - wanted), ("add", wanted - had)):
            if chosen:
                lines[verb].append(f"{verb} element inet tcpgw {name} {{ {', '.join(sorted(chosen))} }}")
    return "\n".join(lines["delete"] + lines["add"]) + "\n"


def kube(services):
    """A map from services to chains, a chain per service that draws an endpoint, a chain per endpoint."""
    lines = ["add table ip kube", "add chain ip kube mark-for-masquerade",
             "add rule ip kube mark-for-masquerade meta mark set meta mark or 0x4000"]
    entries = []
    for number in range(services):
        names = [f"endpoint-{number}-{backend}" for backend in range(PER_SERVICE)]
        for at, name in enumerate(names):
            lines += kube_endpoint(name, endpoint(number * PER_SERVICE + at))
        lines += [f"add chain ip kube service-{number}", *kube_draw(number, names)]
        entries.append(f"{PUBLIC} . tcp . {FIRST_PORT + number} : goto service-{number}")
    return "\n".join([
        *lines,
        "add map ip kube services { type ipv4_addr . inet_proto . inet_service : verdict; }",
        f"add element ip kube services {{ {', '.join(entries)} }}",
        "add chain ip kube prerouting { type nat hook prerouting priority dstnat; }",
        "add rule ip kube prerouting ip daddr . meta l4proto . th dport vmap @services",
        "add chain ip kube postrouting { type nat hook postrouting priority srcnat; }",
        "add rule ip kube postrouting meta mark & 0x4000 == 0x4000 masquerade",
        "",
    ])


def kube_endpoint(name, address):
    ip = address.partition(":")[0]
    return [f"add chain ip kube {name}", f"add rule ip kube {name} ip saddr {ip} jump mark-for-masquerade",
            f"add rule ip kube {name} meta l4proto tcp dnat to {address}"]


def kube_draw(number, names):
    choices = ", ".join(f"{at} : goto {name}" for at, name in enumerate(names))
    chain = f"add rule ip kube service-{number}"
    return [f"{chain} jump mark-for-masquerade", f"{chain} numgen random mod {len(names)} vmap {{ {choices} }}"]


def kube_change(services, changes):
    """The first endpoint of so many services is another one: a new chain, and the service's rules anew."""
    lines = []
    for number in sorted(spread(services, changes)):
        new, old = f"endpoint-{number}-new", f"endpoint-{number}-0"
        names = [new, *(f"endpoint-{number}-{backend}" for backend in range(1, PER_SERVICE))]
        lines += [*kube_endpoint(new, endpoint(number * PER_SERVICE, 3001)), f"flush chain ip kube service-{number}",
                  *kube_draw(number, names), f"flush chain ip kube {old}", f"delete chain ip kube {old}"]
    return "\n".join(lines) + "\n"


def nftlb(services):
    farms = [{
        "name": f"app-{number}", "family": "ipv4", "virtual-addr": PUBLIC, "virtual-ports": str(FIRST_PORT + number),
        "mode": "snat", "protocol": "tcp", "scheduler": "weight", "state": "up",
        "backends": [nftlb_backend(number, backend) for backend in range(PER_SERVICE)],
    } for number in range(services)]
    return json.dumps({"farms": farms})


def nftlb_change(services, changes):
    farms = [{"name": f"app-{number}", "backends": [nftlb_backend(number, 0, 3001)]}
             for number in sorted(spread(services, changes))]
    return json.dumps({"farms": farms})


def nftlb_backend(number, backend, port=3000):
    address = endpoint(number * PER_SERVICE + backend, port).partition(":")[0]
    return {"name": f"b{backend}", "ip-addr": address, "port": str(port), "weight": "1", "priority": "1", "state": "up"}
