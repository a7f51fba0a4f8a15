//! The terminal: its size, its colours, and lines that are cut or wrapped to its width.

use std::{
    env,
    io::{self, IsTerminal as _},
    mem,
};

use console::Term;

/// Used where the size is unknown.
const DEFAULT_SIZE: (usize, usize) = (24, 80);

/// Standard output, if it is a terminal on which the cursor can be moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) has_colours: bool,
}

impl Terminal {
    /// `NO_COLOR` with any value but none forbids colours: <https://no-color.org>.
    pub(crate) fn find() -> Option<Self> {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = !is_set("TERM") || env::var_os("TERM").is_some_and(|term| term == "dumb");
        (io::stdout().is_terminal() && !is_dumb).then(|| Self {
            has_colours: !is_set("NO_COLOR"),
        })
    }

    /// Rows and columns that can be used. The last column is left out: erasing the rest of a line would erase a letter there.
    #[allow(
        clippy::unused_self,
        reason = "there is a size only if there is a terminal"
    )]
    pub(crate) fn size(self) -> (usize, usize) {
        let size = Term::stdout().size_checked();
        let (rows, columns) = size.map_or(DEFAULT_SIZE, |(rows, columns)| {
            (rows.into(), columns.into())
        });
        (rows.max(2), columns.max(2) - 1)
    }
}

/// How a line, or its beginning, looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    /// Titles.
    Bold,
    /// Less important text.
    Dim,
    Good,
    Bad,
}

impl Style {
    /// The escape sequence that switches it on: SGR of ECMA-48.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

/// A line of ASCII. A prefix of it, or all of it, has a style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    style: Style,
    /// The number of letters that have the style.
    styled: usize,
}

impl Line {
    pub(crate) fn plain(text: &str) -> Self {
        Self::with_prefix(Style::Plain, 0, text)
    }

    /// A line with this style.
    pub(crate) fn styled(style: Style, text: &str) -> Self {
        Self::with_prefix(style, usize::MAX, text)
    }

    /// A line whose first `styled` letters have this style.
    pub(crate) fn with_prefix(style: Style, styled: usize, text: &str) -> Self {
        Self {
            // From here on a letter is one byte and one column.
            text: text.replace(|letter: char| !letter.is_ascii(), "?"),
            style,
            styled,
        }
    }

    /// Cuts the line off at this width.
    pub(crate) fn cut(mut self, columns: usize) -> Self {
        self.text.truncate(columns);
        self
    }

    /// Wraps the line between words to this width. All lines but the first are indented.
    pub(crate) fn wrap(&self, columns: usize, indent: usize) -> Vec<Self> {
        // Leaves room for a letter on the narrowest terminal.
        let indent = " ".repeat(indent.min(columns / 2));
        let (mut lines, mut line) = (Vec::new(), String::new());
        for word in self.text.split_inclusive(' ') {
            if !line.trim().is_empty() && line.len() + word.trim_end().len() > columns {
                lines.push(mem::replace(&mut line, indent.clone()));
            }
            line += word;
            while line.trim_end().len() > columns {
                let rest = line.split_off(columns);
                lines.push(mem::replace(&mut line, format!("{indent}{rest}")));
            }
        }
        lines.push(line);
        let styled = |(nth, text): (usize, String)| Self {
            text: text.trim_end().to_owned(),
            style: self.style,
            styled: if nth == 0 || self.styled == usize::MAX {
                self.styled
            } else {
                0
            },
        };
        lines.into_iter().enumerate().map(styled).collect()
    }

    /// The text with the escape sequences of its style.
    pub(crate) fn paint(&self, has_colours: bool) -> String {
        if self.style == Style::Plain || !has_colours {
            return self.text.clone();
        }
        let (head, rest) = self.text.split_at(self.styled.min(self.text.len()));
        format!("{}{head}\x1b[0m{rest}", self.style.code())
    }
}
