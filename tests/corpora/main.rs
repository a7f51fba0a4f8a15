//! The inputs that fuzzers have kept, and random ones, given to the fuzz targets.
//!
//! A target is a file beside this one: a function that takes any bytes and panics when a promise is broken. Nothing here looks for
//! new inputs: `fuzz/run.sh` does, and keeps them in `fuzz/corpus`.

mod answer;
#[cfg(feature = "tls")]
mod certificate_names;
#[cfg(feature = "tls")]
mod certificates;
mod config;
mod frames;
mod initial_message;
mod input;
mod link;
mod membership;
mod membership_model;
mod net;
mod notification;
#[cfg(feature = "tls")]
mod tls_accept;
#[cfg(feature = "tls")]
mod tls_memory;
#[cfg(feature = "tls")]
mod tls_stream;

#[path = "../../examples/election/notification.rs"]
#[allow(dead_code, reason = "only its grammar is needed here")]
mod message;

use std::{fs, panic::catch_unwind, path::Path, thread};

use proptest::prelude::*;

/// Gives all inputs that are kept for a target to it.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut kept: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("the corpus is missing: {}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    kept.sort();
    assert!(
        kept.len() >= 10,
        "{} inputs in {}",
        kept.len(),
        dir.display()
    );
    for path in &kept {
        let bytes = fs::read(path).unwrap();
        if catch_unwind(|| check(&bytes)).is_err() {
            panic!("the target failed with {}: see above", path.display());
        }
    }
    println!("{target}: {} inputs", kept.len());
}

#[test]
fn kept_inputs_pass() {
    thread::scope(|scope| {
        scope.spawn(|| replay("initial_message", initial_message::check));
        scope.spawn(|| replay("answer", answer::check));
        scope.spawn(|| replay("frames", frames::check));
        scope.spawn(|| replay("link", link::check));
        scope.spawn(|| replay("membership", membership::check));
        scope.spawn(|| replay("config", config::check));
        scope.spawn(|| replay("notification", notification::check));
    });
}

#[cfg(feature = "tls")]
#[test]
fn kept_inputs_with_tls_pass() {
    thread::scope(|scope| {
        scope.spawn(|| replay("tls_accept", tls_accept::check));
        scope.spawn(|| replay("tls_stream", tls_stream::check));
        scope.spawn(|| replay("certificate_names", certificate_names::check));
    });
}

/// Random bytes seldom begin as an initial message does.
fn almost_an_initial_message() -> impl Strategy<Value = Vec<u8>> {
    let version = prop::sample::select(vec![-65_536_i64, -65_535, -65_534, -1, 5]);
    let text = "[a-z0-9.:|\\[\\]-]{0,40}|(10\\.0\\.0\\.[1-9]:[0-9]{1,5}\\|?){1,4}";
    (version, any::<i64>(), text).prop_map(|(version, sid, text)| {
        let mut bytes = version.to_be_bytes().to_vec();
        bytes.extend(sid.to_be_bytes());
        bytes.extend((text.len() as i32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    })
}

fn almost_a_native_initial_message() -> impl Strategy<Value = Vec<u8>> {
    let sids = prop::sample::select(vec![0_i64, 5, 1000, 2000, i64::MAX]);
    let to = prop::sample::select(vec![1000_i64, 1001]);
    let text = "[a-z0-9.:|]{0,20}|(10\\.0\\.0\\.[1-9]:[0-9]{1,5}\\|?){1,4}|";
    (sids, to, 0..3_u64, text).prop_map(|(from, to, incarnation, text)| {
        let mut bytes = (-65_533_i64).to_be_bytes().to_vec();
        bytes.extend(from.to_be_bytes());
        bytes.extend((-1_i32).to_be_bytes());
        bytes.extend(to.to_be_bytes());
        bytes.extend([0; 16]);
        bytes.extend(incarnation.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend((text.len() as i32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    })
}

fn almost_an_answer() -> impl Strategy<Value = Vec<u8>> {
    let sid = prop::sample::select(vec![2_i64, 9, 3]);
    (any::<u8>(), sid, -1..10_i32).prop_map(|(flags, sid, code)| {
        let mut bytes = vec![flags];
        bytes.extend((-65_533_i64).to_be_bytes());
        bytes.extend(sid.to_be_bytes());
        bytes.extend([7; 16]);
        bytes.extend(code.to_be_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        initial_message::check(&bytes);
        answer::check(&bytes);
        frames::check(&bytes);
        link::check(&bytes);
        config::check(&bytes);
        notification::check(&bytes);
        #[cfg(feature = "tls")]
        {
            tls_accept::check(&bytes);
            tls_stream::check(&bytes);
            certificate_names::check(&bytes);
        }
    }

    #[test]
    fn members_change_as_the_model_says(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        membership::check(&bytes);
    }

    #[test]
    fn changed_native_messages_pass(
        mut bytes in almost_a_native_initial_message(),
        mut answer in almost_an_answer(),
        at in any::<prop::sample::Index>(),
        flip in any::<u8>(),
    ) {
        for bytes in [&mut bytes, &mut answer] {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        initial_message::check(&bytes);
        answer::check(&answer);
    }

    #[test]
    fn changed_initial_messages_pass(mut bytes in almost_an_initial_message(), at in any::<prop::sample::Index>(), flip in any::<u8>()) {
        initial_message::check(&bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        initial_message::check(&bytes);
    }
}
