//! Configurations of both ends, and loops that run until their end is over.
//!
//! Nothing here sends or receives.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use quorum_cnx::{
    Config, ConfigBuilder, Dial, EventLoop, Frame, Handle, Handler, InitialMessageVersion, Sid,
};

use crate::{
    ends::{Control, Task, raw, workers::Workers},
    failure::{While, failure},
};

/// Who listens.
pub(crate) const SERVER: Sid = Sid(1);

/// Who connects: the larger sid dials.
pub(crate) const DRIVER: Sid = Sid(2);

/// Where peers live who are never dialed: each at a port of its own, from this one on.
const NOWHERE: u16 = 1;

/// What both ends have in common.
pub(crate) fn builder(task: &Task, own: Sid) -> ConfigBuilder {
    Config::builder(own)
        .idle(task.idle())
        .unsent_limit(task.unsent_limit())
        .peer_dead_after(task.dead_after())
        // Eight bytes, which bare sockets say as well.
        .initial_message(InitialMessageVersion::Bare)
}

/// The end that listens, and the peers that will come to it: it dials and knocks at nobody.
pub(crate) fn serving(
    task: &Task,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(Config, SocketAddr)> {
    let (builder, at) = serving_builder(task, peers)?;
    Ok((finish(builder)?, at))
}

/// The same, to be completed.
pub(crate) fn serving_builder(
    task: &Task,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(ConfigBuilder, SocketAddr)> {
    let (listener, at) = raw::listen(task)?;
    let mut builder = builder(task, SERVER)
        .server(SERVER, at.to_string())
        .dial(Dial::OnDemand)
        .listener(listener);
    for (port, peer) in (NOWHERE..).zip(peers) {
        builder = builder.server(peer, format!("127.0.0.1:{port}"));
    }
    Ok((builder, at))
}

/// The end that connects to all these peers, which all live where `serve` listens.
pub(crate) fn driving(
    task: &Task,
    own: Sid,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(Config, SocketAddr)> {
    let (builder, at) = driver_builder(task, own, peers)?;
    Ok((finish(builder)?, at))
}

/// The same, to be completed.
pub(crate) fn driver_builder(
    task: &Task,
    own: Sid,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(ConfigBuilder, SocketAddr)> {
    let to = task
        .to
        .ok_or_else(|| failure("`drive` needs --to IP:PORT, which `serve` has printed"))?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listening on 127.0.0.1")?;
    let at = listener.local_addr()?;
    let mut builder = builder(task, own)
        .server(own, at.to_string())
        .listener(listener);
    for (nth, peer) in peers.into_iter().enumerate() {
        builder = builder.server(peer, spelling(to, nth));
    }
    Ok((builder, at))
}

/// No two servers may have one address. An IPv4 address has many spellings that resolvers read alike (`inet_aton(3)`): four
/// hexadecimal numbers, each with 0 to 15 needless zeros. To the library they are names, which it looks up before anything
/// is measured.
fn spelling(to: SocketAddr, nth: usize) -> String {
    match to {
        SocketAddr::V4(to) if nth > 0 => {
            let [a, b, c, d] = to.ip().octets();
            let digits = |shift: usize| 2 + (nth >> shift & 15);
            let [e, f, g, h] = [digits(12), digits(8), digits(4), digits(0)];
            let port = to.port();
            format!("0x{a:0e$x}.0x{b:0f$x}.0x{c:0g$x}.0x{d:0h$x}:{port}")
        }
        _ => to.to_string(),
    }
}

/// Checks a configuration.
pub(crate) fn finish(builder: ConfigBuilder) -> io::Result<Config> {
    builder.build().context("configuring")
}

/// Halts a loop when its end is over.
pub(crate) struct Halt(pub(crate) Handle);

impl Drop for Halt {
    fn drop(&mut self) {
        self.0.request_halt();
    }
}

/// Starts a loop on a thread of its own.
pub(crate) fn start<H: Handler + Send + 'static>(
    config: Config,
    handler: H,
    workers: &mut Workers,
) -> io::Result<Halt> {
    let mut event_loop = EventLoop::new(config, handler).context("starting the loop")?;
    let handle = event_loop.handle().clone();
    workers.spawn("loop", move || event_loop.run())?;
    Ok(Halt(handle))
}

/// Waits until the driver is linked to this peer.
pub(crate) fn wait_linked(
    control: &Control,
    workers: &mut Workers,
    handle: &Handle,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<()> {
    for peer in peers {
        control.wait(format_args!("link to server {peer}"), workers, || {
            handle.connected_to_peer(peer)
        })?;
    }
    Ok(())
}

/// Hears nothing.
pub(crate) struct Ignore;

impl Handler for Ignore {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}
