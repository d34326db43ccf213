//! Every endpoint that is served, asked wrongly in every way that does not depend on what it does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::Method;
use maru::http::router::Served;
use maru_tests::user::encode;
use maru_tests::{Reply, TestServer, User, on_both_engines};
use serde_json::json;

use super::{complaint, none, other_than};

on_both_engines!(
    a_path_knows_its_methods_and_no_others,
    strangers_are_sent_away_before_anything_else,
    a_body_is_a_json_object_within_the_limits,
    nothing_in_a_path_makes_the_server_fail,
    nothing_in_a_query_makes_the_server_fail,
);

/// Ends of the paths that need no token.
const OPEN: &[(&str, &[&str])] = &[
    (
        "GET",
        &[
            "/.well-known/maru/server",
            "/.well-known/matrix/client",
            "/client/versions",
            "/auth_metadata",
            "/oauth/authorize",
            "/oauth/device",
            "/oauth/style.css",
            "/account",
            "/login",
            "/register/available",
            "/register/m.login.registration_token/validity",
            "/org.matrix.msc3231.login.registration_token/validity",
            "/profile/{user_id}",
            "/profile/{user_id}/{field}",
            "/publicRooms",
            "/directory/room/{room_alias}",
            "/directory/list/room/{room_id}",
            "/room_summary/{room_id_or_alias}",
            "/rooms/{room_id_or_alias}/summary",
            "/summary/{room_id_or_alias}",
            "/openid/userinfo",
            "/health",
            "/ready",
        ],
    ),
    (
        "POST",
        &[
            "/login",
            "/register",
            "/refresh",
            "/oauth/authorize",
            "/oauth/token",
            "/oauth/revoke",
            "/oauth/device_authorization",
            "/oauth/device",
            "/account",
        ],
    ),
];

/// Ends of the paths whose body is a file, not JSON.
const FILES: &[&str] = &["/upload", "/upload/{server_name}/{media_id}"];

/// Whether a path belongs to OAuth 2.0, which is turned off here; `tests/tests/oauth/` asks it wrongly.
fn is_turned_off(served: &Served) -> bool {
    served.path.starts_with("/oauth/") || served.path == "/account"
}

/// Ends of the paths that are for application services alone: a user is turned away before anything is read.
const SERVICES: &[&str] = &["/appservice/{appservice_id}/ping"];

/// Ends of the paths that would end the session with which the others are asked.
const FAREWELLS: &[&str] = &["/logout", "/logout/all"];

fn ends(served: &Served, with: &[&str]) -> bool {
    with.iter().any(|end| served.path.ends_with(end))
}

/// Old spellings of a path lead to the same handler: one of them is enough where every request costs.
fn is_old(served: &Served) -> bool {
    served.path.contains("/r0/") || served.path.contains("/unstable/")
}

fn is_open(served: &Served) -> bool {
    OPEN.iter()
        .any(|(method, paths)| served.method == **method && ends(served, paths))
}

/// A server with something at every path.
struct Place {
    alice: User,
    values: BTreeMap<&'static str, String>,
}

impl Place {
    async fn on(server: &TestServer) -> Self {
        let alice = server.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let event = alice.send(&room, "hello").await;
        let backup = json!({ "algorithm": "org.example.none", "auth_data": {} });
        let backup = alice.post("room_keys/version", backup).await.ok();
        let values = [
            ("room_id", room.clone()),
            ("room_id_or_alias", room),
            ("event_id", event),
            ("user_id", alice.id.clone()),
            ("device_id", alice.device.clone()),
            ("event_type", "org.example.kind".into()),
            ("state_key", "key".into()),
            ("txn_id", "t".into()),
            ("room_alias", format!("#nets:{}", server.name())),
            ("field", "displayname".into()),
            ("kind", "content".into()),
            ("rule_id", "nets".into()),
            ("tag", "u.work".into()),
            ("filter_id", "1".into()),
            ("rel_type", "m.annotation".into()),
            ("receipt_type", "m.read".into()),
            ("server_name", server.name().into()),
            ("media_id", "abc".into()),
            ("filename", "a.txt".into()),
            ("version", backup["version"].as_str().unwrap().into()),
            ("session_id", "session".into()),
            ("appservice_id", "irc".into()),
            ("protocol", "irc".into()),
        ];
        Self {
            alice,
            values: values.into(),
        }
    }

    /// A path with every variable filled in, `instead` of one of them.
    fn filled(&self, path: &str, instead: Option<(&str, &str)>) -> String {
        let segments = path.split('/').map(|segment| {
            let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
                return segment.to_owned();
            };
            match instead {
                Some((variable, text)) if variable == name => text.to_owned(),
                _ => encode(&self.values[name]),
            }
        });
        segments.collect::<Vec<_>>().join("/")
    }

    async fn ask(&self, method: &Method, path: &str, token: Option<&str>, body: Option<Bytes>) -> Reply {
        let sent = self
            .alice
            .api
            .try_request(method.clone(), path, token, body)
            .await;
        sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Still serves, and the session with which everything was asked is still good.
    async fn still_serves(&self) {
        self.alice.get("account/whoami").await.ok();
        let room = self.alice.create_room(json!({})).await;
        self.alice.send(&room, "still here").await;
    }
}

fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

async fn a_path_knows_its_methods_and_no_others(server: TestServer) {
    let place = Place::on(&server).await;
    let mut methods: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for served in maru::http::endpoints() {
        methods
            .entry(served.path)
            .or_default()
            .insert(served.method.to_string());
    }
    let mut findings = Vec::new();
    for (path, known) in &methods {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "BREW"] {
            if known.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let asked = place.filled(path, None);
            for token in [None, Some(&*place.alice.token)] {
                let reply = place.ask(&method, &asked, token, None).await;
                findings.extend(
                    other_than(&reply, 405, "M_UNRECOGNIZED").map(|what| format!("{method} {path}: {what}")),
                );
            }
        }
    }
    let long = "x".repeat(5000);
    for path in [
        "/",
        "/favicon.ico",
        "/_matrix",
        "/_matrix/",
        "/_matrix/client/v3",
        "/_matrix/client/v3/nothing",
        "/_matrix/client/v9/sync",
        "/_matrix/client/v3/sync/",
        "/_matrix/client/v3/rooms",
        "/_matrix/client/v3/%00",
        "/_matrix/client/v3/%FF",
        "/_matrix/federation/v1/version",
        "/_synapse/admin/v1/users",
        "/..%2f..%2fetc/passwd",
        &format!("/{long}"),
    ] {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            let reply = place.ask(&method, path, None, None).await;
            findings.extend(
                other_than(&reply, 404, "M_UNRECOGNIZED").map(|what| format!("{method} {path}: {what}")),
            );
        }
    }
    none(&findings);
}

async fn strangers_are_sent_away_before_anything_else(server: TestServer) {
    let place = Place::on(&server).await;
    let stale = place.alice.second_device().await;
    stale.post("logout", json!({})).await.ok();
    let mut findings = Vec::new();
    for served in maru::http::endpoints() {
        let path = place.filled(served.path, None);
        let has_body = served.method != Method::GET;
        for body in [
            None,
            Some(Bytes::from_static(b"{")),
            Some(vec![b' '; 3 << 20].into()),
        ] {
            if body.is_some() && (!has_body || is_old(&served)) {
                continue;
            }
            let unknown = ["", "mat_wrong", &stale.token, "a\u{1}b", &"x".repeat(5000)]
                .map(|token| (Some(token.to_owned()), "M_UNKNOWN_TOKEN"));
            let cases = unknown.into_iter().chain([(None, "M_MISSING_TOKEN")]);
            for (token, errcode) in cases {
                // A header cannot hold everything.
                let Some(token) = token.map_or(Some(None), |token| {
                    http::HeaderValue::from_str(&token).ok().map(|_| Some(token))
                }) else {
                    continue;
                };
                let reply = place
                    .ask(&served.method, &path, token.as_deref(), body.clone())
                    .await;
                let what = if is_open(&served) {
                    complaint(&reply)
                } else if token.as_deref() == Some("") {
                    (reply.status != 401).then(|| format!("{} for an empty token", reply.status))
                } else {
                    other_than(&reply, 401, errcode)
                };
                let length = body.as_ref().map(Bytes::len);
                findings.extend(
                    what.map(|what| {
                        format!("{} {} {errcode} {length:?}: {what}", served.method, served.path)
                    }),
                );
            }
        }
    }
    none(&findings);
    place.still_serves().await;
}

async fn a_body_is_a_json_object_within_the_limits(server: TestServer) {
    let place = Place::on(&server).await;
    let deep = |open: &str, times: usize| Bytes::from(open.repeat(times));
    let nested = |times: usize| Bytes::from(format!("{}1{}", "{\"a\":".repeat(times), "}".repeat(times)));
    let limit = maru::config::Config::default().limits.request_body_bytes;
    let mut wide = vec![b' '; limit];
    wide.extend_from_slice(b"{}");
    let refused: Vec<(Bytes, u16, &str)> = vec![
        (Bytes::from_static(b"{"), 400, "M_NOT_JSON"),
        (Bytes::from_static(b" "), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"nonsense"), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"{\"a\":1}}x"), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"\xff\xfe\0"), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"\0"), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"a=b&c=d"), 400, "M_NOT_JSON"),
        (deep("[", 100_000), 400, "M_NOT_JSON"),
        (deep("{\"a\":", 100_000), 400, "M_NOT_JSON"),
        (Bytes::from_static(b"[]"), 400, "M_BAD_JSON"),
        (Bytes::from_static(b"[{}]"), 400, "M_BAD_JSON"),
        (Bytes::from_static(b"\"text\""), 400, "M_BAD_JSON"),
        (Bytes::from_static(b"7"), 400, "M_BAD_JSON"),
        (Bytes::from_static(b"null"), 400, "M_BAD_JSON"),
        (Bytes::from_static(b"true"), 400, "M_BAD_JSON"),
        (wide.into(), 413, "M_TOO_LARGE"),
    ];
    let survived: Vec<Bytes> = vec![
        nested(100),
        nested(10_000),
        Bytes::from_static(b"{\"a\":1e999,\"b\":-1e999,\"c\":123456789012345678901234567890}"),
        Bytes::from_static(b"{\"\":0,\"\\u0000\":\"\\u0000\",\"a\":\"\\ud800\"}"),
        Bytes::from_static(b"{\"a\":1,\"a\":2}"),
        Bytes::from_static(b"{nonsense}"),
        Bytes::from(format!("{{\"{}\":1}}", "k".repeat(100_000))),
    ];
    let mut findings = Vec::new();
    for served in maru::http::endpoints() {
        let takes_none = served.method == Method::GET || ends(&served, FILES) || ends(&served, FAREWELLS);
        if takes_none || is_old(&served) || is_turned_off(&served) || ends(&served, SERVICES) {
            continue;
        }
        let path = place.filled(served.path, None);
        let shown = |body: &Bytes| {
            let start = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
            format!("{} {} {start:?} ({})", served.method, served.path, body.len())
        };
        for (body, status, errcode) in &refused {
            let reply = place
                .ask(
                    &served.method,
                    &path,
                    Some(&place.alice.token),
                    Some(body.clone()),
                )
                .await;
            findings
                .extend(other_than(&reply, *status, errcode).map(|what| format!("{}: {what}", shown(body))));
        }
        for body in &survived {
            let reply = place
                .ask(
                    &served.method,
                    &path,
                    Some(&place.alice.token),
                    Some(body.clone()),
                )
                .await;
            findings.extend(complaint(&reply).map(|what| format!("{}: {what}", shown(body))));
        }
    }
    none(&findings);
    place.still_serves().await;
}

async fn nothing_in_a_path_makes_the_server_fail(server: TestServer) {
    let place = Place::on(&server).await;
    let (long, longer) = ("x".repeat(256), "x".repeat(10_000));
    let odd = [
        "a%00b",
        "%00",
        "%FF",
        "%C3%28",
        "..",
        "%2F%2F",
        "%20",
        "%F0%9F%A6%8A",
        "!",
        "@",
        "%23",
        "$",
        "!a:",
        "@a:b:c:d",
        "%23%00:x",
        "-1",
        "99999999999999999999",
        &long,
        &longer,
    ];
    let mut findings = Vec::new();
    for served in maru::http::endpoints() {
        // Whoever is asked to log out is not asked in this way.
        for variable in variables(served.path) {
            for text in odd {
                let path = place.filled(served.path, Some((variable, text)));
                let body = (served.method != Method::GET).then(|| Bytes::from_static(b"{}"));
                let reply = place
                    .ask(&served.method, &path, Some(&place.alice.token), body)
                    .await;
                let is_text = !["%FF", "%C3%28"].contains(&text);
                let what = match text {
                    _ if ends(&served, SERVICES) => complaint(&reply),
                    _ if !is_text || text.contains("%00") => other_than(&reply, 400, "M_INVALID_PARAM"),
                    _ => complaint(&reply),
                };
                let short = &text[..text.len().min(24)];
                findings.extend(
                    what.map(|what| format!("{} {} {variable}={short}: {what}", served.method, served.path)),
                );
            }
        }
    }
    none(&findings);
    place.still_serves().await;
}

async fn nothing_in_a_query_makes_the_server_fail(server: TestServer) {
    const NAMES: &[&str] = &[
        "since",
        "from",
        "to",
        "at",
        "limit",
        "dir",
        "filter",
        "full_state",
        "set_presence",
        "membership",
        "not_membership",
        "ts",
        "before",
        "after",
        "width",
        "height",
        "method",
        "timeout_ms",
        "username",
        "token",
        "kind",
        "scope",
        "server",
        "via",
        "suggested_only",
        "max_depth",
        "recurse",
        "include",
        "filename",
        "user_id",
        "access_token",
        "use_state_after",
        "allow_remote",
        "format",
        "rel_type",
    ];
    let place = Place::on(&server).await;
    let long = "x".repeat(10_000);
    let odd = [
        "%00",
        "a%00b",
        "%FF",
        "-1",
        "0",
        "99999999999999999999999",
        "1e9",
        "true",
        "%7B",
        "%7B%7D",
        "[]",
        "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:99999999999%7D%7D%7D",
        "t9223372036854775807",
        "s0123456789abcdef0123456789abcdef_9223372036854775807_18446744073709551615",
        &long,
    ];
    let mut findings = Vec::new();
    for served in maru::http::endpoints() {
        // Old spellings of a path lead to the same handler.
        if served.method != Method::GET || served.path.contains("/r0/") || served.path.contains("/unstable/")
        {
            continue;
        }
        let path = place.filled(served.path, None);
        for name in NAMES {
            for text in odd {
                let asked = format!("{path}?{name}={text}");
                let reply = place
                    .ask(&served.method, &asked, Some(&place.alice.token), None)
                    .await;
                let short = &text[..text.len().min(24)];
                findings
                    .extend(complaint(&reply).map(|what| format!("{} {name}={short}: {what}", served.path)));
            }
        }
    }
    none(&findings);
    place.still_serves().await;
}
