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
    let (is_of_curve, may_lack_public_key) = (has(&own, &[CURVE]), has(&own, &[P256, P384]));
    CertifiedKey::from_der(certificates, own, provider).map_err(|why| match why {
        Error::General(_) if is_of_curve && !may_lack_public_key => bad(
            key,
            "the private key cannot be used: of the elliptic curves, P-256 and P-384 are supported",
        ),
        Error::General(_) if is_of_curve => bad(
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

/// Object identifiers (RFC 5480): id-ecPublicKey, secp256r1 and secp384r1.
const CURVE: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// Whether one of these object identifiers is in a key in PKCS #8.
fn has(key: &PrivateKeyDer<'_>, ids: &[&[u8]]) -> bool {
    let is_in = |id: &&[u8]| key.secret_der().windows(id.len()).any(|at| at == *id);
    matches!(key, PrivateKeyDer::Pkcs8(_)) && ids.iter().any(is_in)
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
    use crate::tls::fixture::Ca;

    #[test]
    fn key_of_another_curve_is_not_taken_for_one_of_java() {
        let path = env::temp_dir().join(format!("quorum-cnx-curve-{}.pem", process::id()));
        let ca = Ca::new("CA");
        let of_p256 = ca.names(&["zk1.example"]).key_store(&ca);
        // The end of the identifier of P-256, and of that of prime239v1.
        let of_another = of_p256.replacen("GSM49AwEH", "GSM49AwEE", 1);
        assert_ne!(of_p256, of_another);
        fs::write(&path, of_another).unwrap();
        let read = Tls::from_pem_files(&path, &path, &path).map(drop);
        fs::remove_file(&path).unwrap();
        let why = read.unwrap_err().to_string();
        assert!(why.ends_with("P-256 and P-384 are supported"), "{why}");
    }

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
