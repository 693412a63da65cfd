"""Small packets at a rate that no TCP stack would keep up once they get lost: the same empty segment of an open
connection again and again, which the other side takes for a duplicate and does not answer.

python3 dribble.py connect INTERFACE ADDRESS PORT RATE SECONDS
python3 dribble.py accept INTERFACE ADDRESS PORT RATE SECONDS    with a RATE of 0 it only keeps the connection open

Prints "ready" when the connection is there, and begins when a line comes on standard input.
"""

import ipaddress
import socket
import struct
import sys
import time

ETH_P_ALL = 3
TCP = 6
SYN, ACK = 2, 16
TICK = 0.01
PACKET_OUTGOING = 4


def headers(packet):
    """(source, destination, source port, destination port, seq, ack, flags) of an IP packet with TCP in it, else None."""
    version = packet[0] >> 4
    if version == 4 and packet[9] == TCP:
        source, destination, at = packet[12:16], packet[16:20], (packet[0] & 15) * 4
    elif version == 6 and packet[6] == TCP:
        source, destination, at = packet[8:24], packet[24:40], 40
    else:
        return None
    source_port, destination_port, seq, ack, _, flags = struct.unpack_from(">HHIIBB", packet, at)
    return source, destination, source_port, destination_port, seq, ack, flags


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def empty_segment(source, destination, source_port, destination_port, seq, ack):
    """TCP header with the checksum of the pseudo header: a raw socket writes the IP header."""
    def header(check):
        return struct.pack(">HHIIBBHHH", source_port, destination_port, seq, ack, 5 << 4, ACK, 64000, check, 0)
    pseudo = source + destination + struct.pack(">IHBB", 20, 0, 0, TCP)
    return header(checksum(pseudo + header(0)))


class Connection:
    """An open one, with the numbers that its next segment has."""

    def __init__(self, action, interface, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        sniffer.bind((interface, ETH_P_ALL))
        sniffer.settimeout(5)
        if action == "accept":
            with socket.create_server((address, port), family=family) as server:
                print("listening", flush=True)
                self.stream, _ = server.accept()
        else:
            self.stream = socket.create_connection((address, port), timeout=5)
        local, peer = self.stream.getsockname(), self.stream.getpeername()
        self.family = family
        self.ends = [ipaddress.ip_address(end[0].partition("%")[0]).packed for end in (local, peer)]
        self.ports = [local[1], peer[1]]
        self.seq, self.ack = self.numbers(sniffer, action)
        sniffer.close()

    def numbers(self, sniffer, action):
        """Of the SYN-ACK, which one side sent and the other got."""
        while True:
            packet, about = sniffer.recvfrom(2048)
            found = headers(packet)
            if not found or found[6] & (SYN | ACK) != SYN | ACK:
                continue
            outgoing = about[2] == PACKET_OUTGOING
            near, far = (0, 1) if outgoing else (1, 0)
            if [found[near], found[far]] != self.ends or [found[2 + near], found[2 + far]] != self.ports:
                continue
            seq, ack = (found[4] + 1) & 0xFFFFFFFF, found[5]
            return (seq, ack) if outgoing else (ack, seq)

    def blast(self, rate, seconds):
        """Sends that many segments a second, and gives how many were sent."""
        segment = empty_segment(*self.ends, *self.ports, self.seq, self.ack)
        raw = socket.socket(self.family, socket.SOCK_RAW, TCP)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        raw.connect((str(ipaddress.ip_address(self.ends[1])), 0))
        begin, sent = time.monotonic(), 0
        while (passed := time.monotonic() - begin) < seconds:
            due = int(passed * rate)
            for _ in range(due - sent):
                raw.send(segment)
            sent = max(sent, due)
            time.sleep(TICK)
        return sent


def main(action, interface, address, port, rate, seconds):
    connection = Connection(action, interface, address, int(port))
    print("ready", flush=True)
    sys.stdin.readline()
    if float(rate):
        print(connection.blast(float(rate), float(seconds)), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
