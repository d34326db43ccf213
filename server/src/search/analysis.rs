//! The analysis of text for search: what the index is given of a text, and whether a text holds what somebody looks for.
//! One for both databases, so that they find the same.
//!
//! Text is folded first: compatibility forms, case and the marks on Latin, Greek and Cyrillic letters do not count. Then it
//! falls into *words*, and into *runs* of characters whose scripts write words without spaces, or glue endings to them:
//! Hangul, Han, Kana, Thai and their like. Segments that touch are one *phrase*: `API서버` is a word and a run.
//!
//! | text | tokens |
//! |---|---|
//! | a word | the word, its first [`LONGEST_WORD`] characters |
//! | a run | every two characters that follow each other, and the last one alone |
//!
//! So two syllables inside a longer word are one token, and a single one is found as the beginning of a token. Tokens say
//! neither how often nor where something stands: they find candidates, and [`Query::score`] looks at the text itself.

use std::collections::BTreeSet;
use std::iter;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Characters of a word that count.
const LONGEST_WORD: usize = 64;

/// Different tokens of one text that the index takes, and their bytes: what comes after is not found. PostgreSQL takes no more
/// than a megabyte for one row.
const MOST_TOKENS: usize = 16_384;
const MOST_TOKEN_BYTES: usize = 384 * 1024;

/// Phrases that somebody may look for at once.
pub const MOST_PHRASES: usize = 64;

/// Tokens that the index is asked for at once: the longest ones.
const MOST_NEEDLES: usize = 32;

/// What the index is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needle {
    /// A token.
    Token(String),
    /// Any token that begins so.
    Beginning(String),
}

/// What somebody looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    phrases: Vec<Phrase>,
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Run,
}

/// A word or a run, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    kind: Kind,
    text: String,
    characters: usize,
}

/// Segments that touch each other.
type Phrase = Vec<Segment>;

/// What the index is given of a text: each token once, in order. Costs grow with the text.
#[must_use]
pub fn tokens(text: &str) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    let mut bytes = 0;
    for segment in phrases(text).flatten() {
        for token in segment.tokens() {
            if tokens.len() >= MOST_TOKENS || bytes + token.len() > MOST_TOKEN_BYTES {
                return tokens;
            }
            let length = token.len();
            bytes += if tokens.insert(token) { length } else { 0 };
        }
    }
    tokens
}

impl Query {
    /// What a person has typed. None where that is more than [`MOST_PHRASES`].
    #[must_use]
    pub fn new(typed: &str) -> Option<Self> {
        let mut query = Self::default();
        for phrase in phrases(typed) {
            if !query.phrases.contains(&phrase) {
                query.phrases.push(phrase);
            }
            if query.phrases.len() > MOST_PHRASES {
                return None;
            }
        }
        let words = typed.split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c));
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.retain(|word| !word.is_empty());
        words.sort_unstable();
        words.dedup();
        query.words = words;
        Some(query)
    }

    /// Whether there is nothing in it that could be found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phrases.is_empty()
    }

    /// The words as they were typed, each once.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// What the index is asked for, all of which must be there. More texts have it than are meant.
    #[must_use]
    pub fn needles(&self) -> Vec<Needle> {
        let segments = self.phrases.iter().flatten();
        let needles: BTreeSet<Needle> = segments.flat_map(Segment::needles).collect();
        let mut needles: Vec<Needle> = needles.into_iter().collect();
        // What is long is rare; beginnings are dear, and come last.
        needles.sort_by_key(|needle| match needle {
            Needle::Token(token) => (0, usize::MAX - token.chars().count()),
            Needle::Beginning(_) => (1, 0),
        });
        needles.truncate(MOST_NEEDLES);
        needles
    }

    /// How well a text fits, higher is better; none where it lacks any of the phrases. Costs grow with both lengths.
    #[must_use]
    pub fn score(&self, text: &str) -> Option<f64> {
        let mut counts = vec![0_u32; self.phrases.len()];
        let mut length = 0_u32;
        for phrase in phrases(text) {
            length = length.saturating_add(u32::try_from(phrase.len()).unwrap_or(u32::MAX));
            for (count, wanted) in counts.iter_mut().zip(&self.phrases) {
                *count = count.saturating_add(times(wanted, &phrase));
            }
        }
        if self.is_empty() || counts.contains(&0) {
            return None;
        }
        // Often is better than once, but not so much; short is better than long.
        let found: f64 = counts.iter().map(|count| f64::from(*count).ln_1p()).sum();
        Some(found / f64::from(length).ln_1p())
    }
}

impl Segment {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            text: String::new(),
            characters: 0,
        }
    }

    fn push(&mut self, c: char) {
        if self.kind == Kind::Run || self.characters < LONGEST_WORD {
            self.text.push(c);
            self.characters += 1;
        }
    }

    /// What the index is given of it.
    fn tokens(&self) -> Vec<String> {
        if self.kind == Kind::Word {
            return vec![self.text.clone()];
        }
        let last = self.text.chars().next_back();
        self.pairs().chain(last.map(String::from)).collect()
    }

    /// What the index is asked for, for it.
    fn needles(&self) -> Vec<Needle> {
        match self.kind {
            Kind::Word => vec![Needle::Token(self.text.clone())],
            Kind::Run if self.characters == 1 => vec![Needle::Beginning(self.text.clone())],
            Kind::Run => self.pairs().map(Needle::Token).collect(),
        }
    }

    fn pairs(&self) -> impl Iterator<Item = String> {
        let next = self.text.chars().skip(1);
        let pairs = self.text.chars().zip(next);
        pairs.map(|(one, two)| [one, two].iter().collect())
    }
}

/// How often a wanted phrase stands in another. Where it begins or ends with a run, that may be a part of a longer one.
fn times(wanted: &[Segment], phrase: &[Segment]) -> u32 {
    let count = match wanted {
        [] => 0,
        [one] => phrase.iter().map(|segment| one.times_in(segment)).sum(),
        [first, inner @ .., last] => {
            let fits = |window: &&[Segment]| match window {
                [start, middle @ .., end] => middle == inner && first.ends(start) && last.begins(end),
                _ => false,
            };
            phrase.windows(wanted.len()).filter(fits).count()
        }
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Segment {
    fn times_in(&self, other: &Self) -> usize {
        match self.kind {
            _ if self.kind != other.kind => 0,
            Kind::Word => usize::from(self.text == other.text),
            Kind::Run => other.text.matches(&self.text).count(),
        }
    }

    /// Whether another segment ends so.
    fn ends(&self, other: &Self) -> bool {
        self == other || self.kind == Kind::Run && other.kind == Kind::Run && other.text.ends_with(&self.text)
    }

    /// Whether another segment begins so.
    fn begins(&self, other: &Self) -> bool {
        self == other
            || self.kind == Kind::Run && other.kind == Kind::Run && other.text.starts_with(&self.text)
    }
}

/// The phrases of a text, in order.
fn phrases(text: &str) -> impl Iterator<Item = Phrase> {
    let mut characters = folded(text);
    iter::from_fn(move || {
        let mut phrase = Phrase::new();
        for c in characters.by_ref() {
            match kind_of(c) {
                Some(kind) => match phrase.last_mut().filter(|last| last.kind == kind) {
                    Some(last) => last.push(c),
                    None => {
                        let mut segment = Segment::new(kind);
                        segment.push(c);
                        phrase.push(segment);
                    }
                },
                // A mark belongs to what it stands on.
                None if is_combining_mark(c) => {
                    if let Some(last) = phrase.last_mut() {
                        last.push(c);
                    }
                }
                None if phrase.is_empty() => {}
                None => break,
            }
        }
        (!phrase.is_empty()).then_some(phrase)
    })
}

/// A text in the form in which texts are compared.
fn folded(text: &str) -> impl Iterator<Item = char> {
    let apart = text.nfkd().flat_map(char::to_lowercase);
    let plain = apart.filter(|c| !is_left_out(*c)).flat_map(|c| {
        let (first, second) = match c {
            'ß' => ('s', Some('s')),
            'ς' => ('σ', None),
            c => (c, None),
        };
        iter::once(first).chain(second)
    });
    plain.nfc()
}

/// The marks on letters of European scripts, and the hyphen that is seen at the end of a line only.
fn is_left_out(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{ad}')
}

/// What a folded character is a part of; nothing for what separates.
fn kind_of(c: char) -> Option<Kind> {
    if !c.is_alphanumeric() {
        return None;
    }
    let is_of_run = matches!(c,
        // Hangul.
        '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}'
        // Han, with its signs of repetition; Kana; Bopomofo.
        | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{312f}' | '\u{31a0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{1aff0}'..='\u{1b16f}' | '\u{20000}'..='\u{3ffff}'
        // Thai, Lao, Tibetan, Burmese, Khmer.
        | '\u{e00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{a9e0}'..='\u{a9ff}'
        | '\u{aa60}'..='\u{aa7f}');
    Some(if is_of_run { Kind::Run } else { Kind::Word })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finds(typed: &str, text: &str) -> bool {
        let query = Query::new(typed).expect("it is short");
        let tokens = tokens(text);
        let has = |needle: &Needle| match needle {
            Needle::Token(token) => tokens.contains(token),
            Needle::Beginning(start) => tokens.iter().any(|token| token.starts_with(start)),
        };
        let scored = query.score(text).is_some();
        assert!(
            !scored || query.needles().iter().all(has),
            "{typed:?} in {text:?}"
        );
        scored
    }

    #[test]
    fn korean_is_found_inside_longer_words() {
        let text = "내일 회의실에서 한국어능력시험 준비모임을 합니다";
        for typed in [
            "회의",
            "한국",
            "능력시험",
            "준비",
            "모임",
            "회",
            "험",
            "내일 모임",
            "국어능",
        ] {
            assert!(finds(typed, text), "{typed}");
        }
        for typed in ["회실", "한국시험", "내일모임", "어제"] {
            assert!(!finds(typed, text), "{typed}");
        }
    }

    #[test]
    fn other_scripts_without_spaces_are_found() {
        assert!(finds("東京", "私は東京都に住んでいます"));
        assert!(finds("住んで", "私は東京都に住んでいます"));
        assert!(!finds("京東", "私は東京都に住んでいます"));
        assert!(finds("カタカナ", "ｶﾀｶﾅで"));
        assert!(finds("会议", "明天的会议取消了"));
        assert!(finds("ประชุม", "พรุ่งนี้มีประชุมใหญ่"));
    }

    #[test]
    fn words_are_found_whole_whatever_their_case_and_marks() {
        assert!(finds("cafe", "Le CAFÉ est fermé"));
        assert!(finds("Café", "cafe"));
        assert!(finds("STRASSE", "Die Straße"));
        assert!(finds("ΟΔΟΣ", "η οδός"));
        assert!(finds("елка", "Ёлка"));
        assert!(finds("istanbul", "İstanbul"));
        assert!(!finds("mess", "message"));
        assert!(finds("don't", "I don’t know"));
        assert!(finds("привет", "Привет!"));
        assert!(finds("नमस्ते", "नमस्ते दुनिया"));
    }

    #[test]
    fn what_touches_is_looked_for_together() {
        assert!(finds("API서버", "새 API서버를 켰다"));
        assert!(finds("API", "새 API를 켰다"));
        assert!(finds("3월", "내년 3월에"));
        assert!(!finds("3월", "월요일 3시"));
        assert!(finds("3 월", "월요일 3시"));
    }

    #[test]
    fn all_phrases_must_be_there_and_too_many_are_refused() {
        assert!(finds("red apple", "An apple, red"));
        assert!(!finds("red apple", "a red pear"));
        assert!(!finds("!?", "what!?") && !finds("", "anything"));
        let many: String = (0..=MOST_PHRASES).map(|n| format!("w{n} ")).collect();
        assert_eq!(Query::new(&many), None);
    }

    #[test]
    fn more_often_is_better_and_so_is_shorter() {
        let query = Query::new("apple").unwrap();
        let score = |text: &str| query.score(text).unwrap();
        assert!(score("apple apple pear") > score("apple pear pear"));
        assert!(score("apple pear") > score("apple pear and many other kinds of fruit"));
    }

    #[test]
    fn what_is_indexed_of_one_text_is_bounded() {
        let characters = ('가'..='힣').cycle();
        let text: String = characters
            .clone()
            .zip(characters.skip(7))
            .take(100_000)
            .flat_map(|(a, b)| [a, b])
            .collect();
        let tokens = tokens(&text);
        assert_eq!(tokens.len(), MOST_TOKENS);
        let long = "x".repeat(1_000_000);
        assert_eq!(
            super::tokens(&long).iter().map(String::len).collect::<Vec<_>>(),
            [LONGEST_WORD]
        );
        assert!(finds(&long, &format!("{long} y")));
    }

    proptest! {
        #[test]
        fn every_part_of_a_run_is_found(text in "[가-힣一-龥ぁ-ん]{2,40}", from in 0_usize..40, length in 1_usize..10) {
            let part: String = text.chars().cycle().skip(from % text.chars().count()).take(length).collect();
            prop_assert_eq!(finds(&part, &text), folded(&text).collect::<String>().contains(&folded(&part).collect::<String>()));
        }

        #[test]
        fn what_is_found_in_a_text_has_its_tokens(typed in any::<String>(), text in any::<String>()) {
            if Query::new(&typed).is_some() {
                finds(&typed, &text);
            }
        }

        #[test]
        fn every_word_of_a_text_finds_it(text in "[\\PC가-힣]{0,60}") {
            // Signs may fold to letters.
            let text: String = folded(&text).collect();
            let query = Query::new(&text);
            for word in query.iter().flat_map(Query::words) {
                let has_letters = Query::new(word).is_some_and(|query| !query.is_empty());
                prop_assert!(!has_letters || finds(word, &text), "{word:?} of {text:?}");
            }
        }

        #[test]
        fn tokens_are_plain(text in any::<String>()) {
            for token in tokens(&text) {
                prop_assert!(!token.is_empty());
                prop_assert!(token.chars().all(|c| c.is_alphanumeric() || is_combining_mark(c)), "{token:?}");
                prop_assert!(token.chars().all(|c| !c.is_ascii_uppercase()));
            }
        }
    }
}
