//! What was found, one line each, as it is found.

use std::fmt::Display;
use std::io::{self, Write as _};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// Prints findings and counts them.
#[derive(Debug, Default)]
pub(in crate::cli) struct Report {
    warnings: usize,
    problems: usize,
}

impl Report {
    /// Something is as it should be.
    #[expect(clippy::unused_self, reason = "one way to say all three")]
    pub(in crate::cli) fn ok(&self, part: &str, text: impl Display) {
        line(Level::Ok, part, &text);
    }

    /// Something works but deserves a look; the text says what to do.
    pub(in crate::cli) fn warning(&mut self, part: &str, text: impl Display) {
        self.warnings += 1;
        line(Level::Warning, part, &text);
    }

    /// Something doesn't work; the text says what to do.
    pub(in crate::cli) fn problem(&mut self, part: &str, text: impl Display) {
        self.problems += 1;
        line(Level::Problem, part, &text);
    }

    /// A problem if `strict`, else a warning.
    pub(super) fn complaint(&mut self, strict: bool, part: &str, text: impl Display) {
        if strict { self.problem(part, text) } else { self.warning(part, text) }
    }

    #[cfg(test)]
    pub(super) fn warnings(&self) -> usize {
        self.warnings
    }

    #[cfg(test)]
    pub(super) fn problems(&self) -> usize {
        self.problems
    }

    /// Prints the sum, and says whether there was no problem.
    pub(in crate::cli) fn finish(self) -> bool {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let sum = match (self.problems, self.warnings) {
            (0, 0) => "All is well.".to_owned(),
            (0, warnings) => format!("No problem, {}.", count(warnings, "warning")),
            (problems, warnings) => format!("{}, {}.", count(problems, "problem"), count(warnings, "warning")),
        };
        print(&sum);
        self.problems == 0
    }
}

fn line(level: Level, part: &str, text: &dyn Display) {
    let word = match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
    };
    print(&format!("{word:<8} {part}: {text}"));
}

/// A reader who has gone away is nobody's problem.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
