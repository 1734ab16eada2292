//! Traefik's metrics, as far as we look: how many answers each router of ours has given, and since when Traefik runs.
//!
//! ```text
//! process_start_time_seconds 1.76712345678e+09
//! traefik_entrypoint_requests_total{code="200",entrypoint="web",method="GET",protocol="http"} 7
//! traefik_router_requests_total{code="200",method="GET",protocol="http",router="NAME@etcd",service="NAME@etcd"} 5
//! ```
//!
//! A page of 10,000 routes is 10 to 14 MB, so nothing but the lines in question is looked into.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use super::traffic::Traffic;
use crate::traefik::name::{self, Kind};
use crate::traefik::static_config::PRIVATE_ENTRY_POINTS;

/// Longer lines are none of ours; a page without line ends must not fill the memory.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// How many answers were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// With a status below 300, 101 for a websocket that has ended included.
    pub good: u64,
    /// With another status.
    pub other: u64,
}

impl Answers {
    /// All of them.
    #[must_use]
    pub fn all(self) -> u64 {
        self.good.saturating_add(self.other)
    }

    /// Adds others.
    pub fn add(&mut self, more: Self) {
        self.good = self.good.saturating_add(more.good);
        self.other = self.other.saturating_add(more.other);
    }
}

/// One look at the counters of one Traefik.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When Traefik's process started, in milliseconds since 1970; 0 if it does not say.
    pub started_ms: i64,
    /// What each router of a route has answered since then, by the router's name. A route that covers whole buckets has a
    /// router more, the catch-all.
    pub routers: HashMap<Box<str>, Answers>,
    /// What came in by the entry points for users, if Traefik counts that.
    pub traffic: Traffic,
}

/// Reads a page. What can't be understood is passed over; an error is the reader's own.
pub fn read(page: &mut impl BufRead) -> std::io::Result<Sample> {
    let mut sample = Sample::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = page.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(sample);
        }
        if let Some(labels) = line.strip_prefix(b"traefik_router_requests_total{") {
            let counter = std::str::from_utf8(labels).ok().and_then(counter);
            if let Some((Labels { router: Some(router), code, .. }, count)) = counter {
                let answers =
                    if code < 300 { Answers { good: count, other: 0 } } else { Answers { good: 0, other: count } };
                match sample.routers.get_mut(router) {
                    Some(known) => known.add(answers),
                    None => drop(sample.routers.insert(router.into(), answers)),
                }
            }
        } else if let Some(labels) = line.strip_prefix(b"traefik_entrypoint_requests_total{") {
            let counter = std::str::from_utf8(labels).ok().and_then(counter);
            if let Some((Labels { is_private: false, code, is_websocket, .. }, count)) = counter {
                sample.traffic.count(code, is_websocket, count);
            }
        } else if let Some(value) = line.strip_prefix(b"process_start_time_seconds ") {
            let seconds = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<f64>().ok());
            sample.started_ms = seconds.map_or(0, |seconds| whole(seconds * 1000.0).cast_signed());
        }
    }
}

/// The labels of a counter that concern us.
#[derive(Default)]
struct Labels<'a> {
    code: u16,
    router: Option<&'a str>,
    is_websocket: bool,
    is_private: bool,
}

/// What follows the `{` of a counter: labels, `}`, a value and perhaps a time.
fn counter(text: &str) -> Option<(Labels<'_>, u64)> {
    let (mut code, mut labels) = (None, Labels::default());
    let mut rest = text;
    let value = loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(value) = rest.strip_prefix('}') {
            break value;
        }
        let (label, after) = rest.split_once("=\"")?;
        let end = closing_quote(after)?;
        let text = &after[..end];
        match label {
            "code" => code = text.parse::<u16>().ok(),
            "router" => labels.router = ours(text),
            "protocol" => labels.is_websocket = text == "websocket",
            "entrypoint" => labels.is_private = PRIVATE_ENTRY_POINTS.contains(&text),
            _ => {}
        }
        rest = &after[end + 1..];
    };
    let count = whole(value.split_ascii_whitespace().next()?.parse().ok()?);
    labels.code = code?;
    Some((labels, count))
}

/// Where a label's value ends: at the first quote that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// The name of a route's router in a label: `NAME@PROVIDER`, with an entry point's name and a hyphen before it if that
/// entry point has TLS. Buckets count what their children count, so they are left out.
fn ours(label: &str) -> Option<&str> {
    let name = label.rsplit_once('@').map_or(label, |(name, _)| name);
    let name = name.rsplit('-').next().unwrap_or(name);
    matches!(name::kind(name), Kind::Route | Kind::CatchAll).then_some(name)
}

/// A count: they are written as floating point numbers, `1.234567e+06` when they are large.
fn whole(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates, and NaN becomes 0")]
    let whole = value.round() as u64;
    whole.min(1 << 53)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(page: &str) -> Sample {
        read(&mut page.as_bytes()).expect("nothing fails in memory")
    }

    fn one(labels: &str, value: &str) -> Vec<(String, Answers)> {
        let sample = sample(&format!("traefik_router_requests_total{{{labels}}} {value}\n"));
        sample.routers.into_iter().map(|(name, answers)| (name.into(), answers)).collect()
    }

    #[test]
    fn what_came_in_is_counted_by_status_and_kind() {
        let line = |entry_point: &str, code: u16, protocol: &str, count: u64| {
            format!(
                "traefik_entrypoint_requests_total{{code=\"{code}\",entrypoint=\"{entry_point}\",method=\"GET\",protocol=\"{protocol}\"}} {count}\n"
            )
        };
        let page = [
            line("web", 200, "http", 5),
            line("web2", 404, "http", 2),
            line("web", 101, "websocket", 3),
            line("private", 200, "http", 99),
            line("traefik", 200, "http", 99),
        ];
        let traffic = sample(&page.concat()).traffic;
        assert_eq!((traffic.web, traffic.websockets), (7, 3));
        assert_eq!(traffic.answers.into_iter().collect::<Vec<_>>(), [(101, 3), (200, 5), (404, 2)]);
    }

    #[test]
    fn answers_are_added_up_by_router_and_kind() {
        let (jane, root) = (name::route("/user/jane"), name::catch_all(""));
        let page = format!(
            "# HELP traefik_router_requests_total How many\n\
             process_start_time_seconds 1.76712345678e+09\n\
             traefik_router_requests_total{{code=\"200\",method=\"GET\",protocol=\"http\",router=\"{jane}@etcd\",service=\"x\"}} 5\n\
             traefik_router_requests_total{{code=\"101\",method=\"GET\",protocol=\"websocket\",router=\"{jane}@etcd\"}} 1\n\
             traefik_router_requests_total{{code=\"304\",router=\"{jane}@rest\"}} 7 1767123456789\n\
             traefik_router_requests_total{{code=\"404\",router=\"websecure-{root}@etcd\"}} 1.5e+03\n\
             traefik_router_requests_total{{code=\"200\",router=\"{}@etcd\"}} 99\n\
             traefik_router_requests_total{{code=\"200\",router=\"sentinel@etcd\"}} 99\n\
             traefik_router_request_duration_seconds_count{{code=\"200\",router=\"{jane}@etcd\"}} 5",
            name::bucket("/user/ja", false)
        );
        let sample = sample(&page);
        assert_eq!(sample.started_ms, 1_767_123_456_780);
        assert_eq!(sample.routers[jane.as_str()], Answers { good: 6, other: 7 });
        assert_eq!(sample.routers[root.as_str()], Answers { good: 0, other: 1500 });
        assert_eq!(sample.routers.len(), 2);
    }

    #[test]
    fn what_is_malformed_is_passed_over() {
        let jane = name::route("/user/jane");
        let router = format!("router=\"{jane}@etcd\"");
        for labels in ["code=\"200\"", "code=\"x\",", "router=\"", "code=200,", ""] {
            assert_eq!(one(&format!("{labels}{router}"), "x"), [], "{labels}");
        }
        assert_eq!(one(&router, "5"), [], "no status");
        assert_eq!(one(&format!("code=\"200\",{router}"), "-3"), [(jane.clone(), Answers::default())]);
        assert_eq!(one(&format!("code=\"200\",{router}"), "NaN"), [(jane.clone(), Answers::default())]);
        let tricky = format!("service=\"a\\\"}} 7,router=\\\"\",code=\"200\",{router}");
        assert_eq!(one(&tricky, "5"), [(jane, Answers { good: 5, other: 0 })]);
    }

    #[test]
    fn a_page_without_line_ends_is_read_in_pieces() {
        let page = "traefik_router_requests_total{".repeat(100_000);
        assert_eq!(sample(&page), Sample::default());
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(page in any::<Vec<u8>>(), labels in ".*") {
            let mut text = page;
            text.extend_from_slice(format!("\ntraefik_router_requests_total{{{labels}}} 1\n").as_bytes());
            prop_assert!(read(&mut text.as_slice()).is_ok());
        }

        #[test]
        fn every_answer_is_counted_once(
            lines in proptest::collection::vec((0usize..4, 100u16..600, 0u64..1_000_000, "[^\\\\\"\n]*"), 0..40)
        ) {
            let names: Vec<String> = (0..4).map(|i| name::route(&i.to_string())).collect();
            let mut wanted: HashMap<Box<str>, Answers> = HashMap::new();
            let mut page = String::new();
            for (who, code, count, service) in lines {
                let name = &names[who];
                let labels = format!("service=\"{service}\",code=\"{code}\",router=\"{name}@etcd\"");
                page.extend(["traefik_router_requests_total{", &labels, "} ", &count.to_string(), "\n"]);
                let answers = if code < 300 { Answers { good: count, other: 0 } } else { Answers { good: 0, other: count } };
                wanted.entry(name.as_str().into()).or_default().add(answers);
            }
            prop_assert_eq!(sample(&page).routers, wanted);
        }
    }
}
