//! Checks what the application says about TLS together with the servers.
//!
//! Nothing here speaks TLS: `tls` and `net::tls` do.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    options::{Options, Server},
    policy::Unknown,
};
use crate::{
    error::ConfigError,
    proto::Sid,
    tls::{Identities, PeerName, Tls, TlsContext},
};

/// What was said about TLS, but for the names of the peers.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsGiven {
    pub(super) tls: Option<Result<Tls, ConfigError>>,
    pub(super) wildcards: bool,
}

impl TlsGiven {
    /// Checks the names of all servers. `None` without TLS.
    pub(super) fn check(
        self,
        own: Sid,
        names: &BTreeMap<Sid, Vec<PeerName>>,
        members: &[Server],
        options: &Options,
    ) -> Result<Option<Arc<TlsContext>>, ConfigError> {
        let is_member = |sid| members.iter().any(|server| server.sid == sid);
        let admits = matches!(options.unknown, Unknown::Admit { .. });
        let is_useless = |sid: &&Sid| {
            let is_valid = **sid == Sid::OBSERVER || Sid::new(sid.0).is_some();
            !is_valid || (**sid != Sid::OBSERVER && !admits && !is_member(**sid))
        };
        if let Some(sid) = names.keys().find(is_useless) {
            return bad(format!("server {sid} is not configured"));
        }
        let Some(tls) = self.tls else {
            return match names.is_empty() {
                true => Ok(None),
                false => bad("certificates have names only with tls".to_owned()),
            };
        };
        let servers = members
            .iter()
            .map(|server| (server.sid, server.addresses.as_slice()));
        let identities = Identities::new(servers, names, self.wildcards)?;
        check_named(own, members, &identities)?;
        Ok(Some(Arc::new(TlsContext::new(tls?, Arc::new(identities)))))
    }
}

/// Checks that each other member has a name, so that it can be linked.
pub(crate) fn check_named(
    own: Sid,
    members: &[Server],
    identities: &Identities,
) -> Result<(), ConfigError> {
    let nameless = |server: &&Server| server.sid != own && !identities.has_names(server.sid);
    match members.iter().find(nameless) {
        Some(Server { sid, .. }) => bad(format!(
            "no host of server {sid} is a name that a certificate can have: set its names"
        )),
        None => Ok(()),
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
