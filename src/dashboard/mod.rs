//! The operator's dashboard: its pages, and the files that they use.
//!
//! Pure: values in, HTML out, escaped by `maud`. Knows neither how values are read nor who asks. Pages work without a script. A
//! part of a page that may be asked for alone is a function of its own.

mod assets;
mod backends;
mod deploy;
mod doctor;
mod drops;
mod flows;
mod frame;
mod history;
mod last_hour;
mod orders;
mod overview;
mod query;
mod rates;
mod resource;
mod service;
mod services;

pub use self::assets::asset;
pub use self::deploy::DeployPage;
pub use self::doctor::DoctorPage;
pub use self::flows::FlowList;
pub use self::frame::{DashboardPage, NavigationPlace, no_service, refusal};
pub use self::last_hour::{HourRates, last_hour};
pub use self::overview::Overview;
pub use self::query::{QueryRefused, ServiceColumn, ServicesQuery};
pub use self::resource::ResourcePage;
pub use self::service::ServicePage;
pub use self::services::ServicesPage;

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
