//! `docs/api.md` promises that a test holds each difference from configurable-http-proxy: this one holds that promise.

use std::path::Path;

#[test]
fn every_difference_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path} can't be read: {error}"))
    };
    let docs = read("docs/api.md");
    let (_, table) = docs.split_once("## Where Pointsman differs").expect("the section is there");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table has {} rows only", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last column");
        for test in tests.split(", ") {
            let (file, name) = test.trim_matches('`').split_once("::").unwrap_or_else(|| panic!("no test in: {row}"));
            let source = read(&format!("tests/integration/{file}.rs"));
            assert!(source.contains(&format!("fn {name}(")), "there is no {test}, named in: {row}");
        }
    }
}
