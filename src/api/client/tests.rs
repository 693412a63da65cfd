use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use super::*;
use crate::api::client::answer::is_modest;
use crate::api::client::limits::{EXPORT, LARGE, MOST_OBJECTS, MOST_VALUES};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Takes one connection and answers it with a head and what `write` gives, until that or the other end has enough.
fn serves(
    directory: &Path,
    mut write: impl FnMut(&mut std::os::unix::net::UnixStream) -> io::Result<()> + Send + 'static,
) -> PathBuf {
    let path = directory.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(HEAD);
        while write(&mut stream).is_ok() {}
    });
    path
}

fn client(path: &Path) -> Client {
    Client {
        path: path.to_owned(),
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
        pid: Cell::new(None),
    }
}

fn begun(client: &Client, time: Duration, most: usize) -> DaemonResponse<'_> {
    let begun = client.begin("GET", "/", &[], Bytes::new());
    let (status, body) = client.runtime.block_on(begun).unwrap();
    assert!(status.is_success());
    DaemonResponse {
        client,
        body,
        deadline: Instant::now() + time,
        most,
    }
}

fn trickle(stream: &mut std::os::unix::net::UnixStream) -> io::Result<()> {
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(b"1\r\n \r\n")
}

#[test]
fn an_answer_that_trickles_ends_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = serves(directory.path(), trickle);
    let begin = Instant::now();
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(error, ClientError::Hung { .. }), "{error}");
    assert!(begin.elapsed() < 4 * GREETING, "{:?}", begin.elapsed());

    let directory = tempfile::tempdir().unwrap();
    let client = client(&serves(directory.path(), trickle));
    let error = begun(&client, Duration::from_millis(200), LARGE).text().unwrap_err();
    assert!(matches!(error, ClientError::Late { .. }), "{error}");
}

#[test]
fn an_answer_without_end_is_not_kept() {
    let spaces = |stream: &mut std::os::unix::net::UnixStream| {
        stream.write_all(b"10000\r\n")?;
        stream.write_all(&vec![b' '; 0x10000])?;
        stream.write_all(b"\r\n")
    };
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(&serves(directory.path(), spaces)).unwrap_err();
    assert!(error.to_string().contains("larger than 4 MiB"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let client = client(&serves(directory.path(), spaces));
    let lines = begun(&client, PATIENCE, LARGE).lines(true, |_| Ok::<_, ClientError>(true));
    let error = lines.unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
}

#[test]
fn kinds_of_answers_have_their_sizes() {
    for (target, most) in [
        ("/v1/export?format=json", EXPORT),
        ("/v1/daemon", SMALL),
        ("/v1/services/a/pause", SMALL),
        ("/v1/services", LARGE),
        ("/v1/status?interval=1s", LARGE),
    ] {
        assert_eq!(largest(target), most, "{target}");
    }
}

#[test]
fn json_that_takes_far_more_memory_than_text_is_not_read() {
    let many = |value: &str, count: usize| format!("[{}0]", value.repeat(count));
    assert!(is_modest(many(r#"{"a":"{[,\"{"},"#, 1000).as_bytes()));
    assert!(is_modest(many(r#""{","#, MOST_OBJECTS + 1).as_bytes()));
    assert!(!is_modest(many(r#"{"":0},"#, MOST_OBJECTS + 1).as_bytes()));
    assert!(!is_modest(many("[],", MOST_VALUES / 2 + 1).as_bytes()));
}

#[test]
fn what_refuses_says_it_on_one_line() {
    let client = client(Path::new("/s"));
    let body = br#"{"error": {"code": "x", "message": "a\nerror: b"}}"#;
    let error = client.refusal(StatusCode::CONFLICT, body).to_string();
    assert_eq!(error, r"a\nerror: b");
    let body = br#"{"error": {"code": "x", "message": "", "problems": [{"place": "p", "message": "a\nerror: b"}]}}"#;
    let error = client.refusal(StatusCode::UNPROCESSABLE_ENTITY, body).to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
}
