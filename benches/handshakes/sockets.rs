//! New links of bare rustls over loopback sockets, as an application on mio has them: two event queues on one thread, both certificates
//! checked for their names, and an initial message.
//!
//! The library is not used here.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use rustls::{
    ClientConnection, Connection, ServerConnection, client::verify_server_name,
    pki_types::ServerName, server::ParsedCertificate,
};

use super::{Bare, DRIVER, Outcome, SERVER, name};

/// Who is accepted, and who is connected.
const LISTENER: Token = Token(0);
const LINK: Token = Token(1);

/// As long as that of the library here.
const INITIAL_MESSAGE: [u8; 35] = [7; 35];

/// Two ends that replace their link again and again.
pub(crate) struct Sockets<'a> {
    bare: &'a Bare,
    listener: TcpListener,
    address: SocketAddr,
    server: End,
    client: End,
}

/// One end, with its event queue and its link.
struct End {
    poll: Poll,
    events: Events,
    link: Option<Link>,
}

struct Link {
    socket: TcpStream,
    tls: Connection,
}

impl<'a> Sockets<'a> {
    pub(crate) fn new(bare: &'a Bare) -> Outcome<Self> {
        let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
        let (server, client) = (End::new()?, End::new()?);
        let registry = server.poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            bare,
            address: listener.local_addr()?,
            listener,
            server,
            client,
        })
    }

    /// Makes a link, and closes the one before it.
    pub(crate) fn link(&mut self) -> Outcome<()> {
        let to = ServerName::try_from(name(SERVER.0))?;
        let tls = ClientConnection::new(Arc::clone(&self.bare.client), to)?;
        let old = self
            .client
            .replace(TcpStream::connect(self.address)?, tls.into())?;
        let (mut has_sent, mut has_received) = (false, false);
        while !has_received {
            self.client.turn()?;
            if let Some(link) = self.client.link.as_mut().filter(|_| !has_sent) {
                // As in the library: the ticket says that the certificate was accepted.
                if matches!(&link.tls, Connection::Client(tls) if tls.tls13_tickets_received() > 0)
                {
                    link.tls.writer().write_all(&INITIAL_MESSAGE)?;
                    link.send()?;
                    has_sent = true;
                }
            }
            if self.server.turn()? {
                let (socket, _) = self.listener.accept()?;
                let tls = ServerConnection::new(Arc::clone(&self.bare.server))?;
                if let Some(old) = self.server.replace(socket, tls.into())? {
                    old.close()?;
                }
            }
            if let Some(link) = &mut self.server.link {
                has_received = link.has_received_from(DRIVER.0)?;
            }
        }
        old.map_or(Ok(()), Link::close)
    }
}

impl End {
    fn new() -> Outcome<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(64),
            link: None,
        })
    }

    fn replace(&mut self, mut socket: TcpStream, tls: Connection) -> Outcome<Option<Link>> {
        socket.set_nodelay(true)?;
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, LINK, interests)?;
        Ok(self.link.replace(Link { socket, tls }))
    }

    /// Does what the event queue says. Returns whether a connection can be accepted.
    fn turn(&mut self) -> Outcome<bool> {
        self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
        let mut can_accept = false;
        for event in &self.events {
            match (event.token(), &mut self.link) {
                (LISTENER, _) => can_accept = true,
                (_, Some(link)) => link.step()?,
                (_, None) => {}
            }
        }
        Ok(can_accept)
    }
}

impl Link {
    fn step(&mut self) -> Outcome<()> {
        self.send()?;
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    self.tls.process_new_packets()?;
                    self.send()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all that waits. It is never more than a socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Whether the initial message has arrived, from the server of this certificate.
    fn has_received_from(&mut self, sid: i64) -> Outcome<bool> {
        let mut message = [0; INITIAL_MESSAGE.len()];
        match self.tls.reader().read(&mut message) {
            Ok(n) if n == message.len() => {}
            Ok(_) => return Err("the link has ended".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let shown = self.tls.peer_certificates().and_then(<[_]>::first);
        let shown = ParsedCertificate::try_from(shown.ok_or("no certificate")?)?;
        verify_server_name(&shown, &ServerName::try_from(name(sid))?)?;
        Ok(true)
    }

    fn close(mut self) -> Outcome<()> {
        self.tls.send_close_notify();
        // The far end may have closed it already.
        let _ = self.send();
        Ok(())
    }
}
