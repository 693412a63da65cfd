//! Backends of which packets over the limit are dropped, found between two readings.

use super::Reading;
use crate::view::problems::{limit_reached, title_of};
use tcpgw_core::problem::{MOST_OF_KIND, Problem, sort};

impl Reading {
    /// Returns the reading with a problem for each backend of which packets over the limit were dropped since the reading before, as
    /// `tcpgw status` reports them between its two looks.
    #[must_use]
    pub fn with_limits_reached(mut self) -> Self {
        let found = self.limits_reached();
        for problem in &found {
            *self.problems.entry((problem.severity, problem.kind)).or_default() += 1;
        }
        if !found.is_empty() {
            self.listed_problems.extend(found.into_iter().take(MOST_OF_KIND));
            sort(&mut self.listed_problems);
        }
        self
    }

    fn limits_reached(&self) -> Vec<Problem> {
        let change = self.totals.as_ref().and_then(|totals| totals.change.as_ref());
        let Some(change) = change else {
            return Vec::new();
        };
        let limited = self.services.iter().filter(|service| service.limit.is_some());
        let problems = limited.flat_map(|service| {
            service.backends.iter().filter_map(|of| {
                let rates = change.over_limit(&service.name, of.backend);
                // Most drop nothing, and need no title.
                if rates == [0.0, 0.0] {
                    return None;
                }
                let title = title_of(&service.name, service.addresses.iter(), service.port);
                let mut problem = limit_reached(&title, of.backend, rates)?.of_service(&*service.name, service.port);
                problem.backend = Some(of.backend);
                Some(problem)
            })
        });
        problems.collect()
    }
}
