//! The state file that the daemon watches.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::provider::News;
use crate::provider::file::FileProvider;

/// The state file that is followed.
pub(super) struct FollowedFile {
    pub(super) news: mpsc::Receiver<News>,
    pub(super) task: JoinHandle<()>,
}

impl FollowedFile {
    pub(super) fn watch(path: &Path, config: &Config) -> Self {
        let (sender, news) = mpsc::channel(1);
        let mut provider = FileProvider::watch(path, Arc::new(config.clone()));
        let task = tokio::spawn(async move {
            loop {
                let news = provider.next().await;
                if sender.send(news).await.is_err() {
                    return;
                }
            }
        });
        Self { news, task }
    }
}

pub(super) async fn next_news(file: &mut Option<FollowedFile>) -> Option<News> {
    match file {
        Some(file) => file.news.recv().await,
        None => std::future::pending().await,
    }
}
