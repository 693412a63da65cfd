//! Start of `tcpgw up`: reads the files, cleans up after others, makes the network, finds a daemon or starts one, and
//! provisions the app.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use ipnet::Ipv4Net;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Output, pass_on, print};
use super::{Event, Up, UpError, UpSettings, has_tcp, system, tell_daemon, tell_problems};
use crate::api::client::{Client, ClientError};
use crate::doctor::{self, Fix};
use crate::up::formation::{self, Formation};
use crate::up::gateway::{self, Resource};
use crate::up::id::AppId;
use crate::up::network::{Addresses, Network, Standing, gateway_of};
use crate::up::own_daemon::{self, OwnDaemon};
use crate::up::owner::Owner;
use crate::up::printer::Printer;
use crate::up::procfile::{Procfile, TypeName};
use crate::up::record::{AppPlace, Places, Record, RecordError};
use crate::up::supervisor::Supervisor;
use crate::up::{abandoned, control, egress, env_file, leftovers, resolver};

/// Default port that processes listen on.
const PORT: &str = "5000";
/// Lines of `.env` that are not as they look which are told one by one.
const MOST_DOUBTS: usize = 20;

/// Contents of the files.
struct Files {
    directory: PathBuf,
    procfile: Procfile,
    formation: Formation,
    variables: BTreeMap<String, String>,
    /// Lines of files of variables that are not as they look, in words.
    doubts: Vec<String>,
    port: u16,
}

impl<'a> Up<'a> {
    /// Sets all up, and starts no process yet.
    pub(super) fn begin(
        settings: &'a UpSettings<'a>,
        events: &Sender<Event>,
    ) -> Result<(Self, JoinHandle<()>), UpError> {
        let files = Files::read(settings)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(UpError::Refused("needs root, to make namespaces and networks".into()));
        }
        let serves = Arc::new(AtomicBool::new(false));
        listen_to_signals(events.clone(), Arc::clone(&serves)).map_err(system("listen to signals"))?;
        let places = Places::new(&settings.run_dir, settings.namespace)?;
        let id = places.id_of(&files.directory);
        let lock = places.lock()?;
        let place = places.take(&id)?;
        let network = Network::open()?;
        // The other `tcpgw up` may have another run directory.
        if let Standing::Living(pid) = network.standing(&id.to_string())? {
            if place.record().is_none() {
                place.remove();
            }
            return Err(RecordError::Running(pid.to_string()).into());
        }
        let owner = Owner::own().map_err(system("find out when this process was started"))?;
        let types = files.procfile.types.iter();
        let numbers = types.map(|one| {
            (
                one.name.as_str(),
                files.formation.get(&one.name).copied().unwrap_or_default(),
            )
        });
        let (output, printer) =
            print(Printer::new(numbers, settings.colors), events.clone()).map_err(system("start a thread"))?;
        files.tell_doubts(&output);

        let left = UpError::Left;
        leftovers::remove_network(&network, &id).map_err(left)?;
        let (dead, living) = leftovers::sweep(&places, &network).map_err(left)?;
        // This app is among them.
        leftovers::end_orphan(&places, &settings.socket, living <= 1, &|text| {
            output.say("system", text);
        });
        let app = has_tcp(&files.procfile.types).then(|| id.app());
        let made = make_network(&network, &id, &owner, &place, &files.directory);
        let subnet = match made {
            Ok(subnet) => subnet,
            Err(error) => {
                if leftovers::remove_network(&network, &id).is_ok() {
                    place.remove();
                }
                return Err(error);
            }
        };
        say_what_stops(&id, &output);
        let resolver = resolver::set_up(subnet, &place.path).unwrap_or_else(|error| {
            let text = format!(
                "the processes resolve no names: failed to pass questions on to the resolver on loopback: {error}"
            );
            output.say("system", &text);
            None
        });
        let mut up = Self {
            settings,
            directory: files.directory,
            types: files.procfile.types,
            variables: files.variables,
            port: files.port,
            id,
            owner,
            places,
            place,
            network,
            subnet,
            addresses: Addresses::new(subnet, std::process::id()),
            resolver,
            supervisor: Supervisor::new(settings.grace),
            running: BTreeMap::new(),
            one_offs: BTreeMap::new(),
            next_link: 9_999,
            runs: 0,
            orders: None,
            tells_problems: None,
            daemon: None,
            keeps_daemon: false,
            next_watch: Instant::now(),
            waiter: None,
            scale_waiters: Vec::new(),
            not_told: None,
            stop_waiters: Vec::new(),
            formation: files.formation,
            signals: 0,
            end: None,
            output,
            events: events.clone(),
        };
        let outcome = up
            .join_gateway(app, dead, living <= 1)
            .and_then(|()| up.serve_requests());
        match outcome {
            Ok(()) => {
                serves.store(true, Ordering::SeqCst);
                Ok((up, printer))
            }
            Err(error) => {
                // The lock is held: what was made here goes without it.
                drop(lock);
                Err(up.give_up(error))
            }
        }
    }

    /// Takes everything down that was set up before something failed.
    fn give_up(mut self, error: UpError) -> UpError {
        let app = self.id.app();
        let deprovisioned = match Client::connect(&self.settings.socket) {
            Ok(daemon) if self.orders.is_some() => gateway::deprovision(&daemon, &app).is_ok(),
            _ => self.orders.is_none(),
        };
        self.orders = None;
        if let Err(why) = self.leave(deprovisioned) {
            tracing::warn!("not everything was removed: {why}; `tcpgw up stop` tries again");
        }
        error
    }

    /// Finds the daemon or starts one, removes what others have left there, and provisions the app.
    fn join_gateway(&mut self, app: Option<String>, dead: Vec<AppPlace>, is_alone: bool) -> Result<(), UpError> {
        let mut shared = self.places.shared();
        let forwarding = leftovers::forward().map_err(|error| {
            UpError::Refused(format!(
                "failed to switch forwarding on: {error}: set net.ipv4.ip_forward=1 by hand"
            ))
        })?;
        if forwarding.is_some() {
            shared.forwarding = forwarding;
            self.places.set_shared(&shared)?;
            self.output.say(
                "system",
                "switched net.ipv4.ip_forward on until the last `tcpgw up` ends",
            );
        }
        let Some(app) = app else {
            self.output.say(
                "system",
                "the Procfile has no process type tcp: there is no public port, and no TCP_URL",
            );
            // Resources are left to one that has a daemon.
            return leftovers::remove_networks(&self.places, &self.network, &dead).map_err(UpError::Left);
        };
        let daemon = if let Some(daemon) = (self.settings.find)().map_err(UpError::Refused)? {
            daemon
        } else {
            self.sweep_store(is_alone);
            self.start_daemon()?;
            shared = self.places.shared();
            Client::connect(&self.settings.socket)?
        };
        gateway::wait_until_started(&daemon)?;
        // A daemon that a `tcpgw up` has started reaches its own apps by their gateways' addresses.
        let is_ups = shared.daemon.is_some() && gateway::daemon(&daemon)?.pid == shared.daemon;
        self.keeps_daemon = is_ups;
        leftovers::remove_apps(&daemon, &self.places, &self.network, dead).map_err(UpError::Left)?;
        let lives = |id: &str| abandoned::lives(&self.places, &self.network, id);
        self.tell_abandoned(abandoned::remove(&daemon, &lives));
        // Noted before it is made.
        self.place.set_record(&Record {
            directory: self.directory.clone(),
            network: self.subnet.to_string(),
            app: Some(app.clone()),
        })?;
        let resource = self.provision(&daemon, &app, is_ups)?;
        if let Err(error) = gateway::label(&daemon, &app, &self.owner) {
            // The next one removes it, where this fails, too.
            let _ = gateway::deprovision(&daemon, &app);
            return Err(error.into());
        }
        let url = match (is_ups, &resource.url) {
            (false, Some(url)) => url.clone(),
            _ => format!("tcp://{}:{}", gateway_of(self.subnet), resource.port),
        };
        self.output
            .say("system", &format!("TCP_URL={url}, plan {}", resource.plan));
        self.variables.insert("TCP_URL".into(), url);
        let socket = self.settings.socket.clone();
        let orders = tell_daemon(socket, app, self.settings.grace, self.events.clone());
        self.orders = Some(orders.map_err(system("start a thread"))?);
        let problems = tell_problems(self.settings.socket.clone(), resource.service, self.events.clone());
        self.tells_problems = Some(problems.map_err(system("start a thread"))?);
        Ok(())
    }

    /// Removes from the store what those have left whom the run directory does not know any more, before a daemon serves it.
    fn sweep_store(&self, is_alone: bool) {
        let UpSettings { store, rest, .. } = self.settings;
        let noted = self.places.shared().store;
        // Another network namespace may have taken the store away: a daemon would take the services of dead ones from the kernel.
        if is_alone
            && noted.is_some_and(|store| !store.exists())
            && let Err(why) = (self.settings.teardown)()
        {
            self.tell_abandoned(Err(why));
        }
        let lives = |id: &str| abandoned::lives(&self.places, &self.network, id);
        let swept = abandoned::sweep_store(store, *rest, &lives).and_then(|swept| {
            let mut shared = self.places.shared();
            if swept.is_of_up && shared.store.is_none() {
                // The store is removed with the last app, as if it had been made for this one.
                shared.store = Some(store.clone());
                self.places.set_shared(&shared).map_err(|error| error.to_string())?;
            }
            Ok(swept.apps)
        });
        self.tell_abandoned(swept);
    }

    /// Reports the result of a removal. A failure does not keep the app from running.
    fn tell_abandoned(&self, removed: Result<Vec<String>, String>) {
        match removed {
            Ok(apps) => {
                for app in apps {
                    let text = format!("removed the resource of {app}, whose `tcpgw up` was killed");
                    self.output.say("system", &text);
                }
            }
            Err(why) => {
                let text =
                    format!("failed to remove what earlier ones may have left: {why}; `tcpgw up stop` tries again");
                self.output.say("system", &text);
            }
        }
    }

    fn provision(&self, daemon: &Client, app: &str, is_ups: bool) -> Result<Resource, UpError> {
        let plan = self.settings.plan.as_deref().unwrap_or(own_daemon::PLAN);
        let port = self.settings.port;
        let mut outcome = gateway::provision(daemon, app, plan, port);
        // The resource may exist from a run that was killed, with another plan or port.
        if let Err(ClientError::Refused { status: 409 | 422, .. }) = outcome
            && gateway::deprovision(daemon, app).is_ok()
        {
            outcome = gateway::provision(daemon, app, plan, port);
        }
        outcome.map_err(|error| {
            let hint = match (&self.settings.plan, is_ups) {
                (None, false) => "; name one of the daemon's plans by --plan",
                _ => "",
            };
            let addon = match &error {
                ClientError::Refused { message, .. } if message.contains("add-on is off") => {
                    ": add a section [addon] to the daemon's configuration and reload it (docs/guides/addon.md), or stop that daemon: \
                     `tcpgw up` starts one of its own where there is none"
                }
                _ => hint,
            };
            let words = format!("failed to provision the app: {error}{addon}");
            match &error {
                ClientError::Invalid(_) if self.settings.plan.is_some() => UpError::Usage(words),
                _ => UpError::Refused(words),
            }
        })
    }

    /// Starts a daemon, and notes that.
    pub(super) fn start_daemon(&mut self) -> Result<(), UpError> {
        let settings = self.settings;
        let mut shared = self.places.shared();
        let config = if settings.has_addon {
            settings.config.clone()
        } else {
            let host = gateway_of(self.subnet);
            let directory = self.places.shared_directory()?;
            Some(own_daemon::write_configuration(
                &directory,
                &settings.text,
                host,
                settings.port,
            )?)
        };
        if shared.store.is_none() && !settings.store.exists() {
            shared.store = Some(settings.store.clone());
        }
        shared.config.clone_from(&config);
        // Recorded before the daemon starts: a later clean-up must know that there may be a table.
        shared.daemon = Some(0);
        shared.starter = Some(self.owner.clone());
        self.places.set_shared(&shared)?;
        let wanted = own_daemon::Wanted {
            config,
            socket: settings.socket.clone(),
            run_dir: self.places.run_dir().to_owned(),
        };
        let (daemon, log) = OwnDaemon::start(&wanted)?;
        shared.daemon = Some(daemon.id());
        self.daemon = Some(daemon);
        self.keeps_daemon = true;
        self.places.set_shared(&shared)?;
        pass_on(log, self.output.clone()).map_err(system("start a thread"))
    }

    /// Starts a daemon in the place of one that is gone, unless another app has done so.
    pub(super) fn replace_daemon(&mut self) -> Result<(), UpError> {
        let _lock = self.places.lock()?;
        if UnixStream::connect(&self.settings.socket).is_ok() {
            return Ok(());
        }
        self.output.say("system", "the daemon has ended: starting another");
        self.start_daemon()
    }

    fn serve_requests(&self) -> Result<(), UpError> {
        let events = self.events.clone();
        let ask = move |asked| events.send(Event::Control(asked)).is_ok();
        control::serve(&self.place.socket(), ask).map_err(system("listen on the control socket"))
    }
}

/// Says which rules of other programs, such as Docker's, keep the processes from the outside, and the line that lets them pass.
fn say_what_stops(id: &AppId, output: &Output) {
    for finding in doctor::examine_app(&id.to_string()) {
        let fix = match &finding.fix {
            Some(Fix::Command(line)) => format!("; to let them pass, as root: {line}"),
            Some(Fix::Advice(words)) => format!("; {words}"),
            None => String::new(),
        };
        output.say("system", &format!("warning: {}{fix}", finding.seen));
    }
}

/// Makes the links and rules of the app, which are noted first.
fn make_network(
    network: &Network,
    id: &AppId,
    owner: &Owner,
    place: &AppPlace,
    directory: &Path,
) -> Result<Ipv4Net, UpError> {
    let subnet = network.choose(id)?;
    let app = place.record().and_then(|record| record.app);
    place.set_record(&Record {
        directory: directory.to_owned(),
        network: subnet.to_string(),
        app,
    })?;
    network.add_gateway(id, owner, subnet)?;
    egress::install(id, subnet)?;
    Ok(subnet)
}

impl Files {
    /// Says which lines are passed over, or are not as they look.
    fn tell_doubts(&self, output: &Output) {
        let ignored = self.procfile.ignored.iter();
        let ignored = ignored.map(|line| format!("Procfile, line {line}: passed over, since it is not NAME: COMMAND"));
        for words in ignored.chain(self.doubts.iter().take(MOST_DOUBTS).cloned()) {
            output.say("system", &words);
        }
        if self.doubts.len() > MOST_DOUBTS {
            let more = self.doubts.len() - MOST_DOUBTS;
            output.say(
                "system",
                &format!("{more} more lines of such files are not as they look"),
            );
        }
    }

    fn read(settings: &UpSettings<'_>) -> Result<Self, UpError> {
        let file = &settings.procfile;
        let directory = directory_of(file)?;
        let text = read_text(file)?;
        let procfile = Procfile::parse(&text).map_err(|error| UpError::Procfile {
            file: file.clone(),
            error,
        })?;
        let names: Vec<TypeName> = procfile.types.iter().map(|one| one.name.clone()).collect();
        let one_of_each = ["all=1".to_owned()];
        let words = if settings.formation.is_empty() {
            &one_of_each[..]
        } else {
            &settings.formation
        };
        let formation = formation::parse(words.iter().map(String::as_str), &names, &Formation::new())?;
        let (mut variables, mut doubts) = (BTreeMap::new(), Vec::new());
        let beside = directory.join(".env");
        let env_files = match &settings.env_files {
            Some(files) => files.clone(),
            None if beside.exists() => vec![beside],
            None => Vec::new(),
        };
        for file in env_files {
            let found = env_file::parse(&read_text(&file)?).map_err(|error| UpError::EnvFile {
                file: file.clone(),
                error,
            })?;
            let name = tcpgw_core::escape::path(&file);
            let told = found.doubts.iter();
            doubts.extend(told.map(|(line, what)| format!("{name}, line {line}: {what}")));
            variables.extend(found.variables);
        }
        let port = variables.get("PORT").cloned().or_else(|| std::env::var("PORT").ok());
        let port = port.unwrap_or_else(|| PORT.into());
        let number = port.parse().ok().filter(|port: &u16| *port > 0);
        let number = number.ok_or_else(|| UpError::Usage(format!("PORT is {port:?}, and must be 1 to 65535")))?;
        variables.insert("PORT".into(), port);
        Ok(Self {
            directory,
            procfile,
            formation,
            variables,
            doubts,
            port: number,
        })
    }
}

/// Returns the directory of a Procfile, absolute and without links.
pub(crate) fn directory_of(procfile: &Path) -> Result<PathBuf, UpError> {
    let parent = match procfile.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let shown = tcpgw_core::escape::path(parent);
    let directory = std::fs::canonicalize(parent)
        .map_err(|error| UpError::Usage(format!("failed to find the directory {shown}: {error}")))?;
    match directory.to_str() {
        Some(_) => Ok(directory),
        None => Err(UpError::Usage(format!(
            "the name of the directory {shown} must be UTF-8"
        ))),
    }
}

fn read_text(file: &Path) -> Result<String, UpError> {
    let shown = tcpgw_core::escape::path(file);
    let wrong = |why: &dyn std::fmt::Display| UpError::Usage(format!("failed to read {shown}: {why}"));
    let size = std::fs::metadata(file).map_err(|error| wrong(&error))?;
    if !size.is_file() {
        return Err(wrong(&"it is no regular file"));
    }
    if size.len() > env_file::MAX_SIZE {
        return Err(wrong(&format!("it has more than {} bytes", env_file::MAX_SIZE)));
    }
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    String::from_utf8(bytes).map_err(|_| wrong(&"it must be UTF-8"))
}

/// Passes signals on. More signals than have a meaning (one during the start, two later) end this process at once: its children
/// die with it, and the next `tcpgw up` removes what is left.
fn listen_to_signals(events: Sender<Event>, serves: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let listen = async move {
        let mut count = 0;
        loop {
            let number = tokio::select! {
                Some(()) = interrupt.recv() => 2,
                Some(()) = terminate.recv() => 15,
                Some(()) = hangup.recv() => 15,
                else => return,
            };
            count += 1;
            if count > if serves.load(Ordering::SeqCst) { 2 } else { 1 } {
                std::process::exit(128 + i32::from(number));
            }
            if events.send(Event::Signal(number)).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(move || runtime.block_on(listen)).map(drop)
}
