//! The thread that examines the gateway for the judgement of services: local addresses, routes, listeners. An
//! examination usually takes a millisecond, and as long as the kernel takes; the main loop that serves the API does
//! not wait for it.

use std::collections::BTreeSet;
use std::sync::mpsc as requests;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as results;

use crate::control::core::{GatewayCheckError, GatewayFindings};
use crate::preflight;
use tcpgw_core::model::{Service, State};
use tcpgw_kernel::listeners::ListenersError;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::Routes;

/// Time after which an examination is given up and changes that wait for it are refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// Part of the daemon that asks for an examination. Each has at most one under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requester {
    /// The state file.
    File,
    /// The judgement of held-back services and of lost addresses.
    Surroundings,
    /// An order of the API.
    Order,
    /// The containers of a Docker engine, which become backends by their labels.
    Docker,
}

const REQUESTERS: usize = 4;
/// Time after which a result is outdated.
const FRESH: Duration = Duration::from_secs(1);

/// Services to examine.
#[derive(Debug, Clone, PartialEq)]
struct Examination {
    services: Vec<Arc<Service>>,
    /// Whether each of the services exists already, in the same order.
    known: Vec<bool>,
    /// Whether to look for warnings, too.
    warns: bool,
}

/// Result of an examination.
#[derive(Debug)]
pub(super) struct ExaminationResult {
    requester: Requester,
    examination: Arc<Examination>,
    found: Result<GatewayFindings, String>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    /// An examination, and the time since which it waits for an answer.
    Asked(Arc<Examination>, Instant),
    Answered(Arc<Examination>, Result<GatewayFindings, String>, Instant),
}

/// Handle of the thread.
#[derive(Debug)]
pub(super) struct Examiner {
    requests: requests::Sender<(Requester, Arc<Examination>)>,
    slots: [Slot; REQUESTERS],
}

impl Examiner {
    /// Starts the thread in the network namespace of this one. It ends when the handle is dropped and its last
    /// examination has ended.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start() -> std::io::Result<(Self, results::Receiver<ExaminationResult>)> {
        let ((requests, asked), (answers, found)) = (mpsc::channel(), results::channel(1));
        thread::Builder::new().name("examiner".into()).spawn(move || {
            examine_all(&asked, &answers, examine);
        })?;
        let examiner = Self {
            requests,
            slots: Default::default(),
        };
        Ok((examiner, found))
    }

    /// Returns the result of an examination of this state if there is a recent one; otherwise starts one, unless one
    /// of this requester is under way, and fails with [`GatewayCheckError::Pending`].
    ///
    /// # Errors
    /// Fails with [`GatewayCheckError::Failed`] when the examination failed, or does not end in time.
    pub(super) fn vet(
        &mut self,
        requester: Requester,
        state: &State,
        is_known: &dyn Fn(&Service) -> bool,
        now: Instant,
    ) -> Result<GatewayFindings, GatewayCheckError> {
        let known = state.services.iter().map(|service| is_known(service));
        let examination = Examination {
            known: known.collect(),
            services: state.services.clone(),
            warns: requester != Requester::Surroundings,
        };
        let slot = &mut self.slots[requester as usize];
        match std::mem::take(slot) {
            Slot::Answered(before, found, at)
                if *before == examination && now.saturating_duration_since(at) < FRESH =>
            {
                return found.map_err(GatewayCheckError::Failed);
            }
            Slot::Asked(before, since) => {
                let is_late = now.saturating_duration_since(since) >= PATIENCE;
                *slot = Slot::Asked(before, since);
                return Err(if is_late { late() } else { GatewayCheckError::Pending });
            }
            // The answer belongs to another examination.
            Slot::Answered(..) | Slot::Empty => {}
        }
        let examination = Arc::new(examination);
        if self.requests.send((requester, Arc::clone(&examination))).is_err() {
            return Err(GatewayCheckError::Failed(
                "the thread that examines the gateway has ended".into(),
            ));
        }
        *slot = Slot::Asked(examination, now);
        Err(GatewayCheckError::Pending)
    }

    /// Stores an answer.
    pub(super) fn answered(&mut self, answer: ExaminationResult, now: Instant) {
        self.slots[answer.requester as usize] = Slot::Answered(answer.examination, answer.found, now);
    }

    /// Returns the time at which an examination under way is to be given up; `None`: none is under way, or it was
    /// given up.
    pub(super) fn gives_up_at(&self, now: Instant) -> Option<Instant> {
        let times = self.slots.iter().filter_map(|slot| match slot {
            Slot::Asked(_, since) => Some(*since + PATIENCE).filter(|at| *at > now),
            Slot::Empty | Slot::Answered(..) => None,
        });
        times.min()
    }
}

fn late() -> GatewayCheckError {
    let seconds = PATIENCE.as_secs();
    GatewayCheckError::Failed(format!(
        "the gateway's addresses, routes and listeners could not be read within {seconds} s: the kernel does not answer"
    ))
}

fn examine_all(
    asked: &requests::Receiver<(Requester, Arc<Examination>)>,
    answers: &results::Sender<ExaminationResult>,
    mut examine: impl FnMut(&Examination) -> Result<GatewayFindings, String>,
) {
    while let Ok((requester, examination)) = asked.recv() {
        let found = examine(&examination);
        let answer = ExaminationResult {
            requester,
            examination,
            found,
        };
        if answers.blocking_send(answer).is_err() {
            return;
        }
    }
}

fn examine(examination: &Examination) -> Result<GatewayFindings, String> {
    let state = State {
        services: examination.services.clone(),
    };
    let warnings = if examination.warns {
        let warnings = Routes::open().and_then(|mut routes| preflight::warnings(&mut routes, &state));
        warnings.map_err(|error: NetlinkError| error.to_string())?
    } else {
        Vec::new()
    };
    let obstacles = Routes::open().and_then(|mut routes| preflight::obstacles(&mut routes, &state));
    let obstacles = obstacles.map_err(|error: NetlinkError| error.to_string())?;
    let known = examination.services.iter().zip(&examination.known);
    let known: BTreeSet<&str> = known
        .filter(|(_, known)| **known)
        .map(|(service, _)| &*service.name)
        .collect();
    let is_known = |service: &Service| known.contains(&*service.name);
    let taken = preflight::taken_ports(&state, &is_known).map_err(|error: ListenersError| error.to_string())?;
    Ok(GatewayFindings {
        obstacles: obstacles.into_iter().chain(taken).collect(),
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::error::TryRecvError;

    fn state(name: &str) -> State {
        let text = format!(r#"{{"version": 1, "services": [{{"name": "{name}", "port": 2001, "backends": []}}]}}"#);
        tcpgw_core::model::parse(text.as_bytes()).unwrap()
    }

    fn warned(text: &str) -> GatewayFindings {
        GatewayFindings {
            warnings: vec![tcpgw_core::model::InputProblem {
                place: "here".into(),
                message: text.into(),
            }],
            ..GatewayFindings::default()
        }
    }

    /// Returns an examiner whose thread is simulated by the test.
    fn examiner() -> (Examiner, requests::Receiver<(Requester, Arc<Examination>)>) {
        let (requests, asked) = mpsc::channel();
        let slots = Default::default();
        (Examiner { requests, slots }, asked)
    }

    fn told(vetted: Result<GatewayFindings, GatewayCheckError>) -> Result<String, GatewayCheckError> {
        vetted.map(|vetted| vetted.warnings[0].message.clone())
    }

    #[test]
    fn an_examination_is_requested_once_and_its_result_is_taken_once() {
        let (mut examiner, thread) = examiner();
        let (state, now) = (state("a"), Instant::now());
        let ask = |examiner: &mut Examiner, now| told(examiner.vet(Requester::Order, &state, &|_| false, now));
        assert_eq!(ask(&mut examiner, now), Err(GatewayCheckError::Pending));
        assert_eq!(ask(&mut examiner, now), Err(GatewayCheckError::Pending));
        let (requester, examination) = thread.try_recv().unwrap();
        assert!(thread.try_recv().is_err(), "it is asked once");
        let answer = |examination: &Arc<Examination>| ExaminationResult {
            requester,
            examination: Arc::clone(examination),
            found: Ok(warned("x")),
        };
        examiner.answered(answer(&examination), now);
        assert_eq!(ask(&mut examiner, now), Ok("x".into()));
        // The next request begins another examination, and so does one whose answer was not taken in time.
        assert_eq!(ask(&mut examiner, now), Err(GatewayCheckError::Pending));
        let (_, examination) = thread.try_recv().unwrap();
        examiner.answered(answer(&examination), now);
        assert_eq!(ask(&mut examiner, now + FRESH), Err(GatewayCheckError::Pending));
        assert!(thread.try_recv().is_ok());
    }

    #[test]
    fn the_result_of_another_examination_is_none() {
        let (mut examiner, thread) = examiner();
        let now = Instant::now();
        let none = |_: &Service| false;
        assert_eq!(
            told(examiner.vet(Requester::File, &state("a"), &none, now)),
            Err(GatewayCheckError::Pending)
        );
        let (requester, examination) = thread.try_recv().unwrap();
        // Meanwhile something else is wanted, and another requester has a place of its own.
        assert_eq!(
            told(examiner.vet(Requester::File, &state("b"), &none, now)),
            Err(GatewayCheckError::Pending)
        );
        assert!(thread.try_recv().is_err(), "one at a time");
        assert_eq!(
            told(examiner.vet(Requester::Order, &state("b"), &none, now)),
            Err(GatewayCheckError::Pending)
        );
        assert_eq!(thread.try_recv().unwrap().0, Requester::Order);
        let found = Ok(warned("a"));
        examiner.answered(
            ExaminationResult {
                requester,
                examination,
                found,
            },
            now,
        );
        assert_eq!(
            told(examiner.vet(Requester::File, &state("b"), &none, now)),
            Err(GatewayCheckError::Pending)
        );
        let (_, examination) = thread.try_recv().unwrap();
        assert_eq!(&*examination.services[0].name, "b");
        // Examinations differ by the known services, too.
        let found = Ok(warned("b"));
        examiner.answered(
            ExaminationResult {
                requester,
                examination,
                found,
            },
            now,
        );
        assert_eq!(
            told(examiner.vet(Requester::File, &state("b"), &|_| true, now)),
            Err(GatewayCheckError::Pending)
        );
    }

    #[test]
    fn an_examination_that_does_not_end_is_given_up() {
        let (mut examiner, thread) = examiner();
        let (state, now) = (state("a"), Instant::now());
        let ask = |examiner: &mut Examiner, now| told(examiner.vet(Requester::Order, &state, &|_| false, now));
        assert_eq!(ask(&mut examiner, now), Err(GatewayCheckError::Pending));
        assert_eq!(examiner.gives_up_at(now), Some(now + PATIENCE));
        let later = now + PATIENCE;
        assert_eq!(examiner.gives_up_at(later), None);
        assert!(
            matches!(ask(&mut examiner, later), Err(GatewayCheckError::Failed(why)) if why.contains("within 10 s"))
        );
        // The examination has ended all the same.
        let (requester, examination) = thread.try_recv().unwrap();
        let found = Ok(warned("a"));
        examiner.answered(
            ExaminationResult {
                requester,
                examination,
                found,
            },
            later,
        );
        assert_eq!(ask(&mut examiner, later), Ok("a".into()));
        drop(thread);
        assert!(matches!(ask(&mut examiner, later), Err(GatewayCheckError::Failed(why)) if why.contains("has ended")));
    }

    #[test]
    fn the_thread_examines_for_everybody_and_ends_with_the_examiner() {
        let (sender, mut answers) = results::channel(4);
        let (requests, asked) = mpsc::channel();
        let thread = thread::spawn(move || {
            examine_all(&asked, &sender, |examination| Ok(warned(&examination.services[0].name)));
        });
        let mut examiner = Examiner {
            requests,
            slots: Default::default(),
        };
        let now = Instant::now();
        for (requester, name) in [(Requester::File, "a"), (Requester::Order, "b")] {
            assert_eq!(
                told(examiner.vet(requester, &state(name), &|_| false, now)),
                Err(GatewayCheckError::Pending)
            );
        }
        for _ in 0..2 {
            examiner.answered(answers.blocking_recv().unwrap(), now);
        }
        assert_eq!(
            told(examiner.vet(Requester::Order, &state("b"), &|_| false, now)),
            Ok("b".into())
        );
        assert_eq!(
            told(examiner.vet(Requester::File, &state("a"), &|_| false, now)),
            Ok("a".into())
        );
        drop(examiner);
        thread.join().unwrap();
        assert!(matches!(answers.try_recv(), Err(TryRecvError::Disconnected)));
    }
}
