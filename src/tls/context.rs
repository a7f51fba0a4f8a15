//! The identity of this server and those of its peers, as they are at one time.
//!
//! Nothing here opens a connection.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
};

use super::{configs::Tls, identities::Identities};
use crate::proto::{Sid, TlsFailure};

/// What a network needs to speak TLS: the own certificate, the roots, and which names each server may have.
#[derive(Debug)]
pub struct TlsContext {
    pub(crate) tls: Tls,
    pub(crate) identities: Arc<Identities>,
}

impl TlsContext {
    pub(crate) fn new(tls: Tls, identities: Arc<Identities>) -> Self {
        Self { tls, identities }
    }

    /// The same names with another certificate and other roots.
    pub(crate) fn with(&self, tls: Tls) -> Self {
        Self::new(tls, Arc::clone(&self.identities))
    }

    /// The same certificate and roots with other names.
    pub(crate) fn with_identities(&self, identities: Arc<Identities>) -> Self {
        Self::new(self.tls.clone(), identities)
    }

    pub(crate) fn client_config(&self) -> &Arc<ClientConfig> {
        self.tls.client_config()
    }

    pub(crate) fn server_config(&self) -> &Arc<ServerConfig> {
        self.tls.server_config()
    }

    /// Whether an accepted connection may speak without TLS.
    pub(crate) fn accepts_plain(&self) -> bool {
        self.tls.accepts_plain()
    }

    /// Whether this server dials with TLS.
    pub(crate) fn dials_tls(&self) -> bool {
        self.tls.dials_tls()
    }

    /// When the own certificate expires, if that is known.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        self.tls.not_after()
    }

    /// Checks that a verified certificate is one of this server.
    pub(crate) fn check(&self, sid: Sid, chain: &[CertificateDer<'_>]) -> Result<(), TlsFailure> {
        self.identities.check(sid, chain)
    }

    /// The same for a link that was verified by an older context: verifies the chain again.
    pub(crate) fn recheck(&self, sid: Sid, chain: &[CertificateDer<'_>]) -> Result<(), TlsFailure> {
        self.identities
            .recheck(&self.tls, sid, chain, UnixTime::now())
    }
}
