//! Requests of the other commands to a running `tcpgw up`.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::place::OneOff;
use super::waiting::{WaitingClient, WaitingOrder};
use super::{Up, state_of};
use crate::up::control::{ListedProcess, ProcessPlace, ReceivedRequest, UpAnswer, UpRequest};
use crate::up::formation;
use crate::up::network::{ProcessLink, gateway_of};
use crate::up::procfile::TypeName;
use crate::up::supervisor::{Action, InstanceId, InstancePhase, SupervisorEvent, TCP};

/// Processes of `tcpgw up run` at once.
const MOST_ONE_OFFS: usize = 16;

impl Up<'_> {
    pub(super) fn asked(&mut self, asked: ReceivedRequest) {
        let ReceivedRequest {
            connection,
            request,
            answers,
        } = asked;
        let is_ending = self.signals > 0;
        match request {
            None => self.remove_one_off(connection),
            Some(UpRequest::Ps) => {
                give(&answers, UpAnswer::Processes(self.listed()));
                give(&answers, UpAnswer::Done);
            }
            Some(_) if is_ending => give(&answers, UpAnswer::Failed("it is ending".into())),
            Some(UpRequest::Restart(names)) => self.restart(&names, answers),
            Some(UpRequest::Scale(words)) => {
                if let Err(refused) = self.scale(&words, &answers) {
                    give(&answers, refused);
                }
            }
            Some(UpRequest::Stop) => {
                self.signals = 1;
                self.output.say("system", "`tcpgw up stop` received, starting shutdown");
                self.stop_clients.push(answers);
                self.stop();
            }
            Some(UpRequest::Attach) => {
                let outcome = self.attach(connection);
                give(&answers, outcome.map_or_else(UpAnswer::Failed, UpAnswer::Place));
            }
            Some(UpRequest::Connect(pid)) => {
                let outcome = self.connect(connection, pid);
                give(&answers, outcome.map_or_else(UpAnswer::Failed, |()| UpAnswer::Done));
            }
        }
    }

    fn listed(&self) -> Vec<ListedProcess> {
        let now = Instant::now();
        let listed = self.supervisor.instances().map(|(id, one)| {
            let place = self.running.get(&id);
            let since = match one.phase {
                InstancePhase::Running(since) => Some(now.saturating_duration_since(since)),
                _ => None,
            };
            ListedProcess {
                name: one.name(),
                pid: place.and_then(|place| place.pid),
                state: state_of(one.phase).into(),
                address: place
                    .map(|place| format!("{}:{}", place.address, self.port))
                    .unwrap_or_default(),
                seconds: since.as_ref().map(Duration::as_secs),
                ends: one.ends,
            }
        });
        listed.collect()
    }

    fn names(&self) -> Vec<TypeName> {
        self.types.iter().map(|one| one.name.clone()).collect()
    }

    fn restart(&mut self, names: &[String], answers: SyncSender<UpAnswer>) {
        let known = self.names();
        let mut kinds = Vec::new();
        for name in names {
            let Some(kind) = known.iter().find(|known| known.as_str() == name) else {
                let known: Vec<&str> = known.iter().map(TypeName::as_str).collect();
                let known = known.join(", ");
                let why = format!("there is no process type {name:?}; there are {known}");
                return give(&answers, UpAnswer::Wrong(why));
            };
            kinds.push(kind.clone());
        }
        if kinds.is_empty() {
            kinds = known;
        }
        if self.supervisor.is_restarting() {
            return give(
                &answers,
                UpAnswer::Failed("a restart is under way already; repeat it when that is over".into()),
            );
        }
        let actions = self.supervisor.take(SupervisorEvent::Restart(kinds), Instant::now());
        if actions.is_empty() {
            return give(&answers, UpAnswer::Failed("no process of that type runs".into()));
        }
        let order = if self.supervisor.is_restarting() {
            WaitingOrder::Switch
        } else {
            WaitingOrder::Restart
        };
        self.carry_out(order, actions, answers);
    }

    fn scale(&mut self, words: &[String], answers: &SyncSender<UpAnswer>) -> Result<(), UpAnswer> {
        let in_the_way = |why: &str| Err(UpAnswer::Failed(why.into()));
        let names = self.names();
        let words = words.iter().map(String::as_str);
        let formation =
            formation::parse(words, &names, &self.formation).map_err(|error| UpAnswer::Wrong(error.to_string()))?;
        if self.supervisor.is_restarting() {
            return in_the_way("a restart is under way; repeat it when that is over");
        }
        let is_served = self.orders.is_some()
            || formation
                .iter()
                .all(|(name, number)| name.as_str() != TCP || *number == 0);
        if !is_served {
            return in_the_way("there is no public port for tcp processes");
        }
        self.formation.clone_from(&formation);
        let actions = self.supervisor.take(SupervisorEvent::Scale(formation), Instant::now());
        self.carry_out(WaitingOrder::Scale, actions, answers.clone());
        Ok(())
    }

    /// Carries out the actions of an order. Tells its client at once what starts and ends, and answers it when that has happened.
    fn carry_out(&mut self, order: WaitingOrder, actions: Vec<Action>, answers: SyncSender<UpAnswer>) {
        let started = actions.iter().filter_map(|action| match action {
            Action::Start(id) => Some(*id),
            _ => None,
        });
        let started: Vec<InstanceId> = started.collect();
        let mut changes: Vec<String> = started.iter().map(|id| format!("{} starts", self.name(*id))).collect();
        if order == WaitingOrder::Scale {
            changes.extend(self.supervisor.draining().map(|name| format!("{name} ends")));
        }
        if !changes.is_empty() {
            give(&answers, UpAnswer::Say(changes.join(", ")));
        }
        self.does(actions);
        self.waiting
            .push(WaitingClient::new(answers, order, started, Instant::now()));
    }

    fn attach(&mut self, connection: usize) -> Result<ProcessPlace, String> {
        if self.one_offs.len() >= MOST_ONE_OFFS {
            return Err(format!(
                "{MOST_ONE_OFFS} processes of `tcpgw up run` are there already: end one of them first"
            ));
        }
        let address = self
            .addresses
            .take()
            .ok_or("no address of the app's network is free: end a process of `tcpgw up run`")?;
        self.one_offs.insert(connection, OneOff { address, link: None });
        let mut variables = self.variables.clone();
        self.runs += 1;
        variables.insert("PS".into(), format!("run.{}", self.runs));
        Ok(ProcessPlace {
            address,
            gateway: gateway_of(self.subnet),
            resolver: self.resolver.clone(),
            variables,
        })
    }

    fn connect(&mut self, connection: usize, pid: u32) -> Result<(), String> {
        let Some(one_off) = self
            .one_offs
            .get_mut(&connection)
            .filter(|one_off| one_off.link.is_none())
        else {
            return Err("no place was asked for".into());
        };
        let link = self.next_link;
        self.next_link -= 1;
        one_off.link = Some(link);
        let place = ProcessLink {
            number: link,
            pid,
            network: self.subnet,
            address: one_off.address,
        };
        let added = self.network.add_process(&self.id, &self.owner, place);
        added.map_err(|error| error.to_string())
    }

    fn remove_one_off(&mut self, connection: usize) {
        let Some(one_off) = self.one_offs.remove(&connection) else {
            return;
        };
        if let Some(link) = one_off.link
            && let Err(error) = self.network.remove_process(&self.id, link)
        {
            self.output.say("system", &error.to_string());
        }
        self.addresses.give_back(one_off.address);
    }
}

/// Sends an answer. Does not wait for a client that does not read.
fn give(answers: &SyncSender<UpAnswer>, answer: UpAnswer) {
    let _ = answers.try_send(answer);
}
