//! Counts instructions and system calls per frame with valgrind, so that a regression shows on a busy machine, too.
//!
//! Without `--bench` this is a test that runs each case once, without valgrind.

mod baseline;
mod cases;
mod counter;
mod memory;
#[path = "../frames/output.rs"]
mod output;

use std::{collections::BTreeMap, process::ExitCode};

use clap::Parser;

use baseline::{Baseline, Change, MadeWith};
use cases::{CASES, Case, Failure};
use counter::Count;
use output::{print_error, print_line};

/// Frames of each case in the test.
const FEW: u64 = 320;

/// Instructions and system calls per frame, compared to those of the baseline.
#[derive(Debug, Parser)]
#[command(
    name = "instructions",
    bin_name = "cargo bench --bench instructions --"
)]
struct Cli {
    /// Fails if a case takes over 5 % more instructions, or more system calls, than in the baseline
    #[arg(long, conflicts_with = "save")]
    check: bool,

    /// Saves the counts as the baseline
    #[arg(long)]
    save: bool,

    /// Only the cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "save")]
    only: String,

    /// Runs one case only: the command under valgrind
    #[arg(long, hide = true, requires = "frames")]
    case: Option<String>,

    #[arg(long, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,

    /// Given by `cargo bench`; without it this is a test that everything runs
    #[arg(long, hide = true)]
    bench: bool,

    /// Only tests that everything runs
    #[arg(long, hide = true)]
    test: bool,

    /// Given by `cargo bench NAME` to all benchmarks
    #[arg(hide = true)]
    name: Option<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            print_error(format_args!("instructions: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    if let (Some(name), Some(frames)) = (&cli.case, cli.frames) {
        let case = CASES.iter().find(|case| case.name == name);
        (case.ok_or("no such case")?.run)(frames)?;
        return Ok(ExitCode::SUCCESS);
    }
    if cli.test || !(cli.bench || cli.check || cli.save) {
        for case in &CASES {
            (case.run)(FEW).map_err(|error| format!("{}: {error}", case.name))?;
        }
        print_line(format_args!(
            "instructions: {} cases run; `cargo bench --bench instructions` counts them",
            CASES.len()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !CASES.iter().any(|case| case.name.contains(&cli.only)) {
        let names = Vec::from_iter(CASES.iter().map(|case| case.name)).join("; ");
        return Err(format!(
            "--only {}: no case has such a name; there are {names}",
            cli.only
        )
        .into());
    }
    if cfg!(debug_assertions) {
        return Err(
            "this is a debug build; count an optimized one: cargo bench --bench instructions"
                .into(),
        );
    }
    let Some(valgrind) = counter::version() else {
        return Err(
            "CANNOT COUNT: valgrind is not installed (Debian, Fedora, FreeBSD: valgrind)".into(),
        );
    };
    count(cli, &valgrind)
}

fn count(cli: &Cli, valgrind: &str) -> Result<ExitCode, Failure> {
    if cli.save {
        // Checked before minutes of counting.
        Baseline::check_writable()?;
    }
    let here = MadeWith::here()?;
    print_line(format_args!(
        "instructions and system calls per frame: rustc {}, {}, {valgrind}",
        here.rustc, here.target
    ))?;
    // `--save` replaces a baseline that cannot be read.
    let kept = match Baseline::load() {
        Err(_) if cli.save => None,
        kept => kept?,
    };
    let limit = kept
        .as_ref()
        .map_or(0.0, |kept| kept.made_with.growth_max(&here));
    if let Some(kept) = kept.as_ref().filter(|kept| kept.made_with != here) {
        let MadeWith { rustc, target } = &kept.made_with;
        print_line(format_args!(
            "THE BASELINE WAS MADE ELSEWHERE, with rustc {rustc} for {target}: up to {limit} % more is accepted"
        ))?;
    }
    print_line(format_args!(
        "{:<48} {:>10} {:>10} {:>8} {:>6} {:>8}",
        "case", "now", "baseline", "change", "calls", "baseline"
    ))?;
    let mut counts = BTreeMap::new();
    let (mut grown, mut unknown) = (Vec::new(), Vec::new());
    for case in CASES.iter().filter(|case| case.name.contains(&cli.only)) {
        let count = counter::per_frame(case)?;
        let before = kept.as_ref().and_then(|kept| kept.cases.get(case.name));
        let change = before.map(|before| Change::of(*before, count));
        show(case, count, change)?;
        match change {
            None => unknown.push(case.name),
            Some(change) if change.is_too_much(limit, case.slack) => grown.push(case.name),
            Some(_) => {}
        }
        let rounded = Count {
            instructions: (count.instructions * 10.0).round() / 10.0,
            system_calls: (count.system_calls * 100.0).round() / 100.0,
        };
        counts.insert(case.name.to_owned(), rounded);
    }
    if cli.save {
        let baseline = Baseline {
            made_with: here,
            cases: counts,
        };
        baseline.save()?;
        print_line(format_args!(
            "the baseline is saved: commit it with the reason for the change"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !cli.check {
        return Ok(ExitCode::SUCCESS);
    }
    if !unknown.is_empty() {
        return Err(format!(
            "no baseline of: {}. Make one: cargo bench --bench instructions -- --save",
            unknown.join("; ")
        )
        .into());
    }
    if grown.is_empty() {
        print_line(format_args!(
            "no case takes over {limit} % more instructions than the baseline, or more system calls"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    print_error(format_args!(
        "OVER {limit} % MORE INSTRUCTIONS, OR MORE SYSTEM CALLS: {}. Check first whether it fails without your change too \
         (`git stash`). To find them, run this program with `--case NAME --frames 20000` under `valgrind --tool=callgrind`, and then \
         callgrind_annotate. If the growth is justified: cargo bench --bench instructions -- --save, and commit the baseline with \
         the reason",
        grown.join("; ")
    ));
    Ok(ExitCode::FAILURE)
}

fn show(case: &Case, now: Count, change: Option<Change>) -> Result<(), Failure> {
    let [before, growth, calls] = change.map_or_else(
        || ["-"; 3].map(str::to_owned),
        |Change { before, growth, .. }| {
            [
                format!("{:.1}", before.instructions),
                format!("{growth:+.1} %"),
                format!("{:.2}", before.system_calls),
            ]
        },
    );
    print_line(format_args!(
        "{:<48} {:>10.1} {before:>10} {growth:>8} {:>6.2} {calls:>8}",
        case.name, now.instructions, now.system_calls
    ))?;
    Ok(())
}
