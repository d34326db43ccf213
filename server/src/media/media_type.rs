//! Media types as they stand in a `Content-Type` header (RFC 9110, section 8.3.1).

/// A media type that everybody reads as the same one: a type, a subtype and parameters, nothing that a browser could
/// take for a second type. It keeps commas out even where the grammar lets them stand in quotes, because headers that
/// are joined by commas are split there by some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaType<'t> {
    /// The type and subtype, as written.
    essence: &'t str,
}

impl<'t> MediaType<'t> {
    /// Reads a media type; none for what is not exactly one.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let mut parts = text.split(';');
        let essence = parts.next()?.trim_matches(' ');
        let (kind, subtype) = essence.split_once('/')?;
        let is_whole = is_token(kind) && is_token(subtype) && parts.all(is_parameter);
        is_whole.then_some(Self { essence })
    }

    /// Whether it is this one, whatever its parameters.
    pub(super) fn is(self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }
}

/// `name=value`, the value a token or in quotes; or nothing, as after a last semicolon.
fn is_parameter(text: &str) -> bool {
    let text = text.trim_matches(' ');
    let quoted = |value: &str| {
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        inner.is_some_and(|inner| {
            inner
                .bytes()
                .all(|byte| is_token_byte(byte) || b" /:=@?()".contains(&byte))
        })
    };
    text.is_empty()
        || text
            .split_once('=')
            .is_some_and(|(name, value)| is_token(name) && (is_token(value) || quoted(value)))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_is_read_and_two_are_none() {
        let is = |text, essence| MediaType::parse(text).is_some_and(|found| found.is(essence));
        for plain in [
            "text/plain",
            "TEXT/Plain",
            "text/plain;charset=utf-8",
            "text/plain; charset=\"utf-8\"; format=flowed;",
        ] {
            assert!(is(plain, "text/plain"), "{plain}");
        }
        assert!(is("image/svg+xml", "image/svg+xml"));
        for odd in [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain, text/html",
            "text/plain;a=b, text/html",
            "text/plain;a=\", text/html\"",
            "text/plain;a=\"b\\\", text/html",
            "text/plain;a",
            "text/plain;=b",
            "text/pla in",
            "text/html,text/plain",
        ] {
            assert_eq!(MediaType::parse(odd), None, "{odd}");
        }
    }
}
