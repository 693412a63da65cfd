//! The checks of the Open Service Broker API, version 2.17.
//!
//! Source: `spec.md` of openservicebrokerapi/servicebroker at its tag v2.17, whose sections the checks name. What a broker MUST do
//! fails where it does not; what it SHOULD or MAY do is a warning.
mod answers;
mod authentication;
mod bindings;
mod instances;
mod refusals;
mod requests;
mod source;

use self::source::ERRORS;
use super::all_answers;
use super::definition::{Act, Check};

pub(super) use self::answers::{state, wants_asynchronous};
pub(super) use self::requests::{polling, removing};

/// All checks, in their order.
pub(super) const CHECKS: &[&[Check]] = &[
    authentication::ACCESS,
    authentication::SHAPE,
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
        Act::Each(all_answers::osb_error),
        "error and description are strings that are not empty; instance_usable and update_repeatable only where they belong",
        ERRORS,
    ),
    Check::new(
        "content-type",
        Act::Each(all_answers::content_type),
        "bodies should be sent as application/json",
        "OSB 2.17, Content Type",
    ),
    Check::new(
        "request-identity",
        Act::Each(all_answers::request_identity),
        "the header X-Broker-API-Request-Identity should be in the response",
        "OSB 2.17, Request Identity",
    ),
];
