//! The sentences of the pages, in the languages that they speak.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::{HeaderMap, header};

use crate::refusal::Refusal;

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Language {
    English,
    Korean,
}

type Phrases = BTreeMap<String, String>;

static ENGLISH: LazyLock<Result<Phrases, String>> =
    LazyLock::new(|| read(include_str!("../../../web/phrases.en.toml")));

static KOREAN: LazyLock<Result<Phrases, String>> =
    LazyLock::new(|| read(include_str!("../../../web/phrases.ko.toml")));

fn read(text: &str) -> Result<Phrases, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

impl Language {
    /// The language that a browser likes best, among those that there are (RFC 9110, section 12.5.4).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let asked = headers.get(header::ACCEPT_LANGUAGE);
        let asked = asked.and_then(|asked| asked.to_str().ok()).unwrap_or_default();
        let mut best = (Self::English, 0.0);
        for range in asked.split(',') {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let language = match primary.to_ascii_lowercase().as_str() {
                "en" => Self::English,
                "ko" => Self::Korean,
                _ => continue,
            };
            let quality = parameters.trim().strip_prefix("q=");
            let quality: f32 = quality.map_or(1.0, |quality| quality.trim().parse().unwrap_or(0.0));
            if quality > best.1 {
                best = (language, quality);
            }
        }
        best.0
    }

    /// Its name in HTML and HTTP.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Korean => "ko",
        }
    }

    /// Its sentences, by their names.
    pub(super) fn phrases(self) -> Result<&'static Phrases, Refusal> {
        let phrases = match self {
            Self::English => &*ENGLISH,
            Self::Korean => &*KOREAN,
        };
        phrases.as_ref().map_err(Refusal::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_languages_have_the_same_sentences() {
        let names = |language: Language| language.phrases().unwrap().keys().collect::<Vec<_>>();
        assert_eq!(names(Language::English), names(Language::Korean));
    }

    #[test]
    fn a_browser_chooses_the_language() {
        for (asked, language) in [
            ("", Language::English),
            ("ko", Language::Korean),
            ("ko-KR,ko;q=0.9,en-US;q=0.8", Language::Korean),
            ("en-US,ko;q=0.9", Language::English),
            ("de, fr;q=0.9, KO;q=0.5, en;q=0.4", Language::Korean),
            ("ko;q=0", Language::English),
            ("ko;q=x,,;;", Language::English),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, asked.parse().unwrap());
            assert_eq!(Language::of(&headers), language, "{asked}");
        }
    }
}
