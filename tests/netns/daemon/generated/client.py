"""Generates a client from the API's document by openapi-python-client, and uses it over the daemon's socket.

    client.py OPENAPI_JSON DIRECTORY SOCKET OLD_BACKEND NEW_BACKEND

An endpoint or a schema that the generator would leave out is a failure. The daemon has to be without services; it is left with `a`
alone, on port 2002 with the new backend.
"""

import subprocess
import sys
import time
from pathlib import Path

import httpx

NAME = "generated_client"


def generate(document, directory):
    config = directory / "config.json"
    # The default hooks format the code by ruff.
    config.write_text('{"post_hooks": []}')
    words = ["generate", "--path", document, "--config", str(config), "--meta", "none", "--fail-on-warning"]
    command = [sys.executable, "-m", "openapi_python_client", *words, "--output-path", str(directory / NAME)]
    subprocess.run(command, check=True, timeout=60, stdout=sys.stderr)
    sys.path.insert(0, str(directory))


def same(told, wanted):
    assert told == wanted, f"{told!r} instead of {wanted!r}"


def use(socket, old, new):
    from generated_client import Client
    from generated_client.api.deploys import begin_deploy, get_deploy
    from generated_client.api.services import (
        change_service, change_services, create_service, delete_service, get_service, list_services,
    )
    from generated_client.models import (
        BatchChange, BatchRequest, DeployPhase, DeployRequest, Error, GetDeployUntil, ServicePatch, ServiceSpec,
    )
    from generated_client.types import UNSET

    arguments = {"transport": httpx.HTTPTransport(uds=socket)}
    client = Client("http://tcpgw", httpx_args=arguments, timeout=httpx.Timeout(60), raise_on_unexpected_status=True)

    def done(answer):
        assert answer.status_code < 300 and not isinstance(answer.parsed, Error), answer
        return answer.parsed

    def listed():
        answer = done(list_services.sync_detailed(client=client))
        return {one.service.name: one.service.port for one in answer.services}

    def refused(answer, status, code):
        assert isinstance(answer.parsed, Error), answer
        same((int(answer.status_code), answer.parsed.error.code.value), (status, code))
        assert answer.parsed.error.message, answer

    same(listed(), {})
    for name, port in (("a", 2001), ("b", 2002)):
        spec = ServiceSpec(name=name, port=port, backends=[old], drain_timeout="1s")
        made = done(create_service.sync_detailed(client=client, body=spec))
        same((made.created, made.service.backends), (True, [old]))
    refused(create_service.sync_detailed(client=client, body=spec), 412, "conflict")
    same(listed(), {"a": 2001, "b": 2002})

    # A probe's answer may be on its way into the kernel.
    end = time.monotonic() + 10
    view = done(get_service.sync_detailed("a", client=client))
    while not view.in_kernel and time.monotonic() < end:
        view = done(get_service.sync_detailed("a", client=client))
    same((view.service.port, view.in_kernel, view.backends[0].backend), (2001, True, old))
    seen = f'"{view.revision}"'
    changed = done(change_service.sync_detailed("a", client=client, body=ServicePatch(max_flows=100), if_match=seen))
    same((changed.changed, changed.service.max_flows), (True, 100))
    refused(change_service.sync_detailed("a", client=client, body=ServicePatch(max_flows=7), if_match=seen), 412, "conflict")
    # What is null in a merge patch goes back to its default, and what is not given stays.
    changed = done(change_service.sync_detailed("a", client=client, body=ServicePatch(max_flows=None)))
    same((changed.service.max_flows, changed.service.drain_timeout), (UNSET, "1s"))

    # Their ports cannot be swapped one after the other.
    swap = [BatchChange(name=name, patch=ServicePatch(port=port)) for name, port in (("a", 2002), ("b", 2001))]
    several = done(change_services.sync_detailed(client=client, body=BatchRequest(services=swap)))
    same([(one.name, one.service.port, one.changed) for one in several.services], [("a", 2002, True), ("b", 2001, True)])
    half = [BatchChange(name="a", patch=ServicePatch(port=2003)), BatchChange(name="none", delete=True)]
    refused(change_services.sync_detailed(client=client, body=BatchRequest(services=half)), 404, "not_found")
    same(listed(), {"a": 2002, "b": 2001})

    deploy = done(begin_deploy.sync_detailed("a", client=client, body=DeployRequest(targets=[new])))
    same((deploy.service, deploy.targets), ("a", [new]))
    ended = done(get_deploy.sync_detailed(deploy.id, client=client, until=GetDeployUntil.DRAINED, wait="30s"))
    same((ended.phase, ended.old), (DeployPhase.DRAINED, [old]))

    same(done(delete_service.sync_detailed("b", client=client)).service, None)
    refused(get_service.sync_detailed("b", client=client), 404, "not_found")
    same(listed(), {"a": 2002})


document, directory, socket, old, new = sys.argv[1:]
generate(document, Path(directory))
use(socket, old, new)
