//! What requests and replies look like: JSON behind a byte that says which request it is. A chunk of a snapshot is raw.
//!
//! Nothing here is sent. Another codec needs changes in this file only.

use std::fmt::Display;

use bytes::{Buf, Bytes};
use serde::{Serialize, de::DeserializeOwned};

/// The first byte of a request.
pub(crate) mod kind {
    pub(crate) const APPEND: u8 = 1;
    pub(crate) const VOTE: u8 = 2;
    pub(crate) const PRE_VOTE: u8 = 3;
    pub(crate) const TRANSFER_LEADER: u8 = 4;
    pub(crate) const CHUNK: u8 = 5;
    pub(crate) const INSTALL: u8 = 6;
}

pub(crate) fn request(kind: u8, request: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut body = vec![kind];
    serde_json::to_writer(&mut body, request)?;
    Ok(body)
}

/// A chunk of a snapshot, which begins at this byte of it.
pub(crate) fn chunk(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[kind::CHUNK], &(offset as u64).to_be_bytes()[..], data].concat()
}

/// Where a chunk begins, if the rest of its request is long enough. Leaves its data.
pub(crate) fn offset(chunk: &mut Bytes) -> Option<u64> {
    chunk.try_get_u64().ok()
}

/// A reply. An error is text, since the caller only reports it.
pub(crate) fn reply(result: Result<impl Serialize, impl Display>) -> Vec<u8> {
    let result = result.map_err(|error| error.to_string());
    serde_json::to_vec(&result).unwrap_or_else(|error| {
        let result: Result<(), String> = Err(error.to_string());
        serde_json::to_vec(&result).expect("a string is JSON")
    })
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(body)
}
