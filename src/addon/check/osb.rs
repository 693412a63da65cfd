//! The checks of the Open Service Broker API, version 2.17.
//!
//! Source: `spec.md` of openservicebrokerapi/servicebroker at its tag v2.17, whose sections the checks name. What a broker MUST do
//! fails where it does not; what it SHOULD or MAY do is a warning.
mod access;
mod answers;
mod bindings;
mod instances;
mod refusals;
mod requests;

use super::{Act, Check, whole};

pub(super) use self::answers::{state, wants_asynchronous};
pub(super) use self::requests::{polling, removing};

const AUTHENTICATION: &str = "OSB 2.17, Platform to Service Broker Authentication";
const VERSION: &str = "OSB 2.17, API Version Header";
const ERRORS: &str = "OSB 2.17, Service Broker Errors";
const CATALOG: &str = "OSB 2.17, Catalog Management, Body";
const PROVISIONING: &str = "OSB 2.17, Provisioning";
const FETCHING: &str = "OSB 2.17, Fetching a Service Instance";
const UPDATING: &str = "OSB 2.17, Updating a Service Instance";
const BINDING: &str = "OSB 2.17, Binding";
const FETCHING_BINDING: &str = "OSB 2.17, Fetching a Service Binding";
const UNBINDING: &str = "OSB 2.17, Unbinding";
const DEPROVISIONING: &str = "OSB 2.17, Deprovisioning";
const POLLING: &str = "OSB 2.17, Polling Last Operation for Service Instances";
const MANDATORY: &str = "400 if mandatory data is missing";
const UNKNOWN: &str = "400 for an id that is not in the catalog";
/// An id that no offering and no plan has.
const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

/// All checks, in their order.
pub(super) const CHECKS: &[&[Check]] = &[
    access::ACCESS,
    access::SHAPE,
    refusals::REFUSALS,
    instances::INSTANCE,
    instances::UPDATE,
    bindings::BIND,
    bindings::UNBIND,
    instances::REMOVAL,
    THROUGHOUT,
];

const THROUGHOUT: &[Check] = &[
    Check::new(
        "error-bodies",
        Act::Each(whole::osb_error),
        "error and description are strings that are not empty; instance_usable and update_repeatable only where they belong",
        ERRORS,
    ),
    Check::new(
        "content-type",
        Act::Each(whole::content_type),
        "bodies should be sent as application/json",
        "OSB 2.17, Content Type",
    ),
    Check::new(
        "request-identity",
        Act::Each(whole::request_identity),
        "the header X-Broker-API-Request-Identity should be in the response",
        "OSB 2.17, Request Identity",
    ),
];
