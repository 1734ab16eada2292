//! `pointsman etcd-users`: the commands that give Pointsman and Traefik a user each in somebody's etcd.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Exit, complain};
use crate::config::Config;

const OPTIONS: &str = "Options of etcd-users";
const USER_DEFAULT: &str = "pointsman";

/// The command's own options.
pub(super) fn command() -> Command {
    let name = |flag: &'static str, help: &'static str| {
        Arg::new(flag).long(flag).value_name("NAME").help(help).help_heading(OPTIONS).value_parser(user)
    };
    Command::new("etcd-users")
        .about("Print the commands that give Pointsman and Traefik a user each in etcd")
        .long_about(
            "Prints commands for a shell with etcdctl, to be run once by the administrator of etcd. Pointsman's user may read \
             and write what begins with --etcd-prefix and with --traefik-root-key; Traefik's may only read the latter. The role of \
             each has the name of its user. Nothing is called, and nothing is changed.",
        )
        .args([
            name("user", "User of Pointsman").default_value(USER_DEFAULT),
            name("traefik-user", "User of Traefik [default: that of Pointsman, and -traefik]"),
            Arg::new("certificates")
                .long("certificates")
                .help(
                    "Users without a password, who are told by the common name (CN) of their certificate; etcd must run with \
                     --client-cert-auth",
                )
                .help_heading(OPTIONS)
                .action(ArgAction::SetTrue),
        ])
}

/// A name that needs no quotes in a shell, and that etcdctl doesn't take for a name with a password.
fn user(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
        return Err("a name has letters, digits, and -_.@ after the first".to_owned());
    }
    Ok(text.to_owned())
}

/// Prints them.
pub(super) fn run(config: &Config, options: &ArgMatches) -> Exit {
    let Some(etcd) = config.etcd() else {
        complain("pointsman: it needs to know where etcd is, in --etcd-endpoints");
        return Exit::Configuration;
    };
    let ours = options.get_one::<String>("user").map_or(USER_DEFAULT, String::as_str);
    let theirs = options.get_one("traefik-user").map_or_else(|| format!("{ours}-traefik"), String::clone);
    if *ours == theirs {
        complain("pointsman: --traefik-user: Traefik needs a user of its own");
        return Exit::Configuration;
    }
    let with = if options.get_flag("certificates") { Login::Certificate } else { Login::Password };
    let text = commands(&etcd.endpoints.join(","), [ours, &theirs], [&etcd.prefix, &config.traefik.root_key], with);
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&format!("pointsman: stdout can't be written: {error}"));
            Exit::Failure
        }
    }
}

/// How a user shows who he is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    Password,
    Certificate,
}

/// All of it, for a shell. Users, and what their keys begin with: Pointsman's, then Traefik's.
fn commands(endpoints: &str, [ours, theirs]: [&str; 2], [records, root]: [&str; 2], login: Login) -> String {
    let below = |key: &str| format!("{}/", key.trim_end_matches('/'));
    // Traefik asks for everything that begins with its root key, also without a slash behind it.
    let pointsman = [("readwrite", below(records)), ("readwrite", below(root))];
    let traefik = [("read", root.trim_end_matches('/').to_owned())];
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut text = format!(
        "# Users of Pointsman and Traefik in etcd. Where logins are on already, add --user root to each etcdctl;\n\
         # where etcd speaks TLS, set ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY.\n\
         export ETCDCTL_API=3\n\
         export ETCDCTL_ENDPOINTS={}\n",
        quote(endpoints)
    );
    for (user, may) in [(ours, &pointsman[..]), (theirs, &traefik[..])] {
        let _ = write!(text, "\netcdctl role add {user}\n");
        for (permission, prefix) in may {
            let _ = writeln!(text, "etcdctl role grant-permission {user} --prefix=true {permission} {}", quote(prefix));
        }
        match login {
            Login::Certificate => {
                let _ = writeln!(text, "etcdctl user add {user} --no-password # its certificate has CN={user}");
            }
            Login::Password => {
                let _ = writeln!(
                    text,
                    "(umask 077; openssl rand -hex 24 > {user}.password)\n\
                     etcdctl user add {user} --interactive=false < {user}.password"
                );
            }
        }
        let _ = writeln!(text, "etcdctl user grant-role {user} {user}");
    }
    text.push_str(
        "\n# Once, if this etcd has no logins yet. From then on all its other clients need one, too:\n\
         #   etcdctl user add root\n\
         #   etcdctl user grant-role root root\n\
         #   etcdctl auth enable\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_commands() {
        let of = |login| commands("http://etcd:2379", ["pointsman", "edge"], ["pointsman", "it's"], login);
        insta::assert_snapshot!("password", of(Login::Password));
        insta::assert_snapshot!("certificates", of(Login::Certificate));
    }

    #[rstest]
    #[case("pointsman", true)]
    #[case("team-a_1.x@y", true)]
    #[case("", false)]
    #[case("-x", false)]
    #[case("a b", false)]
    #[case("a:secret", false)]
    #[case("$(x)", false)]
    fn a_user_has_a_plain_name(#[case] name: &str, #[case] good: bool) {
        assert_eq!(user(name).is_ok(), good);
    }
}
