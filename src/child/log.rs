//! What Traefik says, as lines of our own log.

use std::io::{BufRead as _, BufReader, Read};

use serde_json::{Map, Value};
use tracing::{debug, error, info, warn};

/// Longer lines are cut: a stack of Go's is no line.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What Traefik warns of at each start because of what we tell it on purpose.
const ON_PURPOSE: &[&str] = &["Traefik can reject some encoded characters in the request path"];

/// What a program in Go says first when it breaks.
const BROKEN: &[&str] = &["panic: ", "fatal error: "];

/// Reads until the other end is closed, and logs each line. Returns the last one in which Traefik itself says why it ended:
/// never one of its access log, which holds what users have sent.
pub(super) fn join(output: impl Read) -> Option<String> {
    let mut reader = BufReader::new(output);
    let (mut reason, mut line) = (None, Vec::new());
    loop {
        line.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return reason,
            Ok(_) => {}
        }
        // The rest of a long line is no line of its own: it may begin with anything.
        if line.last() != Some(&b'\n') && reader.skip_until(b'\n').is_err() {
            return reason;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            reason = tell(line).or(reason);
        }
    }
}

fn is_on_purpose(message: &str) -> bool {
    ON_PURPOSE.iter().any(|known| message.starts_with(known))
}

/// Logs one line. Returns it in words if it says what is broken.
fn tell(line: &str) -> Option<String> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        // A line of the access log, or the last words of a Traefik that broke.
        info!("Traefik: {line}");
        return BROKEN.iter().any(|begin| line.starts_with(begin)).then(|| line.to_owned());
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (level, message) = (take("level"), take("message"));
    take("time");
    // Some of its lines have only an error.
    let message = if message.is_empty() { take("error") } else { message };
    let text = sentence(&message, &fields);
    match level.as_str() {
        "warn" if is_on_purpose(&message) => debug!("Traefik: {text}"),
        "error" | "fatal" | "panic" => {
            error!("Traefik: {text}");
            return Some(text);
        }
        "warn" => warn!("Traefik: {text}"),
        "info" => info!("Traefik: {text}"),
        _ => debug!("Traefik: {text}"),
    }
    None
}

/// The message, and in parentheses what it is about.
fn sentence(message: &str, fields: &Map<String, Value>) -> String {
    let message = if message.is_empty() { "(no message)" } else { message.trim_end() };
    if fields.is_empty() {
        return message.to_owned();
    }
    let about = fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    format!("{message} ({})", about.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_sentence() {
        for (line, text) in [
            (
                r#"{"level":"error","time":"x","message":"no such service","routerName":"a@rest","n":1}"#,
                Some("no such service (n=1, routerName=a@rest)"),
            ),
            (r#"{"level":"info","message":"hello"}"#, None),
            (
                r#"{"level":"error","error":"ping is off","routerName":"a@rest"}"#,
                Some("ping is off (routerName=a@rest)"),
            ),
            ("panic: oh", Some("panic: oh")),
            (r#"{"level":"fatal"}"#, Some("(no message)")),
            ("{}", None),
        ] {
            assert_eq!(tell(line).as_deref(), text);
        }
    }

    #[test]
    fn the_reason_is_never_a_line_of_the_access_log() {
        let access =
            r#"127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "GET /?token=secret HTTP/1.1" 200 1 "-" "-" 1 "x" "y" 1ms"#;
        let error = r#"{"level":"error","message":"no such file"}"#;
        // A request so long that its line is cut where the user has put something that looks like Traefik's own.
        let long = format!("{access}{}{error}", "x".repeat(usize::try_from(LINE_BYTES_MAX).unwrap() - access.len()));
        let said = |lines: &[&str]| join(lines.join("\n").as_bytes());
        assert_eq!(said(&[access, &long, access]), None);
        assert_eq!(said(&[access, error, "", access]), Some("no such file".to_owned()));
        assert_eq!(said(&[&long, "panic: oh", access, "goroutine 1 [running]:"]), Some("panic: oh".to_owned()));
    }
}
