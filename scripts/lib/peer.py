#!/usr/bin/env python3
"""The people of scripts/demo: a server that says who it is, and clients that count.

peer.py serve NAME ADDRESS PORT   says NAME to everyone who connects, then echoes
peer.py ask ADDRESS PORT NUMBER [SECONDS]   so many connections, one after another, each with so much patience
peer.py keep-asking ADDRESS PORT... four at a time, to the ports in turn, until it is interrupted
peer.py hold ADDRESS PORT NUMBER  so many connections that go on talking, until it is interrupted
peer.py count ADDRESS PORT        one connection, and how many of the bytes that it sends come back, until it is interrupted

Clients end with one line of JSON about what they saw. keep-asking writes such a line every half second, too, and hold a
first line once all of its connections are there.
"""

import collections
import itertools
import json
import select
import signal
import socket
import socketserver
import sys
import threading
import time

PATIENCE = 5
stopped = threading.Event()


def serve(name, address, port):
    talking = set()

    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            talking.add(self.connection)
            try:
                self.wfile.write(name.encode() + b"\n")
                for line in self.rfile:
                    self.answer(line)
            except OSError:
                pass
            finally:
                talking.discard(self.connection)

        def answer(self, line):
            try:
                self.wfile.write(line)
            except BrokenPipeError:
                pass  # It ends: what comes is read still, since a socket that is closed with unread data resets its client.

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128

    server = Server((address, int(port)), Talk)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.socket.close()
    for connection in list(talking):
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    end = time.monotonic() + 2
    while talking and time.monotonic() < end:
        time.sleep(0.01)
    sys.exit(0)


class Tally:
    def __init__(self):
        self.lock = threading.Lock()
        self.answers, self.failures = collections.Counter(), collections.Counter()
        self.longest = 0.0

    def ask(self, to, patience=PATIENCE):
        begin, who, trouble = time.monotonic(), "", ""
        try:
            with socket.create_connection(to, timeout=patience) as talk:
                who = talk.makefile().readline().strip()
                talk.shutdown(socket.SHUT_WR)
                while talk.recv(4096):
                    pass
        except OSError as error:
            trouble = str(error)
        with self.lock:
            self.longest = max(self.longest, time.monotonic() - begin)
            if trouble or not who:
                self.failures[trouble or "no answer"] += 1
            else:
                self.answers[who] += 1

    def report(self):
        with self.lock:
            return self.totals()

    def totals(self):
        return {"ok": sum(self.answers.values()), "failed": sum(self.failures.values()),
                "longest_ms": round(self.longest * 1000), "answers": dict(sorted(self.answers.items())),
                "failures": dict(self.failures)}


def ask(address, port, number, patience=PATIENCE):
    tally = Tally()
    for _ in range(int(number)):
        tally.ask((address, int(port)), float(patience))
    return tally.report()


# Seconds that each of four clients takes for a connection at least. Linux has 28,232 ports for them, and each rests for 60 s.
AT_LEAST = 0.01


def keep_asking(address, *ports):
    tally = Tally()

    def loop():
        for port in itertools.cycle(ports):
            if stopped.is_set():
                return
            begin = time.monotonic()
            tally.ask((address, int(port)))
            stopped.wait(max(0, AT_LEAST - (time.monotonic() - begin)))

    def tell():
        while not stopped.wait(0.5):
            print(json.dumps(tally.report()), flush=True)

    run_all([threading.Thread(target=loop) for _ in range(4)] + [threading.Thread(target=tell)])
    return tally.report()


def answered(talk):
    """Talks, and again when no answer comes: one that was on its way when the gateway forgot the connection is lost, and
    what the gateway then says to the client is said to the client's next packet."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        talk.sendall(b"still here\n")
        if select.select([talk], [], [], 0.5)[0]:
            return talk.recv(4096)
    raise OSError("timed out")


def hold(address, port, number):
    lock, alive, ended = threading.Lock(), collections.Counter(), collections.Counter()
    missing = int(number)

    def arrive():
        nonlocal missing
        with lock:
            missing -= 1
            if not missing:
                print(json.dumps({"connected": int(number)}), flush=True)

    def loop():
        who, why = "nobody", ""
        try:
            with socket.create_connection((address, int(port)), timeout=PATIENCE) as talk:
                # Unbuffered, so that `answered` sees all that there is to read.
                who = talk.makefile("rb", buffering=0).readline().decode().strip()
                arrive()
                while not stopped.wait(0.1):
                    if not answered(talk):
                        raise OSError("closed")
        except ConnectionResetError:
            why = "reset"
        except OSError as error:
            why = str(error)
        with lock:
            (ended if why else alive)[f"{who} {why}".strip()] += 1

    run_all([threading.Thread(target=loop) for _ in range(int(number))])
    return {"alive": dict(sorted(alive.items())), "ended": dict(sorted(ended.items()))}


def count(address, port):
    sent = back = 0
    trouble = ""
    try:
        with socket.create_connection((address, int(port)), timeout=PATIENCE) as talk:
            lines = talk.makefile("rb")
            lines.readline()
            print(json.dumps({"connected": 1}), flush=True)
            while not stopped.wait(0.02):
                line = b"%999d\n" % sent
                talk.sendall(line)
                sent += len(line)
                if lines.readline() != line:
                    raise OSError("another answer")
                back += len(line)
    except OSError as error:
        trouble = str(error)
    return {"sent": sent, "back": back, "trouble": trouble}


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(action, *arguments):
    if action == "serve":
        serve(*arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    print(json.dumps({"ask": ask, "keep-asking": keep_asking, "hold": hold, "count": count}[action](*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
