//! Tests against real ZooKeeper, over loopback: its class `QuorumCnxManager`, driven by a Java program, and whole servers.
//!
//! Nothing here is skipped: without a Java compiler or ZooKeeper's jars every test fails and says what to install
//! (`tests/interop/setup.sh` does it on Debian). `ZOOKEEPER_CLASSPATH` selects another release than Debian's. The class can be
//! driven in releases 3.8 and 3.9. Needs Linux, for `/proc`.

mod cnx_peer;
mod deadlines;
mod fixture;
mod java;
#[path = "../../../examples/election/notification.rs"]
#[allow(dead_code, reason = "these tests write and read one format")]
mod notification;
mod port;
mod process;
mod server;
mod voter;

mod addresses;
mod durations;
mod elections;
mod faults;
mod frames;
mod meshes;
mod onlookers;
mod pairs;
mod quiet_logs;
mod reconfigurations;
mod recoveries;
mod slow;
mod standing;
mod strangers;
