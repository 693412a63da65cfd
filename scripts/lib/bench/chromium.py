"""Chromium in a namespace, driven through chromedriver (W3C WebDriver)."""

import http.client
import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager

from bench.lab import Failed, wait_until

PORT = 9515
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Browser:
    """One with one window."""

    def __init__(self, session):
        self.session = session

    def order(self, path, body):
        return ask("POST", f"/session/{self.session}{path}", body)

    def open(self, url):
        """Milliseconds from the request until all of the page is loaded and drawn up, and the number of its elements."""
        self.order("/url", {"url": url})
        script = ("return [performance.getEntriesByType('navigation')[0].duration, document.querySelectorAll('*').length, "
                  "document.querySelectorAll('tbody tr').length]")
        milliseconds, elements, rows = self.order("/execute/sync", {"script": script, "args": []})
        return {"milliseconds": round(milliseconds, 1), "elements": elements, "rows": rows}


def ask(method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise Failed(f"chromedriver: {path}: {text[:500].decode(errors='replace')}")
    return json.loads(text)["value"]


@contextmanager
def browser(lab, gateway):
    """`with browser(lab, gateway) as chosen`, by who is in that namespace. `None` where no chromedriver is installed."""
    if not shutil.which("chromedriver"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tcpgw-bench-browser-") as home:
        # All its processes end with the first one.
        driver = gateway.start("unshare", "--pid", "--fork", "--kill-child", "env", f"HOME={home}", f"TMPDIR={home}", "chromedriver",
                               f"--port={PORT}", stdout=subprocess.DEVNULL)
        gateway.await_listener(PORT, 60)
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": [*OPTIONS, f"--user-data-dir={home}/profile"]}}}}
        session = wait_until(lambda: ask("POST", "/session", wanted)["sessionId"], "a browser", 60)
        try:
            yield Browser(session)
        finally:
            ask("DELETE", f"/session/{session}", {})
            driver.kill()
            driver.wait()
