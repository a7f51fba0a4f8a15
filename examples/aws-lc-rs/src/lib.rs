//! TLS whose cryptography is that of aws-lc-rs. Any other provider of rustls is used in the same way.

use std::{error::Error, path::Path, sync::Arc};

use quorum_cnx::{Tls, TlsBuilder};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// What `Tls::from_pem_files` does with ring.
///
/// # Errors
///
/// That of the file that cannot be used.
pub fn from_pem_files(own: &Path, key: &Path, roots: &Path) -> Result<TlsBuilder, Box<dyn Error>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_file(key)?;
    let own = CertifiedKey::from_der(certificates(own)?, key, &provider)?;
    Ok(Tls::builder(provider, own, certificates(roots)?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error>> {
    let all = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    Ok(all)
}
