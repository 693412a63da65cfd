//! Requests and answers per second, on connections that stay open.

use std::error::Error;
use std::io::{self, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde_json::{Value, json};
use socket2::Socket;

use crate::opened::Opener;
use crate::outcome::{Durations, Errors};
use crate::protocol::{LEN, LoadRequest};
use crate::{To, clock};

/// Parameters of the run.
pub(crate) struct Plan {
    pub(crate) to: To,
    pub(crate) seconds: Duration,
    pub(crate) threads: usize,
    pub(crate) connections: usize,
    pub(crate) answer: u64,
}

#[derive(Default)]
struct Done {
    answers: u64,
    durations: Durations,
    errors: Errors,
    open: usize,
}

/// Runs for this many seconds; connections are opened before. A connection that breaks is counted, and not opened again.
pub(crate) fn run(plan: &Plan) -> Result<Value, Box<dyn Error>> {
    let mut done = Done::default();
    let results: Vec<io::Result<Done>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| scope.spawn(move || one_thread(plan, thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread ended")))
            })
            .collect()
    });
    for result in results {
        let one = result?;
        done.answers += one.answers;
        done.open += one.open;
        done.durations.add(one.durations);
        done.errors.add(one.errors);
    }
    Ok(json!({
        "requests": done.answers,
        "seconds": plan.seconds.as_secs_f64(),
        "connections": done.open,
        "answer_us": done.durations.percentiles(),
        "errors": done.errors,
        "cpu": clock::cpu()?,
    }))
}

struct Open {
    socket: Socket,
    asked: Instant,
    left: u64,
}

fn one_thread(plan: &Plan, thread: usize) -> io::Result<Done> {
    let mut done = Done::default();
    let request = LoadRequest::Answer(plan.answer).to_bytes();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut open = Vec::new();
    let mut opener = Opener::new(&plan.to, thread);
    for _ in 0..plan.connections.div_ceil(plan.threads.max(1)) {
        match connected(&mut opener) {
            Ok(socket) => {
                epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, open.len() as u64))?;
                open.push(Some(Open {
                    socket,
                    asked: Instant::now(),
                    left: plan.answer,
                }));
            }
            Err(error) => done.errors.count_io(&error),
        }
    }
    done.open = open.len();
    let begin = Instant::now();
    for each in open.iter_mut().flatten() {
        each.ask(&request)?;
    }
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; 64 * 1024];
    while begin.elapsed() < plan.seconds {
        let ready = match epoll.wait(&mut events, EpollTimeout::from(50_u8)) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..ready] {
            let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(each) = open.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if let Err(error) = each.go_on(&request, plan.answer, &mut buffer, &mut done) {
                done.errors.count_io(&error);
                open[index] = None;
            }
        }
    }
    Ok(done)
}

fn connected(opener: &mut Opener) -> io::Result<Socket> {
    let (socket, target) = opener.next(true)?;
    socket.set_write_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(&target.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Open {
    fn ask(&mut self, request: &[u8; LEN]) -> io::Result<()> {
        self.asked = Instant::now();
        self.socket.write_all(request)
    }

    fn go_on(&mut self, request: &[u8; LEN], answer: u64, buffer: &mut [u8], done: &mut Done) -> io::Result<()> {
        let got = match self.socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other? as u64,
        };
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(got);
        if self.left > 0 {
            return Ok(());
        }
        done.answers += 1;
        done.durations.push(self.asked.elapsed());
        self.left = answer;
        self.ask(request)
    }
}
