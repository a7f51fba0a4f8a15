//! Strangers that make one handshake after the other, and a bare acceptor of rustls that refuses them as a member does: after the
//! handshake, for the name.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, ServerConnection, StreamOwned, client::verify_server_name,
    pki_types::ServerName, server::ParsedCertificate,
};

use super::{
    OTHER, Outcome, TARGET,
    certificates::{Certificates, name},
    end_with_parent,
};

const STRANGER: i64 = 66;

/// Strangers at one time.
const THREADS: u32 = 2;

/// Accepts strangers one after the other, and prints the address.
pub(crate) fn accept() -> Outcome<()> {
    let (_, mut config) = Certificates::new(TARGET)?.configs()?;
    config.send_tls13_tickets = 1;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    end_with_parent();
    let expected = ServerName::try_from(name(OTHER))?;
    for socket in listener.incoming() {
        let socket = socket?;
        socket.set_nodelay(true)?;
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config))?, socket);
        // Fails when the stranger has gone: the time is over.
        if tls.read_exact(&mut [0; 8]).is_err() {
            continue;
        }
        let shown = tls.conn.peer_certificates().and_then(<[_]>::first);
        let shown = ParsedCertificate::try_from(shown.ok_or("no certificate")?)?;
        if verify_server_name(&shown, &expected).is_ok() {
            return Err("a stranger has the name of a member".into());
        }
    }
    Ok(())
}

/// Prints a line, makes handshakes for this time, and prints how many.
pub(crate) fn flood(to: &str, rate: Option<u32>, time: Duration) -> Outcome<()> {
    let (mut config, _) = Certificates::new(STRANGER)?.configs()?;
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    println!("ready");
    let (start, pause) = (
        Instant::now(),
        rate.map(|rate| THREADS * Duration::from_secs(1) / rate),
    );
    let made = thread::scope(|scope| {
        let strangers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut made = 0;
                    while start.elapsed() < time {
                        shake_hands(to, &config).map_err(|error| error.to_string())?;
                        made += 1;
                        if let Some(pause) = pause {
                            thread::sleep((made * pause).saturating_sub(start.elapsed()));
                        }
                    }
                    Ok::<u32, String>(made)
                })
            })
            .collect();
        let ended = strangers.into_iter().map(|thread| thread.join());
        ended
            .map(|made| made.map_err(|_| "panicked".to_owned())?)
            .sum::<Result<u32, String>>()
    })?;
    println!("{made}");
    Ok(())
}

/// A whole handshake, and the initial message of a member. Ends when it is refused.
fn shake_hands(to: &str, config: &Arc<ClientConfig>) -> Outcome<()> {
    let socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    let client = ClientConnection::new(Arc::clone(config), ServerName::try_from(name(TARGET))?)?;
    let mut tls = StreamOwned::new(client, socket);
    tls.write_all(&OTHER.to_be_bytes())?;
    // The end, or an error if it is refused without `close_notify`.
    let _ = tls.read(&mut [0]);
    Ok(())
}
