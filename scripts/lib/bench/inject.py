"""Puts flows into conntrack, by netlink: as many in a second as real connections would take minutes for.

python3 injector.py FIRST NUMBER             in the network namespace that it runs in
python3 injector.py FIRST NUMBER PER_SECOND  deletes so many in a second instead; prints the seconds, and those of its processor time

Flow n is of backend n // PER_BACKEND of one service, balanced by tcpgw: translated, masqueraded, marked, established.
Source of the format: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import json
import resource
import socket
import struct
import sys
import time

PUBLIC = "203.0.113.1"
PUBLIC_PORT = 20003
BACKEND_PORT = 3000
PER_BACKEND = 50_000
MARK = 0x800000
TIMEOUT = 3600

NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 0x100, 0x101, 0x102
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
NLMSG_ERROR = 2
NESTED = 0x8000
TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, NAT_SRC, CT_TIMEOUT, CT_MARK, NAT_DST = 1, 2, 3, 4, 6, 7, 8, 13
SEEN_REPLY_ASSURED_CONFIRMED = 2 | 4 | 8
ESTABLISHED = 3
EEXIST, EINVAL = 17, 22
AT_ONCE = 400
# As few at a time as there are in 10 ms.
SLICES = 100


def backend(number):
    return f"10.2.{number >> 8}.{number & 255}"


def attribute(kind, payload):
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind, *parts):
    return attribute(kind | NESTED, b"".join(parts))


def ends(kind, source, source_port, destination, destination_port):
    return nest(kind,
                nest(1, attribute(1, source), attribute(2, destination)),
                nest(2, attribute(1, b"\x06"), attribute(2, source_port), attribute(3, destination_port)))


def translation(kind, address, port):
    return nest(kind, attribute(1, address), attribute(2, address), nest(3, attribute(1, port), attribute(2, port)))


def message(seq, kind, flags, body):
    payload = struct.pack("=BBH", socket.AF_INET, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, seq, 0) + payload


PUBLIC_BYTES = socket.inet_aton(PUBLIC)
PUBLIC_PORT_BYTES = struct.pack(">H", PUBLIC_PORT)
BACKEND_PORT_BYTES = struct.pack(">H", BACKEND_PORT)
REST = (attribute(CT_TIMEOUT, struct.pack(">I", TIMEOUT)) + attribute(CT_MARK, struct.pack(">I", MARK))
        + attribute(STATUS, struct.pack(">I", SEEN_REPLY_ASSURED_CONFIRMED))
        + nest(PROTOINFO, nest(1, attribute(1, bytes([ESTABLISHED])))))


def client_of(number):
    return struct.pack(">I", (100 << 24) + number // 60_000), struct.pack(">H", 1024 + number % 60_000)


def flow(number, seq):
    to, order = divmod(number, PER_BACKEND)
    client, client_port = client_of(number)
    gateway, gateway_port = socket.inet_aton("10.2.255.1"), struct.pack(">H", 1024 + order)
    return message(seq, IPCTNL_MSG_CT_NEW, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, b"".join((
        ends(TUPLE_ORIG, client, client_port, PUBLIC_BYTES, PUBLIC_PORT_BYTES),
        ends(TUPLE_REPLY, PUBLIC_BYTES, PUBLIC_PORT_BYTES, client, client_port),
        REST,
        translation(NAT_DST, socket.inet_aton(backend(to)), BACKEND_PORT_BYTES),
        translation(NAT_SRC, gateway, gateway_port))))


def inject(first, number):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.setsockopt(socket.SOL_SOCKET, 32, 1 << 21)  # SO_SNDBUFFORCE
        seq = 1
        for begin in range(first, first + number, AT_ONCE):
            batch = []
            for at in range(begin, min(begin + AT_ONCE, first + number)):
                batch.append(flow(at, seq))
                seq += 1
            # A GET without a tuple is refused: that answers for the whole batch.
            batch.append(message(seq, IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_ACK, b""))
            netlink.send(b"".join(batch))
            wait_for(netlink, seq)
            seq += 1


def delete(first, number, per_second):
    """Seconds, and seconds of the processor in the kernel: what the deletion and its report take there."""
    each = max(1, per_second // SLICES)
    batches = []
    for begin in range(first, first + number, each):
        batch = [message(1, IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST, ends(TUPLE_ORIG, *client_of(at), PUBLIC_BYTES, PUBLIC_PORT_BYTES))
                 for at in range(begin, min(begin + each, first + number))]
        batches.append(b"".join([*batch, message(2, IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_ACK, b"")]))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.setsockopt(socket.SOL_SOCKET, 32, 1 << 21)  # SO_SNDBUFFORCE
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_stime, time.monotonic()
        for sent, batch in enumerate(batches):
            time.sleep(max(0, begin + sent * each / per_second - time.monotonic()))
            netlink.send(batch)
            wait_for(netlink, 2)
        return {"seconds": time.monotonic() - begin, "kernel": resource.getrusage(resource.RUSAGE_SELF).ru_stime - before}


def wait_for(netlink, last):
    while True:
        answers = netlink.recv(1 << 16)
        while answers:
            length, kind, _, seq, _, error = struct.unpack_from("=IHHIIi", answers)
            if seq == last:
                return
            if kind == NLMSG_ERROR and error:
                sys.exit(f"injector: a flow was refused: errno {-error}")
            answers = answers[(length + 3) & ~3:]


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    if len(arguments) == 3:
        print(json.dumps(delete(*arguments)))
    else:
        inject(*arguments)
