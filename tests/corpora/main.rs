//! Replays the corpora of the fuzz targets on stable Rust, and runs the targets with random inputs.
//!
//! A target is a file in this folder: a function that takes any bytes, and panics if a property does not hold. `fuzz/run.sh`
//! finds new inputs and adds them to `fuzz/corpus`.

mod config;
mod frames;
mod initial_message;
mod input;
mod link;
mod net;
mod notification;

#[path = "../../examples/election/notification.rs"]
#[allow(dead_code, reason = "only its grammar is needed here")]
mod message;

use std::{fs, panic::catch_unwind, path::Path};

use proptest::prelude::*;

/// Runs a target with all inputs of its corpus.
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
            panic!("it failed (see above) with {}", path.display());
        }
    }
    println!("{target}: {} inputs", kept.len());
}

#[test]
fn what_is_kept_of_initial_messages_still_holds() {
    replay("initial_message", initial_message::check);
}

#[test]
fn what_is_kept_of_frames_still_holds() {
    replay("frames", frames::check);
}

#[test]
fn what_is_kept_of_links_still_holds() {
    replay("link", link::check);
}

#[test]
fn what_is_kept_of_configurations_still_holds() {
    replay("config", config::check);
}

#[test]
fn what_is_kept_of_notifications_still_holds() {
    replay("notification", notification::check);
}

/// Bytes that begin like an initial message, which random bytes rarely do.
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_as_good(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        initial_message::check(&bytes);
        frames::check(&bytes);
        link::check(&bytes);
        config::check(&bytes);
        notification::check(&bytes);
    }

    #[test]
    fn almost_an_initial_message_is_one_or_none(mut bytes in almost_an_initial_message(), at in any::<prop::sample::Index>(), flip in any::<u8>()) {
        initial_message::check(&bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        initial_message::check(&bytes);
    }
}
