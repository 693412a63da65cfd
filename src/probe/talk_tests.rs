use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use super::super::tests::{ask_with, listener, pool};
use super::*;
use std::time::Duration;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_core::model::{ExpectedStatus, HttpQuestion, ProbeExchange};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn http() -> Arc<ProbeQuestion> {
    Arc::new(ProbeQuestion::Http(HttpQuestion {
        path: "/healthz".into(),
        host: None,
        status: ExpectedStatus::DEFAULT,
    }))
}

fn expect(send: &[u8], expect: &[u8]) -> Arc<ProbeQuestion> {
    Arc::new(ProbeQuestion::Expect(ProbeExchange {
        send: send.into(),
        expect: expect.into(),
    }))
}

/// Asks a server that treats its one connection like this.
fn asked(
    question: &Arc<ProbeQuestion>,
    timeout: Duration,
    serve: impl FnOnce(TcpStream) + Send + 'static,
) -> ProbeOutcome {
    let (listener, at) = listener("127.0.0.1");
    let server = thread::spawn(move || serve(listener.accept().expect("a connection").0));
    let outcome = ask_with(&mut pool(), 1, at, timeout, Some(question));
    server.join().expect("the server");
    outcome
}

/// Reads a request up to its empty line.
fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

/// Waits until the other side has closed or reset the connection.
fn wait_for_end(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

#[test]
fn an_answer_decides() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ProbeOutcome::Accepted),
        (
            "HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\n\r\n",
            ProbeOutcome::Accepted,
        ),
        (
            "HTTP/1.1 503 Later\r\n\r\n",
            ProbeOutcome::Unfit(AnswerFault::Status(503)),
        ),
        ("SSH-2.0-x\r\n", ProbeOutcome::Unfit(AnswerFault::NotHttp)),
    ] {
        let outcome = asked(&http(), LONG, move |mut stream| {
            let text = request(&mut stream);
            assert!(text.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{text}");
            stream.write_all(answer.as_bytes()).expect("an answer");
            wait_for_end(stream);
        });
        assert_eq!(outcome, expected, "{answer}");
    }
}

#[test]
fn an_answer_may_come_in_pieces() {
    let outcome = asked(&http(), LONG, |mut stream| {
        request(&mut stream);
        for byte in b"HTTP/1.1 204 \r\n" {
            // The probe ends with the status, before the line's end.
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        wait_for_end(stream);
    });
    assert_eq!(outcome, ProbeOutcome::Accepted);
}

#[test]
fn who_accepts_and_says_nothing_is_unfit() {
    for question in [http(), expect(b"", b"ready")] {
        let outcome = asked(&question, SHORT, wait_for_end);
        assert_eq!(outcome, ProbeOutcome::Unfit(AnswerFault::Silent));
        let outcome = asked(&question, LONG, drop);
        assert_eq!(outcome, ProbeOutcome::Unfit(AnswerFault::Closed));
    }
    // A stream of other bytes ends at its bound, and a trickle at the timeout.
    let outcome = asked(&expect(b"", b"ready"), LONG, |mut stream| {
        while stream.write_all(&[b'x'; 512]).is_ok() {}
    });
    assert_eq!(outcome, ProbeOutcome::Unfit(AnswerFault::Other));
    let outcome = asked(&expect(b"", b"ready"), SHORT, |mut stream| {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(outcome, ProbeOutcome::Unfit(AnswerFault::Silent));
}

#[test]
fn bytes_are_sent_and_expected() {
    let outcome = asked(&expect(b"\x10\x00", b"\x20\x02\x00\x00"), LONG, |mut stream| {
        let mut sent = [0; 2];
        stream.read_exact(&mut sent).expect("the question");
        assert_eq!(sent, *b"\x10\x00");
        stream.write_all(b"\x20\x02\x00\x00").expect("an answer");
        wait_for_end(stream);
    });
    assert_eq!(outcome, ProbeOutcome::Accepted);
    let outcome = asked(&expect(b"", b"220 "), LONG, |mut stream| {
        stream.write_all(b"220 mail.example.com\r\n").expect("a greeting");
        wait_for_end(stream);
    });
    assert_eq!(outcome, ProbeOutcome::Accepted);
}

/// Sockets that asked serve for handshakes afterwards, and the other way round.
#[test]
fn a_socket_that_asked_is_used_again() {
    let mut pool = pool();
    let (open, at) = listener("127.0.0.1");
    let (talking, asked_at) = listener("127.0.0.1");
    let server = thread::spawn(move || {
        for _ in 0..5 {
            let (mut stream, _) = talking.accept().expect("a connection");
            stream.write_all(b"hello, ready").expect("a greeting");
            wait_for_end(stream);
        }
    });
    for round in 0..5 {
        let question = expect(b"", b"ready");
        assert_eq!(
            ask_with(&mut pool, 2 * round, asked_at, LONG, Some(&question)),
            ProbeOutcome::Accepted
        );
        assert_eq!(
            ask_with(&mut pool, 2 * round + 1, at, LONG, None),
            ProbeOutcome::Accepted
        );
    }
    assert_eq!((pool.sockets(), pool.in_flight()), (1, 0));
    server.join().expect("the server");
    drop(open);
}
