//! Tests of the ways in which people and programs replace a file.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use tcpgw_core::model::State;

/// Time that is longer than any of the steps takes, on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// Time that is longer than a change takes to be seen. Tests for "no news" do not notice later changes.
const SILENCE: Duration = Duration::from_millis(700);

fn text(port: u16) -> String {
    format!(r#"{{"version":1,"services":[{{"name":"a","port":{port},"backends":["10.2.0.11:3000"]}}]}}"#)
}

struct Followed {
    directory: tempfile::TempDir,
    provider: FileProvider,
}

impl Followed {
    /// Creates a followed file; port 2000 has been reported when this returns.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("state.json"), text(2000)).unwrap();
        Self::of(directory).await
    }

    async fn of(directory: tempfile::TempDir) -> Self {
        let provider = FileProvider::watch(&directory.path().join("state.json"), Arc::default());
        let mut followed = Self { directory, provider };
        followed.tells(2000).await;
        followed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn news(&mut self) -> News {
        tokio::time::timeout(LONG, self.provider.next()).await.expect("news")
    }

    async fn tells(&mut self, expected: u16) {
        match self.news().await {
            News::State(state, warnings) => assert_eq!((port(&state), warnings.len()), (expected, 0)),
            News::Bad(bad) => panic!("{bad}"),
        }
    }

    async fn complains(&mut self, expected: &str) {
        match self.news().await {
            News::State(state, _) => panic!("{state:?}"),
            News::Bad(bad) => assert!(bad.to_string().contains(expected), "{bad}"),
        }
    }

    async fn is_silent(&mut self) {
        let news = tokio::time::timeout(SILENCE, self.provider.next()).await;
        assert!(news.is_err(), "{news:?}");
    }

    fn replace(&self, content: &str) {
        fs::write(self.path("new"), content).unwrap();
        fs::rename(self.path("new"), self.path("state.json")).unwrap();
    }
}

fn port(state: &State) -> u16 {
    state.services[0].port.get()
}

#[tokio::test]
async fn an_atomic_rename() {
    let mut followed = Followed::new().await;
    for port in 2001..2005 {
        followed.replace(&text(port));
        followed.tells(port).await;
    }
    followed.is_silent().await;
}

#[tokio::test]
async fn a_write_in_place() {
    let mut followed = Followed::new().await;
    for port in 2001..2005 {
        fs::write(followed.path("state.json"), text(port)).unwrap();
        followed.tells(port).await;
    }
    followed.is_silent().await;
}

#[tokio::test]
async fn a_slow_write_is_read_once_it_is_whole() {
    let mut followed = Followed::new().await;
    let path = followed.path("state.json");
    let whole = text(2001);
    let writer = tokio::spawn(async move {
        let mut file = File::create(path).unwrap();
        for part in whole.as_bytes().chunks(20) {
            file.write_all(part).unwrap();
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
    });
    followed.tells(2001).await;
    writer.await.unwrap();
    followed.is_silent().await;
}

#[tokio::test]
async fn a_slow_copy_over_a_new_name_is_read_once_it_is_whole() {
    let mut followed = Followed::new().await;
    fs::remove_file(followed.path("state.json")).unwrap();
    followed.complains("no such file").await;
    let path = followed.path("state.json");
    let writer = tokio::spawn(async move {
        let mut file = File::create(path).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let whole = text(2001);
        let (first, second) = whole.split_at(30);
        file.write_all(first.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        file.write_all(second.as_bytes()).unwrap();
    });
    followed.tells(2001).await;
    writer.await.unwrap();
    followed.is_silent().await;
}

#[tokio::test]
async fn a_writer_that_never_closes_is_read_when_it_rests() {
    let mut followed = Followed::new().await;
    let mut file = File::create(followed.path("state.json")).unwrap();
    file.write_all(text(2001).as_bytes()).unwrap();
    followed.tells(2001).await;
    drop(file);
    followed.is_silent().await;
}

#[tokio::test]
async fn an_editor_with_a_backup() {
    let mut followed = Followed::new().await;
    for port in 2001..2004 {
        fs::rename(followed.path("state.json"), followed.path("state.json~")).unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        fs::write(followed.path("state.json"), text(port)).unwrap();
        fs::remove_file(followed.path("state.json~")).unwrap();
        followed.tells(port).await;
    }
    followed.is_silent().await;
}

#[tokio::test]
async fn a_swap_as_kubernetes_does_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1/state.json"), text(2000)).unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/state.json", at("state.json")).unwrap();
    let mut followed = Followed::of(directory).await;
    for n in 2..6 {
        let (old, new) = (followed.path(&format!("..{}", n - 1)), followed.path(&format!("..{n}")));
        fs::create_dir(&new).unwrap();
        fs::write(new.join("state.json"), text(2000 + n)).unwrap();
        symlink(new.file_name().unwrap(), followed.path("..data_tmp")).unwrap();
        fs::rename(followed.path("..data_tmp"), followed.path("..data")).unwrap();
        fs::remove_dir_all(&old).unwrap();
        followed.tells(2000 + n).await;
    }
    followed.is_silent().await;
}

#[tokio::test]
async fn a_link_that_is_pointed_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("one"), text(2000)).unwrap();
    fs::write(elsewhere.path().join("two"), text(2001)).unwrap();
    symlink(elsewhere.path().join("one"), directory.path().join("state.json")).unwrap();
    let mut followed = Followed::of(directory).await;
    symlink(elsewhere.path().join("two"), followed.path("new")).unwrap();
    fs::rename(followed.path("new"), followed.path("state.json")).unwrap();
    followed.tells(2001).await;
    fs::write(elsewhere.path().join("two"), text(2002)).unwrap();
    followed.tells(2002).await;
    fs::write(elsewhere.path().join("one"), text(2003)).unwrap();
    followed.is_silent().await;
}

#[tokio::test]
async fn a_hard_link_is_written_by_its_other_name() {
    let mut followed = Followed::new().await;
    let elsewhere = tempfile::tempdir_in(followed.directory.path()).unwrap();
    fs::write(followed.path("other"), text(2001)).unwrap();
    fs::remove_file(followed.path("state.json")).unwrap();
    fs::hard_link(followed.path("other"), followed.path("state.json")).unwrap();
    followed.tells(2001).await;
    fs::rename(followed.path("other"), elsewhere.path().join("other")).unwrap();
    fs::write(elsewhere.path().join("other"), text(2002)).unwrap();
    followed.tells(2002).await;
}

#[tokio::test]
async fn a_file_that_goes_and_comes_back() {
    let mut followed = Followed::new().await;
    fs::remove_file(followed.path("state.json")).unwrap();
    followed.complains("no such file").await;
    followed.is_silent().await;
    fs::write(followed.path("state.json"), text(2000)).unwrap();
    followed.tells(2000).await;
    fs::remove_file(followed.path("state.json")).unwrap();
    fs::write(followed.path("state.json"), text(2001)).unwrap();
    followed.tells(2001).await;
    followed.is_silent().await;
}

#[tokio::test]
async fn a_directory_that_is_moved_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("etc/tcpgw");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("state.json"), text(2000)).unwrap();
    let provider = FileProvider::watch(&inner.join("state.json"), Arc::default());
    let mut followed = Followed { directory, provider };
    followed.tells(2000).await;
    fs::rename(followed.path("etc"), followed.path("old")).unwrap();
    followed.complains("no such file").await;
    fs::write(followed.path("old/tcpgw/state.json"), text(2009)).unwrap();
    followed.is_silent().await;
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("state.json"), text(2001)).unwrap();
    followed.tells(2001).await;
    fs::remove_dir_all(followed.path("etc")).unwrap();
    followed.complains("no such file").await;
    fs::rename(followed.path("old"), followed.path("etc")).unwrap();
    followed.tells(2009).await;
    fs::write(inner.join("state.json"), text(2003)).unwrap();
    followed.tells(2003).await;
    followed.is_silent().await;
}

#[tokio::test]
async fn a_file_that_is_not_there_yet() {
    let directory = tempfile::tempdir().unwrap();
    let provider = FileProvider::watch(&directory.path().join("later/state.json"), Arc::default());
    let mut followed = Followed { directory, provider };
    followed.complains("no such file").await;
    fs::create_dir(followed.path("later")).unwrap();
    fs::write(followed.path("later/state.json"), text(2000)).unwrap();
    followed.tells(2000).await;
}

/// Makes many changes, checks that the news end with the last one, and returns the number of news.
async fn storm(followed: &mut Followed, last: u16, change: impl Fn(u16) + Send + 'static) -> usize {
    let writer = tokio::task::spawn_blocking(move || (2001..=last).for_each(change));
    for told in 1.. {
        match followed.news().await {
            News::State(state, _) if port(&state) == last => {
                writer.await.unwrap();
                followed.is_silent().await;
                return told;
            }
            News::State(..) => {}
            News::Bad(bad) => panic!("{bad}"),
        }
    }
    unreachable!("the loop ends with the last change or with a panic")
}

#[tokio::test]
async fn many_renames_are_few_news() {
    let mut followed = Followed::new().await;
    let (new, path) = (followed.path("new"), followed.path("state.json"));
    let text = storm(&mut followed, 2100, move |port| {
        fs::write(&new, text(port)).unwrap();
        fs::rename(&new, &path).unwrap();
    })
    .await;
    assert!(text <= 20, "{text} news of 100 changes");
}

#[tokio::test]
async fn many_writes_in_place_are_few_news_and_never_half_of_one() {
    // Truncating a file there does not wait for a disk.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    fs::write(directory.path().join("state.json"), text(2000)).unwrap();
    let mut followed = Followed::of(directory).await;
    let path = followed.path("state.json");
    let text = storm(&mut followed, 2500, move |port| fs::write(&path, text(port)).unwrap()).await;
    assert!(text <= 100, "{text} news of 500 changes");
}

#[tokio::test]
async fn the_same_again_is_no_news() {
    let mut followed = Followed::new().await;
    followed.replace(&text(2000));
    fs::write(followed.path("state.json"), text(2000)).unwrap();
    fs::write(followed.path("another"), text(2001)).unwrap();
    fs::remove_file(followed.path("another")).unwrap();
    followed.is_silent().await;
}

#[tokio::test]
async fn a_bad_one_is_told_once_and_the_next_good_one_too() {
    let mut followed = Followed::new().await;
    followed.replace("");
    followed.complains("is empty").await;
    followed.replace("{");
    followed.complains("line 1").await;
    followed.replace("{");
    followed.is_silent().await;
    followed.replace(&text(80));
    followed.complains("80 is refused; the default of fences.ports").await;
    followed.replace(&text(2000));
    followed.tells(2000).await;
    fs::remove_file(followed.path("state.json")).unwrap();
    nix::unistd::mkfifo(&followed.path("state.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    followed.complains("is a pipe").await;
    fs::remove_file(followed.path("state.json")).unwrap();
    fs::create_dir(followed.path("state.json")).unwrap();
    followed.complains("is a directory").await;
    let large = File::create(followed.path("new")).unwrap();
    large.set_len(1 << 40).unwrap();
    fs::remove_dir(followed.path("state.json")).unwrap();
    fs::rename(followed.path("new"), followed.path("state.json")).unwrap();
    followed.complains("is larger than 64 MiB").await;
}

#[tokio::test]
async fn other_fences_judge_again() {
    let mut followed = Followed::new().await;
    let config = |text: &str| Arc::new(Config::parse(Path::new("config.toml"), text.as_bytes()).unwrap());
    followed.provider.reload(config("fences.ports = 443"));
    followed.complains("2000 is refused; fences.ports in config.toml").await;
    followed.provider.reload(config(""));
    followed.tells(2000).await;
}

#[tokio::test]
async fn without_inotify_it_is_polled() {
    let mut followed = Followed::new().await;
    followed.provider.inotify = None;
    followed.provider.watched.clear();
    followed.replace(&text(2001));
    followed.tells(2001).await;
}

#[tokio::test]
async fn whoever_does_not_wait_loses_nothing() {
    let mut followed = Followed::new().await;
    for port in 2001..2050 {
        followed.replace(&text(port));
        let soon = tokio::time::timeout(Duration::from_micros(500), followed.provider.next()).await;
        assert!(soon.is_err() || port > 2001);
    }
    followed.replace(&text(2050));
    loop {
        if let News::State(state, _) = followed.news().await
            && port(&state) == 2050
        {
            break;
        }
    }
}
