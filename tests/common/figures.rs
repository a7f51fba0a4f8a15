//! What was measured: a table, printed and kept beside what cargo builds.
//!
//! Nothing here is promised; who reads it compares.

#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part of this"
)]

use std::{env, fs, path::PathBuf};

use comfy_table::{ContentArrangement, Table, presets};

/// A table with a name, written when it is complete.
pub(crate) struct Figures {
    name: &'static str,
    table: Table,
}

impl Figures {
    pub(crate) fn new(name: &'static str, columns: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(columns.to_vec());
        Self { name, table }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// Prints it, and writes it to `target/figures`.
    pub(crate) fn tell(&self) {
        println!("{}\n{}", self.name, self.table);
        let dir = folder();
        fs::create_dir_all(&dir).unwrap();
        let text = format!("{}\n", self.table);
        fs::write(dir.join(format!("{}.md", self.name)), text).unwrap();
    }
}

/// `target/figures`, wherever `target` is.
fn folder() -> PathBuf {
    // target/<profile>/deps/<this test>
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3);
    target
        .expect("cargo puts tests three levels deep")
        .join("figures")
}
