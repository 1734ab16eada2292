//! Just enough reading of Rust to find the names of modules and crates.

/// One file, with its path below the folder that was searched.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The first module on the way to this file.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').next().map_or("", |first| first.trim_end_matches(".rs"))
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

/// The rooms that a file names, with the lines: by `crate::`, `pointsman::`, or by climbing with `super::`.
pub(crate) fn named_rooms(source: &Source) -> Vec<(usize, String)> {
    let code = without_comments_and_tests(&source.text);
    let mut found = Vec::new();
    for root in ["crate", "pointsman"] {
        for at in occurrences(&code, root) {
            found.extend(names_after(&code, at + root.len()).into_iter().map(|name| (line_of(&code, at), name)));
        }
    }
    // From depth d (`store/etcd.rs` has depth 2) the d-th `super` is the crate's root.
    let depth = source.path.matches('/').count() + 1;
    let climb = vec!["super"; depth].join("::");
    for at in occurrences(&code, &climb) {
        found.extend(names_after(&code, at + climb.len()).into_iter().map(|name| (line_of(&code, at), name)));
    }
    found
}

/// Which of the given crates a file names in a path, with the lines.
pub(crate) fn named_crates<'a>(source: &Source, names: impl Iterator<Item = &'a str>) -> Vec<(usize, String)> {
    let code = without_comments_and_tests(&source.text);
    let mut found = Vec::new();
    for name in names {
        for at in occurrences(&code, name) {
            let before = code[..at].trim_end();
            let imported = before.ends_with("use") && code[at + name.len()..].trim_start().starts_with([';', ' ']);
            // `foo::axum::` is somebody else's module of that name; `::axum::` is the crate.
            let inside_a_path = before.strip_suffix("::").is_some_and(|b| b.ends_with(|c: char| c.is_alphanumeric()));
            if (is_path_start(&code, at + name.len()) || imported) && !inside_a_path {
                found.push((line_of(&code, at), name.to_owned()));
            }
        }
    }
    found
}

/// The files that the `mod name;` lines of a file stand for.
pub(crate) fn declared_modules(source: &Source, roots: &[&str]) -> Vec<String> {
    let folder = if roots.contains(&source.path.as_str()) {
        String::new()
    } else {
        format!("{}/", source.path.trim_end_matches(".rs"))
    };
    without_comments(&source.text)
        .lines()
        .filter_map(|line| {
            let declaration = line.trim().strip_suffix(';')?;
            let (visibility, name) = declaration.split_once("mod ")?;
            (visibility.is_empty() || visibility.trim().starts_with("pub"))
                .then(|| format!("{folder}{}.rs", name.trim()))
        })
        .collect()
}

/// The code without comments, the content of literals, and the inline tests at its end; line numbers stay.
pub(crate) fn without_comments_and_tests(text: &str) -> String {
    let code = without_comments(text);
    let end = code.match_indices("#[cfg(test)]").find_map(|(at, attribute)| {
        let next = code[at + attribute.len()..].trim_start();
        let inline = next.starts_with("mod ") && next.find('{').is_some_and(|open| !next[..open].contains(';'));
        inline.then_some(at)
    });
    code[..end.unwrap_or(code.len())].to_owned()
}

fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = literal_or_comment(rest);
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (piece, after) = rest.split_at(skipped);
        if piece.starts_with('\'') {
            code.push_str("''");
        } else if !piece.starts_with('/') {
            code.push_str("\"\"");
        }
        code.extend(piece.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    code
}

/// The length of the comment or literal that `rest` begins with; 0 if it begins with neither.
fn literal_or_comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // A lifetime has no closing quote right after its first character.
        let mut chars = after.chars();
        let first = chars.next();
        return if first == Some('\\') || chars.next() == Some('\'') { quoted(rest, '\'') } else { 0 };
    }
    if rest.starts_with("r\"") || rest.starts_with("r#") {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            return rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
        }
    }
    0
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Where `word` stands as a word of its own. Blanks inside `a::b` are not expected: rustfmt removes them.
fn occurrences(code: &str, word: &str) -> Vec<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !code[..at].ends_with(part_of_name) && !code[at + word.len()..].starts_with(part_of_name))
        .collect()
}

fn is_path_start(code: &str, after: usize) -> bool {
    code[after..].trim_start().starts_with("::")
}

/// The names that follow `crate` at `after`: one for `crate::a::b`, several for `crate::{a::b, c}`.
fn names_after(code: &str, after: usize) -> Vec<String> {
    let Some(path) = code[after..].trim_start().strip_prefix("::") else { return Vec::new() };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return vec![leading_name(path)];
    };
    let mut names = vec![leading_name(group.trim_start())];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(leading_name(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}
