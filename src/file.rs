//! Reads a file of a configuration or a certificate, up to a bound.
//!
//! Nothing here knows what is in a file.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Maximum bytes of a file. The servers of the largest supported ensemble need a tenth of it. A device or a wrong file cannot take all
/// memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// # Errors
///
/// The error of the system, or that the file is too long.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(why));
    }
    Ok(bytes)
}
