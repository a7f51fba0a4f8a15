//! A table of measurements, printed, and written to `target/figures`.
//!
//! Nothing here checks a value.

use std::fs;

use comfy_table::{ContentArrangement, Table, presets};

use crate::target_dir;

/// A table with a name, written when it is complete.
pub struct ResultTable {
    name: &'static str,
    table: Table,
}

impl ResultTable {
    pub fn new(name: &'static str, columns: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(columns.to_vec());
        Self { name, table }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// Prints it, and writes it to `target/figures`.
    pub fn tell(&self) {
        println!("{}\n{}", self.name, self.table);
        let dir = target_dir().join("figures");
        fs::create_dir_all(&dir).unwrap();
        let text = format!("{}\n", self.table);
        fs::write(dir.join(format!("{}.md", self.name)), text).unwrap();
    }
}
