//! A client of HTTP that asks once on a connection.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::LONG;

/// Sends this request, and returns the head and the body of the response.
#[track_caller]
pub fn request(address: &str, request: &str) -> (String, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LONG)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    (head.to_owned(), body.to_owned())
}

/// The body of a successful answer. With HTTP/1.0, which has no chunks.
#[track_caller]
pub fn get(address: &str, path: &str) -> String {
    let (head, body) = request(address, &format!("GET {path} HTTP/1.0\r\n\r\n"));
    assert!(
        head.split(' ').nth(1) == Some("200"),
        "{path}: {head}\n{body}"
    );
    body
}
