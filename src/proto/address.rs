//! stub
use std::net::IpAddr;
/// a
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}
impl Address {
    /// a
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
    /// a
    pub fn host(&self) -> &str {
        &self.host
    }
    /// a
    pub fn port(&self) -> u16 {
        self.port
    }
    /// a
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
/// a
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError;
impl std::fmt::Display for AddressError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bad")
    }
}
pub(crate) fn parse_list(t: &str) -> Result<Vec<Address>, AddressError> {
    t.split('|')
        .map(|p| {
            let (h, p) = p.rsplit_once(':').ok_or(AddressError)?;
            Ok(Address::new(h, p.parse().map_err(|_| AddressError)?))
        })
        .collect()
}
