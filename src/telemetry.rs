//! Logs: one line an event, to stderr, as text or JSON.

pub mod durations;
pub mod seldom;
pub mod throttle;

mod json;
mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io;
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::error;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as format, reload};

use json::Json;
use lines::Lines;

/// How long the last lines may take at the end of the process. The hub gives us 1 s in all.
const FLUSH_MAX: Duration = Duration::from_millis(300);

/// Where the lines of this process go, once logging has started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// How much is logged; the names are those of the configurable-http-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Every call and every decision.
    Debug,
    /// Changes, and what an operator should know.
    #[default]
    Info,
    /// What may need a look.
    Warn,
    /// What is broken.
    Error,
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(format!("'{text}' is not a log level (debug, info, warn or error)")),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("'{text}' is not a log format (text or json)")),
        }
    }
}

/// Changes the level of a running process.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// From now on, this much.
    pub fn set_level(&self, level: LogLevel) -> Result<(), String> {
        self.filter.reload(filter(level)).map_err(|e| e.to_string())
    }

    /// The filter as it is, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Starts logging for the whole process. A second call is an error.
pub fn init(level: LogLevel, format: LogFormat) -> Result<LogHandle, String> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let queue = Lines::to_stderr().map_err(|e| e.to_string())?;
    let writer = queue.clone();
    let lines = format::layer().with_writer(move || writer.clone());
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => lines.fmt_fields(Json).event_format(Json).boxed(),
    };
    Registry::default().with(filter).with(lines).try_init().map_err(|e| e.to_string())?;
    LINES.get_or_init(|| queue);
    // The usual report goes to stderr itself, which may block, and is no line of the log.
    std::panic::set_hook(Box::new(report_panic));
    Ok(LogHandle { filter: handle })
}

/// Log lines that were dropped since the start, because stderr was not read.
#[must_use]
pub fn lines_dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// While this lives the process goes on; when it is dropped, what was logged is written, unless stderr isn't read.
#[derive(Debug)]
pub struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        if let Some(lines) = LINES.get() {
            lines.flush(FLUSH_MAX);
        }
    }
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let payload = panic.payload();
    let reason = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let reason = reason.unwrap_or("no reason given");
    // Only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(backtrace, "A panic at {place}: {reason}");
}

/// Our own events from `level` on, those of foreign crates from warnings on.
fn filter(level: LogLevel) -> EnvFilter {
    let foreign = if level == LogLevel::Error { LogLevel::Error } else { LogLevel::Warn };
    EnvFilter::new(format!("{foreign},pointsman={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_any_case_and_back() {
        for level in [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error] {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(level.to_string().to_uppercase().parse(), Ok(level));
        }
        assert_eq!("trace".parse::<LogLevel>().unwrap_err(), "'trace' is not a log level (debug, info, warn or error)");
    }

    #[test]
    fn foreign_crates_never_say_more_than_warnings() {
        assert_eq!(filter(LogLevel::Debug).to_string(), "pointsman=debug,warn");
        assert_eq!(filter(LogLevel::Error).to_string(), "pointsman=error,error");
    }

    #[test]
    fn the_level_can_be_changed_while_running() {
        let handle = init(LogLevel::Info, LogFormat::Text).unwrap();
        handle.set_level(LogLevel::Debug).unwrap();
        assert_eq!(handle.describe(), "pointsman=debug,warn");
        assert!(init(LogLevel::Info, LogFormat::Text).is_err(), "logging starts once");
    }
}
