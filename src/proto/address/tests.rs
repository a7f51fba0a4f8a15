//! Unit tests of `address`.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Address, AddressError> {
    text.parse()
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let longest = format!("{}:1", "h".repeat(HOST_BYTES_MAX));
    for (text, host, port) in [
        ("zk1:3888", "zk1", 3888),
        ("10.0.0.2:0", "10.0.0.2", 0),
        ("zk-0.zk_svc.default:65535", "zk-0.zk_svc.default", 65535),
        ("m\u{fc}ller:1", "m\u{fc}ller", 1),
        ("[::1]:3888", "::1", 3888),
        ("[0:0:0:0:0:0:0:1]:3888", "0:0:0:0:0:0:0:1", 3888),
        ("[fe80::1%eth0]:3888", "fe80::1%eth0", 3888),
        ("[fe80::1%2]:3888", "fe80::1%2", 3888),
        ("zoo.1:3888", "zoo.1", 3888),
        ("0:3888", "0", 3888),
        (&longest, &longest[..HOST_BYTES_MAX], 1),
    ] {
        let address = parse(text).unwrap();
        assert_eq!((address.host(), address.port()), (host, port));
        assert_eq!(address.to_string(), text);
    }
    assert_eq!(parse("a:03888").unwrap().port(), 3888);
}

#[test]
fn invalid_addresses_are_refused_with_a_reason() {
    let too_long = format!("{}:1", "h".repeat(HOST_BYTES_MAX + 1));
    let long_scope = format!("[::1%{}]:1", "e".repeat(HOST_BYTES_MAX));
    for (text, why) in [
        ("", AddressError::Empty),
        (":3888", AddressError::NoHost),
        ("[]:3888", AddressError::NoHost),
        ("zk1", AddressError::NoPort),
        ("zk1:", AddressError::NoPort),
        ("[::1]", AddressError::NoPort),
        ("[::1]3888", AddressError::NoPort),
        ("[::1]:", AddressError::NoPort),
        ("zk1:+3888", AddressError::BadPort),
        ("zk1:-1", AddressError::BadPort),
        ("zk1:65536", AddressError::BadPort),
        ("zk1:99999999999999999999", AddressError::BadPort),
        ("zk1:38 88", AddressError::BadPort),
        ("zk1:3888 ", AddressError::BadPort),
        ("zk1:\u{663}", AddressError::BadPort),
        ("::1:3888", AddressError::Unbracketed),
        ("2001:db8::1:3888", AddressError::Unbracketed),
        ("a:b:1", AddressError::Unbracketed),
        ("[::1:3888", AddressError::Unclosed),
        ("[10.0.0.1]:3888", AddressError::NotIpv6),
        ("[zk1]:3888", AddressError::NotIpv6),
        ("[::1%]:3888", AddressError::NotIpv6),
        ("[::1%a b]:3888", AddressError::NotIpv6),
        ("[::g]:3888", AddressError::NotIpv6),
        (" zk1:3888", AddressError::BadCharacter(' ')),
        ("zk\n1:3888", AddressError::BadCharacter('\n')),
        ("zk\u{202e}1:3888", AddressError::BadCharacter('\u{202e}')),
        ("zk\u{0}:3888", AddressError::BadCharacter('\u{0}')),
        ("a|b:1", AddressError::BadCharacter('|')),
        ("a:1;b:1", AddressError::BadCharacter(';')),
        ("a:1/b:1", AddressError::BadCharacter('/')),
        ("a:1,b:1", AddressError::CommaList),
        ("[::1]:1,[::2]:1", AddressError::CommaList),
        ("a:1:2", AddressError::TwoPorts),
        ("[::1]:1:2", AddressError::TwoPorts),
        ("a:1:2:observer;3", AddressError::TwoPorts),
        ("a:1:2:", AddressError::TwoPorts),
        ("256.1.1.1:1", AddressError::NotIpv4),
        ("1.2.3:1", AddressError::NotIpv4),
        ("1.2.3.4.:1", AddressError::NotIpv4),
        ("1.2.3.4.5:1", AddressError::NotIpv4),
        ("010.0.0.1:1", AddressError::NotIpv4),
        ("1:1", AddressError::NotIpv4),
        (".:1", AddressError::NotIpv4),
        ("fe80%eth0:1", AddressError::BadCharacter('%')),
        ("::1]:1", AddressError::Unbracketed),
        (&too_long, AddressError::HostTooLong(HOST_BYTES_MAX + 1)),
        (&long_scope, AddressError::HostTooLong(HOST_BYTES_MAX + 4)),
    ] {
        assert_eq!(parse(text), Err(why), "{text:?}");
    }
}

#[test]
fn invisible_letters_are_refused() {
    for blank in BLANK_LETTERS {
        assert!(blank.is_alphanumeric(), "needless: {blank:?}");
        let why = Err(AddressError::BadCharacter(blank));
        assert_eq!(parse(&format!("zk{blank}1:3888")), why);
    }
    // The characters that Unicode defines as invisible (Default_Ignorable_Code_Point), and all white space.
    let ignorable = [
        0xad..=0xad,
        0x34f..=0x34f,
        0x61c..=0x61c,
        0x115f..=0x1160,
        0x17b4..=0x17b5,
        0x180b..=0x180f,
        0x200b..=0x200f,
        0x202a..=0x202e,
        0x2060..=0x206f,
        0x3164..=0x3164,
        0xfe00..=0xfe0f,
        0xfeff..=0xfeff,
        0xffa0..=0xffa0,
        0xfff0..=0xfff8,
        0x1bca0..=0x1bca3,
        0x1d173..=0x1d17a,
        0xe0000..=0xe0fff_u32,
    ];
    let blank = char::from_u32(0x2800);
    let space = ('\0'..=char::MAX).filter(|one| one.is_whitespace() || one.is_control());
    let ignorable = ignorable.into_iter().flatten().filter_map(char::from_u32);
    for character in ignorable.chain(blank).chain(space) {
        assert!(
            parse(&format!("zk{character}1:3888")).is_err(),
            "{character:?}"
        );
    }
}

#[test]
fn equivalent_addresses_have_one_canonical_form() {
    let canonical = |text: &str| parse(text).unwrap().canonical();
    for (text, other) in [
        ("ZK1.Example:1", "zk1.example.:1"),
        ("[0:0:0:0:0:0:0:1]:1", "[::1]:1"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
        ("[FE80::1%eth0]:1", "[fe80:0::1%eth0]:1"),
        ("[2001:db8::1%eth0]:1", "[2001:DB8::1]:1"),
    ] {
        assert_eq!(canonical(text), canonical(other));
    }
    for (text, other) in [
        ("zk1:1", "zk1:2"),
        ("zk1:1", "zk2:1"),
        ("[fe80::1%eth0]:1", "[fe80::1%eth1]:1"),
        ("localhost:1", "127.0.0.1:1"),
    ] {
        assert_ne!(canonical(text), canonical(other));
    }
}

#[test]
fn a_literal_has_an_ip_and_a_name_has_none() {
    let ip = |host: &str| Address::new(host, 1).ip().map(|ip| ip.to_string());
    assert_eq!(ip("10.0.0.2").as_deref(), Some("10.0.0.2"));
    assert_eq!(ip("0:0:0:0:0:0:0:1").as_deref(), Some("::1"));
    assert_eq!(ip("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
    assert_eq!(ip("2001:db8::1%eth0").as_deref(), Some("2001:db8::1"));
    assert_eq!(ip("fe80::1").as_deref(), Some("fe80::1"));
    for host in ["fe80::1%eth0", "10.0.0.1%eth0", "zk1", "1.2.3", "localhost"] {
        assert_eq!(ip(host), None, "{host}");
    }
}

#[test]
fn wildcards_are_recognized_in_every_spelling() {
    for host in [
        "0.0.0.0",
        "0",
        "00",
        "0.0",
        "::",
        "0:0:0:0:0:0:0:0",
        "::%lo",
        "::ffff:0.0.0.0",
    ] {
        assert!(Address::new(host, 3888).is_wildcard(), "{host}");
    }
    for host in [
        "10.0.0.0",
        "::1",
        "0.0.0.0.example",
        "zk0",
        "",
        "0.",
        "127.0.0.1",
    ] {
        assert!(!Address::new(host, 3888).is_wildcard(), "{host:?}");
    }
}

#[test]
fn a_list_has_no_empty_parts() {
    let (a, b) = (Address::new("a", 1), Address::new("::1", 2));
    assert_eq!(parse_list("a:1"), Ok(vec![a.clone()]));
    assert_eq!(parse_list("a:1|[::1]:2"), Ok(vec![a, b]));
    for text in ["", "|", "a:1|", "|a:1", "a:1||b:2"] {
        assert_eq!(parse_list(text), Err(AddressError::Empty), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_error_or_an_address_that_round_trips(text in "\\PC{0,40}|[\\[\\]:%|.0-9a-f]{0,24}") {
        if let Ok(address) = parse(&text) {
            prop_assert_eq!(parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn ip_literals_round_trip(ip in any::<IpAddr>(), port in any::<u16>()) {
        let address = Address::new(ip.to_string(), port);
        prop_assert_eq!(address.ip(), Some(ip.to_canonical()));
        prop_assert_eq!(address.to_string(), SocketAddr::new(ip, port).to_string());
        prop_assert_eq!(parse(&address.to_string()), Ok(address));
    }
}

#[test]
fn a_socket_address_becomes_an_address() {
    for text in ["10.0.0.1:3888", "[::1]:3888", "[fe80::1%3]:3888"] {
        let addr: SocketAddr = text.parse().unwrap();
        assert_eq!(Address::from(addr).to_string(), text);
    }
}
