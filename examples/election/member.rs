//! One server of the ensemble: the library's loop, the election, the leader's port and the commands, in one poll on one thread.
//!
//! Nothing blocks except the poll.

mod configuration;
mod events;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use quorum_cnx::{
    Address, Config, Event, EventLoop, Frame, Handle, Handler, SendOutcome, Sid, Stats, ZooCfg,
    ZooServer,
};
use serde_json::json;

use crate::{
    election::{Action, Election},
    event_log::EventLog,
    leader_port::LeaderPort,
    names::Names,
    notification::{Format, Notification, State, configuration},
    quorum::Quorum,
    tenure::{Loss, Tenure},
    tls::TlsArgs,
};

/// The descriptor of the library's loop.
const LOOP: Token = Token(0);
/// A command has arrived, or a lookup for the leader's port has ended.
const WAKER: Token = Token(1);
/// The leader's port.
const PORT: Token = Token(2);

/// Commands that may wait. The thread that sends one more blocks.
const COMMANDS_MAX: usize = 16;

/// A command of the operator.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Look for a new leader.
    LeaderLost,
    /// Follow this configuration if it is newer.
    Reconfigure(Arc<ZooCfg>),
    Stats,
    Quit,
}

/// The identity and the settings of a member.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) own: Sid,
    pub(crate) zxid: i64,
    pub(crate) epoch: i64,
    /// True exactly when it never votes.
    pub(crate) observes: bool,
    /// True exactly when it watches the leader's port, and opens it when it leads.
    pub(crate) follows_port: bool,
    pub(crate) format: Format,
    /// Intervals after which the vote is sent again: the first one, and the longest one.
    pub(crate) resend: (Duration, Duration),
    /// How long a leader, or its followers, may be silent (`syncLimit`).
    pub(crate) limit: Duration,
    /// How long after its election a leader may have too few followers (`initLimit`).
    pub(crate) init_limit: Duration,
    /// How often an observer asks.
    pub(crate) tick: Duration,
    /// The names that certificates may have.
    pub(crate) tls: TlsArgs,
}

impl Role {
    /// The part of this server in this configuration, and the configuration, for the event log.
    pub(crate) fn describe(&self, cfg: &ZooCfg, quorum: &Quorum) -> serde_json::Value {
        let sids = |observer| {
            let servers = cfg.servers.iter();
            let servers = servers.filter(|server| server.observer == observer);
            servers.map(|server| server.sid.0).collect::<Vec<_>>()
        };
        let is_voter = quorum.is_voter(self.own) && !self.observes;
        json!({
            "role": if is_voter { "voter" } else { "observer" },
            "voters": sids(false), "observers": sids(true),
            "quorum": if quorum.is_hierarchical() { "hierarchical" } else { "majority" },
        })
    }
}

pub(crate) struct Member {
    role: Role,
    cfg: Arc<ZooCfg>,
    quorum: Quorum,
    configuration: String,
    event_log: Arc<EventLog>,
    poll: Poll,
    event_loop: EventLoop<Inbox>,
    port: LeaderPort,
    commands: Receiver<Command>,
    election: Election,
    tenure: Option<Tenure>,
    looking_since: Duration,
    /// When an observer asks again.
    ask_at: Duration,
    malformed: u64,
    /// The version of the newest configuration that was received. Without `reconfigEnabled` it may be newer than that of `cfg`.
    newest: i64,
    /// The members whose configuration cannot be used, which was reported.
    misconfigured: BTreeSet<Sid>,
    /// Voters whose link has ended and is not up again.
    unlinked: BTreeSet<Sid>,
    end: End,
}

/// How a member has ended, apart from failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By a command, or because standard output was closed.
    Halted,
    /// It has given up listening at all of its election addresses: servers with a larger id cannot reach it.
    NotListening,
}

/// Sends commands to a member from other threads.
pub(crate) struct Remote {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
}

impl Remote {
    pub(crate) fn order(&self, command: Command) {
        // Fails when the member has ended, and then no command matters.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Member {
    /// Opens the loop and the poll.
    pub(crate) fn new(
        role: Role,
        config: Config,
        cfg: Arc<ZooCfg>,
        quorum: Quorum,
        event_log: Arc<EventLog>,
    ) -> io::Result<(Self, Remote)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let event_loop = EventLoop::new(config, Inbox::default())?;
        let fd = event_loop.as_fd().as_raw_fd();
        let (source, interest) = (&mut SourceFd(&fd), Interest::READABLE);
        poll.registry().register(source, LOOP, interest)?;
        let (sender, commands) = sync_channel(COMMANDS_MAX);
        let remote = Remote {
            commands: sender,
            waker: Arc::clone(&waker),
        };
        let election = match role.observes {
            true => Election::observer(role.own, quorum.clone()),
            false => Election::new(role.own, quorum.clone(), role.zxid, role.epoch),
        };
        let election = election.resending(role.resend.0, role.resend.1);
        let member = Self {
            port: LeaderPort::new(
                poll.registry().try_clone()?,
                PORT,
                Names::with_system_resolver(waker),
                cfg.quorum_listen_on_all_ips,
                role.init_limit,
            ),
            configuration: configuration(&cfg),
            newest: cfg.version,
            misconfigured: BTreeSet::new(),
            unlinked: BTreeSet::new(),
            end: End::Halted,
            role,
            cfg,
            quorum,
            event_log,
            poll,
            event_loop,
            commands,
            election,
            tenure: None,
            looking_since: Duration::ZERO,
            ask_at: Duration::ZERO,
            malformed: 0,
        };
        Ok((member, remote))
    }

    /// The handle of its connections.
    pub(crate) fn handle(&self) -> Handle {
        self.event_loop.handle().clone()
    }

    /// Takes part until it is told to quit, or cannot listen at any address.
    pub(crate) fn run(mut self) -> io::Result<End> {
        let mut events = Events::with_capacity(16);
        self.look("it has just started");
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if !self.event_loop.turn(Some(Duration::ZERO))? {
                self.event_log.event("halted", self.role.own, json!({}));
                return Ok(self.end);
            }
            while let Some(item) = self.event_loop.handler_mut().0.pop_front() {
                match item {
                    Item::Frame(from, bytes) => self.on_frame(from, &bytes),
                    Item::Event(event) => self.on_event(&event),
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.execute(command);
            }
            for event in self.port.look(self.event_log.now()) {
                self.on_port_event(event);
            }
            self.on_time();
            if self.event_log.is_output_closed() {
                self.event_loop.handle().request_halt();
            }
        }
    }

    /// Time until the next deadline.
    fn timeout(&self) -> Option<Duration> {
        let now = self.event_log.now();
        let asks = self.role.observes.then_some(self.ask_at);
        let tenure = self.tenure.as_ref().map(Tenure::deadline);
        let own = [self.election.deadline(), tenure, asks, self.port.deadline()];
        let own = own.into_iter().flatten().min();
        let own = own.map(|at| at.saturating_sub(now));
        [own, self.event_loop.timeout()].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = self.event_log.now();
        if self.election.deadline().is_some_and(|at| at <= now) {
            let mut actions = Vec::new();
            self.election.on_time(now, &mut actions);
            self.act(actions);
        }
        match self.tenure.as_mut().map(|tenure| tenure.on_time(now)) {
            Some(Err(loss)) => self.on_end_of_tenure(loss),
            Some(Ok(silent)) => {
                for sid in silent {
                    self.send(sid, Notification::question(sid));
                }
            }
            None => {}
        }
        if self.role.observes && self.ask_at <= now {
            self.ask_at = now + self.role.tick;
            for sid in self.quorum.voters() {
                self.ask(sid);
            }
        }
    }

    fn ask(&self, sid: Sid) {
        // A question that waits for a server that is away would be of no use.
        if sid != self.role.own && self.event_loop.handle().connected_to_peer(sid) {
            self.send(sid, Notification::question(sid));
        }
    }

    /// Starts an election.
    fn look(&mut self, why: &str) {
        self.tenure = None;
        self.port.leave();
        self.looking_since = self.event_log.now();
        let mut actions = Vec::new();
        self.election.look(self.looking_since, &mut actions);
        let round = self.election.round();
        self.event_log.looking(self.role.own, round, why);
        self.act(actions);
    }

    fn on_end_of_tenure(&mut self, loss: Loss) {
        if loss == Loss::FollowersLeft {
            self.election.claim_no_data();
        }
        self.on_loss(&loss.to_string());
    }

    /// The leader is lost: reports it, and starts an election.
    fn on_loss(&mut self, why: &str) {
        let leader = self.election.current().vote.leader;
        let line = json!({ "leader": leader.0, "why": why });
        self.event_log.event("leader-lost", self.role.own, line);
        self.look(why);
    }

    fn on_frame(&mut self, from: Sid, bytes: &[u8]) {
        let (notification, configuration) = match Notification::read(bytes) {
            Ok(read) => read,
            Err(why) => return self.on_malformed(from, &why.to_string()),
        };
        self.event_log.received(self.role.own, from, notification);
        if !configuration.is_empty() {
            // The vote of a server with a malformed configuration counts all the same, as it does in ZooKeeper.
            self.on_configuration(from, configuration);
        }
        let (now, mut actions) = (self.event_log.now(), Vec::new());
        self.election
            .on_notification(now, from, notification, &mut actions);
        self.act(actions);
        let tenure = self.tenure.as_mut();
        let kept = tenure.map(|tenure| tenure.on_notification(now, from, &notification));
        if let Some(Err(loss)) = kept {
            self.on_end_of_tenure(loss);
        }
    }

    fn on_malformed(&mut self, from: Sid, why: &str) {
        self.malformed += 1;
        self.report_malformed(from, why);
    }

    fn report_malformed(&self, from: Sid, why: &str) {
        let line = json!({ "from": from.0, "why": why, "count": self.malformed });
        self.event_log.event("malformed", self.role.own, line);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Propose(_) if self.role.observes => {}
                Action::Propose(vote) => self.event_log.vote(self.role.own, vote),
                Action::Send(..) if self.role.observes => {}
                Action::Send(to, notification) => self.send(to, notification),
                Action::Connect => self.event_loop.handle().connect_all(),
                Action::Elect(outcome) => {
                    let now = self.event_log.now();
                    let took = now.saturating_sub(self.looking_since);
                    self.event_log.elected(self.role.own, outcome, took);
                    let (own, limit) = (self.role.own, self.role.limit);
                    let quorum = self.quorum.clone();
                    let tenure = Tenure::new(own, quorum, outcome, limit, now);
                    self.tenure = Some(tenure.with_trial(self.role.init_limit, now));
                    if self.role.follows_port {
                        self.go_to_port(outcome.state, outcome.vote.leader);
                    }
                }
            }
        }
    }

    fn go_to_port(&mut self, state: State, leader: Sid) {
        let addresses = self.quorum_addresses(leader);
        match state {
            State::Leading => self.port.hold(&addresses),
            _ => self.port.watch(addresses, self.event_log.now()),
        }
    }

    /// A server of the configuration.
    fn server(&self, sid: Sid) -> Option<&ZooServer> {
        let mut servers = self.cfg.servers.iter();
        servers.find(|server| server.sid == sid)
    }

    fn quorum_addresses(&self, sid: Sid) -> Vec<Address> {
        let server = self.server(sid);
        server.map_or_else(Vec::new, |server| server.quorum.clone())
    }

    fn send(&self, to: Sid, notification: Notification) {
        let bytes = notification.write(self.role.format, &self.configuration);
        // Taken before the send, so that it is not later than the arrival.
        let at = self.event_log.now();
        match self.event_loop.handle().to_send(to, bytes) {
            Ok(sent) => {
                let outcome = match sent {
                    SendOutcome::Written => "written",
                    SendOutcome::Queued => "queued",
                    SendOutcome::Superseded => "superseded",
                    _ => "other",
                };
                self.event_log
                    .sent(at, self.role.own, to, notification, outcome);
            }
            Err(error) => {
                let message = format!("cannot send to server {to}: {error}");
                self.event_log.error(self.role.own, &message);
            }
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Quit => self.event_loop.handle().request_halt(),
            Command::Stats => {
                let line = self.stats(&self.event_loop.handle().stats());
                self.event_log.event("stats", self.role.own, line);
            }
            Command::Reconfigure(cfg) => self.on_file(&cfg),
            Command::LeaderLost if self.tenure.is_some() => {
                self.on_loss("by a command of the operator")
            }
            Command::LeaderLost => {
                let message = "this server has no leader: it looks for one already";
                self.event_log.error(self.role.own, message);
            }
        }
    }

    fn stats(&self, stats: &Stats) -> serde_json::Value {
        let current = self.election.current();
        let linked = self.event_loop.handle().linked_peers();
        json!({
            "state": current.state.name(), "leader": current.vote.leader.0,
            "round": current.vote.round, "linked": linked.iter().map(|sid| sid.0).collect::<Vec<_>>(),
            "malformed": self.malformed, "sent": stats.sent.written,
            "superseded": stats.sent.superseded, "waiting": stats.sent.waiting,
            "received": stats.received.frames, "balances": stats.sent.balances(),
        })
    }
}

/// A frame or an event of one turn.
enum Item {
    Frame(Sid, Vec<u8>),
    Event(Event),
}

/// Collects the frames and events of one turn. The budgets of a turn bound it.
#[derive(Default)]
struct Inbox(VecDeque<Item>);

impl Handler for Inbox {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, _: &Handle) {
        self.0.push_back(Item::Frame(from, frame.to_vec()));
    }

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.0.push_back(Item::Event(event.clone()));
    }
}
