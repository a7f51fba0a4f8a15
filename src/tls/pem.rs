//! Reads certificates and a key from PEM files, with the provider ring.
//!
//! Nothing here verifies them.

use std::{fmt::Display, path::Path, sync::Arc};

use rustls::{
    Error,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use super::configs::{Tls, TlsBuilder};
use crate::{error::ConfigError, file};

impl Tls {
    /// Reads PEM files: the own certificate, followed by those of intermediate CAs; its private key; and the certificates of the
    /// CAs that are believed. The first two may be one file. The provider of the cryptography is ring.
    ///
    /// A key has one of the forms `PRIVATE KEY` (PKCS #8), `RSA PRIVATE KEY` and `EC PRIVATE KEY`, and is not encrypted.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadOption`] if a file cannot be read, or has not what it must have.
    pub fn from_pem_files(
        own: impl AsRef<Path>,
        key: impl AsRef<Path>,
        roots: impl AsRef<Path>,
    ) -> Result<TlsBuilder, ConfigError> {
        let provider = Arc::new(provider());
        let own = certified_key(own.as_ref(), key.as_ref(), &provider)?;
        let roots = certificates(roots.as_ref())?;
        Ok(Self::builder(provider, own, roots))
    }
}

pub(crate) fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// The own certificate with those of intermediate CAs, and its key.
pub(crate) fn certified_key(
    chain: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, ConfigError> {
    let (certificates, own) = (certificates(chain)?, private_key(key)?);
    let may_lack_public_key = is_of_curve(&own);
    CertifiedKey::from_der(certificates, own, provider).map_err(|why| match why {
        Error::General(_) if may_lack_public_key => bad(
            key,
            format!(
                "the private key cannot be used. One that Java has written lacks its public key: `openssl ec -in {} -out ec.pem` \
                 writes one with it, which must be the first key in this file",
                key.display()
            ),
        ),
        Error::InconsistentKeys(_) => bad(
            chain,
            format!("it is not the certificate of the key in {}", key.display()),
        ),
        why => bad(chain, format!("with the key in {}: {why}", key.display())),
    })
}

/// Whether it is a key of an elliptic curve in PKCS #8, by the object identifier id-ecPublicKey (RFC 5480).
fn is_of_curve(key: &PrivateKeyDer<'_>) -> bool {
    const ID: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    matches!(key, PrivateKeyDer::Pkcs8(_)) && key.secret_der().windows(ID.len()).any(|at| at == ID)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let text = contents(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|why| bad(path, why))?;
    if certificates.is_empty() {
        return Err(bad(path, "there is no certificate in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let text = contents(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|why| {
        let is_encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
        match why {
            _ if is_encrypted => bad(
                path,
                "the private key is encrypted, which is not supported: decrypt it with `openssl pkey -in FILE -out NEW`, and let \
                 only this server read the new file",
            ),
            pem::Error::NoItemsFound => bad(path, "there is no private key in it"),
            why => bad(path, why),
        }
    })
}

fn contents(path: &Path) -> Result<Vec<u8>, ConfigError> {
    file::read(path).map_err(|why| bad(path, why))
}

fn bad(path: &Path, why: impl Display) -> ConfigError {
    ConfigError::BadOption {
        option: "tls",
        why: format!("{}: {why}", path.display()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{env, fs, process};

    use super::*;

    #[test]
    fn file_that_is_too_long_is_refused() {
        let path = env::temp_dir().join(format!("quorum-cnx-long-{}.pem", process::id()));
        fs::File::create(&path).unwrap().set_len(16 << 21).unwrap();
        let read = Tls::from_pem_files(&path, &path, &path).map(drop);
        fs::remove_file(&path).unwrap();
        let why = read.unwrap_err().to_string();
        assert!(why.contains("has more than 16777216 bytes"), "{why}");
    }
}
