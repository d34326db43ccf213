//! `spec/endpoints.md` and the code agree.

use std::collections::BTreeSet;
use std::fs;

use super::source::top;

const HEAD: &str = "# Endpoints\n\n\
    Every method and path that the client API answers, in the order of the paths. Whatever is not here answers 404 \n\
    `M_UNRECOGNIZED`, and a path that is here answers 405 to other methods. A test holds this page against the code; \n\
    `MARU_WRITE_PAGES=1 cargo test -p maru-tests endpoints` writes it.\n\n\
    | method | path |\n| --- | --- |\n";

#[test]
fn the_page_lists_what_is_served() {
    let served = maru::http::endpoints();
    let lines: BTreeSet<_> = served
        .iter()
        .map(|served| (served.path, served.method.to_string()))
        .collect();
    assert_eq!(lines.len(), served.len(), "a path is served twice");
    let rows = lines
        .iter()
        .map(|(path, method)| format!("| {method} | `{path}` |\n"));
    let page = HEAD.replace(" \n", "\n") + &rows.collect::<String>();
    let path = top().join("spec/endpoints.md");
    if std::env::var_os("MARU_WRITE_PAGES").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let (written, page): (BTreeSet<_>, BTreeSet<_>) = (written.lines().collect(), page.lines().collect());
    let missing: Vec<_> = page.difference(&written).collect();
    let gone: Vec<_> = written.difference(&page).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "missing: {missing:#?}\nnot in the code: {gone:#?}"
    );
}
