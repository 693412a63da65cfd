//! Sections of the standard that the checks name, and rules that several have.

pub(super) const AUTHENTICATION: &str = "OSB 2.17, Platform to Service Broker Authentication";

pub(super) const VERSION: &str = "OSB 2.17, API Version Header";

pub(super) const ERRORS: &str = "OSB 2.17, Service Broker Errors";

pub(super) const CATALOG: &str = "OSB 2.17, Catalog Management, Body";

pub(super) const PROVISIONING: &str = "OSB 2.17, Provisioning";

pub(super) const FETCHING: &str = "OSB 2.17, Fetching a Service Instance";

pub(super) const UPDATING: &str = "OSB 2.17, Updating a Service Instance";

pub(super) const BINDING: &str = "OSB 2.17, Binding";

pub(super) const FETCHING_BINDING: &str = "OSB 2.17, Fetching a Service Binding";

pub(super) const UNBINDING: &str = "OSB 2.17, Unbinding";

pub(super) const DEPROVISIONING: &str = "OSB 2.17, Deprovisioning";

pub(super) const POLLING: &str = "OSB 2.17, Polling Last Operation for Service Instances";

pub(super) const WITHOUT_CREDENTIALS: &str = "401 without credentials, and nothing is changed or told";

pub(super) const MANDATORY: &str = "400 if mandatory data is missing";

pub(super) const UNKNOWN: &str = "400 for an id that is not in the catalog";

/// An id that no offering and no plan has.
pub(super) const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";
