//! Configures and starts the loops of both ends.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use quorum_cnx::{
    Config, ConfigBuilder, Dial, EventLoop, Frame, Handle, Handler, InitialMessageVersion, Sid,
};

use crate::{
    ends::{Control, Task, raw, tls, workers::Workers},
    failure::{While, failure},
};

/// The server that listens.
pub(crate) const SERVER: Sid = Sid(1);

/// The server that connects: the larger sid dials.
pub(crate) const DRIVER: Sid = Sid(2);

/// Ports of peers that are never dialed begin here.
const UNUSED_PORT: u16 = 1;

/// The options of both ends.
pub(crate) fn builder(task: &Task, own: Sid) -> io::Result<ConfigBuilder> {
    let builder = Config::builder(own)
        .idle(task.idle())
        .unsent_limit(task.unsent_limit())
        .receive_buffer(task.receive_buffer.map(|bytes| bytes as usize))
        .peer_dead_after(task.dead_after())
        // Eight bytes, which bare sockets send as well.
        .initial_message(InitialMessageVersion::Bare);
    if task.variant.has_tls {
        return tls::with_tls(builder, own);
    }
    Ok(builder)
}

fn with_peer(builder: ConfigBuilder, task: &Task, peer: Sid, address: String) -> ConfigBuilder {
    let builder = builder.server(peer, address);
    if task.variant.has_tls {
        return tls::with_name(builder, peer);
    }
    builder
}

/// The configuration of the end that listens, with the peers that connect to it. It does not dial or knock.
pub(crate) fn serving(
    task: &Task,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(Config, SocketAddr)> {
    let (builder, at) = serving_builder(task, peers)?;
    Ok((finish(builder)?, at))
}

/// The same, as a builder.
pub(crate) fn serving_builder(
    task: &Task,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(ConfigBuilder, SocketAddr)> {
    let (listener, at) = raw::listen(task)?;
    let mut builder = builder(task, SERVER)?
        .server(SERVER, at.to_string())
        .dial(Dial::OnDemand)
        .listener(listener);
    for (port, peer) in (UNUSED_PORT..).zip(peers) {
        builder = with_peer(builder, task, peer, format!("127.0.0.1:{port}"));
    }
    Ok((builder, at))
}

/// The configuration of the end that connects to all these peers. All have the address of `serve`.
pub(crate) fn driving(
    task: &Task,
    own: Sid,
    peers: impl IntoIterator<Item = Sid>,
) -> io::Result<(Config, SocketAddr)> {
    let (builder, at) = driver_builder(task, own, peers)?;
    Ok((finish(builder)?, at))
}

/// The same, as a builder.
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
    let mut builder = builder(task, own)?
        .server(own, at.to_string())
        .listener(listener);
    for (nth, peer) in peers.into_iter().enumerate() {
        builder = with_peer(builder, task, peer, spelling(to, nth));
    }
    Ok((builder, at))
}

/// One of many spellings of an address, since no two servers may have the same one. Resolvers accept an IPv4 address as four
/// hexadecimal numbers (`inet_aton(3)`), each with 0 to 15 additional zeros. The library takes such a spelling for a name, and looks
/// it up before anything is measured.
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

/// Builds and checks a configuration.
pub(crate) fn finish(builder: ConfigBuilder) -> io::Result<Config> {
    builder.build().context("configuring")
}

/// Halts a loop when dropped.
pub(crate) struct HaltOnDrop(pub(crate) Handle);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.request_halt();
    }
}

/// Starts a loop on a thread of its own.
pub(crate) fn start<H: Handler + Send + 'static>(
    config: Config,
    handler: H,
    workers: &mut Workers,
) -> io::Result<HaltOnDrop> {
    let mut event_loop = EventLoop::new(config, handler).context("starting the loop")?;
    let handle = event_loop.handle().clone();
    workers.spawn("loop", move || event_loop.run())?;
    Ok(HaltOnDrop(handle))
}

/// Waits until the driver is linked to these peers.
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

/// Ignores received frames.
pub(crate) struct Ignore;

impl Handler for Ignore {
    fn on_frame(&mut self, _: Sid, _: Frame<'_>, _: &Handle) {}
}
