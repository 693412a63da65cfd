//! The operator's dashboard: its pages, and the files that they use.
//!
//! Pure: values in, HTML out, escaped by `maud`. Knows neither how values are read nor who asks. Pages work without a script. A
//! part of a page that may be asked for alone is a function of its own.

mod assets;
mod frame;
mod overview;
mod query;
mod rates;
mod services;

pub use self::assets::asset;
pub use self::frame::{DashboardPage, NavigationPlace, refusal};
pub use self::overview::Overview;
pub use self::query::{QueryRefused, ServiceColumn, ServicesQuery};
pub use self::services::ServicesPage;

#[cfg(test)]
mod tests;
