//! The differences between operating systems: numbers from their C headers, and socket options that only some of them have.
//!
//! No other file of the library depends on the target system (`tests/tidy.rs` checks it).

use std::{io, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
)))]
compile_error!(
    "quorum-cnx does not support this target. It supports Linux, Android, macOS, FreeBSD and NetBSD; Windows is not \
     supported, except in the Windows Subsystem for Linux. To port it to another Unix, add the error numbers and socket \
     options of that system to src/net/platform.rs."
);

/// Error numbers that have no stable name in `std`.
///
/// Sources: `include/uapi/asm-generic/errno.h` of Linux, which Android uses too; `arch/{mips,sparc}/include/uapi/asm/errno.h` for
/// the processors that differ; `sys/errno.h` of each BSD and of Apple (`bsd/sys/errno.h` in xnu), all from 4.2BSD.
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
        target_arch = "sparc",
        target_arch = "sparc64",
    )),
))]
mod numbers {
    pub(crate) const EAFNOSUPPORT: i32 = 97;
    pub(crate) const ENOBUFS: i32 = 105;
    pub(crate) const EINPROGRESS: i32 = 115;
}

#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6",
    ),
))]
mod numbers {
    pub(crate) const EAFNOSUPPORT: i32 = 124;
    pub(crate) const ENOBUFS: i32 = 132;
    pub(crate) const EINPROGRESS: i32 = 150;
}

#[cfg(any(
    not(any(target_os = "linux", target_os = "android")),
    target_arch = "sparc",
    target_arch = "sparc64",
))]
mod numbers {
    pub(crate) const EINPROGRESS: i32 = 36;
    pub(crate) const EAFNOSUPPORT: i32 = 47;
    pub(crate) const ENOBUFS: i32 = 55;
}

pub(crate) use numbers::{EAFNOSUPPORT, EINPROGRESS, ENOBUFS};

/// These are the same on all systems: they are older than 4.2BSD and Linux.
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const ENFILE: i32 = 23;
pub(crate) const EMFILE: i32 = 24;

/// Flags of every `send(2)`. They prevent `SIGPIPE`, which ends a process that does not ignore it, when the far end has closed the
/// connection.
///
/// Sources: `include/linux/socket.h` of Linux; `sys/sys/socket.h` of FreeBSD, NetBSD, OpenBSD and DragonFly. Apple has a socket
/// option instead: see [`prevent_sigpipe`].
pub(crate) const SEND_FLAGS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
    0x4000
} else if cfg!(target_os = "freebsd") {
    0x2_0000
} else if cfg!(target_vendor = "apple") {
    0
} else {
    0x400
};

/// A TCP socket that does not block and is closed by `exec`.
///
/// One system call does all of it, where the system supports that. On Apple systems, a process that another thread forks between
/// `socket(2)` and `fcntl(2)` inherits the socket.
pub(crate) fn tcp_socket(domain: Domain) -> io::Result<Socket> {
    #[cfg(not(target_vendor = "apple"))]
    let kind = Type::STREAM.nonblocking();
    #[cfg(target_vendor = "apple")]
    let kind = Type::STREAM;
    // `Socket::new` sets close-on-exec.
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    #[cfg(target_vendor = "apple")]
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Prevents `SIGPIPE` for this socket, on systems where [`SEND_FLAGS`] cannot. Accepted sockets inherit it from their listening
/// socket (`sonewconn` in xnu's `bsd/kern/uipc_socket2.c`).
#[cfg(target_vendor = "apple")]
pub(crate) fn prevent_sigpipe(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_nosigpipe(true)
}

#[cfg(not(target_vendor = "apple"))]
pub(crate) fn prevent_sigpipe(_socket: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// Keepalive for an idle connection: the first probe after `idle`, then one each `interval`. The connection ends after `probes`
/// without an answer.
///
/// OpenBSD has only system-wide times (`sysctl net.inet.tcp.keepidle`).
pub(crate) fn keepalive(idle: Duration, interval: Duration, probes: u32) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(idle);
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_interval(interval).with_retries(probes);
    #[cfg(target_os = "openbsd")]
    let _ = (interval, probes);
    keepalive
}

/// Ends the connection when bytes or probes were not acknowledged for this time (`TCP_USER_TIMEOUT`, tcp(7)). The kernel counts
/// from the first retransmission of the bytes. Meanwhile it sends no keepalive probe, and the time for which probes were not
/// answered does not count.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn limit_unacknowledged(socket: &SockRef<'_>, time: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(time))
}

/// On other systems only [`keepalive`] bounds the time: `socket2` offers neither Apple's `TCP_RXT_CONNDROPTIME` nor FreeBSD's
/// `TCP_MAXUNACKTIME`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn limit_unacknowledged(_socket: &SockRef<'_>, _time: Duration) -> io::Result<()> {
    Ok(())
}

/// Bounds the bytes that the kernel holds unsent (`TCP_NOTSENT_LOWAT`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn limit_unsent(socket: &SockRef<'_>, bytes: u32) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(bytes)
}

/// The BSDs have no such option, and `socket2` does not offer Apple's.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn limit_unsent(_socket: &SockRef<'_>, _bytes: u32) -> io::Result<()> {
    Ok(())
}

/// Where an operator finds the names that [`set_congestion_control`] accepts. `None` where it has no effect.
pub(crate) const CONGESTION_CONTROLS: Option<&str> = if cfg!(target_os = "linux") {
    Some("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
} else if cfg!(target_os = "freebsd") {
    Some("`sysctl net.inet.tcp.cc.available`")
} else {
    None
};

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) fn set_congestion_control(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) fn set_congestion_control(_socket: &SockRef<'_>, _name: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    // Compared at compile time, so that `tests/targets.sh` checks them for systems on which no test runs.
    const _: () = {
        assert!(ENOMEM == libc::ENOMEM);
        assert!(ENFILE == libc::ENFILE);
        assert!(EMFILE == libc::EMFILE);
        assert!(ENOBUFS == libc::ENOBUFS);
        assert!(EINPROGRESS == libc::EINPROGRESS);
        assert!(EAFNOSUPPORT == libc::EAFNOSUPPORT);
        #[cfg(not(target_vendor = "apple"))]
        assert!(SEND_FLAGS == libc::MSG_NOSIGNAL);
    };

    #[test]
    fn a_socket_does_not_block() {
        assert!(tcp_socket(Domain::IPV4).unwrap().nonblocking().unwrap());
    }
}
