//! Consequences of draining a backend, in words.

use tcpgw_core::words::count;

/// Returns what becomes of the service's new connections. `others`: number of its other backends that get new connections.
pub fn consequence(others: usize) -> String {
    match others {
        0 => "It gets no new connections. NO OTHER BACKEND IS UP: new clients will not be served.".to_owned(),
        others => format!(
            "It gets no new connections: they go to {}.",
            count(others, "other backend")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_told() {
        assert!(consequence(0).contains("NO OTHER BACKEND IS UP: new clients will not be served"));
        assert_eq!(
            consequence(1),
            "It gets no new connections: they go to 1 other backend."
        );
        assert_eq!(
            consequence(2),
            "It gets no new connections: they go to 2 other backends."
        );
    }
}
