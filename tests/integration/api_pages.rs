//! The pages that Traefik fetches: the health answer, and error pages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pointsman::api::listen::{Limits, Listener};
use pointsman::api::pages;
use pointsman::lifecycle::Lifecycle;
use rstest::rstest;

use crate::support::api::request;
use crate::support::http::{Reply, Server, ask, response};

struct Pages {
    address: SocketAddr,
    lifecycle: Lifecycle,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

impl Pages {
    async fn start(error_target: Option<&str>) -> Self {
        let error_target = error_target.map(|url| url.parse().expect("a URL"));
        let router = pages::router(error_target.as_ref()).expect("usable");
        let lifecycle = Lifecycle::new();
        let listener =
            Listener::bind("--pages-ip, --pages-port", "127.0.0.1", 0, Limits::default()).await.expect("listens");
        let address = listener.addresses()[0];
        lifecycle.spawn_front("pages", listener.serve("pages", router, lifecycle.draining()));
        Self { address, lifecycle }
    }

    async fn get(&self, path: &str) -> Reply {
        ask(self.address, request(&format!("GET {path}"), "Cookie: secret=1\r\nAuthorization: token x\r\n", "")).await
    }
}

fn assert_plain(reply: &Reply, status: u16, says: &str) {
    assert_eq!((reply.status, reply.header("content-type")), (status, Some("text/html; charset=utf-8")), "{reply:?}");
    assert!(reply.body.contains(says), "{reply:?} doesn't say {says:?}");
    assert_safe(reply);
}

fn assert_safe(reply: &Reply) {
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[rstest]
#[case("GET")]
#[case("HEAD")]
#[case("POST")]
#[tokio::test]
async fn the_health_answer_is_that_of_configurable_http_proxy(#[case] method: &str) {
    let pages = Pages::start(None).await;
    let reply =
        ask(pages.address, request(&format!("{method} /_chp_healthz"), "X-Pointsman-Revision: e.7\r\n", "")).await;
    let body = if method == "HEAD" { "" } else { r#"{"status":"OK"}"# };
    assert_eq!(
        (reply.status, reply.body.as_str(), reply.header("content-type")),
        (200, body, Some("application/json"))
    );
}

#[rstest]
#[case("/error/503", 503, "Server not reachable")]
#[case("/error/502", 502, "Server not reachable")]
#[case("/error/404", 404, "Not found")]
#[case("/error/500", 500, "Something went wrong")]
#[case("/error/413", 413, "refused")]
#[tokio::test]
async fn plain_pages(#[case] path: &str, #[case] status: u16, #[case] says: &str) {
    let pages = Pages::start(None).await;
    let query = "?url=http%3A%2F%2Fhub%2F%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let reply = pages.get(&format!("{path}{query}")).await;
    assert_plain(&reply, status, says);
    assert!(!reply.body.contains("script") && !reply.body.contains("hub"), "nothing of the request is shown");
    let head = ask(pages.address, request(&format!("HEAD {path}"), "", "")).await;
    assert_eq!(
        (head.status, head.body.as_str(), head.header("content-type")),
        (status, "", Some("text/html; charset=utf-8"))
    );
}

#[rstest]
#[case("GET /error/200", 404)]
#[case("GET /error/302", 404)]
#[case("GET /error/x", 404)]
#[case("GET /error/%zz", 404)]
#[case("GET /error/", 404)]
#[case("GET /error/503/x", 404)]
#[case("GET /", 404)]
#[case("GET /api/routes", 404)]
#[case("GET /healthz", 404)]
#[case("POST /error/503", 405)]
#[tokio::test]
async fn nothing_else_is_there(#[case] line: &str, #[case] status: u16) {
    let pages = Pages::start(None).await;
    assert_eq!(ask(pages.address, request(line, "", "")).await.status, status);
}

#[rstest]
#[case(
    "/hub/error",
    "http%3A%2F%2Fhub%3A80%2Fuser%2Fj%2540x%2F%3Fa%3Db%26c",
    "/hub/error/503?url=%2Fuser%2Fj%2540x%2F%3Fa%3Db%26c"
)]
#[case("/hub/error/", "%2Fx%3Fy", "/hub/error/503?url=%2Fx%3Fy")]
#[case("", "https%3A%2F%2Fh%2F~a-b_c.d!e*f'g(h)%20i", "/503?url=%2F~a-b_c.d!e*f%27g(h)%20i")]
#[tokio::test]
async fn the_error_target_is_asked_as_configurable_http_proxy_does(
    #[case] base: &str,
    #[case] url: &str,
    #[case] asked: &str,
) {
    let page = response(
        200,
        "Content-Type: text/x-page\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nX-Secret: 1\r\nCache-Control: public\r\n",
        b"\x1f\x8bnot really",
    );
    let mut target = Server::start(move |_| Some(page.clone())).await;
    let pages = Pages::start(Some(&format!("http://{}{base}", target.address))).await;
    let reply = pages.get(&format!("/error/503?url={url}")).await;
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("text/x-page")));
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!((reply.header("set-cookie"), reply.header("x-secret")), (None, None));
    assert!(reply.body.ends_with("not really"));
    assert_safe(&reply);
    let head = target.heads.recv().await.expect("it was asked").to_ascii_lowercase();
    assert!(head.starts_with(&format!("get {} http/1.1\r\n", asked.to_ascii_lowercase())), "{head}");
    for name in ["cookie:", "authorization:", "x-forwarded", "referer:"] {
        assert!(!head.contains(name), "the user's {name} went along: {head}");
    }
}

#[tokio::test]
async fn without_an_answer_there_is_our_own_page() {
    let dead = Server::start(|_| None).await;
    let address = dead.address;
    dead.stop().await;
    let pages = Pages::start(Some(&format!("http://{address}/hub/error"))).await;
    assert_plain(&pages.get("/error/503?url=%2Fx").await, 503, "Server not reachable");

    let hung = Server::start(|_| None).await;
    let pages = Pages::start(Some(&format!("http://{}/", hung.address))).await;
    let start = Instant::now();
    assert_plain(&pages.get("/error/503").await, 503, "Server not reachable");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());

    let endless = Server::start(|_| Some(response(200, "", vec![b'x'; 1024 * 1024 + 1]))).await;
    let pages = Pages::start(Some(&format!("http://{}/", endless.address))).await;
    assert_plain(&pages.get("/error/404").await, 404, "Not found");
}

#[test]
fn a_machine_without_certificates_of_authorities_will_do() {
    // The same tests again, in a process that finds no such certificates.
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["api_pages::", "api_jwt::keys_from_a_url", "--skip", "a_machine_without_certificates"])
        .envs([("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}
