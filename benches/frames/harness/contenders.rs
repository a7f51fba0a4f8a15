//! Finds the other programs that are measured (contenders). The program `compare` lists them.
//!
//! Nothing here is built or downloaded. A missing program is left out, with a note.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{child::Process, plan::Cell};
use crate::{
    failure::{While, failure},
    output::print_error,
    workloads::Workload,
};

/// Time for `compare` to print the list.
const LIST: Duration = Duration::from_secs(20);

/// The command that builds `compare`.
const BUILD: &str = "cargo build --release --manifest-path benches/compare/Cargo.toml";

/// Another program.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// The command line in front of `serve` and `drive`.
    pub(crate) command: Vec<OsString>,
    workloads: Vec<String>,
}

/// More managers in one Java virtual machine take too long: each has two threads for every other one.
const JAVA_MANAGERS_MAX: u32 = 9;

impl Contender {
    pub(crate) fn takes_part(&self, cell: Cell) -> bool {
        if cell.workload == Workload::Mesh {
            return self.builds_meshes() && cell.count <= JAVA_MANAGERS_MAX;
        }
        self.workloads
            .iter()
            .any(|name| name == cell.workload.name())
    }

    /// Whether it can measure meshes: ZooKeeper can, by a command that needs neither `mark` nor `stop`.
    fn builds_meshes(&self) -> bool {
        let is_java = |argument: &OsString| argument.to_string_lossy().starts_with("java");
        self.command.get(1).is_some_and(is_java)
    }

    /// The command that measures meshes.
    pub(crate) fn mesh_command(&self, managers: u32) -> Vec<OsString> {
        let arguments = ["mesh", "--managers", &managers.to_string()].map(OsString::from);
        [&self.command[..], &arguments].concat()
    }
}

/// An entry of the list.
#[derive(Deserialize)]
struct Listed {
    name: String,
    command: Vec<String>,
    workloads: Vec<String>,
}

/// Asks `compare` for the list, if it is built.
pub(crate) fn find(given: Option<&Path>) -> io::Result<Vec<Contender>> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("compare/target/release/compare");
    let program = given.map_or_else(usual, PathBuf::from);
    if !program.is_file() {
        if given.is_some() {
            let program = program.display();
            return Err(failure(format_args!(
                "--compare {program}: there is no such file; build it: {BUILD}"
            )));
        }
        print_error(format_args!(
            "note: without other programs; to build them: {BUILD}"
        ));
        return Ok(Vec::new());
    }
    let name = format!("{} list", program.display());
    let list = Process::start(name.clone(), &[program.clone().into(), "list".into()])?;
    let line = list.read_line("list of contenders", LIST)?;
    let listed: Vec<Listed> =
        serde_json::from_str(&line).context(format_args!("`{line}` from {name}"))?;
    list.end(LIST)?;
    let contender = |listed: Listed| Contender {
        name: listed.name,
        command: std::iter::once(program.clone().into())
            .chain(listed.command.into_iter().map(OsString::from))
            .collect(),
        workloads: listed.workloads,
    };
    Ok(listed.into_iter().map(contender).collect())
}
