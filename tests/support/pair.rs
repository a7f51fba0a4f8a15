//! A manager whose only peer is the test, and numbered payloads, which show whether they are whole.
//!
//! Nothing here sends or receives without being asked.

use std::sync::Arc;

use bytes::Bytes;
use quorum_cnx::{CnxManager, ConfigBuilder, SendOutcome, Sid};

use crate::{
    NOBODY, TestConnection, await_turn, eventually, single_manager,
    turned::{OWN, PEER},
    within,
};

/// Manager [`OWN`]. Its peer has the larger sid, and so is the one that dials.
pub struct Pair {
    pub manager: Arc<CnxManager>,
    pub address: String,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(shape: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (manager, address) = single_manager(OWN, &[(PEER, NOBODY)], shape);
        Self {
            manager: Arc::new(manager),
            address,
        }
    }

    /// The peer dials. Waits until it is linked, and can be written to.
    #[track_caller]
    pub fn link(&self) -> TestConnection {
        let ups = self.manager.stats().ups;
        let peer = TestConnection::member(&self.address, PEER, &[]);
        eventually("the peer is linked", || {
            self.manager.stats().ups > ups && self.manager.connected_to_peer(Sid(PEER))
        });
        // The link is counted a moment before the outbox has it.
        await_turn(&self.manager.handle());
        peer
    }

    /// The peer closes its connection. Waits until the manager has noticed.
    #[track_caller]
    pub fn unlink(&self, peer: TestConnection) {
        drop(peer);
        self.wait_unlinked();
    }

    #[track_caller]
    pub fn wait_unlinked(&self) {
        eventually("the peer is down", || {
            !self.manager.connected_to_peer(Sid(PEER))
        });
    }

    #[track_caller]
    pub fn halt(&self) {
        let manager = Arc::clone(&self.manager);
        within("halting", move || manager.halt());
    }

    pub fn send(&self, frame: impl Into<Bytes>) -> SendOutcome {
        self.manager.to_send(Sid(PEER), frame).unwrap()
    }
}

/// A payload of this length that begins with its number. It differs from those of the next 255 numbers in all other bytes, so that
/// a torn frame is detected.
pub fn numbered(number: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| at as u8 ^ number as u8).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of such a payload, which must be whole.
#[track_caller]
pub fn number_of(payload: &[u8]) -> u64 {
    let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
    let whole = numbered(number, payload.len());
    assert!(payload == whole, "frame {number} is torn");
    number
}
