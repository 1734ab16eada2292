//! `docs/configuration.md` lists every setting, as the program knows it.

use std::fmt::Write as _;
use std::path::Path;

use pointsman::config::settings::{Group, Kind, REFUSED, SETTINGS};

const BEGIN: &str = "<!-- settings: written by tests/integration/cli_docs.rs -->\n";
const END: &str = "<!-- end of settings -->\n";

#[test]
fn every_setting_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).expect("docs/configuration.md");
    let (before, rest) = text.split_once(BEGIN).expect("the line where the settings begin");
    let (found, after) = rest.split_once(END).expect("the line where the settings end");
    let wanted = settings();
    if std::env::var_os("POINTSMAN_TEST_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("docs/configuration.md");
        return;
    }
    assert_eq!(found, wanted, "run this test once with POINTSMAN_TEST_WRITE_DOCS=1, and commit the page");
}

fn settings() -> String {
    let mut page = String::new();
    for group in Group::ALL {
        let _ = write!(page, "\n### {}\n\n| Setting | Default | Meaning |\n|---|---|---|\n", group.heading());
        for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
            let many = match setting.kind {
                Kind::List => " (list)",
                Kind::Repeated => " (repeated)",
                Kind::One | Kind::Switch => "",
            };
            let default = setting.default.unwrap_or(if setting.kind == Kind::Switch { "false" } else { "" });
            let _ =
                writeln!(page, "| `{}`{many} | {default} | {}{} |", setting.name, setting.help, setting.scope.words());
        }
    }
    page.push_str("\n### Settings of configurable-http-proxy that are refused by name\n\n");
    page.push_str("| Setting | Why, and what to do |\n|---|---|\n");
    for refused in REFUSED {
        let _ = writeln!(page, "| `{}` | {}. |", refused.name, refused.why);
    }
    page.push('\n');
    page
}

/// What `docs/troubleshooting.md` says that one sees is what we say, word for word.
#[test]
fn what_troubleshooting_quotes_is_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut said, mut folders) = (String::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // A text that goes on in the next line is one text.
                let text = std::fs::read_to_string(path).expect("text");
                let lines: Vec<&str> = text.split("\\\n").collect();
                said.push_str(lines[0]);
                lines[1..].iter().for_each(|line| said.push_str(line.trim_start()));
            }
        }
    }
    let page = std::fs::read_to_string(root.join("docs/troubleshooting.md")).expect("the page");
    let mut quoted = 0;
    for cell in page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(cell, _)| cell) {
        for part in cell.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(said.contains(part), "nobody says {part:?}");
            quoted += 1;
        }
    }
    assert!(quoted > 25, "only {quoted} texts were found in the page");
}
