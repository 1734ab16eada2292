//! What Traefik says, as lines of our own log.

use std::io::{BufRead as _, BufReader, Read};

use serde_json::{Map, Value};
use tracing::{debug, error, info, warn};

/// Longer lines are cut: a stack of Go's is no line.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What Traefik warns of at each start because of what we tell it on purpose.
const ON_PURPOSE: &[&str] = &["Traefik can reject some encoded characters in the request path"];

/// Reads until the other end is closed, and logs each line. Returns the last few that may say why it ended.
pub(super) fn join(output: impl Read) -> Vec<String> {
    let mut reader = BufReader::new(output);
    let mut last = Vec::new();
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let text = tell(line);
        if is_on_purpose(&text) {
            continue;
        }
        if last.len() == 8 {
            last.remove(0);
        }
        last.push(text);
    }
}

fn is_on_purpose(message: &str) -> bool {
    ON_PURPOSE.iter().any(|known| message.starts_with(known))
}

/// Logs one line, and says what it was in words.
fn tell(line: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
        // A line of the access log, or the last words of a Traefik that broke.
        info!("Traefik: {line}");
        return line.to_owned();
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
        "error" | "fatal" | "panic" => error!("Traefik: {text}"),
        "warn" => warn!("Traefik: {text}"),
        "info" => info!("Traefik: {text}"),
        _ => debug!("Traefik: {text}"),
    }
    text
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
                "no such service (n=1, routerName=a@rest)",
            ),
            (r#"{"level":"info","message":"hello"}"#, "hello"),
            (r#"{"level":"error","error":"ping is off","routerName":"a@rest"}"#, "ping is off (routerName=a@rest)"),
            ("panic: oh", "panic: oh"),
            ("{}", "(no message)"),
        ] {
            assert_eq!(tell(line), text);
        }
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut text = (0..20).map(|i| format!("line {i}\n\n")).collect::<Vec<_>>().concat();
        text.push_str(
            r#"{"level":"warn","message":"Traefik can reject some encoded characters in the request path."}"#,
        );
        let last = join(text.as_bytes());
        assert_eq!((last.len(), last[0].as_str(), last[7].as_str()), (8, "line 12", "line 19"));
    }
}
