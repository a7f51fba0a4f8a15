//! Replaces the certificates while the loop runs, and tells when the own one expires.
//!
//! Nothing here verifies a certificate: the connections do.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{EventLoop, connections::Phase};
use crate::{
    event::Event,
    handler::Handler,
    limits::TLS_EXPIRY_CHECKED_EVERY,
    net::{Net, Stream as _},
    proto::{Reason, TlsFailure},
    tls::TlsContext,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The expiry of the own certificate is told when less than each of these times is left.
const TOLD_BEFORE: [Duration; 3] = [DAY.saturating_mul(30), DAY.saturating_mul(7), DAY];

/// Watches the expiry of the own certificate.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    not_after: Option<SystemTime>,
    /// How many of [`TOLD_BEFORE`] have passed, as far as it was told.
    told: usize,
    /// When the clock of the system is looked at again, which may be set at any time.
    due: Option<Instant>,
}

impl Expiry {
    pub(super) fn set(&mut self, not_after: Option<SystemTime>, now: Instant) {
        // A new certificate that expires soon is told anew.
        let told = 0;
        let due = not_after.map(|_| now);
        *self = Self {
            not_after,
            told,
            due,
        };
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the expiry if it is to be told now. `today` is asked for only when it is due, since each turn calls this.
    fn tick(&mut self, now: Instant, today: impl FnOnce() -> SystemTime) -> Option<SystemTime> {
        self.due.filter(|due| *due <= now)?;
        self.due = Some(now + TLS_EXPIRY_CHECKED_EVERY);
        let today = today();
        let not_after = self.not_after?;
        let left = not_after.duration_since(today).unwrap_or_default();
        let passed = TOLD_BEFORE.iter().filter(|time| left < **time).count();
        let is_new = passed > self.told;
        self.told = self.told.max(passed);
        is_new.then_some(not_after)
    }
}

impl<H: Handler, N: Net> EventLoop<H, N> {
    /// Uses the certificates that another thread has loaded, for new connections at once. Ends the links whose far ends would be
    /// refused now.
    pub(super) fn reload_tls(&mut self, now: Instant) {
        let Some(reload) = self.handle.shared().tls.take() else {
            return;
        };
        if let Some(error) = reload.failure {
            self.tell(Event::TlsReloadFailed { error }, now);
        }
        let Some(context) = reload.context else {
            return;
        };
        if let Err(error) = self.net.set_tls(Arc::clone(&context)) {
            let error = error.to_string();
            return self.tell(Event::TlsReloadFailed { error }, now);
        }
        if reload.is_reload {
            self.watch_expiry(&context, now);
            self.tell(Event::TlsReloaded, now);
        }
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            // Those without a name are checked when they have one. A knock never becomes a link.
            let sid = match &connection.phase {
                Phase::Open { peer, .. } => Some(peer.sid),
                // Asked of the roster: a server that was admitted in this turn is no peer of the loop yet.
                Phase::Named { peer, .. } | Phase::AwaitingAnswer { peer, .. } => {
                    self.roster.sid(*peer)
                }
                _ => None,
            };
            // It was removed, also if the loop has yet to follow. Its link ends for that reason, perhaps after its last frames.
            let leaves = matches!(&connection.phase, Phase::Open { peer, .. }
                if !peer.is_member() && self.roster.was_member(peer.id));
            let checked = sid.map(|sid| connection.stream.identify(sid));
            match checked {
                // Another server may have its names.
                Some(Err(Reason::Tls(TlsFailure::WrongName { .. }))) if leaves => {}
                Some(Err(reason)) => self.end(key, reason, now),
                Some(Ok(_)) | None => {}
            }
        }
        self.roster.retry_refused(now, &mut self.todo);
    }

    pub(super) fn watch_expiry(&mut self, context: &TlsContext, now: Instant) {
        self.expiry.set(context.not_after(), now);
        self.tell_expiry(now);
    }

    /// Tells that the own certificate expires soon.
    #[inline]
    pub(super) fn tell_expiry(&mut self, now: Instant) {
        // Each turn calls this, and it is seldom due.
        if self.expiry.due.is_none_or(|due| due > now) {
            return;
        }
        if let Some(not_after) = self.expiry.tick(now, SystemTime::now) {
            self.tell(Event::CertificateExpires { not_after }, now);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[cfg(feature = "tls-ring")]
    mod reload {
        use std::time::Duration;

        use crate::{
            Config, EventLoop, Frame, Handle, Handler, InitialMessageVersion, Leave, Reason, Sid,
            TlsFailure, Unknown,
            event::Event,
            limits::TLS_RENEWED_EVERY_RECORDS,
            net::{Net as _, TlsNet},
            simulation::{HostNet, Network},
            tls::{Plaintext, Tls, fixture::Ca},
        };

        #[derive(Default)]
        struct Events {
            all: Vec<Event>,
            /// When the first of these servers has left, the second one is removed.
            removes: Option<(Sid, Sid)>,
        }

        impl Handler for Events {
            fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

            fn on_event(&mut self, event: &Event, handle: &Handle) {
                self.all.push(event.clone());
                if let (Event::Left { sid, .. }, Some((left, removed))) = (event, self.removes) {
                    if *sid == left {
                        let leave = Leave::After(Duration::from_secs(60));
                        handle.remove_server(removed, leave).unwrap();
                    }
                }
            }
        }

        fn tls(ca: &Ca, believed: &Ca, sid: i64) -> Tls {
            let own = ca.names(&[&format!("10.0.0.{sid}")]).certified_key();
            Tls::builder(
                crate::tls::fixture::provider(),
                own,
                [believed.root.clone()],
            )
            .build()
            .unwrap()
        }

        /// Servers 1 and 2 of three. The third never starts.
        fn servers(
            network: &Network,
            ca: &Ca,
            form: InitialMessageVersion,
        ) -> [EventLoop<Events, TlsNet<HostNet>>; 2] {
            [1, 2].map(|sid| {
                let servers = (1..=3).map(|n| (Sid(n), format!("10.0.0.{n}:3888")));
                let config = Config::builder(Sid(sid))
                    .servers(servers)
                    .initial_message(form)
                    .tls(tls(ca, ca, sid))
                    .build()
                    .unwrap();
                let net = TlsNet::new(network.host([10, 0, 0, sid as u8]).net());
                EventLoop::with_net(config, Events::default(), net).unwrap()
            })
        }

        /// By the end whose keys they are, the smaller sid with a knock.
        #[test]
        fn link_whose_keys_are_nearly_used_up_is_renewed() {
            for worn in [0, 1] {
                let (network, ca) = (Network::new(), Ca::new("CA"));
                let mut servers = [1, 2].map(|sid| {
                    let own = ca.names(&[&format!("10.0.0.{sid}")]).certified_key();
                    let provider = crate::tls::fixture::provider();
                    let tls = Tls::builder(provider, own, [ca.root.clone()]);
                    // Those of TLS 1.3 last.
                    let tls = tls.protocol_versions(&[&rustls::version::TLS12]);
                    let servers = (1..=2).map(|n| (Sid(n), format!("10.0.0.{n}:3888")));
                    let config = Config::builder(Sid(sid))
                        .servers(servers)
                        .tls(tls.build().unwrap());
                    let net = TlsNet::new(network.host([10, 0, 0, sid as u8]).net());
                    EventLoop::with_net(config.build().unwrap(), Events::default(), net).unwrap()
                });
                let run = |servers: &mut [EventLoop<Events, TlsNet<HostNet>>; 2]| {
                    for at in 0..400 {
                        servers[at % 2].turn(Some(Duration::ZERO)).unwrap();
                        network.advance(Duration::from_millis(5));
                    }
                };
                let ups = |server: &EventLoop<Events, TlsNet<HostNet>>| {
                    let is_up = |event: &&Event| matches!(event, Event::Up { .. });
                    server.handler().all.iter().filter(is_up).count()
                };
                run(&mut servers);
                assert_eq!(servers.each_ref().map(ups), [1, 1]);
                let connections = &mut servers[worn].connections;
                for key in connections.keys() {
                    let connection = connections.get_mut(key).unwrap();
                    connection.stream.set_records(TLS_RENEWED_EVERY_RECORDS - 1);
                }
                let other = Sid(2 - worn as i64);
                servers[worn]
                    .handle()
                    .to_send(other, "the last one")
                    .unwrap();
                run(&mut servers);
                assert_eq!(servers.each_ref().map(ups), [2, 2], "{worn}");
            }
        }

        /// As on the network below: the runs of a simulation are the same each time.
        #[test]
        fn incarnation_is_that_of_the_network_below() {
            let incarnation = || {
                let network = Network::new();
                TlsNet::new(network.host([10, 0, 0, 1]).net()).incarnation()
            };
            assert_eq!(incarnation(), incarnation());
        }

        /// A connection whose far end is known, but that is no link yet, is checked as a link is.
        #[test]
        fn dialed_connection_that_waits_for_its_answer_is_checked_again() {
            let network = Network::new();
            let [ca, other] = ["CA", "another CA"].map(Ca::new);
            let [mut small, mut large] = servers(&network, &ca, InitialMessageVersion::Native);
            let turn = |it: &mut EventLoop<Events, TlsNet<HostNet>>| {
                it.turn(Some(Duration::ZERO)).unwrap();
            };
            // Until the dialer, which has the larger sid, has written its initial message.
            for _ in 0..20 {
                turn(&mut small);
                turn(&mut large);
                if large.handle().stats().connect_times.count() == 1 {
                    break;
                }
            }
            assert!(!large.handle().connected_to_peer(Sid(1)));
            large.handle().set_tls(tls(&other, &other, 2)).unwrap();
            for _ in 0..5 {
                turn(&mut large);
                turn(&mut small);
            }
            let refused = Reason::Tls(TlsFailure::UnknownIssuer);
            let has_failed = |event: &Event| matches!(event, Event::DialFailed { reason, .. } if *reason == refused);
            let events = &large.handler().all;
            assert!(events.iter().any(has_failed), "{events:?}");
            assert!(!events.iter().any(|event| matches!(event, Event::Up { .. })));
        }

        #[test]
        fn refused_server_is_dialed_at_once_with_other_certificates() {
            let network = Network::new();
            let [ca, other] = ["CA", "another CA"].map(Ca::new);
            let mut servers = servers(&network, &ca, InitialMessageVersion::V2);
            let handle = servers[1].handle().clone();
            handle.set_tls(tls(&ca, &other, 2)).unwrap();
            let run = |servers: &mut [EventLoop<Events, TlsNet<HostNet>>; 2], rounds| {
                for _ in 0..rounds {
                    for server in &mut *servers {
                        server.turn(Some(Duration::ZERO)).unwrap();
                    }
                    network.advance(Duration::from_millis(10));
                }
            };
            run(&mut servers, 6000);
            let refused = TlsFailure::UnknownIssuer;
            let is_refused = |event: &&Event| matches!(event, Event::DialFailed { reason: Reason::Tls(why), .. } if *why == refused);
            let refusals = servers[1].handler().all.iter().filter(is_refused).count();
            assert!((8..20).contains(&refusals), "{refusals} in a minute");
            handle.set_tls(tls(&ca, &ca, 2)).unwrap();
            // 300 ms: the next dial that is due by itself is later.
            run(&mut servers, 30);
            assert!(handle.connected_to_peer(Sid(1)));
        }

        /// The server that is admitted is no peer of the loop yet when the certificates are replaced.
        #[test]
        fn server_that_is_admitted_in_the_turn_of_a_reload_is_checked() {
            let (network, ca) = (Network::new(), Ca::new("CA"));
            let config = Config::builder(Sid(1))
                .server(Sid(1), "10.0.0.1:3888")
                .unknown(Unknown::admit(1))
                .tls(tls(&ca, &ca, 1).plaintext(Plaintext::Accept));
            let net = TlsNet::new(network.host([10, 0, 0, 1]).net());
            let config = config.build().unwrap();
            let mut it = EventLoop::with_net(config, Events::default(), net).unwrap();
            it.turn(Some(Duration::ZERO)).unwrap();
            let from = ([10, 0, 0, 2], 40_000).into();
            let guest = network.connect(from, ([10, 0, 0, 1], 3888).into()).unwrap();
            // The first byte says that it is no TLS. The rest is read in the turn of the reload.
            let (first, rest) = (&2_i64.to_be_bytes()[..1], &2_i64.to_be_bytes()[1..]);
            guest.send(first).unwrap();
            for _ in 0..5 {
                it.turn(Some(Duration::ZERO)).unwrap();
            }
            guest.send(rest).unwrap();
            it.handle().set_tls(tls(&ca, &ca, 1)).unwrap();
            for _ in 0..20 {
                it.turn(Some(Duration::ZERO)).unwrap();
            }
            let refused = Reason::Tls(TlsFailure::Plaintext);
            let is_refused = |event: &Event| matches!(event, Event::Rejected { reason, .. } if *reason == refused);
            let events = &it.handler().all;
            assert!(events.iter().any(is_refused), "{events:?}");
            assert!(!events.iter().any(|event| matches!(event, Event::Up { .. })));
            assert!(it.handle().stats().balances());
        }

        /// The loop is about to take names without those of a member whose removal it has not seen yet.
        #[test]
        fn link_of_a_member_that_is_removed_meanwhile_is_not_checked_again() {
            let (network, ca) = (Network::new(), Ca::new("CA"));
            let mut servers = servers(&network, &ca, InitialMessageVersion::V2);
            let turn = |servers: &mut [EventLoop<Events, TlsNet<HostNet>>; 2]| {
                for at in 0..100 {
                    servers[at % 2].turn(Some(Duration::ZERO)).unwrap();
                }
            };
            turn(&mut servers);
            let handle = servers[1].handle().clone();
            assert!(handle.connected_to_peer(Sid(1)));
            // The handler removes server 1 when it is told that server 3 has left.
            servers[1].handler_mut().removes = Some((Sid(3), Sid(1)));
            handle.remove_server(Sid(3), Leave::Now).unwrap();
            turn(&mut servers);
            let ends = servers[1]
                .handler()
                .all
                .iter()
                .filter_map(|event| match event {
                    Event::Down { reason, .. } => Some(reason.clone()),
                    _ => None,
                });
            assert_eq!(ends.collect::<Vec<_>>(), [Reason::Removed]);
        }
    }

    #[test]
    fn expiry_is_told_once_for_each_time_that_is_left() {
        let (mut now, mut today) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let not_after = today + DAY * 31;
        let mut expiry = Expiry::default();
        expiry.set(Some(not_after), now);
        let mut told = Vec::new();
        for hour in 0..32 * 24 {
            if expiry.tick(now, || today).is_some() {
                told.push(hour / 24);
            }
            (now, today) = (
                now + TLS_EXPIRY_CHECKED_EVERY,
                today + TLS_EXPIRY_CHECKED_EVERY,
            );
        }
        assert_eq!(told, [1, 24, 30]);
        // One that is nearly over is told at once, and once.
        expiry.set(Some(today + Duration::from_secs(1)), now);
        assert!(expiry.tick(now, || today).is_some());
        assert!(expiry.tick(now + DAY, || today + DAY).is_none());
    }
}
