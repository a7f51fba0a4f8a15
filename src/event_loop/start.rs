//! Builds a loop from its configuration.
//!
//! Nothing is accepted or read here: the first turn does that. Listeners are opened and the first dials are started.

use std::{collections::BTreeSet, io, sync::Arc, thread, time::Instant};

use super::{
    EventLoop, connections::Connections, endpoints::Endpoints, event_log::EventLog, leaves::Leaves,
    listeners::Listeners, renewals::Renewals,
};
use crate::{
    config::{Config, Dial, Listens, Options, Replace, Server, Sockets, Unknown},
    handle::Handle,
    handler::Handler,
    inbox::{BufferPool, Chunk, Inbox},
    limits::{CONTENDER_MARGIN, READ_BUFFER_BYTES},
    net::{Net, random},
    proto::{Address, NativeRules, PeerIds, Roster, Rules, Sid},
    shared::{Membership, Peer, Shared},
    sync::WakeFlag,
};

impl<H: Handler, N: Net> EventLoop<H, N> {
    pub(super) fn build(
        config: Config,
        handler: H,
        mut net: N,
        inbox: Arc<Inbox<Chunk>>,
        inbox_is_for_the_loop: bool,
        pool: Arc<BufferPool>,
    ) -> io::Result<Self> {
        let ids = PeerIds::default();
        let membership = Membership::new(&config, net.clock(), ids.clone());
        let Config {
            own,
            own_addresses,
            listen,
            sockets: Sockets(bound),
            members,
            mut options,
        } = config;
        configure_tls(&mut net, &options)?;
        let now = net.now();
        let peers = membership.peers();
        let roster = roster_of(own, &peers, ids, &options, net.incarnation());
        let endpoints = endpoints_of(&members, &peers);
        let wake_flag = wake_flag_of(&net);
        let shared = Shared::new(own, membership, inbox, inbox_is_for_the_loop, wake_flag);
        let mut listeners = listeners_of(listen, bound.is_empty(), &mut options, now);
        // The only step that can fail: nothing is dialed and no event is emitted before.
        let listener_actions = listeners.adopt(&mut net, bound)?;
        Ok(Self {
            net,
            handler,
            handle: Handle::new(Arc::new(shared)),
            options,
            own_addresses,
            roster,
            endpoints,
            connections: Connections::new(),
            renewals: Renewals::default(),
            leaves: Leaves::default(),
            #[cfg(feature = "tls")]
            expiry: super::tls::Expiry::default(),
            listeners,
            event_log: EventLog::default(),
            peers: peers.into_iter().map(|peer| (peer.id, peer)).collect(),
            pool,
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            ready: Vec::new(),
            busy: Vec::new(),
            handshakes: Vec::new(),
            paused: BTreeSet::new(),
            drops_due: now,
            hot: None,
            read_untimed: None,
            hot_turns: 0,
            writable: Vec::new(),
            todo: Vec::new(),
            requests: Vec::new(),
            releases: Vec::new(),
            release_due: None,
            listener_actions,
            woken: false,
            loop_thread: None,
            maybe_more_events: false,
            halting: false,
            shutting_down: false,
            turning: false,
        }
        .begin(now))
    }

    /// Opens the listeners and starts the first dials.
    fn begin(mut self, now: Instant) -> Self {
        // This thread is the loop's thread until another one runs a turn. The loop's thread must not wait for what only the loop
        // can do.
        let thread = thread::current().id();
        self.loop_thread = Some(thread);
        self.handle.shared().set_loop_thread(thread);
        #[cfg(feature = "tls")]
        if let Some(context) = self.options.tls.clone() {
            self.handle.shared().tls.start(Arc::clone(&context));
            self.watch_expiry(&context, now);
        }
        self.roster.on_start(now, &mut self.todo);
        self.decide(now);
        self.reap();
        self
    }
}

/// Has the network speak TLS, if that is configured.
#[cfg_attr(
    not(feature = "tls"),
    allow(
        clippy::needless_pass_by_ref_mut,
        clippy::unnecessary_wraps,
        unused_variables
    )
)]
fn configure_tls(net: &mut impl Net, options: &Options) -> io::Result<()> {
    #[cfg(feature = "tls")]
    if let Some(context) = &options.tls {
        net.set_tls(Arc::clone(context))?;
    }
    Ok(())
}

fn wake_flag_of(net: &impl Net) -> WakeFlag {
    let waker = net.waker();
    WakeFlag::new(move || waker())
}

/// The listeners for these addresses. Listening sockets that were handed over replace the addresses.
fn listeners_of(
    listen: Vec<Address>,
    binds: bool,
    options: &mut Options,
    now: Instant,
) -> Listeners {
    let addresses = if binds { listen } else { Vec::new() };
    if !binds {
        options.listens = Listens::Elsewhere;
    }
    Listeners::new(addresses, options.listen_tries, options.listen_pause, now)
}

/// Where each member can be dialed. Both are sorted by sid.
fn endpoints_of(members: &[Server], peers: &[Arc<Peer>]) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for (member, peer) in members.iter().zip(peers) {
        endpoints.insert(peer.id, &member.addresses);
    }
    endpoints
}

fn roster_of(
    own: Sid,
    members: &[Arc<Peer>],
    ids: PeerIds,
    options: &Options,
    incarnation: u64,
) -> Roster {
    let members = members.iter().map(|peer| (peer.id, peer.sid));
    let seed = options.seed.unwrap_or_else(random);
    Roster::new(rules(own, options, incarnation), members, ids, seed)
}

/// The part of the configuration that the roster follows.
fn rules(own: Sid, options: &Options, incarnation: u64) -> Rules {
    Rules {
        own,
        eager: options.dial == Dial::Eager,
        newest: options.replace == Replace::Newest,
        admitted_max: match options.unknown {
            Unknown::Reject => 0,
            Unknown::Admit { max } => max,
        },
        observers_max: options.observers_max,
        backoff_min: options.backoff_min,
        backoff_max: options.backoff_max,
        contender_timeout: options.peer_dead_after + CONTENDER_MARGIN,
        native: NativeRules {
            cluster: options.cluster_id,
            incarnation,
            only: options.native_only,
        },
    }
}
