//! What requests and replies look like: JSON behind a byte that says which request it is. A chunk of a snapshot is raw.
//!
//! Nothing here is sent. Another codec needs changes in this file only.

use std::fmt::Display;

use openraft::{RaftTypeConfig, errors::Unreachable};
use serde::{Serialize, de::DeserializeOwned};

// The first byte of a request.
pub(crate) const APPEND: u8 = 1;
pub(crate) const VOTE: u8 = 2;
pub(crate) const PRE_VOTE: u8 = 3;
pub(crate) const TRANSFER_LEADER: u8 = 4;
pub(crate) const CHUNK: u8 = 5;
pub(crate) const INSTALL: u8 = 6;

pub(crate) fn request<C: RaftTypeConfig>(
    kind: u8,
    request: &impl Serialize,
) -> Result<Vec<u8>, Unreachable<C>> {
    let mut body = vec![kind];
    let written = serde_json::to_writer(&mut body, request);
    written.map_err(|error| Unreachable::new(&error))?;
    Ok(body)
}

/// A chunk of a snapshot, which begins at this byte of it.
pub(crate) fn chunk(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[CHUNK], &(offset as u64).to_be_bytes()[..], data].concat()
}

/// A reply. An error is text, since the caller only reports it.
pub(crate) fn reply(result: Result<impl Serialize, impl Display>) -> Vec<u8> {
    let result = result.map_err(|error| error.to_string());
    serde_json::to_vec(&result).expect("ids and votes are JSON")
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(body)
}
