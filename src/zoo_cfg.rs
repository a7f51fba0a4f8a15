//! stub
use crate::proto::{Address, Sid};
use std::time::Duration;
pub(crate) struct ZooCfg {
    pub(crate) servers: Vec<Server>,
    pub(crate) tick_time: Option<Duration>,
    pub(crate) sync_limit: Option<u32>,
    pub(crate) cnx_timeout: Option<Duration>,
    pub(crate) election_port_bind_retry: Option<u32>,
    pub(crate) quorum_cnxn_timeout: Option<Duration>,
    pub(crate) quorum_listen_on_all_ips: bool,
    pub(crate) multi_address_enabled: bool,
    pub(crate) dynamic_config_file: Option<String>,
}
pub(crate) struct Server {
    pub(crate) sid: Sid,
    pub(crate) election: Vec<Address>,
}
pub(crate) struct ZooCfgError {
    pub(crate) line: usize,
    pub(crate) why: String,
}
pub(crate) fn parse(_: &str) -> Result<ZooCfg, ZooCfgError> {
    Err(ZooCfgError {
        line: 0,
        why: String::new(),
    })
}
pub(crate) fn parse_servers(_: &str) -> Result<Vec<Server>, ZooCfgError> {
    Ok(vec![])
}
