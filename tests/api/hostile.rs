//! Hostile and broken clients get an error or are cut off, and all other clients are served.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tcpgw::api::Times;
use tcpgw::api::limits::{BODY, FOLLOWERS, NARROW_SHARE, SHARE, SMALL_BODY, URI};
use tcpgw::control::events::EventContent;

use crate::harness::{Answer, Loop, Server, flow, serves, serves_with, times};
use crate::routes::read_until;

fn is_well(server: &Server) {
    assert_eq!(server.get("/v1/healthz").status, 200);
    assert!(
        server.shared.lock().expect("whole").applies.is_empty(),
        "nothing was asked of the loop"
    );
}

#[test]
fn huge_bodies_are_refused_before_and_while_they_come() {
    let server = serves();
    let announced = format!(
        "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{{",
        BODY + 1
    );
    assert_eq!(server.raw(announced.as_bytes()).code(), (413, "too_large".into()));
    let absurd = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n{";
    let answer = server.raw(absurd.as_bytes());
    assert!(matches!(answer.status, 400 | 413), "{}", answer.head);

    let mut stream = server.connect();
    let head = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    let piece = vec![b' '; 1 << 20];
    let mut sent = 0;
    while sent <= BODY + (8 << 20) {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            break;
        }
        sent += piece.len();
    }
    assert!(sent <= BODY + (4 << 20), "it went on reading: {sent}");
    assert_eq!(Answer::read(&mut stream).code(), (413, "too_large".into()));
    is_well(&server);
}

/// A client that sends head and body separately gets its answer, because the server reads an unneeded body before it closes the
/// connection.
#[test]
fn a_body_that_nobody_needs_is_read_before_the_answer() {
    let server = serves();
    for target in ["/v1/teardown", "/v1/services/web/resume"] {
        let mut stream = server.connect();
        let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(b"{}").expect("it reads still");
        assert_eq!(Answer::read(&mut stream).status, 200, "{target}");
    }
}

#[test]
fn two_large_bodies_at_once_and_small_ones_any_time() {
    let server = serves_with(
        Loop::Answers,
        Times {
            body_piece: Duration::from_secs(20),
            body: Duration::from_secs(20),
            ..times()
        },
    );
    let large = vec![b' '; SMALL_BODY + 1];
    let begin = || {
        let mut stream = server.connect();
        let head = format!(
            "POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            large.len() + 2
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(&large).expect("it reads");
        stream
    };
    let mut held = [begin(), begin()];
    // They have their places once another is refused one.
    let refused = (0..100).any(|_| {
        let mut third = begin();
        let _ = third.write_all(b"{}");
        Answer::read(&mut third).status == 503
    });
    assert!(refused);
    assert_eq!(server.post("/v1/apply", b"{").code().0, 422, "a small one");
    for stream in &mut held {
        stream.write_all(b"{}").expect("it reads");
        assert_eq!(Answer::read(stream).code().0, 422);
    }
    let mut next = begin();
    next.write_all(b"{}").expect("it reads");
    assert_eq!(Answer::read(&mut next).code().0, 422, "there is a place again");
}

#[test]
fn slow_heads_and_bodies_run_out_of_time() {
    let server = serves();
    let mut idle = server.connect();
    assert_eq!(Answer::read(&mut idle).status, 0, "closed");
    let mut half = server.connect();
    half.write_all(b"GET /v1/status HTT").expect("it reads");
    let answer = Answer::read(&mut half);
    assert!(matches!(answer.status, 0 | 408), "{}", answer.head);
    let mut drip = server.connect();
    let _ = drip.write_all(b"GET /v1/status HTTP/1.1\r\n");
    for n in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        if drip.write_all(format!("x-{n}: 1\r\n").as_bytes()).is_err() {
            break;
        }
        assert!(n < 99, "it listens for ever");
    }
    let mut stream = server.connect();
    let head = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"version\"";
    stream.write_all(head.as_bytes()).expect("it reads");
    assert_eq!(Answer::read(&mut stream).code(), (408, "timeout".into()));
    // One byte at a time is no way either.
    let mut drip = server.connect();
    let head = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    drip.write_all(head.as_bytes()).expect("it reads");
    for n in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        if drip.write_all(b" ").is_err() {
            break;
        }
        assert!(n < 99, "it listens for ever");
    }
    assert_eq!(Answer::read(&mut drip).code(), (408, "timeout".into()));
    is_well(&server);
}

#[test]
fn a_body_that_breaks_off_applies_nothing() {
    let server = serves();
    let mut stream = server.connect();
    let body = r#"{"version":1,"services":[]}"#;
    let head = format!(
        "POST /v1/apply?allow_empty=true HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len() + 1
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("closed");
    let answer = Answer::read(&mut stream);
    assert!(matches!(answer.status, 0 | 400), "{}", answer.head);
    is_well(&server);
}

#[test]
fn garbage_is_answered_or_cut_off() {
    let server = serves();
    let noise: Vec<u8> = (0..10_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let long_header = format!("GET /v1/healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many_headers = format!("GET /v1/healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let smuggled =
        "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let twice = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}";
    let chunk = "POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n";
    for bytes in [
        &noise[..],
        &[0; 10_000],
        &[b'\n'; 10_000],
        &[b'A'; 10_000],
        tls,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
        b"GET /v1/\0healthz HTTP/1.1\r\n\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
        twice.as_bytes(),
        chunk.as_bytes(),
    ] {
        let answer = server.raw(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(
            matches!(answer.status, 0 | 400..=499 | 505),
            "{shown:?}: {}",
            answer.head
        );
    }
    is_well(&server);
    // It is read as chunked, so it is empty, and what is empty is no state.
    assert_eq!(server.raw(smuggled.as_bytes()).code().0, 422);
}

#[test]
fn pipelined_requests_are_answered_in_turn_and_garbage_ends_them() {
    let server = serves();
    let good = "GET /v1/healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let bytes = [good.repeat(50).as_bytes(), &[b'?'; 10_000]].concat();
    let mut stream = server.connect();
    let _ = stream.write_all(&bytes);
    let mut all = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut all);
    let text = String::from_utf8_lossy(&all);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 50);
    assert!(text.matches("HTTP/1.1 4").count() <= 1, "{text}");
    is_well(&server);
}

#[test]
fn paths_lead_nowhere_else() {
    let server = serves();
    for path in [
        "/",
        "//",
        "/v1",
        "/v1/",
        "/v1//status",
        "//v1/status",
        "/v1/status/",
        "/v1/../v1/status",
        "/../etc/passwd",
        "/v1/%2e%2e/status",
        "/v1/%2e/status",
        "/v1/stat%75s",
        "/v1/status%00",
        "/v1%2fstatus",
        "/V1/status",
        "/v1/status;x=1",
        "/v2/status",
        "/v1/openapi",
        "/%",
        "/%zz",
        "/v1/status%0d%0ax:y",
    ] {
        assert_eq!(server.get(path).code(), (404, "not_found".into()), "{path}");
    }
    for target in ["*", "http://other/v1/nothing", "status", "?", "#", "/v1/\u{fc}"] {
        let answer = server.get(target);
        assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.head);
    }
    for length in [URI + 1, URI + 5000] {
        let answer = server.get(&format!("/v1/status?service={}", "x".repeat(length)));
        assert_eq!(answer.code(), (414, "uri_too_long".into()), "{length}");
    }
    let answer = server.get(&format!("/{}", "x".repeat(200_000)));
    assert!(matches!(answer.status, 414 | 431), "{}", answer.head);
    let long = server.get(&format!("/v1/status?service={}", "x".repeat(4000)));
    assert!(matches!(long.status, 400 | 404), "{}", long.head);
    is_well(&server);
}

#[test]
fn too_many_connections_are_told_so_and_health_is_told_all_the_same() {
    let server = serves_with(
        Loop::Answers,
        Times {
            head: Duration::from_secs(20),
            narrow_head: Duration::from_secs(2),
            ..times()
        },
    );
    let request = b"GET /v1/healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held: Vec<UnixStream> = (0..SHARE).map(|_| server.connect()).collect();
    for stream in &mut held {
        stream.write_all(request).expect("it reads");
        read_until(stream, "\"torn_down\": false\n}\n");
    }
    let refused = server.get("/v1/daemon");
    assert_eq!(refused.code(), (503, "busy".into()));
    assert!(
        refused.head.to_lowercase().contains("retry-after: 1"),
        "{}",
        refused.head
    );
    assert_eq!(server.get("/v1/healthz").status, 200);
    // More than have a place there are told so at once, and there is room again when those have said nothing for too long.
    let silent: Vec<UnixStream> = (0..NARROW_SHARE).map(|_| server.connect()).collect();
    let begin = Instant::now();
    assert_eq!(server.get("/v1/healthz").code(), (503, "busy".into()));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let answer = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        server.get("/v1/healthz").status == 200
    });
    assert!(answer, "those who are silent are cut");
    drop(silent);
    held.truncate(SHARE / 2);
    let free = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        server.get("/v1/daemon").status == 200
    });
    assert!(free, "there is room again");
    for stream in &mut held {
        stream.write_all(request).expect("those that were there still are");
        read_until(stream, "\"torn_down\": false\n}\n");
    }
}

#[test]
fn followers_are_counted_and_one_that_never_reads_harms_nobody() {
    let server = serves();
    let mut followers: Vec<UnixStream> = (0..FOLLOWERS).map(|_| server.connect()).collect();
    for stream in &mut followers {
        stream
            .write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
            .expect("it reads");
        read_until(stream, "text/event-stream");
    }
    assert_eq!(server.get("/v1/events").code(), (503, "busy".into()));
    assert_eq!(server.get("/v1/events?follow=false").status, 200, "that is no follower");
    // The clients do not read. The server's memory is bounded, and clients that do not read for too long are cut off.
    let error = "x".repeat(20_000);
    let cut = (0..400).any(|_| {
        for _ in 0..50 {
            server.note(EventContent::Failed { error: error.clone() });
        }
        std::thread::sleep(Duration::from_millis(20));
        server.get("/v1/healthz").status == 200 && {
            let mut next = server.connect();
            next.write_all(b"GET /v1/events?after=18000000000000000000 HTTP/1.1\r\nhost: x\r\n\r\n")
                .expect("it reads");
            let mut head = [0; 12];
            std::io::Read::read_exact(&mut next, &mut head).expect("an answer");
            head.ends_with(b"200")
        }
    });
    assert!(cut, "their places are free again");
    is_well(&server);
}

#[test]
fn readers_of_flows_that_do_not_read_are_cut_and_looks_go_on() {
    let server = serves();
    server.shared.lock().expect("whole").flows = (1..40_000).map(flow).collect();
    let mut stuck: Vec<UnixStream> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut stuck {
        stream
            .write_all(b"GET /v1/flows HTTP/1.1\r\nhost: x\r\n\r\n")
            .expect("it reads");
    }
    assert_eq!(server.get("/v1/healthz").status, 200);
    let answered = (0..100).any(|_| server.get("/v1/who?seen_as=10.2.0.254:1").status == 200);
    assert!(answered, "a place for a query is free again");
    let answers: Vec<Answer> = stuck.iter_mut().map(Answer::read).collect();
    assert!(
        answers.iter().any(|answer| !answer.whole),
        "nobody takes it for all of them"
    );
    is_well(&server);
}
