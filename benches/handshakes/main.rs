//! `cargo bench -p quorum-cnx-benches --features tls --bench handshakes`: full handshakes a second on one thread, between two bare
//! connections of rustls in memory and over sockets, and new links a second between two loops of the library, with TLS and without, in
//! turn. An argument selects the contenders whose names contain it.
//!
//! Nothing is asserted about time. Without `--bench` this is a test that all of them run.

#[path = "../frames/ends/certificates.rs"]
mod certificates;
mod sockets;

use std::{
    env,
    error::Error,
    io::{Cursor, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use quorum_cnx::{Config, Event, EventLoop, Frame, Handle, Handler, PeerName, Sid, Tls};
use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::ServerName, sign::CertifiedKey, version::TLS13,
};

use certificates::{Certificates, name};
use sockets::Sockets;

const SERVER: Sid = Sid(1);
const DRIVER: Sid = Sid(2);

const ROUNDS: usize = 9;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let (options, wanted): (Vec<_>, Vec<_>) = env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    let time = match options.iter().any(|option| option == "--bench") {
        true => Duration::from_millis(500),
        false => Duration::from_millis(10),
    };
    let bare = Bare::new()?;
    let mut sockets = Sockets::new(&bare)?;
    let mut loops = Loops::new(true)?;
    let mut plain = Loops::new(false)?;
    let mut contenders: [(&str, &mut dyn FnMut() -> Outcome<()>); 4] = [
        ("rustls in memory", &mut || bare.shake_hands()),
        ("rustls over sockets", &mut || sockets.link()),
        ("loops with TLS", &mut || loops.renew()),
        ("loops without", &mut || plain.renew()),
    ];
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for ((name, once), rates) in contenders.iter_mut().zip(&mut rates) {
            if is_wanted(name) {
                rates.push(rate(time, once)?);
            }
        }
    }
    for ((name, _), rates) in contenders.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        if let [least, .., most] = rates[..] {
            let middle = rates[ROUNDS / 2];
            let us = 1e6 / middle;
            println!("{name:19} {middle:6.0} a second ({least:.0} to {most:.0}), {us:.0} us each");
        }
    }
    Ok(())
}

/// How often a second `once` can be called.
fn rate(time: Duration, once: &mut dyn FnMut() -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    for count in 1_u32.. {
        once()?;
        if start.elapsed() >= time {
            return Ok(f64::from(count) / start.elapsed().as_secs_f64());
        }
    }
    Err("too many".into())
}

/// rustls alone.
struct Bare {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Bare {
    fn new() -> Outcome<Self> {
        let (mut client, _) = Certificates::new(DRIVER.0)?.configs()?;
        let (_, mut server) = Certificates::new(SERVER.0)?.configs()?;
        // As in the library.
        client.resumption = rustls::client::Resumption::disabled();
        server.send_tls13_tickets = 1;
        let (client, server) = (Arc::new(client), Arc::new(server));
        Ok(Self { client, server })
    }

    fn shake_hands(&self) -> Outcome<()> {
        let to = ServerName::try_from(name(SERVER.0))?;
        let client = ClientConnection::new(Arc::clone(&self.client), to)?;
        let mut client = Connection::from(client);
        let mut server = Connection::from(ServerConnection::new(Arc::clone(&self.server))?);
        let mut bytes = Vec::new();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            pass(&mut client, &mut server, &mut bytes)?;
            pass(&mut server, &mut client, &mut bytes)?;
        }
        Ok(())
    }
}

/// Takes what one connection has to send to the other.
fn pass(from: &mut Connection, to: &mut Connection, bytes: &mut Vec<u8>) -> Outcome<()> {
    while from.wants_write() {
        from.write_tls(bytes)?;
    }
    let mut unread = Cursor::new(&bytes[..]);
    while unread.position() < bytes.len() as u64 {
        to.read_tls(&mut unread as &mut dyn Read)?;
        to.process_new_packets()?;
    }
    bytes.clear();
    Ok(())
}

/// Two loops of the library, which are turned in turn.
struct Loops {
    server: EventLoop<Ups>,
    driver: EventLoop<Ups>,
}

impl Loops {
    fn new(has_tls: bool) -> Outcome<Self> {
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in [SERVER, DRIVER] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            addresses.push(listener.local_addr()?.to_string());
            listeners.push(listener);
        }
        let mut start = |own: Sid| -> Outcome<EventLoop<Ups>> {
            let mut builder = Config::builder(own).listener(listeners.remove(0));
            for (sid, address) in [SERVER, DRIVER].into_iter().zip(&addresses) {
                builder = builder.server(sid, address);
                if has_tls {
                    builder = builder.peer_names(sid, [PeerName::Dns(name(sid.0))]);
                }
            }
            if has_tls {
                builder = builder.tls(tls(own)?);
            }
            Ok(EventLoop::new(builder.build()?, Ups(0))?)
        };
        let (server, driver) = (start(SERVER)?, start(DRIVER)?);
        let mut loops = Self { server, driver };
        loops.turn_until(1)?;
        Ok(loops)
    }

    /// Replaces the link by a new one.
    fn renew(&mut self) -> Outcome<()> {
        let ups = self.ups();
        self.driver.handle().renew();
        self.turn_until(ups + 1)
    }

    /// How many links both ends have had.
    fn ups(&self) -> u64 {
        self.server.handler().0.min(self.driver.handler().0)
    }

    fn turn_until(&mut self, ups: u64) -> Outcome<()> {
        while self.ups() < ups {
            for one in [&mut self.driver, &mut self.server] {
                if !one.turn(Some(Duration::ZERO))? {
                    return Err("a loop has halted".into());
                }
            }
        }
        Ok(())
    }
}

fn tls(own: Sid) -> Outcome<Tls> {
    let made = Certificates::new(own.0)?;
    let key = CertifiedKey::from_der(vec![made.own], made.key, &made.provider)?;
    let tls = Tls::builder(made.provider, key, [made.root]).protocol_versions(&[&TLS13]);
    Ok(tls.build()?)
}

/// Counts links.
struct Ups(u64);

impl Handler for Ups {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}

    fn on_event(&mut self, event: &Event, _: &Handle) {
        self.0 += u64::from(matches!(event, Event::Up { .. }));
    }
}
