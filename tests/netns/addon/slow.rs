//! Slow connections from the address that right requests come from.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tcpgw::addon::Dialect;

use super::platform::{Line, address, configure, daemon, provision, request, standard_headers};
use crate::harness::Net;
use crate::harness::client::PATIENCE;

/// Connections whose requests never end: many more than one address is served at once.
const SLOW: usize = 600;

/// A request waits for a part of the slow ones' time-out only, and not until each of them had a place.
#[test]
fn slow_connections_do_not_keep_requests_of_their_address_waiting() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    net.within("gateway", || {
        let slow: Vec<TcpStream> = (0..SLOW)
            .map(|_| {
                let mut stream = TcpStream::connect(address()).expect("it listens");
                stream.write_all(b"GET /v2/catalog HTTP/1.1\r\n").expect("it is taken");
                stream
            })
            .collect();
        for number in 0..3 {
            let (method, path, body) = provision(Dialect::Scalingo, &format!("app-{number}"), "small");
            let begin = Instant::now();
            let mut line = Line::new().expect("a connection");
            // Without room for it, it would be answered after 40 s.
            line.set_patience(PATIENCE * 2);
            let text = request(method, &path, &standard_headers(), &body.to_string());
            let reply = line.exchange(text.as_bytes()).expect("an answer in time");
            assert_eq!(reply.status, 201, "{reply:?}");
            eprintln!("answered after {:?}", begin.elapsed());
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(slow);
    });
}
