//! The list of all settings: each is known under one name, as a flag, as an environment variable and as a key.

mod list;
mod refused;

use std::fmt::Write as _;

pub use list::SETTINGS;
pub use refused::{REFUSED, Refused};

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name: `--name`, `POINTSMAN_NAME` and `name =` in the file.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// How many values it takes.
    pub kind: Kind,
    /// The heading it stands under.
    pub group: Group,
    /// With which store it has a meaning.
    pub scope: Scope,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// The value it has when nobody sets it, in words.
    pub default: Option<&'static str>,
}

/// How many values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One value; given again, the last one counts.
    One,
    /// Any number of values: repeated or separated by commas; a list in the file.
    List,
    /// Any number of values that may hold commas: repeated; a list in the file.
    Repeated,
    /// Yes or no; the bare flag means yes.
    Switch,
}

/// With which store a setting has a meaning. Where it has none it is refused, so that nobody believes it to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// With each.
    Any,
    /// Only with etcd: it concerns etcd itself, or Traefiks that somebody else starts.
    Etcd,
    /// Only without etcd: it concerns the store on disk, or the Traefik that we start ourselves.
    OneMachine,
}

/// The headings of the help, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Where things are configured.
    General,
    /// Where users come in.
    Public,
    /// The API that `JupyterHub` calls.
    Api,
    /// Signed tokens.
    Jwt,
    /// One machine: store and Traefik.
    OneMachine,
    /// The store in a cluster.
    Etcd,
    /// The proxies.
    Traefik,
    /// What users get.
    Routing,
    /// How users' servers are reached.
    Servers,
    /// Error pages.
    Pages,
    /// Metrics.
    Metrics,
}

impl Group {
    /// All, in their order.
    pub const ALL: [Self; 11] = [
        Self::General,
        Self::Public,
        Self::Api,
        Self::Jwt,
        Self::OneMachine,
        Self::Etcd,
        Self::Traefik,
        Self::Routing,
        Self::Servers,
        Self::Pages,
        Self::Metrics,
    ];

    /// The heading's text.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Public => "Where users come in",
            Self::Api => "API for JupyterHub",
            Self::Jwt => "Signed tokens (JWT) for the API",
            Self::OneMachine => "One machine: store on disk, and a Traefik of our own",
            Self::Etcd => "etcd",
            Self::Traefik => "Traefik",
            Self::Routing => "Routing",
            Self::Servers => "Towards the servers of users",
            Self::Pages => "Error pages and health page",
            Self::Metrics => "Metrics",
        }
    }
}

impl Setting {
    /// The setting of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// What the help says about it: sentence, default, variable.
    #[must_use]
    pub fn full_help(&self) -> String {
        let mut text = self.help.to_owned();
        text.push_str(self.scope.words());
        if let Some(default) = self.default {
            let _ = write!(text, " [default: {default}]");
        }
        let _ = write!(text, " [env: {}]", self.variable());
        text
    }
}

impl Scope {
    /// What the help says of it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Etcd => " Only with etcd.",
            Self::OneMachine => " Only without etcd.",
        }
    }
}

/// The environment variable of a setting.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// What the names of our environment variables begin with.
pub const PREFIX: &str = "POINTSMAN_";

/// The token of the configurable-http-proxy; the only variable of ours with another prefix.
pub const TOKEN_VARIABLE: &str = "CONFIGPROXY_AUTH_TOKEN";

/// The known name most like `name`, if one is like it.
#[must_use]
pub fn suggestion(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(&name, setting.name), setting.name))
        .filter(|(likeness, _)| *likeness > 0.84)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
