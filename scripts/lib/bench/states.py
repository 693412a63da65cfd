"""State files for tcpgw, of any size."""

import json

FIRST_PORT = 1024
PER_SERVICE = 4


def endpoint(index, port=3000):
    return f"10.{2 + (index >> 16)}.{index >> 8 & 255}.{index & 255}:{port}"


def spread(services, changes):
    """So many different services, evenly spread."""
    return {number * services // changes for number in range(changes)} if changes else set()


def state(services, limits=False, changes=0, pps=1000):
    """`services` x 4 backends as JSON; in `changes` of them the first backend is another one."""
    changed = spread(services, changes)
    made = []
    for number in range(services):
        backends = [endpoint(number * PER_SERVICE + backend) for backend in range(PER_SERVICE)]
        if number in changed:
            backends[0] = endpoint(number * PER_SERVICE, 3001)
        service = {"name": f"app-{number}", "port": FIRST_PORT + number, "backends": backends}
        if limits:
            service["limit"] = {"pps": pps}
        made.append(service)
    return json.dumps({"version": 1, "services": made})
