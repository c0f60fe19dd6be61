//! The status page: a few files in the binary, under headers that let it reach nothing else.
//!
//! No build step and no outside resource: what is served is what lies in `page/`. It shows what
//! `/status`, `/history` and `/events` say, and can do what anyone with the token can.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{ServiceConfig, get, head, resource};

/// Nothing but our own files, no script in the page itself, and no text that becomes markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Where each file is served, as what, and the file.
const FILES: [(&str, &str, &str); 7] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/backups.js", SCRIPT, include_str!("page/backups.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/words.js", SCRIPT, include_str!("page/words.js")),
];

/// Adds the routes of the page.
pub(super) fn serve(routes: &mut ServiceConfig) {
    for (path, content_type, text) in FILES {
        let answer = move || async move { file(content_type, text) };
        routes.service(resource(path).route(get().to(answer)).route(head().to(answer)));
    }
}

fn file(content_type: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
        // Another version of the service has another page; it is small.
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
