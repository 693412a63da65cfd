"""Floods, clients and what a thread of the daemon costs.

python3 scale_lab.py syns PER_SECOND SECONDS    SYNs from invented addresses to the gateway; prints what was sent
python3 scale_lab.py clients NUMBER             so many connect, 20 in a second; prints what became of them
"""

import json
import socket
import struct
import sys
import threading
import time
from pathlib import Path

PUBLIC, PORT = "203.0.113.1", 20003
PATIENCE, SLOW, EACH = 10.0, 0.9, 0.05
SLICE = 0.01

ACCEPTOR = """
import socket
listener = socket.create_server(("0.0.0.0", 3000), backlog=65535)
while True:
    listener.accept()[0].close()
"""


def folded(total):
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def words(data):
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def syn(number):
    """A whole packet: the nth of 16 million pairs of address and port of 192.0.2.0/24, where nobody is."""
    host, port = number >> 16 & 255, number & 0xFFFF
    source = bytes((192, 0, 2, host))
    destination = socket.inet_aton(PUBLIC)
    segment = struct.pack(">HHIIBBHHH", port, PORT, number, 0, 5 << 4, 2, 64_240, 0, 0)
    checksum = ~folded(words(source + destination) + 6 + len(segment) + words(segment)) & 0xFFFF
    segment = segment[:16] + struct.pack(">H", checksum) + segment[18:]
    # The kernel fills in length and checksum of the header (raw(7)).
    return struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, 64, 6, 0) + source + destination + segment


def send_syns(per_second, seconds):
    prepared = [syn(number * 7919 & 0xFFFFFF) for number in range(int(per_second * min(seconds, 8)))]
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    begin = time.monotonic()
    sent, lost = 0, 0
    while (elapsed := time.monotonic() - begin) < seconds:
        for _ in range(min(int(elapsed * per_second) - sent, int(per_second * SLICE * 4))):
            try:
                raw.sendto(prepared[sent % len(prepared)], (PUBLIC, 0))
            except OSError:
                lost += 1
            sent += 1
        time.sleep(SLICE)
    return {"sent": sent, "lost": lost, "per_second": (sent - lost) / (time.monotonic() - begin)}


def connect_all(number):
    took = []

    def connect():
        begin = time.monotonic()
        try:
            socket.create_connection((PUBLIC, PORT), PATIENCE).close()
            took.append(time.monotonic() - begin)
        except OSError:
            took.append(None)

    threads = [threading.Thread(target=connect) for _ in range(number)]
    for thread in threads:
        thread.start()
        time.sleep(EACH)
    for thread in threads:
        thread.join()
    return {"clients": number, "failed": took.count(None), "slow": sum(1 for time in took if time and time > SLOW)}


def observer(pid, seconds):
    """CPU time of one look of the observer, the time between two, its share of a CPU, and the whole daemon's."""
    threads = [task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == "observer"]

    def used():
        return int((threads[0] / "schedstat").read_text().split()[0]) / 1e9

    def whole():
        return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9

    begin, before, daemon = time.monotonic(), used(), whole()
    looks, last, last_used = [], 0.0, before
    while (now := time.monotonic()) - begin < seconds:
        time.sleep(0.05)
        if (current := used()) > last_used:
            # One that was at work a moment ago is at work on the same look.
            if looks and now - last < 0.2:
                looks[-1][1] += current - last_used
            else:
                looks.append([now, current - last_used])
            last, last_used = now, current
    elapsed = time.monotonic() - begin
    # The first may have begun before, the last may go on.
    inner = [look for _, look in looks[1:-1]] or [look for _, look in looks] or [0.0]
    gaps = [after[0] - one[0] for one, after in zip(looks, looks[1:])] or [elapsed]
    return {"look": sorted(inner)[len(inner) // 2], "pause": sorted(gaps)[len(gaps) // 2], "looks": len(looks),
            "share": (used() - before) / elapsed, "daemon": (whole() - daemon) / elapsed}


if __name__ == "__main__":
    if sys.argv[1] == "syns":
        print(json.dumps(send_syns(float(sys.argv[2]), float(sys.argv[3]))))
    else:
        print(json.dumps(connect_all(int(sys.argv[2]))))
