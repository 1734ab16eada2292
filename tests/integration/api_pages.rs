//! The pages that Traefik fetches: the health answer, and error pages.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use pointsman::api::listen::tls::{Tls, TlsSettings};
use pointsman::api::listen::{Limits, Listener};
use pointsman::api::pages::{self, PagesSettings, PagesTls};
use pointsman::lifecycle::Lifecycle;
use rstest::rstest;

use crate::support::api::request;
use crate::support::certificates::Authority;
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
        Self::start_with(PagesSettings { error_target, ..PagesSettings::default() }).await
    }

    async fn start_with(settings: PagesSettings) -> Self {
        let router = pages::router(&settings).expect("usable");
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

#[tokio::test]
async fn a_proxy_without_routes_says_so_and_looks_again() {
    let pages = Pages::start(None).await;
    for method in ["GET", "HEAD", "POST"] {
        let reply = ask(pages.address, request(&format!("{method} /starting?url=%2Fsecret"), "", "")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
        assert_safe(&reply);
        assert_eq!(reply.body.contains("http-equiv=\"refresh\" content=\"2\""), method != "HEAD", "{reply:?}");
        assert!(!reply.body.contains("secret"));
    }
}

/// A folder of pages, inside another one that has a secret.
fn folder_of_pages() -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(outer.path().join("pages")).expect("a folder");
    std::fs::write(outer.path().join("secret.html"), "secret").expect("a file");
    outer
}

async fn with_folder(folder: &Path) -> Pages {
    Pages::start_with(PagesSettings { error_path: Some(folder.to_owned()), ..PagesSettings::default() }).await
}

#[tokio::test]
async fn pages_of_a_folder() {
    let outer = folder_of_pages();
    let folder = outer.path().join("pages");
    let pages = with_folder(&folder).await;
    assert_plain(&pages.get("/error/404").await, 404, "Not found");
    std::fs::write(folder.join("error.html"), "<p>any").expect("a file");
    std::fs::write(folder.join("404.html"), "<p>four").expect("a file");
    for (path, status, body) in [
        ("/error/404?url=%2Fx", 404, "<p>four"),
        ("/error/503?url=%2Fx", 503, "<p>any"),
        ("/error/500?url=%2F..%2Fsecret", 500, "<p>any"),
    ] {
        let reply = pages.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body));
        assert_eq!(reply.header("content-type"), Some("text/html"), "as from configurable-http-proxy");
        assert_safe(&reply);
    }
    let head = ask(pages.address, request("HEAD /error/404", "", "")).await;
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (404, "", Some("7")));
    // It is read at each request.
    std::fs::write(folder.join("404.html"), "<p>new").expect("a file");
    assert_eq!(pages.get("/error/404").await.body, "<p>new");
}

#[tokio::test]
async fn nothing_outside_the_folder_and_nothing_endless_is_shown() {
    let outer = folder_of_pages();
    let folder = outer.path().join("pages");
    let link = |target: &str, name: &str| {
        let _ = std::fs::remove_file(folder.join(name));
        std::os::unix::fs::symlink(target, folder.join(name)).expect("a link");
    };
    let pages = with_folder(&folder).await;
    link("../secret.html", "404.html");
    assert_plain(&pages.get("/error/404").await, 404, "Not found");
    link("/dev/zero", "404.html");
    assert_plain(&pages.get("/error/404").await, 404, "Not found");
    std::fs::remove_file(folder.join("404.html")).expect("removed");
    std::fs::write(folder.join("404.html"), vec![b'x'; 1024 * 1024 + 1]).expect("a file");
    assert_plain(&pages.get("/error/404").await, 404, "Not found");
    for path in ["/error/..%2Fsecret", "/error/../secret.html", "/error/%2e%2e", "/error/404.html"] {
        assert_ne!(pages.get(path).await.body, "secret");
    }
    // So a mounted ConfigMap looks: links, but all inside.
    std::fs::create_dir(folder.join("..2026")).expect("a folder");
    std::fs::write(folder.join("..2026/404.html"), "mounted").expect("a file");
    link("..2026", "..data");
    link("..data/404.html", "404.html");
    assert_eq!(pages.get("/error/404").await.body, "mounted");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    for path in ["/nonexistent/pages", "/dev/null"] {
        let settings = PagesSettings { error_path: Some(path.into()), ..PagesSettings::default() };
        let error = pages::router(&settings).expect_err("no folder").to_string();
        assert!(error.starts_with("--error-path can't be used: ") && error.contains(path), "{error}");
    }
}

#[tokio::test]
async fn an_error_target_with_https_sees_our_certificate_and_must_show_a_good_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new("ours", folder.path()), Authority::new("theirs", folder.path()));
    let server = theirs.sign("hub");
    let asks = TlsSettings {
        ca: Some(ours.file.clone()),
        request_cert: true,
        ..TlsSettings::new("--test", server.key.clone(), server.cert.clone())
    };
    let hub = axum::Router::new().fallback(|request: axum::extract::Request| async move { request.uri().to_string() });
    let listener = Listener::bind("--test", "127.0.0.1", 0, Limits::default()).await.expect("listens");
    let listener = listener.with_tls(Tls::new(asks).expect("usable"));
    let url = format!("https://127.0.0.1:{}/hub/error", listener.addresses()[0].port());
    let lifecycle = Lifecycle::new();
    lifecycle.spawn_front("hub", listener.serve("hub", hub, lifecycle.draining()));

    let (client, stranger) = (ours.sign("proxy"), theirs.sign("stranger"));
    let bundle = folder.path().join("bundle.pem");
    std::fs::copy(&theirs.file, &bundle).expect("copied");
    let tls = PagesTls { ca: Some(bundle.clone()), cert: Some(client.cert.clone()), key: Some(client.key.clone()) };
    let start = |tls: PagesTls| {
        let error_target = Some(url.parse().expect("a URL"));
        Pages::start_with(PagesSettings { error_target, tls, ..PagesSettings::default() })
    };
    let asked = "/hub/error/503?url=%2Fx%3Fy";
    let good = start(tls.clone()).await;
    let reply = good.get("/error/503?url=%2Fx%3Fy").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, asked));

    let without = start(PagesTls { cert: None, key: None, ..tls.clone() }).await;
    assert_plain(&without.get("/error/503").await, 503, "Server not reachable");
    let as_stranger = PagesTls { cert: Some(stranger.cert), key: Some(stranger.key), ..tls.clone() };
    assert_plain(&start(as_stranger).await.get("/error/503").await, 503, "Server not reachable");
    let trusting_nobody = start(PagesTls { ca: Some(ours.file.clone()), ..tls.clone() }).await;
    assert_plain(&trusting_nobody.get("/error/503").await, 503, "Server not reachable");

    // Files that change are used without a restart; ones that can't be used are not.
    std::fs::copy(&ours.file, &bundle).expect("copied");
    assert_plain(&good.get("/error/503").await, 503, "Server not reachable");
    std::fs::copy(&theirs.file, &bundle).expect("copied");
    assert_eq!(good.get("/error/503?url=%2Fx%3Fy").await.body, asked);
    std::fs::write(&bundle, "junk").expect("a file");
    assert_eq!(good.get("/error/503?url=%2Fx%3Fy").await.body, asked);
    lifecycle.stop();
}

#[test]
fn files_of_the_client_side_that_are_no_good_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("a", folder.path());
    let (pair, other) = (authority.sign("pair"), authority.sign("other"));
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "junk").expect("a file");
    for (tls, setting, says) in [
        (
            PagesTls { ca: Some("/nonexistent.pem".into()), ..PagesTls::default() },
            "--client-ssl-ca",
            "/nonexistent.pem",
        ),
        (PagesTls { ca: Some(junk.clone()), ..PagesTls::default() }, "--client-ssl-ca", "no certificate"),
        (PagesTls { cert: Some(pair.cert.clone()), ..PagesTls::default() }, "--client-ssl-cert", "--client-ssl-key"),
        (PagesTls { key: Some(pair.key.clone()), ..PagesTls::default() }, "--client-ssl-key", "--client-ssl-cert"),
        (
            PagesTls { ca: None, cert: Some(other.cert), key: Some(pair.key.clone()) },
            "--client-ssl-cert",
            "does not belong",
        ),
    ] {
        let error_target = Some("https://127.0.0.1:1/".parse().expect("a URL"));
        let settings = PagesSettings { error_target, tls, ..PagesSettings::default() };
        let error = pages::router(&settings).expect_err("unusable").to_string();
        assert!(error.starts_with(setting) && error.contains(says), "{error}");
    }
}

#[test]
fn a_machine_without_certificates_of_authorities_will_do() {
    // The same tests again, in a process that finds no such certificates.
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["api_pages::", "api_jwt::from_a_url::keys_from_a_url", "--skip", "a_machine_without_certificates"])
        .envs([("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}
