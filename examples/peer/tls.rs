//! The options of TLS. Without the feature `tls-ring`, each of them is refused with the command that builds the program with it.
//!
//! The program `election` uses this file, too.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use quorum_cnx::{ConfigBuilder, Members, Sid};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS, if built with --features tls-ring")]
pub(crate) struct TlsArgs {
    /// The certificate of this server (PEM), followed by those of intermediate CAs. All connections then use TLS
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key (PEM) [default: in the file of the certificate]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The certificates of the CAs that are believed (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// Certificate revocation lists (PEM); then each CA needs one
    #[arg(long = "tls-crl", value_name = "FILE", requires = "tls_cert")]
    tls_crls: Vec<PathBuf>,

    /// A name that the certificate of server SID may have: DNS name, IP address, URI or sha256:HASH of its public key; repeated
    /// [default: the hosts of its addresses]
    #[arg(long = "tls-name", value_name = "SID=NAME", value_parser = name)]
    tls_names: Vec<(i64, String)>,

    /// Connections without TLS, for upgrades: they are accepted, or this server makes its own without TLS, too
    #[arg(long, value_enum, requires = "tls_cert")]
    tls_plaintext: Option<PlaintextArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlaintextArg {
    Accept,
    Dial,
}

fn name(text: &str) -> Result<(i64, String), String> {
    let (sid, name) = text.split_once('=').ok_or("there is no `=` in it")?;
    let sid = sid
        .parse()
        .map_err(|_| format!("`{sid}` is no server id"))?;
    Ok((sid, name.to_owned()))
}

impl TlsArgs {
    /// Adds what the options say.
    ///
    /// # Errors
    ///
    /// That TLS is not built in, or which file or name cannot be used.
    #[cfg(not(feature = "tls-ring"))]
    pub(crate) fn configure(
        &self,
        builder: ConfigBuilder,
        _: impl Fn(Sid) -> bool,
    ) -> Result<ConfigBuilder, String> {
        if self.tls_cert.is_some() || !self.tls_names.is_empty() {
            return Err(format!(
                "this program speaks no TLS: build it with `cargo build --release --example {} --features tls-ring`",
                env!("CARGO_BIN_NAME")
            ));
        }
        Ok(builder)
    }

    /// Without TLS there are no names.
    #[cfg(not(feature = "tls-ring"))]
    #[allow(dead_code, reason = "only `election` follows changes of the members")]
    pub(crate) fn name_members(&self, members: Members, _: impl Fn(Sid) -> bool) -> Members {
        members
    }
}

#[cfg(feature = "tls-ring")]
mod with_tls {
    use std::collections::BTreeMap;

    use quorum_cnx::{
        ConfigError, PeerName, Plaintext, Tls,
        rustls::pki_types::{CertificateRevocationListDer, pem::PemObject as _},
    };

    use super::*;

    impl TlsArgs {
        /// Adds what the options say, with the names of these servers.
        ///
        /// # Errors
        ///
        /// Which file or name cannot be used.
        pub(crate) fn configure(
            &self,
            mut builder: ConfigBuilder,
            is_known: impl Fn(Sid) -> bool,
        ) -> Result<ConfigBuilder, String> {
            if let Some(tls) = self.load()? {
                builder = builder.tls(tls);
            }
            for (sid, names) in self.names()? {
                if is_known(sid) {
                    builder = builder.peer_names(sid, names);
                }
            }
            Ok(builder)
        }

        fn names(&self) -> Result<BTreeMap<Sid, Vec<PeerName>>, String> {
            let mut names = BTreeMap::<Sid, Vec<PeerName>>::new();
            for (sid, name) in &self.tls_names {
                let name = name.parse();
                let name = name.map_err(|error: ConfigError| format!("--tls-name: {error}"))?;
                names.entry(Sid(*sid)).or_default().push(name);
            }
            Ok(names)
        }

        /// Adds the names of those that are members.
        #[allow(dead_code, reason = "only `election` follows changes of the members")]
        pub(crate) fn name_members(
            &self,
            mut members: Members,
            is_member: impl Fn(Sid) -> bool,
        ) -> Members {
            // All names were parsed when this program started.
            for (sid, names) in self.names().unwrap_or_default() {
                if is_member(sid) {
                    members = members.peer_names(sid, names);
                }
            }
            members
        }

        /// Reads the files. `None` if no option names one.
        ///
        /// # Errors
        ///
        /// Which file cannot be used.
        pub(crate) fn load(&self) -> Result<Option<Tls>, String> {
            let (Some(cert), Some(ca)) = (&self.tls_cert, &self.tls_ca) else {
                return Ok(None);
            };
            let key = self.tls_key.as_ref().unwrap_or(cert);
            let mut builder =
                Tls::from_pem_files(cert, key, ca).map_err(|error| error.to_string())?;
            for path in &self.tls_crls {
                let bad =
                    |why: &dyn std::fmt::Display| format!("--tls-crl {}: {why}", path.display());
                let crls = CertificateRevocationListDer::pem_file_iter(path);
                let crls = crls.and_then(Iterator::collect::<Result<Vec<_>, _>>);
                let crls = crls.map_err(|error| bad(&error))?;
                if crls.is_empty() {
                    return Err(bad(&"there is no revocation list in it"));
                }
                builder = builder.crls(crls);
            }
            let tls = builder.build().map_err(|error| error.to_string())?;
            Ok(Some(tls.plaintext(match self.tls_plaintext {
                None => Plaintext::Refuse,
                Some(PlaintextArg::Accept) => Plaintext::Accept,
                Some(PlaintextArg::Dial) => Plaintext::Dial,
            })))
        }
    }
}
