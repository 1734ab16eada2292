//! Where settings come from: flags, the environment, a file. Each source is read into one [`Layer`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::{self, Kind, PREFIX, Refused, Setting};

/// The settings that one source gives.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    values: BTreeMap<&'static str, Given>,
}

/// What a source says about one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The values as they came; exactly one, except for lists.
    pub values: Vec<String>,
    /// Where they stand.
    pub origin: Origin,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// This file.
    File(PathBuf),
}

impl Origin {
    /// How an administrator finds the setting again.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        match self {
            Self::Flag => format!("--{name}"),
            Self::Environment => settings::variable(name),
            Self::File(path) => format!("{name} in {}", path.display()),
        }
    }
}

/// Everything that is wrong, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} problems", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl Problems {
    /// Nothing wrong so far.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// One more.
    pub fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// `value`, if nothing is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl Layer {
    /// What this source says about a setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.values.get(name)
    }

    /// Sets a setting. For lists the values may still be joined by commas.
    pub fn set(&mut self, setting: &Setting, values: Vec<String>, origin: Origin) {
        let values = if setting.kind == Kind::List { split_at_commas(&values) } else { values };
        self.values.insert(setting.name, Given { values, origin });
    }

    /// Reads our variables out of an environment. An empty variable counts as not set.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Problems,
    ) -> Self {
        let mut layer = Self::default();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else {
                continue;
            };
            let Some(value) = value.to_str() else {
                problems.add(format!("{variable}: its value is not UTF-8"));
                continue;
            };
            if value.is_empty() || is_not_ours(&variable, value) {
                continue;
            }
            let name = variable[PREFIX.len()..].to_lowercase().replace('_', "-");
            match Setting::find(&name).filter(|setting| setting.variable() == variable) {
                Some(setting) => layer.set(setting, vec![value.to_owned()], Origin::Environment),
                None => problems.add(unknown(&variable, &name, settings::variable)),
            }
        }
        layer
    }

    /// Reads the text of a TOML file; `None` if it is none.
    pub fn from_toml(text: &str, path: &Path, problems: &mut Problems) -> Option<Self> {
        let mut layer = Self::default();
        let origin = Origin::File(path.to_owned());
        let table = match toml::from_str::<toml::Table>(text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count()) + 1;
                problems.add(format!("{} is not valid TOML, line {line}: {}", path.display(), error.message()));
                return None;
            }
        };
        for (name, value) in table {
            let Some(setting) = Setting::find(&name).filter(|setting| setting.name != "config") else {
                problems.add(if value.is_table() {
                    let place = origin.place(&format!("[{name}]"));
                    format!("{place}: there are no tables; settings stand by themselves, such as etcd-prefix = \"x\"")
                } else {
                    unknown(&origin.place(&name), &name, str::to_owned)
                });
                continue;
            };
            match plain_values(&value, setting.kind) {
                Some(values) => layer.set(setting, values, origin.clone()),
                None => problems.add(format!("{}: must be {}", origin.place(&name), toml_shape(setting.kind))),
            }
        }
        Some(layer)
    }
}

/// Variables that begin like ours but come from elsewhere: the tests' own, and those that Kubernetes makes in every
/// pod for a Service whose name begins with "pointsman" (among them `POINTSMAN_PORT=tcp://…`).
fn is_not_ours(variable: &str, value: &str) -> bool {
    variable.starts_with("POINTSMAN_TEST_")
        || variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.contains("_PORT")
            && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            ["_PROTO", "_PORT", "_ADDR"].iter().any(|part| variable.ends_with(&format!("{protocol}{part}")))
        })
}

fn unknown(place: &str, name: &str, spelling: impl Fn(&str) -> String) -> String {
    if let Some(refused) = Refused::find(name) {
        return refused.sentence(place);
    }
    match settings::suggestion(name) {
        Some(known) => format!("{place}: there is no such setting; did you mean {}?", spelling(known)),
        None => format!("{place}: there is no such setting (pointsman --help lists them all)"),
    }
}

fn split_at_commas(values: &[String]) -> Vec<String> {
    values.iter().flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

fn plain_values(value: &toml::Value, kind: Kind) -> Option<Vec<String>> {
    let plain = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) if kind != Kind::Switch => Some(number.to_string()),
        toml::Value::Boolean(yes) if kind == Kind::Switch => Some(yes.to_string()),
        _ => None,
    };
    match value {
        toml::Value::Array(items) if matches!(kind, Kind::List | Kind::Repeated) => items.iter().map(plain).collect(),
        single => plain(single).map(|text| vec![text]),
    }
}

fn toml_shape(kind: Kind) -> &'static str {
    match kind {
        Kind::One => "one text or number",
        Kind::List | Kind::Repeated => "a list of texts, such as [\"a\", \"b\"]",
        Kind::Switch => "true or false",
    }
}
