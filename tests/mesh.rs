//! The program `mesh`: it must show what the README says of it.
//!
//! Whether the promises hold is tested elsewhere; here is tested that it looks, and says so.

mod common;

use std::process::{Command, Output};

use common::{program::example_path, within};

/// Runs it to its end, into a pipe.
#[track_caller]
fn mesh(arguments: &'static [&'static str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = within("the program", move || {
        let mut command = Command::new(example_path("mesh"));
        command.args(arguments).output().unwrap()
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_demonstration_kills_a_server_and_every_promise_holds() {
    let (code, said, errors) = mesh(&["--seconds", "2"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    for line in [
        "server 3 has died in the middle of a turn",
        "all others know",
        "server 3 is started again, on its port",
        "all are linked again",
        "held    one link for each pair, dialed by the larger id at both ends",
        "held    everybody has everybody's last value",
        "held    no older value after a newer one",
        "held    every account balances",
        "held    the dead server was missed by all, and is linked with all again",
        "held    all have halted, and their ports are free",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(!said.contains('\x1b'), "colours in a pipe: {said:?}");
}

#[test]
fn a_wrong_length_is_refused() {
    let (code, said, errors) = mesh(&["--seconds", "1"]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    assert!(errors.contains("--seconds"), "{errors}");
}
