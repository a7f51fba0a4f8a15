//! Without the feature `tls` no variant has TLS.

use std::{io, net::TcpStream};

use quorum_cnx::{ConfigBuilder, Sid};

use crate::failure::failure;

pub(crate) fn with_tls(_: ConfigBuilder, _: Sid) -> io::Result<ConfigBuilder> {
    Err(failure("built without the feature `tls`"))
}

pub(crate) fn with_name(builder: ConfigBuilder, _: Sid) -> ConfigBuilder {
    builder
}

pub(crate) fn send_number(_: &mut TcpStream, _: u64) -> io::Result<()> {
    Err(failure("built without the feature `tls`"))
}
