//! Asks the kernel how many bytes of a connection are on their way: `sock_diag(7)`.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// The two sockets of a connection over IPv4 on this machine.
pub(super) struct Queues {
    diag: OwnedFd,
    serve: SocketAddrV4,
    drive: SocketAddrV4,
}

impl Queues {
    /// Finds the connection that was accepted at this address.
    pub(super) fn find(at: &str) -> Option<Self> {
        let SocketAddr::V4(serve) = at.parse().ok()? else {
            return None;
        };
        // Read once, since it takes milliseconds: the kernel walks through all of its table.
        let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
        let drive = table.lines().skip(1).find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = state == "01" && address(local)? == serve;
            is_it.then(|| address(remote))?
        })?;
        let diag = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        );
        Some(Self {
            diag: diag.ok()?,
            serve,
            drive,
        })
    }

    /// Bytes that were given to the kernel and have not been read.
    pub(super) fn bytes(&self) -> Option<u64> {
        let (unread, _) = self.ask(self.serve, self.drive).ok()?;
        let (_, unacknowledged) = self.ask(self.drive, self.serve).ok()?;
        Some(u64::from(unread) + u64::from(unacknowledged))
    }

    /// The receive queue and the send queue of this socket, in bytes.
    fn ask(&self, local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<(u32, u32)> {
        const SOCK_DIAG_BY_FAMILY: u16 = 20;
        const NLM_F_REQUEST: u16 = 1;
        const TCP: u8 = 6;
        const LEN: u32 = 72;
        let mut message = Vec::with_capacity(LEN as usize);
        // `struct nlmsghdr`.
        message.extend(LEN.to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        // `struct inet_diag_req_v2`: the family, the protocol, all states, and the two addresses.
        message.extend([AddressFamily::Inet as u8, TCP, 0, 0]);
        message.extend(u32::MAX.to_ne_bytes());
        message.extend(local.port().to_be_bytes());
        message.extend(remote.port().to_be_bytes());
        for ip in [local.ip(), remote.ip()] {
            message.extend(ip.octets());
            message.extend([0; 12]);
        }
        // Any interface, any cookie.
        message.extend([0; 4]);
        message.extend([0xff; 8]);
        send(self.diag.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 512];
        let len = recv(self.diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // `struct inet_diag_msg` begins at 16. An error is shorter.
        let word = |at: usize| {
            let bytes = answer[..len].get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        word(72)
            .zip(word(76))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// An address as in `/proc/net/tcp`: `0100007F:1F90`, in the byte order of the machine and in that of the network.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(
        Ipv4Addr::from(ip),
        u16::from_str_radix(port, 16).ok()?,
    ))
}
