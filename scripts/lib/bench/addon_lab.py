"""A platform that provisions resources, owners who look at pages, and plain lines to compare them with."""

import base64
import hashlib
import http.client
import json
import os
import threading
import time

from bench.lab import Failed, wait_until

AT = ("127.0.0.1", 9443)
PLAIN = ("127.0.0.1", 9444)
FIRST_PORT, LAST_PORT = 20_000, 29_999
SALT = "salt-of-the-benchmark"
PASSWORD = "password-of-the-benchmark"
# What a commit of the store writes at least: a page of SQLite.
PAGE = 4096


def configure(lab):
    """Writes a configuration with an add-on, and its credentials; gives the file."""
    credentials = lab.file("credentials.toml", f'username = "platform"\npassword = "{PASSWORD}"\nsso_salt = "{SALT}"\n')
    credentials.chmod(0o600)
    return lab.file("config.toml", "\n".join((
        "[addon]", f'listen = "{AT[0]}:{AT[1]}"', 'host = "gateway.example.com"', f'ports = "{FIRST_PORT}-{LAST_PORT}"',
        f'credentials = "{credentials}"', "[[addon.plans]]", 'name = "small"', 'id = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11"',
        "pps = 500", "")))


class Platform:
    """One connection of a platform to the provider API, kept."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(*AT, timeout=60)
        login = base64.b64encode(f"platform:{PASSWORD}".encode()).decode()
        self.headers = {"authorization": f"Basic {login}", "content-type": "application/json"}

    def ask(self, method, path, body):
        self.connection.request(method, path, json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 201):
            raise Failed(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)

    def provision(self, app, port=None):
        """Provisions; gives the resource's id."""
        options = {"port": port} if port else {}
        return self.ask("POST", "/scalingo/resources", {"plan": "small", "app_id": app, "options": options})["id"]

    def close(self):
        self.connection.close()


def listens():
    def is_there():
        try:
            http.client.HTTPConnection(*AT, timeout=5).connect()
            return True
        except OSError:
            return False

    wait_until(is_there, "the provider API", 30)


def timed(work, *arguments):
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin


def provision_many(names, connections):
    """Provisions for all these apps, by so many connections at a time; the seconds, and those of each request."""
    names, failures, each = iter(names), [], []
    lock = threading.Lock()

    def work():
        platform = Platform()
        try:
            while True:
                with lock:
                    name = next(names, None)
                if name is None:
                    return
                each.append(timed(platform.provision, name))
        except (Failed, OSError, http.client.HTTPException) as failure:
            failures.append(failure)
        finally:
            platform.close()

    begin = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failed(str(failures[0]))
    return time.perf_counter() - begin, each


class Owner:
    """An owner of an app, signed on to its page, in a browser that keeps its connection."""

    def __init__(self, resource):
        self.connection = http.client.HTTPConnection(*AT, timeout=60)
        now = int(time.time())
        token = hashlib.sha1(f"{resource}:{SALT}:{now}".encode()).hexdigest()
        answer = self.get(f"/scalingo/sso?id={resource}&timestamp={now}&token={token}", {}, 303)
        self.headers = {"cookie": answer.headers["set-cookie"].split(";")[0]}
        self.path = answer.headers["location"]
        self.size = 0

    def get(self, path, headers, expected):
        self.connection.request("GET", path, headers=headers)
        answer = self.connection.getresponse()
        answer.body = answer.read()
        if answer.status != expected:
            raise Failed(f"{path}: {answer.status} {answer.body[:500]}")
        return answer

    def page(self):
        body = self.get(self.path, self.headers, 200).body
        self.size = len(body)
        return body.decode()

    def close(self):
        self.connection.close()


class Flush:
    """A file on the same disk, to which a page is added and flushed."""

    def __init__(self, directory):
        self.path = directory / "flushed"
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def once(self):
        os.write(self.file, bytes(PAGE))
        os.fdatasync(self.file)

    def close(self):
        os.close(self.file)
        self.path.unlink()


def plain_server(lab, gateway):
    """nginx, which answers 201 and JSON to whatever comes, and keeps nothing."""
    text = "\n".join((
        "user root;", "daemon off;", "worker_processes 1;", f"pid {lab.directory}/nginx.pid;", "error_log stderr crit;",
        "events {}", "http {", "access_log off;", f"client_body_temp_path {lab.directory}/body;", "keepalive_requests 1000000;",
        f"server {{ listen {PLAIN[0]}:{PLAIN[1]}; location / {{ default_type application/json; return 201 '{{}}'; }} }}", "}", ""))
    gateway.start("nginx", "-p", lab.directory, "-e", "stderr", "-c", lab.file("plain.conf", text))
    gateway.await_listener(PLAIN[1])


class PlainPlatform(Platform):
    """The same requests, to nginx."""

    def __init__(self):
        super().__init__()
        self.connection = http.client.HTTPConnection(*PLAIN, timeout=60)

    def provision_nothing(self, app):
        self.ask("POST", "/scalingo/resources", {"plan": "small", "app_id": app, "options": {}})
