//! `cargo bench --bench frames`: measures latency and throughput of frames, compared to bare sockets and to other programs.
//!
//! Nothing is asserted about time. Without `--bench` this is a test that everything runs.

mod cli;
mod ends;
mod failure;
mod harness;
mod metrics;
mod output;
mod variants;
mod workloads;

use std::{env, io, path::Path, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::{
    cli::{Cli, End, Run},
    ends::{Control, Role, Task},
    output::print_error,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // `cargo bench` starts it in the folder of its package. Paths in options are relative to the root of the repository.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if env::current_dir().is_ok_and(|current| current == package) {
        // If it fails, paths in options are relative to the package.
        let _ = env::set_current_dir(package.join(".."));
    }
    let checked = match &cli.end {
        Some(End::Serve(task) | End::Drive(task)) => task.check(),
        None => harness::check(&cli.run),
    };
    if let Err(why) = checked {
        Cli::command().error(ErrorKind::ValueValidation, why).exit();
    }
    let done = match cli.end {
        Some(End::Serve(task)) => end(&Task {
            role: Role::Serve,
            ..task
        }),
        Some(End::Drive(task)) => end(&Task {
            role: Role::Drive,
            ..task
        }),
        None => harness::run(&Run {
            test: cli.run.test || !cli.bench,
            ..cli.run
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("frames: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one end in this process.
fn end(task: &Task) -> io::Result<()> {
    let seconds = |n: u32| Duration::from_secs(n.into());
    let control = Control::of_process(seconds(task.at_most()), task.seconds.map(seconds));
    let results = ends::run(task, &control)?;
    control.answer(results);
    Ok(())
}
