"""Packets and bytes of interfaces over time, as JSON, in the network namespace that it runs in.

python3 watch_links.py SECONDS INTERVAL TRIGGER INTERFACE...

Begins with the first packet that the interface TRIGGER receives. Bytes are those of IP: 14 of Ethernet are taken off
each packet. What the offloads have merged is one packet here, as it is to the kernel.
"""

import json
import sys
import time

ETHERNET = 14
PATIENCE = 20.0
# Fields of /proc/net/dev.
COLUMNS = {"received": (0, 1), "sent": (8, 9)}


def read(interfaces):
    found = {}
    with open("/proc/net/dev") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name.strip() in interfaces:
                numbers = rest.split()
                found[name.strip()] = {
                    way: (int(numbers[packets]), int(numbers[size]) - ETHERNET * int(numbers[packets]))
                    for way, (size, packets) in COLUMNS.items()
                }
    return found


def await_first(trigger, base):
    end = time.monotonic() + PATIENCE
    while read([trigger])[trigger]["received"] == base:
        if time.monotonic() > end:
            sys.exit("watch_links: no packet came")
        time.sleep(0.002)


def watch(seconds, interval, trigger, interfaces):
    base = read(interfaces)
    print("ready", flush=True)
    await_first(trigger, base[trigger]["received"])
    begin = time.monotonic()
    samples = []
    for number in range(round(seconds / interval) + 1):
        time.sleep(max(0.0, begin + number * interval - time.monotonic()))
        now = read(interfaces)
        samples.append([round(time.monotonic() - begin, 4), *(
            [now[name][way][at] - base[name][way][at] for at in (0, 1)]
            for name in interfaces for way in ("received", "sent"))])
    print(json.dumps(samples))


if __name__ == "__main__":
    watch(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
