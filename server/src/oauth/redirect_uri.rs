//! Redirect URIs: where a client may have people sent when they have signed in (client-server API, "Client registration").
//!
//! The address of a web page lies on the client's own host or below it. An application on a machine has a scheme of its own,
//! which is the client's host read backwards, or listens on that machine.

use url::{Host, Url};

use super::client::ApplicationType;

/// Longest address, in bytes.
const BYTES: usize = 2048;

/// Checks an address that a client registers: why it is none where it may have people sent.
pub(super) fn check(text: &str, client: &Url, kind: ApplicationType) -> Result<(), &'static str> {
    let url = read(text)?;
    match url.scheme() {
        "https" if is_at_or_below(&url, client) => Ok(()),
        "https" => Err("an address of the web is on the host of client_uri or below it"),
        "http" if kind == ApplicationType::Native && is_loopback(&url) => Ok(()),
        "http" => Err("only native applications have addresses with http, on their own machine"),
        scheme if kind == ApplicationType::Native => check_private_use(text, scheme, client),
        _ => Err("applications of the web have addresses with https"),
    }
}

/// Whether an address that is asked for is one that was registered. On the same machine any port will do (RFC 8252, section
/// 7.3); everything else is the same letter by letter.
pub(super) fn is_same(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let (Ok(registered), Ok(asked)) = (read(registered), read(asked)) else {
        return false;
    };
    let parts = |url: &Url| {
        let path = url.path().to_owned();
        (
            url.host_str().map(str::to_owned),
            path,
            url.query().map(str::to_owned),
        )
    };
    let both_local = [&registered, &asked]
        .iter()
        .all(|url| url.scheme() == "http" && is_loopback(url));
    both_local && parts(&registered) == parts(&asked)
}

/// An address as far as it may go into a header: plain characters, no fragment, nobody's name or password.
fn read(text: &str) -> Result<Url, &'static str> {
    let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if text.len() > BYTES || !text.chars().all(plain) {
        return Err("an address has at most 2048 characters, none of them unusual");
    }
    if text.contains('#') {
        return Err("an address here has no fragment");
    }
    let url = Url::parse(text).map_err(|_| "this is no address")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address here names no user");
    }
    Ok(url)
}

/// Whether an address is on the host of the client or on one below it.
pub(super) fn is_at_or_below(url: &Url, client: &Url) -> bool {
    match (url.host(), client.host()) {
        (Some(Host::Domain(host)), Some(Host::Domain(own))) => {
            let is_below = |rest: &str| rest.ends_with('.') && own.contains('.');
            host == own || host.strip_suffix(own).is_some_and(is_below)
        }
        (Some(host), Some(own)) => host == own,
        _ => false,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == std::net::Ipv6Addr::LOCALHOST,
        None => false,
    }
}

/// Checks an address with a scheme of the application's own (RFC 8252, section 7.1).
fn check_private_use(text: &str, scheme: &str, client: &Url) -> Result<(), &'static str> {
    let Some(Host::Domain(host)) = client.host() else {
        return Err("a scheme of one's own is that of a domain");
    };
    let labels: Vec<_> = host.rsplit('.').collect();
    let own = labels.join(".");
    let is_own = labels.len() > 1
        && scheme
            .strip_prefix(&own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if !is_own {
        return Err("a scheme of one's own begins with the host of client_uri read backwards");
    }
    let rest = text.get(scheme.len() + 1..).unwrap_or_default();
    if rest.starts_with("//") {
        return Err("an address with a scheme of one's own names no host");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ApplicationType::{Native, Web};

    fn allowed(text: &str, kind: ApplicationType) -> bool {
        let client = Url::parse("https://app.example.com/about").unwrap();
        check(text, &client, kind).is_ok()
    }

    #[test]
    fn a_page_lies_with_the_client() {
        for good in [
            "https://app.example.com/",
            "https://app.example.com/cb?no_universal_links=true",
            "https://app.example.com:8443/cb",
            "https://beta.app.example.com/cb",
        ] {
            assert!(allowed(good, Web) && allowed(good, Native), "{good}");
        }
        for bad in [
            "",
            "cb",
            "/cb",
            "//app.example.com/cb",
            "https://example.com/cb",
            "https://evil.example/cb",
            "https://evilapp.example.com/cb",
            "https://app.example.com.evil.example/cb",
            "https://app.example.com@evil.example/cb",
            "https://user:pass@app.example.com/cb",
            "https://app.example.com/cb#part",
            "https://app.example.com\\@evil.example/",
            "https://app.example.com/\r\nSet-Cookie: a",
            "https://äpp.example.com/",
            "http://app.example.com/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
        ] {
            assert!(!allowed(bad, Web) && !allowed(bad, Native), "{bad}");
        }
    }

    #[test]
    fn an_application_has_its_own_scheme_or_listens_on_its_machine() {
        for good in [
            "com.example.app:/",
            "com.example.app:/cb",
            "com.example.app.debug:/cb?a=b",
            "http://localhost/cb",
            "http://127.0.0.1:1234/cb",
            "http://[::1]/",
        ] {
            assert!(allowed(good, Native), "{good}");
            assert!(!allowed(good, Web), "{good}");
        }
        for bad in [
            "com.example.app://host/cb",
            "com.example:/cb",
            "com.example.application:/cb",
            "com.evil.app:/cb",
            "com:/cb",
            "http://localhost.evil.example/",
            "http://127.0.0.2/cb",
            "http://0.0.0.0/cb",
            "https://localhost/cb",
        ] {
            assert!(!allowed(bad, Native), "{bad}");
        }
        let top = Url::parse("https://com").unwrap();
        assert!(check("com.example:/cb", &top, Native).is_err());
        assert!(check("https://example.com/cb", &top, Web).is_err());
    }

    #[test]
    fn only_the_port_of_the_own_machine_may_differ() {
        assert!(is_same("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb"));
        assert!(is_same("http://[::1]:1/cb?a=b", "http://[::1]:2/cb?a=b"));
        for (registered, asked) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:4711/other"),
            ("http://127.0.0.1/cb", "http://localhost/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1/cb?a=b"),
            ("http://127.0.0.1/cb", "http://127.0.0.1@evil.example/cb"),
            ("https://app.example.com/", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com:443/"),
            ("https://app.example.com/cb", "https://app.example.com/cb/../evil"),
            ("https://app.example.com/cb", "https://APP.example.com/cb"),
        ] {
            assert!(!is_same(registered, asked), "{asked}");
        }
    }
}
