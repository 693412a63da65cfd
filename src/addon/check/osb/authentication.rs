//! Checks of credentials, of API versions and of the catalog.

use super::super::context::CheckContext;
use super::super::message::{CheckRequest, Login, RequestEffect, Version};
use super::super::{catalog, judge};
use super::answers::version_refused;
use super::requests::{catalog_request, versioned};
use super::source::{AUTHENTICATION, CATALOG, VERSION, WITHOUT_CREDENTIALS};
use crate::addon::check::definition::{Act, Check};
use crate::addon::check::need::Need;

/// Returns the check that a broker refuses a request, which has no credentials.
pub(super) const fn without_credentials(name: &'static str, request: fn(&CheckContext) -> CheckRequest) -> Check {
    Check::ask(
        name,
        request,
        |_, got| judge::unauthorized(got),
        WITHOUT_CREDENTIALS,
        AUTHENTICATION,
    )
}

pub(super) const ACCESS: &[Check] = &[
    Check::ask(
        "no-credentials",
        |_| catalog_request().login(Login::Missing),
        |_, got| judge::unauthorized(got),
        "401 without credentials",
        AUTHENTICATION,
    ),
    Check::ask(
        "wrong-credentials",
        |_| catalog_request().login(Login::Wrong),
        |_, got| judge::unauthorized(got),
        "401 with a wrong password",
        AUTHENTICATION,
    ),
    Check::ask(
        "version-missing",
        |_| versioned(Version::Missing),
        |_, got| version_refused(got, &[400, 412]),
        "400 without X-Broker-API-Version, if it is refused (412, which osb-checker wants, does too)",
        VERSION,
    ),
    Check::ask(
        "version-unsupported",
        |_| versioned(Version::Other("1.0")),
        |_, got| version_refused(got, &[412]),
        "412 for a version that is not supported",
        VERSION,
    ),
    Check::ask(
        "version-malformed",
        |_| versioned(Version::Other("two")),
        |_, got| version_refused(got, &[400, 412]),
        "400 or 412 for a version that is not MAJOR.MINOR",
        VERSION,
    ),
];

pub(super) const SHAPE: &[Check] = &[
    Check::ask(
        "catalog",
        |_| catalog_request().effect(RequestEffect::Lists),
        catalog::is_catalog,
        "200 and an object with the array services",
        CATALOG,
    ),
    Check::new(
        "catalog-offerings",
        Act::Judge("catalog", catalog::offerings),
        "name, id, description, bindable and at least one plan; all fields with their types",
        "OSB 2.17, Service Offering Object",
    ),
    Check::new(
        "catalog-plans",
        Act::Judge("catalog", catalog::plan_objects),
        "id, name and description; all fields with their types",
        "OSB 2.17, Service Plan Object",
    ),
    Check::new(
        "catalog-unique",
        Act::Judge("catalog", catalog::unique),
        "ids are unique, names of offerings too, and names of plans in their offering",
        "OSB 2.17, Service Offering Object and Service Plan Object",
    ),
    Check::new(
        "catalog-names",
        Act::Judge("catalog", catalog::friendly),
        "GUIDs as ids, and names of letters, digits, periods and hyphens, are recommended",
        "OSB 2.17, Service Offering Object and Service Plan Object",
    ),
    Check::new(
        "catalog-schemas",
        Act::Judge("catalog", catalog::schemas),
        "a schema has $schema, no reference to other documents, and at most 64 kB",
        "OSB 2.17, Input Parameters Schema Object",
    )
    .needing(&[Need::Schemas]),
    Check::ask(
        "catalog-again",
        |_| catalog_request(),
        catalog::is_stable,
        "the same offerings and plans have the same ids",
        CATALOG,
    )
    .needing(&[Need::Catalog]),
    Check::ask(
        "originating-identity",
        |_| {
            let mut request = catalog_request();
            request.originator = Some("{\"user_id\":\"683ea748-3092-4ff4-b656-39cacc4d5360\"}");
            request
        },
        |_, got| judge::status(got, &[200]),
        "a request that names its user is answered as usual",
        "OSB 2.17, Originating Identity",
    )
    .needing(&[Need::Catalog]),
];
