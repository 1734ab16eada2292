//! What `--help` and `--version` print.

use pointsman::cli::command;
use pointsman::config::settings::SETTINGS;

use crate::support::pointsman::pointsman;

fn help_of(name: Option<&str>) -> String {
    let mut command = command().term_width(100);
    command.build();
    let command = match name {
        Some(name) => command.find_subcommand_mut(name).expect("a known command"),
        None => &mut command,
    };
    command.render_help().to_string()
}

#[test]
fn the_help() {
    insta::assert_snapshot!(help_of(None));
}

#[test]
fn the_help_of_traefik_config_begins_with_its_own_options() {
    let help = help_of(Some("traefik-config"));
    let own = help.split("\nGeneral:").next().expect("a beginning");
    insta::assert_snapshot!(own);
}

#[test]
fn the_help_of_the_other_commands_begins_with_their_own_options() {
    for name in ["export", "import", "try-route"] {
        let help = help_of(Some(name));
        let own = help.split("\nGeneral:").next().expect("a beginning");
        insta::assert_snapshot!(name, own);
    }
}

/// Settings are flags of every command, so an option of the same name would be taken for one.
#[test]
fn no_option_of_a_command_has_the_name_of_a_setting() {
    let settings: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    for command in command().get_subcommands() {
        for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(!settings.contains(&option), "--{option} of {} is a setting, too", command.get_name());
        }
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let help = pointsman(&["--help"], &[]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("--etcd-endpoints <URLS>"), "{}", help.stdout);
    let version = pointsman(&["--version"], &[]);
    assert_eq!(version.stdout, format!("pointsman {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(pointsman(&["check", "--help"], &[]).code, 0);
}
