//! Our own error pages, for the time when nobody else has one. Nothing of the request is shown in them.

use axum::http::StatusCode;

/// The page for a status, as HTML.
pub(super) fn page(status: StatusCode) -> String {
    let (title, text) = match status {
        StatusCode::NOT_FOUND => {
            ("Not found", "There is nothing at this address. Please check it, or start again from the home page.")
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => (
            "Server not reachable",
            "The server behind this page does not answer. It may have been stopped, or may just be starting. \
             Please try again in a moment.",
        ),
        _ if status.is_client_error() => ("The request was refused", "Your request could not be answered."),
        _ => ("Something went wrong", "The server could not answer. Please try again in a moment."),
    };
    let code = status.as_u16();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{code} {title}</title>\n\
         <style>body{{font-family:sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222}}\
         small{{color:#767676}}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{text}</p>\n<small>{code}</small>\n\
         </body>\n</html>\n"
    )
}
