//! Whatever strangers send: the right status and errcode, never a 500, and a server that goes on serving the others.

mod connections;
mod endpoints;
mod texts;

use maru_tests::Reply;

/// What is wrong with an answer, whatever was asked: a status of 500 or more, or a refusal that does not say why.
fn complaint(reply: &Reply) -> Option<String> {
    let body = || {
        String::from_utf8_lossy(&reply.body)
            .chars()
            .take(200)
            .collect::<String>()
    };
    let status = reply.status.as_u16();
    if status >= 500 {
        return Some(format!("{status} {}", body()));
    }
    let is_challenge = reply.json.get("flows").is_some();
    let errcode = reply.json["errcode"].as_str().unwrap_or_default();
    let says_why = reply.json["error"].as_str().is_some_and(|text| !text.is_empty());
    let is_said = is_challenge || errcode.starts_with("M_") && says_why;
    (status >= 400 && !is_said).then(|| format!("{status} without a reason: {}", body()))
}

/// What is wrong with an answer that should be this refusal.
fn other_than(reply: &Reply, status: u16, errcode: &str) -> Option<String> {
    let found = (
        reply.status.as_u16(),
        reply.json["errcode"].as_str().unwrap_or_default(),
    );
    (found != (status, errcode)).then(|| format!("{found:?} instead of {status} {errcode}"))
}

/// Fails with everything that was found, so that one run shows all.
#[track_caller]
fn none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}
