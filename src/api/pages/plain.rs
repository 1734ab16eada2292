//! Our own pages, for the time when nobody else has one. Nothing of the request is shown in them, and nothing is loaded from
//! elsewhere: the network may be what is broken.

use axum::http::StatusCode;

/// What a page says.
struct Text {
    title: &'static str,
    happened: &'static str,
    /// What the reader can do about it.
    advice: &'static str,
}

/// The page for an error, as HTML.
pub(super) fn page(status: StatusCode) -> String {
    let text = match status {
        StatusCode::NOT_FOUND => Text {
            title: "Not found",
            happened: "There is nothing at this address.",
            advice: "The link may be old or mistyped, or what was here has been removed. Check the address, or begin at the \
                     start page.",
        },
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Text {
            title: "Server not reachable",
            happened: "The server behind this page does not answer. It may be starting, or it has stopped.",
            advice: "Wait a few seconds and try again. If that does not help, go to the start page and start your server \
                     anew. Files that you have saved are not lost.",
        },
        _ if status.is_client_error() => Text {
            title: "The request was refused",
            happened: "Your browser sent something that this site does not accept.",
            advice: "Go back and try again, or begin at the start page.",
        },
        _ => Text {
            title: "Something went wrong",
            happened: "This site could not answer your request.",
            advice: "Try again in a moment, or begin at the start page.",
        },
    };
    let code = status.as_u16();
    let Text { title, happened, advice } = text;
    document(
        &format!("{title} ({code})"),
        "",
        &format!(
            "<h1>{title}</h1>\n<p>{happened}</p>\n<p>{advice}</p>\n\
             <p class=\"do\"><a class=\"first\" href=\"\">Try again</a> <a href=\"/\">Start page</a></p>\n\
             <p class=\"code\">If it goes on, tell your administrator what you did, and this number: {code}.</p>"
        ),
    )
}

/// The page of a proxy that has just started and has no routes yet, as HTML. It loads itself again, also without scripts.
pub(super) fn starting() -> String {
    document(
        "Starting",
        "<meta http-equiv=\"refresh\" content=\"2\">\n",
        "<h1>Starting</h1>\n<p>This site has just been started and is ready in a moment.</p>\n\
         <p>You need not do anything: this page looks again every two seconds.</p>\n\
         <p class=\"do\"><a class=\"first\" href=\"\">Look now</a></p>\n\
         <p class=\"code\">If it takes longer than a minute, tell your administrator: the proxy has no routes (503).</p>",
    )
}

fn document(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n{head}\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "\
:root{--page:#f6f6f4;--card:#fff;--line:#d9d9d4;--text:#1f2328;--soft:#59636e;--act:#0a5bb5;--on-act:#fff}
@media (prefers-color-scheme:dark){:root{--page:#16181b;--card:#1f2226;--line:#3a3f45;--text:#e8eaed;--soft:#a5adb6;\
--act:#8ab8f0;--on-act:#10131a}}
body{margin:0;padding:12vh 1rem 2rem;background:var(--page);color:var(--text);\
font:1rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',Arial,sans-serif}
main{max-width:32rem;margin:0 auto;padding:1.75rem 2rem;background:var(--card);border:1px solid var(--line);\
border-radius:.75rem}
h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25}
p{margin:0 0 .75rem}
.do{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.5rem 0}
a{padding:.5rem 1.1rem;border:1px solid var(--act);border-radius:.5rem;color:var(--act);text-decoration:none}
a.first{background:var(--act);color:var(--on-act)}
a:hover{text-decoration:underline}
a:focus-visible{outline:3px solid var(--act);outline-offset:2px}
.code{margin:0;font-size:.875rem;color:var(--soft)}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_load_nothing_from_elsewhere() {
        let statuses = (400..600).map(|code| StatusCode::from_u16(code).expect("a status"));
        for page in statuses.map(page).chain([starting()]) {
            for foreign in ["http://", "https://", "src=", "url(", "<script", "<link", "@import"] {
                assert!(!page.contains(foreign), "{foreign} in {page}");
            }
        }
    }
}
