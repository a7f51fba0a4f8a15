//! Two and three managers on loopback.

use std::{net::TcpListener, time::Duration};

use quorum_cnx::{CnxManager, Config, Event, Sent, Sid};

const LONG: Duration = Duration::from_secs(20);

fn mesh(sids: &[i64]) -> Vec<CnxManager> {
    let listeners: Vec<TcpListener> = sids
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<String> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect();
    listeners
        .into_iter()
        .zip(sids)
        .map(|(listener, own)| {
            let mut builder = Config::builder(Sid(*own)).listener(listener);
            for (sid, address) in sids.iter().zip(&addresses) {
                builder = builder.server(Sid(*sid), address);
            }
            CnxManager::start(builder.build().unwrap()).unwrap()
        })
        .collect()
}

fn wait_up(manager: &CnxManager, sid: i64) {
    loop {
        match manager.events().recv_timeout(LONG).unwrap() {
            Event::Up { sid: Sid(up), .. } if up == sid => return,
            _ => {}
        }
    }
}

#[test]
fn two_managers_link_and_exchange_frames() {
    let mesh = mesh(&[1, 2]);
    wait_up(&mesh[0], 2);
    wait_up(&mesh[1], 1);
    assert_eq!(
        mesh[0].to_send(Sid(2), &b"hello"[..]).unwrap(),
        Sent::Written
    );
    let message = mesh[1].recv_timeout(LONG).unwrap();
    assert_eq!(
        (message.from, &message.payload[..]),
        (Sid(1), &b"hello"[..])
    );
    let large: Vec<u8> = (0..512 * 1024).map(|i| i as u8).collect();
    mesh[1].to_send(Sid(1), large.clone()).unwrap();
    let message = mesh[0].recv_timeout(LONG).unwrap();
    assert_eq!(message.payload, large);
    assert_eq!(mesh[0].to_send(Sid(1), &b"me"[..]).unwrap(), Sent::Loopback);
    assert_eq!(mesh[0].recv_timeout(LONG).unwrap().from, Sid(1));
    mesh[0].halt();
    assert!(mesh[0].to_send(Sid(2), &b"x"[..]).is_err());
    println!("{:?}", mesh[1].stats());
}
