//! Log lines as JSON: one object a line, with each key once, whatever the fields of events and spans are called.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// What every line has of its own. A field with such a name gets `FIELD` before it.
const OWN: [&str; 5] = ["timestamp", "level", "target", "span", "spans"];

/// What every span has of its own.
const OWN_OF_SPANS: [&str; 1] = ["name"];

const FIELD: &str = "field.";

/// What `tracing` adds to the records of the crate `log`.
const LOG: &str = "log.";
const LOG_TARGET: &str = "log.target";

/// The format of events, and of the fields of spans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    #[serde(flatten)]
    fields: Map<String, Value>,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    spans: &'a [Map<String, Value>],
}

impl<S> FormatEvent<S, Self> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Self>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields::without(&OWN);
        event.record(&mut fields);
        let spans: Vec<_> = context.event_scope().into_iter().flat_map(Scope::from_root).collect();
        let spans: Vec<_> = spans
            .iter()
            .map(|span| {
                let extensions = span.extensions();
                let mut fields = extensions.get().map(parsed).unwrap_or_default();
                fields.insert("name".to_owned(), span.name().into());
                fields
            })
            .collect();
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            target: fields.target.as_deref().unwrap_or(event.metadata().target()),
            fields: fields.map,
            span: spans.last(),
            spans: &spans,
        };
        writeln!(writer, "{}", serde_json::to_string(&line).map_err(|_| fmt::Error)?)
    }
}

impl<'writer> FormatFields<'writer> for Json {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        write_fields(writer, Fields::without(&OWN_OF_SPANS), fields)
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, added: &Record<'_>) -> fmt::Result {
        let fields = Fields { map: parsed(current), ..Fields::without(&OWN_OF_SPANS) };
        current.fields.clear();
        write_fields(current.as_writer(), fields, added)
    }
}

fn write_fields(mut writer: Writer<'_>, mut fields: Fields, more: impl RecordFields) -> fmt::Result {
    more.record(&mut fields);
    writer.write_str(&Value::from(fields.map).to_string())
}

/// What was written before.
fn parsed(fields: &FormattedFields<Json>) -> Map<String, Value> {
    serde_json::from_str(&fields.fields).unwrap_or_default()
}

/// Fields, each with a name of its own; of two with one name the later one.
struct Fields {
    reserved: &'static [&'static str],
    map: Map<String, Value>,
    /// Where a record of the crate `log` came from.
    target: Option<String>,
}

impl Fields {
    fn without(reserved: &'static [&'static str]) -> Self {
        Self { reserved, map: Map::new(), target: None }
    }

    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match (name, value) {
            (LOG_TARGET, Value::String(target)) => self.target = Some(target),
            (name, _) if name.starts_with(LOG) => {}
            (name, value) if self.reserved.contains(&name) => {
                self.map.insert(format!("{FIELD}{name}"), value);
            }
            (name, value) => {
                self.map.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Level, info, info_span, span};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::lines::Lines;
    use super::*;

    #[test]
    fn names_that_are_taken_get_others() {
        let lines = Lines::default();
        let queue = lines.clone();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(Json).event_format(Json);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || queue.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let outer = span!(Level::INFO, "outer", name = "mine", later = tracing::field::Empty, n = 1);
            let _outer = outer.enter();
            outer.record("later", "now");
            outer.record("n", 2);
            let _inner = info_span!("inner", level = true).entered();
            info!(level = 7, spans = 1.5, target = ?"x", same = 1, "a \"message\"\n");
        });
        let text = lines.taken();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(line.remove("timestamp").is_some_and(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))));
        let expected = serde_json::json!({
            "level": "INFO", "message": "a \"message\"\n", "same": 1,
            "field.level": 7, "field.spans": 1.5, "field.target": "\"x\"",
            "target": "pointsman::telemetry::json::tests",
            "span": {"name": "inner", "level": true},
            "spans": [
                {"name": "outer", "field.name": "mine", "later": "now", "n": 2},
                {"name": "inner", "level": true},
            ],
        });
        assert_eq!(Value::from(line), expected);
    }
}
