"""A small Open Service Broker on openbrokerapi, for `tcpgw addon check` to be tested on: it keeps instances and bindings in memory.

    broker.py PORT

What the library decides (headers, mandatory fields, status codes) is the library's; here is only what it asks of a broker. With `LATER=1`
in the environment everything is asynchronous.
"""

import logging
import os
import sys

from openbrokerapi import api, errors
from openbrokerapi.catalog import ServicePlan
from openbrokerapi.service_broker import (
    Binding,
    BindState,
    DeprovisionServiceSpec,
    GetBindingSpec,
    GetInstanceDetailsSpec,
    LastOperation,
    OperationState,
    ProvisionedServiceSpec,
    ProvisionState,
    Service,
    ServiceBroker,
    UnbindSpec,
    UpdateServiceSpec,
)

SERVICE = "6d1a4b52-0a3c-4f0e-8c39-3b1f5a7e9d01"
PLANS = {"6d1a4b52-0a3c-4f0e-8c39-3b1f5a7e9d02": "small", "6d1a4b52-0a3c-4f0e-8c39-3b1f5a7e9d03": "large"}
CREDENTIALS = {"uri": "tcp://broker.example.com:20000"}
LATER = bool(os.environ.get("LATER"))


class Broker(ServiceBroker):
    def __init__(self):
        self.instances = {}
        self.bindings = {}
        self.questions = 0

    def catalog(self):
        plans = [ServicePlan(id=id, name=name, description=name) for id, name in PLANS.items()]
        return Service(id=SERVICE, name="kept-in-memory", description="Kept in memory", bindable=True, plans=plans,
                       plan_updateable=True, instances_retrievable=True, bindings_retrievable=True)

    def begins(self, async_allowed, questions=1):
        if LATER and not async_allowed:
            raise errors.ErrAsyncRequired()
        self.questions = questions if LATER else 0
        return LATER

    def provision(self, instance_id, details, async_allowed, **kwargs):
        wanted = {"plan": details.plan_id, "service": details.service_id, "owner": (details.organization_guid, details.space_guid)}
        known = self.instances.get(instance_id)
        if known == wanted:
            return ProvisionedServiceSpec(ProvisionState.IDENTICAL_ALREADY_EXISTS)
        if known is not None:
            raise errors.ErrInstanceAlreadyExists()
        later = self.begins(async_allowed, questions=2)
        self.instances[instance_id] = wanted
        return ProvisionedServiceSpec(ProvisionState.IS_ASYNC if later else ProvisionState.SUCCESSFUL_CREATED, operation="provision" if later else None)

    def update(self, instance_id, details, async_allowed, **kwargs):
        later = self.begins(async_allowed)
        self.instances[instance_id]["plan"] = details.plan_id or self.instances[instance_id]["plan"]
        return UpdateServiceSpec(is_async=later, operation="update" if later else None)

    def deprovision(self, instance_id, details, async_allowed, **kwargs):
        if instance_id not in self.instances:
            raise errors.ErrInstanceDoesNotExist()
        later = self.begins(async_allowed)
        del self.instances[instance_id]
        return DeprovisionServiceSpec(is_async=later, operation="deprovision" if later else None)

    def bind(self, instance_id, binding_id, details, async_allowed, **kwargs):
        app = details.bind_resource.app_guid if details.bind_resource else details.app_guid
        known = self.bindings.get((instance_id, binding_id))
        if known == (app, details.service_id):
            return Binding(state=BindState.IDENTICAL_ALREADY_EXISTS, credentials=CREDENTIALS)
        if known is not None:
            raise errors.ErrBindingAlreadyExists()
        later = self.begins(async_allowed)
        self.bindings[instance_id, binding_id] = (app, details.service_id)
        if later:
            return Binding(state=BindState.IS_ASYNC, operation="bind")
        return Binding(state=BindState.SUCCESSFUL_BOUND, credentials=CREDENTIALS)

    def unbind(self, instance_id, binding_id, details, async_allowed, **kwargs):
        if (instance_id, binding_id) not in self.bindings:
            raise errors.ErrBindingDoesNotExist()
        later = self.begins(async_allowed)
        del self.bindings[instance_id, binding_id]
        return UnbindSpec(is_async=later, operation="unbind" if later else None)

    def get_instance(self, instance_id, **kwargs):
        if instance_id not in self.instances:
            raise errors.ErrInstanceDoesNotExist()
        return GetInstanceDetailsSpec(self.instances[instance_id]["service"], self.instances[instance_id]["plan"])

    def get_binding(self, instance_id, binding_id, **kwargs):
        if (instance_id, binding_id) not in self.bindings:
            raise errors.ErrBindingDoesNotExist()
        return GetBindingSpec(credentials=CREDENTIALS)

    def last_operation(self, instance_id, operation_data, **kwargs):
        if instance_id not in self.instances and self.questions == 0:
            raise errors.ErrInstanceDoesNotExist()
        return self.asked()

    def last_binding_operation(self, instance_id, binding_id, operation_data, **kwargs):
        return self.asked()

    def asked(self):
        self.questions = max(self.questions - 1, 0)
        return LastOperation(OperationState.IN_PROGRESS if self.questions else OperationState.SUCCEEDED, "asked")


logging.disable(logging.ERROR)
login = api.BrokerCredentials("tcp", "password-of-the-tests")
api.serve(Broker(), login, host="127.0.0.1", port=int(sys.argv[1]))
