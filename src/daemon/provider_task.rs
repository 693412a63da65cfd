//! The task that serves the add-on's provider API.

use tokio::sync::mpsc;

use super::listener_task::ListenerTask;
use crate::addon::settings::AddonSettings;
use crate::api::provider::{ProviderApi, serve};
use crate::api::settings;
use crate::control::request::DaemonRequest;
use crate::secrets::Owners;

/// Handle of the task, which exists if the add-on is on and its API can be served.
pub(super) struct ProviderTask {
    requests: mpsc::Sender<DaemonRequest>,
    pub(super) listener: ListenerTask<ProviderApi>,
}

impl ProviderTask {
    /// Creates a handle without a task. `requests` leads to the daemon's main loop.
    pub(super) fn new(requests: mpsc::Sender<DaemonRequest>) -> Self {
        Self {
            requests,
            listener: ListenerTask::new("the provider API", "addon.listen"),
        }
    }

    /// Configures the API, with its files read again. If that fails, or `settings` is an error, the API is served as before.
    ///
    /// # Errors
    /// Fails with a message when the API cannot be served as configured.
    pub(super) fn configure(&mut self, settings: Result<Option<&AddonSettings>, String>) -> Result<(), String> {
        let load = |settings: &AddonSettings| {
            let provider = ProviderApi::load(settings, &Owners::of_daemon()).map_err(|error| error.to_string())?;
            Ok((settings.listen, provider))
        };
        let wanted = settings.and_then(|settings| settings.map(load).transpose());
        let requests = self.requests.clone();
        self.listener.configure(wanted, |(listener, current, stopped)| {
            let stop = async {
                let _ = stopped.await;
            };
            tokio::spawn(serve(
                listener,
                current,
                requests,
                settings::ApiSettings::default(),
                stop,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::addon::settings::AddonSection;
    use tcpgw_core::model::Fences;

    fn settings(directory: &Path, listen: SocketAddr) -> AddonSettings {
        let file = directory.join("credentials.toml");
        std::fs::write(
            &file,
            "username = 'u'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'",
        )
        .unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let section = format!(
            "listen = '{listen}'\nhost = 'gw.example.com'\nports = '20000-20009'\ncredentials = '{}'\nbehind_proxy = true\n\
             plans = [{{name = 'small', id = '5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11', pps = 512}}]",
            tcpgw_core::escape::path(&file)
        );
        let section: AddonSection = toml::from_str(&section).unwrap();
        section.check(&Fences::default()).unwrap()
    }

    /// Returns whether a server answers at this address.
    async fn is_served(at: SocketAddr) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(at).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = timeout(Duration::from_secs(30), exchange).await.expect("it ends");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 404 "))
    }

    async fn is_served_soon(at: SocketAddr, expected: bool) {
        let becomes_so = async {
            while is_served(at).await != expected {
                tokio::task::yield_now().await;
            }
        };
        let in_time = timeout(Duration::from_secs(30), becomes_so).await;
        in_time.unwrap_or_else(|_| panic!("{at} is not served: {expected}"));
    }

    fn task() -> ProviderTask {
        ProviderTask::new(mpsc::channel(1).0)
    }

    /// Tests the change from loopback to all addresses, and back, on one port.
    #[tokio::test]
    async fn the_address_is_changed_while_the_port_stays() {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |address: [u8; 4]| SocketAddr::from((address, port));
        let (loopback, other) = (at([127, 0, 0, 1]), at([127, 0, 0, 2]));
        let mut task = task();
        for (listen, is_everywhere) in [
            (loopback, false),
            (at([0; 4]), true),
            (loopback, false),
            (SocketAddr::from(([0_u16; 8], port)), true),
            (at([0; 4]), true),
            (other, false),
        ] {
            task.configure(Ok(Some(&settings(directory.path(), listen)))).unwrap();
            // Until the old one is closed, which its task does, connections may still come to it.
            let here = if listen == other { other } else { loopback };
            is_served_soon(here, true).await;
            if !is_everywhere {
                let elsewhere = if listen == other { loopback } else { other };
                is_served_soon(elsewhere, false).await;
            }
            // Another daemon does not get the port.
            let another = TcpSocket::new_v4().unwrap();
            another.set_reuseaddr(true).unwrap();
            let refused = another.bind(if listen.is_ipv4() { listen } else { loopback });
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{listen}");
        }
        task.listener.task.end();
    }

    /// Another process has the port on another address: the old listener goes on, and shares its port with no other process.
    #[tokio::test]
    async fn the_old_address_is_served_while_the_new_one_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = theirs.local_addr().unwrap().port();
        let (loopback, all) = (
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0; 4], port)),
        );
        let mut task = task();
        task.configure(Ok(Some(&settings(directory.path(), loopback)))).unwrap();
        for _ in 0..2 {
            let refused = task.configure(Ok(Some(&settings(directory.path(), all)))).unwrap_err();
            assert!(refused.contains("in use") && refused.contains("ss -ltnp"), "{refused}");
            assert!(is_served(loopback).await);
            let another = TcpSocket::new_v4().unwrap();
            another.set_reuseport(true).unwrap();
            assert!(another.bind(loopback).is_err());
        }
        // The same holds for settings that the daemon refuses by itself.
        let refused = task.configure(Err("refused".into())).unwrap_err();
        assert_eq!(refused, "refused");
        assert!(is_served(loopback).await);
        drop(theirs);
        task.configure(Ok(Some(&settings(directory.path(), all)))).unwrap();
        is_served_soon(SocketAddr::from(([127, 0, 0, 2], port)), true).await;
        task.listener.task.end();
    }
}
