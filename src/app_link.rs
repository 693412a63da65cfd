//! Names of the links of an app that `tcpgw up` runs, by which they are recognized without a record.

/// Prefix of the name of the link that has the gateway's address; the app's id follows.
const GATEWAY: &str = "tcpup";
/// Prefix of the names of the links to processes; the app's id, a hyphen and a number follow.
const PROCESS: &str = "tu";
/// Length of an app's id in a link's name, in hexadecimal digits.
const ID_LENGTH: usize = 8;

/// Returns the name of the link that has an app's gateway address.
pub fn gateway_name(id: &str) -> String {
    format!("{GATEWAY}{id}")
}

/// Returns how the names of the links to an app's processes begin.
pub fn process_prefix(id: &str) -> String {
    format!("{PROCESS}{id}-")
}

/// Returns the id of the app whose gateway address a link has, if it is such a link.
pub fn app_of_gateway(name: &str) -> Option<&str> {
    name.strip_prefix(GATEWAY).filter(|id| is_id(id))
}

/// Returns the id of the app that a link is of, if it is one of an app's.
pub fn app_of(name: &str) -> Option<&str> {
    let of_process = || name.strip_prefix(PROCESS).and_then(|name| name.split('-').next());
    app_of_gateway(name).or_else(|| of_process().filter(|id| is_id(id)))
}

/// Returns whether a link is one of an app's.
pub fn is_of_app(name: &str) -> bool {
    app_of(name).is_some()
}

fn is_id(id: &str) -> bool {
    id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_apps_are_told_from_others() {
        assert_eq!(app_of_gateway(&gateway_name("0123abcd")), Some("0123abcd"));
        for name in [gateway_name("0123abcd"), format!("{}17", process_prefix("0123abcd"))] {
            assert_eq!(app_of(&name), Some("0123abcd"), "{name}");
        }
        for name in [
            "tun0",
            "tu",
            "tcpup",
            "docker0",
            "tcpup0",
            "tu0123abc-1",
            "tcpupx123abcd",
        ] {
            assert!(!is_of_app(name) && app_of_gateway(name).is_none(), "{name}");
        }
    }
}
