//! The network of [openraft] on quorum-cnx: one link for each pair of nodes, and requests with replies over it.
//!
//! ```no_run
//! # use std::{error::Error, sync::Arc};
//! # use openraft_memstore::TypeConfig;
//! use quorum_cnx::{Config, Sid};
//! use raft_links::{Network, Rpc};
//!
//! # async fn start() -> Result<(), Box<dyn Error + Send + Sync>> {
//! // The id of a node in openraft is its sid here. Its address is in this configuration only.
//! let config = Config::builder(Sid(1))
//!     .server(Sid(1), "10.0.0.1:7001")
//!     .server(Sid(2), "10.0.0.2:7001")
//!     .server(Sid(3), "10.0.0.3:7001")
//!     .cluster_id(*b"an example of us");
//! let (rpc, links) = Rpc::start(config)?;
//! let (log, state) = openraft_memstore::new_mem_store();
//! let options = Arc::new(openraft::Config::default().validate()?);
//! let raft = openraft::Raft::new(1, options, Network(Arc::new(rpc)), log, state).await?;
//! // Ends when the links have halted.
//! raft_links::serve::<TypeConfig, _>(links, raft).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here stores a log or decides anything.

mod network;
mod rpc;
mod server;
mod wire;

pub use network::{Network, Peer};
pub use rpc::{BODY_BYTES_MAX, CallError, Links, PENDING_MAX, Rpc, SERVED_MAX};
pub use server::{SNAPSHOT_BYTES_MAX, serve};
