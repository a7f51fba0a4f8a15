//! Collects what the application says about TLS, and checks it together with the servers.
//!
//! Nothing here speaks TLS: `tls` and `net::tls` do.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    builder::ConfigBuilder,
    options::{Options, Server},
    policy::Unknown,
};
use crate::{
    error::ConfigError,
    proto::Sid,
    tls::{Identities, PeerName, Tls, TlsContext},
};

/// What was said about TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsGiven {
    tls: Option<Result<Tls, ConfigError>>,
    names: BTreeMap<Sid, Vec<PeerName>>,
    wildcards: bool,
}

impl ConfigBuilder {
    /// Has all connections use TLS, with certificates on both sides. Default: no TLS.
    ///
    /// The certificate that a server shows must belong to the sid for which it was dialed, or which it claims. See
    /// [`peer_names`](Self::peer_names).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[cfg(feature = "tls-ring")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use quorum_cnx::{Config, Sid, Tls};
    ///
    /// let tls = Tls::from_pem_files("zk2.pem", "zk2.key", "ca.pem")?.build()?;
    /// let config = Config::builder(Sid(2))
    ///     .server(Sid(1), "zk1.example:3888")
    ///     .server(Sid(2), "zk2.example:3888")
    ///     .tls(tls)
    ///     .peer_names(Sid(1), ["zk1.example".parse()?, "spiffe://example/zk/1".parse()?])
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tls-ring"))]
    /// # fn main() {}
    /// ```
    pub fn tls(self, tls: Tls) -> Self {
        self.tls_or(Ok(tls))
    }

    /// The same. [`build`](Self::build) returns the error.
    pub(crate) fn tls_or(mut self, tls: Result<Tls, ConfigError>) -> Self {
        self.tls.tls = Some(tls);
        self
    }

    /// Sets the names that the certificate of this server may have, at most 32. One of them must be in it. Default: the hosts of its
    /// configured [addresses](Self::server), which are names and IP addresses.
    ///
    /// They are compared with the names in the certificate and with nothing else: no name is resolved, and the address of the
    /// connection has no effect. No two servers may have a name in common ([`ConfigError::SharedName`]), so servers on one host need
    /// names other than that of the host.
    ///
    /// A server that is not configured ([`Unknown::Admit`](crate::Unknown::Admit)) is refused unless its sid has names here.
    pub fn peer_names(mut self, sid: Sid, names: impl IntoIterator<Item = PeerName>) -> Self {
        self.tls.names.insert(sid, names.into_iter().collect());
        self
    }

    /// Sets the names that the certificates of observers without an id may have ([`observers_max`](Self::observers_max)). Default:
    /// none, so that they are refused when this server speaks TLS.
    pub fn observer_names(self, names: impl IntoIterator<Item = PeerName>) -> Self {
        self.peer_names(Sid::OBSERVER, names)
    }

    /// Sets whether a certificate for `*.example.com` belongs to `zk1.example.com`. Default: no, since such a certificate belongs to
    /// every server below that domain, and each of them could be taken for another one.
    pub fn wildcard_certificates(mut self, yes: bool) -> Self {
        self.tls.wildcards = yes;
        self
    }
}

impl TlsGiven {
    /// Checks the names of all servers. `None` without TLS.
    pub(super) fn check(
        self,
        own: Sid,
        members: &[Server],
        options: &Options,
    ) -> Result<Option<Arc<TlsContext>>, ConfigError> {
        let is_member = |sid| members.iter().any(|server| server.sid == sid);
        let admits = matches!(options.unknown, Unknown::Admit { .. });
        let is_useless = |sid: &&Sid| {
            let is_valid = **sid == Sid::OBSERVER || Sid::new(sid.0).is_some();
            !is_valid || (**sid != Sid::OBSERVER && !admits && !is_member(**sid))
        };
        if let Some(sid) = self.names.keys().find(is_useless) {
            return bad(format!("server {sid} is not configured"));
        }
        let Some(tls) = self.tls else {
            return match self.names.is_empty() {
                true => Ok(None),
                false => bad("certificates have names only with tls".to_owned()),
            };
        };
        let servers = members
            .iter()
            .map(|server| (server.sid, server.addresses.as_slice()));
        let identities = Identities::new(servers, &self.names, self.wildcards)?;
        let nameless = |server: &&Server| server.sid != own && !identities.has_names(server.sid);
        if let Some(Server { sid, .. }) = members.iter().find(nameless) {
            return bad(format!(
                "no host of server {sid} is a name that a certificate can have: set its names"
            ));
        }
        Ok(Some(Arc::new(TlsContext::new(tls?, Arc::new(identities)))))
    }
}

fn bad<T>(why: String) -> Result<T, ConfigError> {
    Err(ConfigError::BadOption {
        option: "peer_names",
        why,
    })
}

#[cfg(all(test, not(loom), feature = "tls-ring"))]
mod tests;
