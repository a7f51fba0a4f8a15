//! The two members: one sends each frame back, and the other one measures how long that takes.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use quorum_cnx::{
    Config, ConfigBuilder, Event, EventLoop, Frame, Handle, Handler, PeerName, Sid, Tls,
};
use rustls::{sign::CertifiedKey, version::TLS13};

use super::{
    OTHER, Outcome, TARGET,
    certificates::{Certificates, name},
    end_with_parent,
};

const PAYLOAD: [u8; 64] = [7; 64];

fn config(own: i64, listener: TcpListener, far: i64, far_address: &str) -> Outcome<ConfigBuilder> {
    let made = Certificates::new(own)?;
    let key = CertifiedKey::from_der(vec![made.own], made.key, &made.provider)?;
    let tls = Tls::builder(made.provider, key, [made.root]).protocol_versions(&[&TLS13]);
    let own_address = listener.local_addr()?.to_string();
    let mut builder = Config::builder(Sid(own)).tls(tls.build()?);
    for (sid, address) in [(own, &own_address[..]), (far, far_address)] {
        builder = builder.server(Sid(sid), address);
        builder = builder.peer_names(Sid(sid), [PeerName::Dns(name(sid))]);
    }
    Ok(builder.listener(listener))
}

/// Runs the member that strangers connect to, and prints its address.
pub(crate) fn run(other: &str) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let config = config(TARGET, listener, OTHER, other)?;
    let mut event_loop = EventLoop::new(config.build()?, Echo)?;
    println!("{at}");
    end_with_parent();
    Ok(event_loop.run()?)
}

struct Echo;

impl Handler for Echo {
    fn on_frame(&mut self, from: Sid, frame: Frame<'_>, handle: &Handle) {
        // Fails when the other one is gone.
        let _ = handle.to_send(from, frame.into_bytes());
    }
}

/// The other member.
pub(crate) struct Pinger(EventLoop<Pings>);

struct Pings {
    sent: Instant,
    times: Vec<Duration>,
    downs: u32,
}

impl Pinger {
    pub(crate) fn new(listener: TcpListener, target: &str) -> Outcome<Self> {
        let config = config(OTHER, listener, TARGET, target)?;
        let pings = Pings {
            sent: Instant::now(),
            times: Vec::new(),
            downs: 0,
        };
        let mut event_loop = EventLoop::new(config.build()?, pings)?;
        while event_loop.handler().times.is_empty() {
            event_loop.turn(None)?;
        }
        Ok(Self(event_loop))
    }

    /// The round trips within this time.
    pub(crate) fn run(&mut self, time: Duration) -> Outcome<Vec<Duration>> {
        self.0.handler_mut().times.clear();
        let start = Instant::now();
        while start.elapsed() < time {
            self.0.turn(Some(time))?;
        }
        let pings = self.0.handler_mut();
        match pings.downs {
            0 => Ok(std::mem::take(&mut pings.times)),
            _ => Err("the link of the members has ended".into()),
        }
    }
}

impl Pings {
    fn send(&mut self, handle: &Handle) {
        self.sent = Instant::now();
        // Fails when the other one is gone, which ends the link.
        let _ = handle.to_send_slice(Sid(TARGET), &PAYLOAD);
    }
}

impl Handler for Pings {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, handle: &Handle) {
        self.times.push(self.sent.elapsed());
        self.send(handle);
    }

    fn on_event(&mut self, event: &Event, handle: &Handle) {
        match event {
            Event::Up { .. } => self.send(handle),
            Event::Down { .. } => self.downs += 1,
            _ => {}
        }
    }
}
