//! The thread that follows Docker's engine. It exists if `[docker]` is configured.
//!
//! Nothing waits for it: the main loop takes the last of what it has told.

use std::io;
use std::thread;

use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::provider::docker::{DockerNews, DockerSettings, follow};

/// Handle of the thread, which ends when this is dropped.
pub(super) struct DockerThread {
    settings: watch::Sender<DockerSettings>,
    news: watch::Receiver<DockerNews>,
    _end: oneshot::Sender<()>,
}

/// Returns the engine that the configuration names.
fn docker_settings(config: &Config) -> Option<DockerSettings> {
    Some(DockerSettings {
        socket: config.docker.as_ref()?.socket().to_owned(),
    })
}

impl DockerThread {
    /// Starts the thread if the configuration names an engine.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start(config: &Config) -> io::Result<Option<Self>> {
        let Some(wanted) = docker_settings(config) else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (settings, changed) = watch::channel(wanted);
        let (sender, news) = watch::channel(DockerNews::default());
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("docker".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = follow(changed, sender) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Some(Self {
            settings,
            news,
            _end: end,
        }))
    }

    /// Puts other settings into effect. Returns false when the configuration names no engine any more.
    pub(super) fn configure(&self, config: &Config) -> bool {
        let Some(wanted) = docker_settings(config) else {
            return false;
        };
        self.settings.send_if_modified(|settings| {
            let is_new = *settings != wanted;
            *settings = wanted;
            is_new
        });
        true
    }
}

/// Waits for what the thread tells. The future may be dropped at any time without loss. It returns `None` when the thread has ended.
pub(super) async fn next_docker_news(thread: &mut Option<DockerThread>) -> Option<DockerNews> {
    let Some(thread) = thread else {
        return std::future::pending().await;
    };
    thread.news.changed().await.ok()?;
    Some(thread.news.borrow_and_update().clone())
}
