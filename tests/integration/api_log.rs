//! What a call leaves in the log: one line that says what happened, and no secret.

use std::io::Write;
use std::sync::{Arc, Mutex};

use pointsman::control::ControlError;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::api::{Api, Fault, TOKEN};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Catches what this thread logs, and in these tests the API runs on it too.
    fn catch() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn all(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panics with it").clone()).expect("a log is text")
    }

    /// The lines about calls: each has the call's number.
    fn calls(&self) -> Vec<String> {
        self.all()
            .lines()
            .filter(|line| line.contains("api{request=") && line.contains(" ms"))
            .map(str::to_owned)
            .collect()
    }
}

fn assert_line(line: &str, level: &str, parts: &[&str]) {
    assert!(line.contains(level), "{line} is not {level}");
    for part in parts {
        assert!(line.contains(part), "{line} doesn't say {part:?}");
    }
}

#[tokio::test]
async fn one_line_a_call() {
    let (log, _guard) = Log::catch();
    let api = Api::start().await;
    let body = r#"{"target":"http://secret-host:1","note":"private-body"}"#;
    api.call("POST /api/routes/user/j%40x?query=hidden", body).await;
    api.call("GET /api/routes?query=hidden", "").await;
    api.call("DELETE /api/routes/user/j%40x", "").await;
    api.call("DELETE /api/routes/a%0Ab", "").await;
    api.call("POST /api/routes/a", r#"{"target":"ftp://x"}"#).await;
    api.call_as("GET /api/routes", "Authorization: token guessed-wrong\r\n", "").await;
    api.call_as("GET /api/routes", "Authorization: Bearer guessed.wrong.too\r\n", "").await;
    api.routes.break_with(Fault::Fail(ControlError::Unavailable("etcd is away".into())));
    api.call("GET /api/routes", "").await;
    api.routes.break_with(Fault::Panic);
    api.call("GET /api/routes", "").await;

    let lines = log.calls();
    assert_eq!(lines.len(), 9, "{lines:#?}");
    assert_line(&lines[0], " INFO ", &["POST /api/routes/user/j@x 201 in "]);
    assert_line(&lines[1], "DEBUG ", &["GET /api/routes 200 in "]);
    assert_line(&lines[2], " INFO ", &["DELETE /api/routes/user/j@x 204 in "]);
    assert_line(&lines[3], " INFO ", &["DELETE /api/routes/a\\nb 404 in "]);
    assert_line(&lines[4], " INFO ", &["POST /api/routes/a 400 in ", "scheme 'ftp'"]);
    assert_line(&lines[5], " WARN ", &["GET /api/routes 403 in ", "the token is not one of ours"]);
    assert_line(&lines[6], " WARN ", &["GET /api/routes 403 in ", "no JWT key is configured"]);
    assert_line(&lines[7], " WARN ", &["GET /api/routes 503 in ", "etcd is away"]);
    assert_line(&lines[8], " WARN ", &["GET /api/routes 500 in "]);
    let all = log.all();
    assert!(all.contains("A call panicked: as the test asked for"), "{all}");
    for secret in [TOKEN, "guessed-wrong", "guessed.wrong", "private-body", "hidden"] {
        assert!(!all.contains(secret), "{secret:?} is in the log:\n{all}");
    }
}

#[tokio::test]
async fn what_a_client_without_a_token_repeats_is_written_once() {
    let (log, _guard) = Log::catch();
    let api = Api::start().await;
    for _ in 0..20 {
        api.call_as("GET /api/routes", "Authorization: token wrong\r\n", "").await;
        api.call_as("DELETE /api/routes/a", "", "").await;
        api.call_as("POST /elsewhere", "", "").await;
        api.call("DELETE /api/routes/b", "").await;
    }
    api.routes.break_with(Fault::Fail(ControlError::Unavailable("etcd is away".into())));
    for _ in 0..20 {
        api.call("DELETE /api/routes/c", "").await;
    }
    let written: Vec<_> = log.calls().into_iter().filter(|line| !line.contains("DEBUG ")).collect();
    let about = |part: &str| written.iter().filter(|line| line.contains(part)).count();
    assert_eq!(about("the token is not one of ours"), 1, "{written:#?}");
    assert_eq!(about("DELETE /api/routes/a 403 in "), 1, "{written:#?}");
    assert_eq!(about("POST /elsewhere 404 in "), 1, "{written:#?}");
    assert_eq!(about("peer=127.0.0.1"), written.len(), "{written:#?}");
    assert_eq!((about("DELETE /api/routes/b 404"), about("DELETE /api/routes/c 503")), (20, 20), "{written:#?}");
}

#[tokio::test]
async fn an_open_api_is_announced_loudly() {
    let (log, _guard) = Log::catch();
    let setup =
        crate::support::api::Setup { auth: pointsman::api::auth::AuthSettings::default(), ..Default::default() };
    let _api = Api::start_with(setup).await;
    let all = log.all();
    let line = all.lines().find(|line| line.contains("No token is configured")).expect("a warning");
    assert_line(line, " WARN ", &["CONFIGPROXY_AUTH_TOKEN", "--token-file"]);
}
