//! TLS for the ends that use it. Built with the feature `tls`; else `no_tls` takes its place.

use std::{
    io::{self, Write as _},
    net::TcpStream,
    sync::Arc,
};

use quorum_cnx::{ConfigBuilder, PeerName, Sid, Tls};
use rustls::{ClientConnection, pki_types::ServerName, sign::CertifiedKey, version::TLS13};

use super::certificates::{Certificates, name};
use crate::failure::While;

/// The server that listens.
const SERVER: i64 = 1;

/// Configures TLS for this server.
pub(crate) fn with_tls(builder: ConfigBuilder, own: Sid) -> io::Result<ConfigBuilder> {
    let made = Certificates::new(own.0).context("making a certificate")?;
    let own = CertifiedKey::from_der(vec![made.own], made.key, &made.provider);
    let own = own.context("the own certificate")?;
    let tls = Tls::builder(made.provider, own, [made.root]).protocol_versions(&[&TLS13]);
    Ok(builder.tls(tls.build().context("configuring TLS")?))
}

/// Says which name the certificate of a peer has.
pub(crate) fn with_name(builder: ConfigBuilder, peer: Sid) -> ConfigBuilder {
    builder.peer_names(peer, [PeerName::Dns(name(peer.0))])
}

/// Makes the handshake of a link that sends nothing but this number. Nothing is kept but the socket.
pub(crate) fn send_number(socket: &mut TcpStream, number: u64) -> io::Result<()> {
    let made = Certificates::new(number as i64).context("making a certificate")?;
    let (client, _) = made.configs().context("configuring TLS")?;
    let to = ServerName::try_from(name(SERVER)).context("a name")?;
    let mut tls = ClientConnection::new(Arc::new(client), to).context("beginning TLS")?;
    rustls::Stream::new(&mut tls, socket).write_all(&number.to_be_bytes())
}
