//! Decides whether a certificate is one of the server for which it is shown.
//!
//! Nothing here resolves a name, looks at the address of a connection, or verifies a signature.

use std::collections::BTreeMap;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::{certificate::Certificate, configs::Tls, failure::failure_of, peer_name::PeerName};
use crate::{
    error::ConfigError,
    limits,
    proto::{Address, Sid, TlsFailure},
};

/// The names that each server may have. No two servers have one in common, so that no server can be taken for another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identities {
    /// The names of each server, canonical. [`Sid::OBSERVER`] stands for all observers without an id.
    names: BTreeMap<Sid, Vec<PeerName>>,
    /// Those that were given for a sid, and do not come from its addresses.
    given: BTreeMap<Sid, Vec<PeerName>>,
    /// The names of servers that are no members any more, and with which the loop has not parted yet.
    leaving: BTreeMap<Sid, Vec<PeerName>>,
    /// True exactly when a certificate for `*.example` is one for `zk1.example`.
    wildcards: bool,
}

impl Identities {
    /// The names of servers: those that are given for a sid, else the hosts of its addresses.
    ///
    /// # Errors
    ///
    /// A name that no certificate can have, too many of them, or one that two servers have in common.
    pub(crate) fn new<'a>(
        members: impl IntoIterator<Item = (Sid, &'a [Address])>,
        given: &BTreeMap<Sid, Vec<PeerName>>,
        wildcards: bool,
    ) -> Result<Self, ConfigError> {
        let mut names: BTreeMap<Sid, Vec<PeerName>> = BTreeMap::new();
        for (sid, given) in given {
            let canonical = given.iter().cloned().map(PeerName::canonical);
            let canonical = canonical.collect::<Result<Vec<_>, _>>();
            names.insert(*sid, canonical.map_err(bad)?);
        }
        for (sid, addresses) in members {
            names
                .entry(sid)
                .or_insert_with(|| addresses.iter().filter_map(PeerName::of_host).collect());
        }
        let mut owners: BTreeMap<&PeerName, Sid> = BTreeMap::new();
        for (sid, list) in &names {
            if list.len() > limits::PEER_NAMES_MAX {
                let (count, max) = (list.len(), limits::PEER_NAMES_MAX);
                return Err(bad(format!("{count} names of server {sid}, at most {max}")));
            }
            for name in list {
                let first = *owners.entry(name).or_insert(*sid);
                if first != *sid {
                    return Err(ConfigError::SharedName {
                        first,
                        second: *sid,
                        name: name.to_string(),
                    });
                }
            }
        }
        Ok(Self {
            names,
            given: given.clone(),
            leaving: BTreeMap::new(),
            wildcards,
        })
    }

    /// The names when these are the members, and those that have `left` are none any more. A server keeps the names that were given for it,
    /// unless others are given now. One that has left keeps its names until [`without`](Self::without), since it may have to be linked for
    /// its last frames, but for those that another server has now.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub(crate) fn with_members<'a>(
        &self,
        members: impl IntoIterator<Item = (Sid, &'a [Address])>,
        given: BTreeMap<Sid, Vec<PeerName>>,
        left: &[Sid],
    ) -> Result<Self, ConfigError> {
        let mut all = self.given.clone();
        all.retain(|sid, _| !left.contains(sid));
        all.extend(given);
        let mut next = Self::new(members, &all, self.wildcards)?;
        let leaves = |sid: &Sid| left.contains(sid) || self.leaving.contains_key(sid);
        let older = self.names.iter().chain(&self.leaving);
        for (sid, names) in older.filter(|(sid, _)| leaves(sid)) {
            if !next.names.contains_key(sid) {
                let mut names = names.clone();
                names.retain(|name| !next.names.values().any(|taken| taken.contains(name)));
                next.leaving.insert(*sid, names);
            }
        }
        Ok(next)
    }

    /// The names when this server has left for good. `None` if they are the same.
    pub(crate) fn without(&self, sid: Sid) -> Option<Self> {
        self.leaving.contains_key(&sid).then(|| {
            let mut next = self.clone();
            next.leaving.remove(&sid);
            next
        })
    }

    /// Whether this server has a name, so that a certificate can be its own.
    pub(crate) fn has_names(&self, sid: Sid) -> bool {
        !self.names_of(sid).is_empty()
    }

    fn names_of(&self, sid: Sid) -> &[PeerName] {
        // An observer without an id has been given a negative one, or says `Sid::OBSERVER`.
        let sid = if sid.0 < 0 { Sid::OBSERVER } else { sid };
        let names = self.names.get(&sid).or_else(|| self.leaving.get(&sid));
        names.map_or(&[], Vec::as_slice)
    }

    /// Checks that the certificate of the far end is one of this server. `certificates` is what the far end has sent, its own
    /// certificate first, and the handshake has verified them.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub(crate) fn check(
        &self,
        sid: Sid,
        certificates: &[CertificateDer<'_>],
    ) -> Result<(), TlsFailure> {
        let certificate = certificates.first().ok_or(TlsFailure::NoCertificate)?;
        self.check_names(sid, &read(certificate)?)
    }

    fn check_names(&self, sid: Sid, certificate: &Certificate) -> Result<(), TlsFailure> {
        let mut names = self.names_of(sid).iter();
        if names.any(|name| certificate.has(name, self.wildcards)) {
            return Ok(());
        }
        Err(TlsFailure::WrongName {
            sid,
            names: certificate.names(),
        })
    }

    /// Checks the certificates of a live link again, after the application has replaced its [`Tls`] by this one: the chain, its
    /// validity, revocations, and the names. If the application has made the configurations of rustls itself, the chain is not
    /// verified, since they do not say how: only the time and the names of the first certificate are checked.
    ///
    /// # Errors
    ///
    /// Why the link must end.
    pub(crate) fn recheck(
        &self,
        tls: &Tls,
        sid: Sid,
        certificates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsFailure> {
        let certificate = certificates.first().ok_or(TlsFailure::NoCertificate)?;
        let certificate = read(certificate)?;
        match tls.verify_again(certificates, now) {
            Some(verified) => verified.map_err(|error| failure_of(&error))?,
            None if now < certificate.not_before => return Err(TlsFailure::NotYetValid),
            None if now > certificate.not_after => return Err(TlsFailure::Expired),
            None => {}
        }
        self.check_names(sid, &certificate)
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, TlsFailure> {
    Certificate::from_der(certificate).map_err(TlsFailure::BadCertificate)
}

fn bad(why: String) -> ConfigError {
    ConfigError::BadOption {
        option: "peer_names",
        why,
    }
}
