//! Unit tests of `mio`.

use std::thread;

use socket2::{Protocol, Socket, Type};

use super::*;
use crate::{Config, ConfigBuilder, Sid, shared::FORKED};

fn net() -> MioNet {
    net_with(|builder| builder.peer_dead_after(Duration::from_secs(10)))
}

fn net_with(shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> MioNet {
    let builder = Config::builder(Sid(1))
        .server(Sid(1), "127.0.0.1:0")
        .unsent_limit(Some(4321))
        .congestion_control("reno");
    MioNet::new(&shape(builder).build().unwrap().options).unwrap()
}

/// Waits until the listener has a connection, and accepts it.
fn accept(net: &mut MioNet) -> MioStream {
    let mut ready = Vec::new();
    while !ready.contains(&Ready::Listener(0)) {
        net.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
    }
    net.accept(0).unwrap().0
}

/// A socket at a port that the kernel chose. It does not listen.
fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    let at: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&at.into()).unwrap();
    socket
}

/// Both ends of a connection to a new listener.
fn link(net: &mut MioNet) -> [MioStream; 2] {
    let at = net.listen(0, "127.0.0.1:0".parse().unwrap()).unwrap();
    [net.dial(at).unwrap(), accept(net)]
}

#[test]
fn accepted_and_dialed_sockets_have_the_same_options() {
    let mut net = net();
    let [dialed, accepted] = link(&mut net);
    for (which, stream) in [("dialed", &dialed), ("accepted", &accepted)] {
        let socket = SockRef::from(stream);
        assert!(socket.tcp_nodelay().unwrap(), "{which}: TCP_NODELAY");
        assert!(socket.keepalive().unwrap(), "{which}: SO_KEEPALIVE");
        assert!(stream.connected().unwrap(), "{which}: connected");
        #[cfg(target_os = "linux")]
        {
            let time = socket.tcp_keepalive_time().unwrap();
            let interval = socket.tcp_keepalive_interval().unwrap();
            let probes = socket.tcp_keepalive_retries().unwrap();
            let end = time + interval * probes;
            assert!(
                end <= Duration::from_secs(10),
                "{which}: the keepalive probes end after {end:?}"
            );
            assert_eq!(
                socket.tcp_user_timeout().unwrap(),
                Some(Duration::from_secs(10) - RESENT_AFTER),
                "{which}: TCP_USER_TIMEOUT"
            );
            let unsent = socket.tcp_notsent_lowat().unwrap();
            assert_eq!(unsent, 4321, "{which}: TCP_NOTSENT_LOWAT");
            let congestion = socket.tcp_congestion().unwrap();
            assert!(
                congestion.starts_with(b"reno"),
                "{which}: TCP_CONGESTION is {:?}",
                String::from_utf8_lossy(&congestion)
            );
        }
    }
}

#[test]
fn kernel_timeouts_match_every_peer_dead_after() {
    let day = 24 * 60 * 60 * 1000;
    for millis in [
        2000, 2500, 2900, 3000, 5000, 60_000, 301_000, 3_600_000, 81_917_000, 81_920_000, day,
    ] {
        let after = Duration::from_millis(millis);
        let mut net = net_with(|builder| builder.peer_dead_after(after));
        let at = net.listen(0, "127.0.0.1:0".parse().unwrap()).unwrap();
        let dialed = net.dial(at).unwrap();
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&dialed);
            let time = socket.tcp_keepalive_time().unwrap();
            let interval = socket.tcp_keepalive_interval().unwrap();
            let probes = socket.tcp_keepalive_retries().unwrap();
            let user_timeout = socket.tcp_user_timeout().unwrap().unwrap();
            // An idle link ends one interval after the last probe: that is the first time at which Linux finds that the user
            // timeout has passed.
            let end = time + interval * probes;
            assert!(user_timeout <= end && end <= after, "{after:?}: {end:?}");
            assert!(end - interval < user_timeout, "{after:?}: {end:?}");
            assert!(user_timeout + RESENT_AFTER <= after, "{after:?}");
            assert!(user_timeout >= after / 2, "{after:?}");
        }
        drop(dialed);
    }
}

#[test]
fn every_link_has_the_configured_receive_buffer() {
    let mut net = net_with(|builder| builder.receive_buffer(Some(9000)));
    let [dialed, accepted] = link(&mut net);
    net.close_listeners();
    // A listening socket that was handed over, as by socket activation.
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = net.adopt(0, bound).unwrap();
    let _other = net.dial(at).unwrap();
    let adopted = accept(&mut net);
    for (which, stream) in [
        ("dialed", &dialed),
        ("accepted", &accepted),
        ("accepted at an adopted listener", &adopted),
    ] {
        let size = SockRef::from(stream).recv_buffer_size().unwrap();
        // Linux doubles the number, for its own overhead.
        assert!(
            (9000..=18_000).contains(&size),
            "the receive buffer of the socket that was {which} has {size} bytes, expected 9000 to 18000"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_socket_is_inherited_through_exec() {
    let mut net = net();
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // A socket from socket activation has no close-on-exec.
    SockRef::from(&bound).set_cloexec(false).unwrap();
    net.adopt(0, bound).unwrap();
    let at = net.listen(1, "127.0.0.1:0".parse().unwrap()).unwrap();
    let at_adopted = net.listeners[0].as_ref().unwrap().local_addr().unwrap();
    let dialed = [net.dial(at_adopted).unwrap(), net.dial(at).unwrap()];
    let accepted = accept(&mut net);
    let listeners = net.listeners.iter().flatten().map(AsFd::as_fd);
    let links = dialed.iter().chain([&accepted]).map(AsFd::as_fd);
    for (place, socket) in listeners.chain(links).enumerate() {
        let path = format!("/proc/self/fdinfo/{}", socket.as_raw_fd());
        let text = std::fs::read_to_string(path).unwrap();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_ne!(flags & libc::O_CLOEXEC, 0, "socket {place}");
    }
}

#[test]
fn port_is_reusable_while_old_connections_linger() {
    let mut net = net();
    let reserving = bound();
    let at = reserving.local_addr().unwrap().as_socket().unwrap();
    // On Linux it stays reserved: else another test could take the port as soon as the listener is closed.
    let _reserving = cfg!(target_os = "linux").then_some(reserving);
    assert_eq!(net.listen(0, at).unwrap(), at);
    let dialed = net.dial(at).unwrap();
    let accepted = accept(&mut net);
    net.close_listeners();
    // This side closes first, so that its port is the one that lingers.
    drop(accepted);
    assert_eq!(net.listen(0, at).unwrap(), at);
    drop(dialed);
}

#[test]
fn an_aborted_connection_ends_with_a_reset() {
    let mut net = net();
    let [dialed, accepted] = link(&mut net);
    // More than the far end has room for: the rest waits on this side.
    while dialed.write(&[IoSlice::new(&[7; 1 << 16])]).is_ok() {}
    Stream::abort(&dialed).unwrap();
    drop(dialed);
    let error = loop {
        match Stream::read(&accepted, &mut [0; 1 << 16]) {
            Ok(n) => assert_ne!(n, 0, "the far end was told that this is all"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn writing_to_a_closed_connection_raises_no_signal() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let raised = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&raised)).unwrap();
    let mut net = net();
    let [dialed, _accepted] = link(&mut net);
    Stream::shutdown(&dialed, Shutdown::Write).unwrap();
    let error = dialed.write(&[IoSlice::new(b"frame")]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(!raised.load(Ordering::Relaxed));
}

#[cfg(target_os = "linux")]
#[test]
fn missing_congestion_control_is_named_in_the_error() {
    let builder = Config::builder(Sid(1))
        .server(Sid(1), "127.0.0.1:0")
        .congestion_control("no-such");
    let error = MioNet::new(&builder.build().unwrap().options).unwrap_err();
    assert!(error.to_string().contains("no-such"), "{error}");
}

#[test]
fn socket_connected_to_itself_is_refused() {
    let mut net = net();
    let socket = bound();
    socket.connect(&socket.local_addr().unwrap()).unwrap();
    let itself = net.stream(TcpStream::from_std(socket.into()));
    assert_eq!(
        itself.connected().unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    net.close_listeners();
}

#[test]
fn accept_without_listener_fails_and_connected_is_false() {
    let mut net = net();
    assert_eq!(
        net.accept(7).unwrap_err().kind(),
        io::ErrorKind::NotConnected
    );
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let stream = net.stream(TcpStream::from_std(socket.into()));
    assert!(!stream.connected().unwrap());
}

#[test]
fn forked_process_writes_nothing_to_shared_sockets() {
    let mut net = net();
    let [dialed, accepted] = link(&mut net);
    let write = |bytes| dialed.write(&[IoSlice::new(bytes)]);
    FORKED.set(true);
    let refused = write(b"child").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    FORKED.set(false);
    assert_eq!(write(b"parent").unwrap(), 6);
    let mut ready = Vec::new();
    net.watch(&accepted, 0).unwrap();
    while ready.is_empty() {
        net.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
    }
    let mut came = [0; 20];
    assert_eq!(accepted.read(&mut came).unwrap(), 6);
    assert_eq!(&came[..6], b"parent");
}

#[test]
fn dial_without_a_route_fails_at_once() {
    // Without a scope, a link-local address has no route.
    assert!(net().dial("[fe80::1]:1".parse().unwrap()).is_err());
}

#[test]
fn lookup_result_arrives_and_wakes_the_loop() {
    let mut net = net();
    net.lookup(7, "localhost");
    let found = loop {
        if let Some(found) = net.found() {
            break found;
        }
        net.wait(Some(Duration::from_secs(10)), &mut Vec::new())
            .unwrap();
    };
    assert_eq!(found.lookup_id, 7);
    let answer = found.answer.unwrap();
    assert!(answer.iter().any(|address| address.ip().is_loopback()));
}
