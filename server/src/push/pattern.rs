//! The globs of push rules: `*` stands for anything, `?` for one character, letters match without regard to case.
//!
//! Strangers write both the patterns and the texts, so the time is bounded by the length of the text, whatever the
//! pattern: all partial matches advance together, as bits of a number.

use std::collections::HashMap;

/// Longest pattern, in characters; a longer one matches nothing.
pub(super) const LONGEST: usize = 255;

/// Steps that a pattern with wildcards takes for each character of a text.
const STEPS_OF_WILDCARDS: u64 = 8;

/// One bit for each prefix of a pattern, the whole one included.
type Prefixes = [u64; LONGEST / 64 + 1];

/// A pattern, ready to be matched.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    kind: Kind,
    /// Whether it matches words inside a text, or the whole text.
    words: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Without wildcards, in lower case.
    Literal(String),
    Wild(Box<Wild>),
    Never,
}

#[derive(Clone, Debug)]
struct Wild {
    /// How many characters and wildcards it has.
    length: usize,
    /// Which of them each character fits, beside `?`.
    fits: HashMap<char, Prefixes>,
    /// Which of them are `?`.
    any: Prefixes,
    /// Which of them are `*`.
    stars: Prefixes,
}

fn set(bits: &mut Prefixes, index: usize) {
    if let Some(word) = bits.get_mut(index / 64) {
        *word |= 1 << (index % 64);
    }
}

fn is_set(bits: &Prefixes, index: usize) -> bool {
    bits.get(index / 64)
        .is_some_and(|word| word >> (index % 64) & 1 == 1)
}

impl Wild {
    fn new(pattern: &str) -> Self {
        let mut wild = Self {
            length: 0,
            fits: HashMap::new(),
            any: Prefixes::default(),
            stars: Prefixes::default(),
        };
        let mut before = None;
        for c in pattern.chars() {
            if c == '*' && before == Some('*') {
                continue;
            }
            match c {
                '*' => set(&mut wild.stars, wild.length),
                '?' => set(&mut wild.any, wild.length),
                c => set(wild.fits.entry(c).or_default(), wild.length),
            }
            before = Some(c);
            wild.length += 1;
        }
        wild
    }

    /// Lets every prefix that ends before a star also pass it. Stars do not follow each other, so one step is enough.
    fn pass_stars(&self, prefixes: &mut Prefixes) {
        let mut carry = 0;
        for (word, stars) in prefixes.iter_mut().zip(self.stars) {
            let passing = *word & stars;
            *word |= passing << 1 | carry;
            carry = passing >> 63;
        }
    }

    /// The prefixes that match up to and with `c`, given those that matched before it.
    fn step(&self, prefixes: &Prefixes, c: char) -> Prefixes {
        let none = Prefixes::default();
        let fits = self.fits.get(&c).unwrap_or(&none);
        let mut next = none;
        let mut carry = 0;
        for (index, word) in prefixes.iter().enumerate() {
            let advancing = word & (fits[index] | self.any[index]);
            next[index] = advancing << 1 | carry | (word & self.stars[index]);
            carry = advancing >> 63;
        }
        self.pass_stars(&mut next);
        next
    }

    fn matches(&self, text: &str, words: bool) -> bool {
        let mut prefixes = Prefixes::default();
        let mut before: Option<char> = None;
        for c in text.chars().map(Some).chain([None]) {
            let boundary = is_boundary(before, c);
            if before.is_none() || (words && boundary) {
                set(&mut prefixes, 0);
                self.pass_stars(&mut prefixes);
            }
            let ends_here = if words { boundary } else { c.is_none() };
            if ends_here && is_set(&prefixes, self.length) {
                return true;
            }
            if let Some(c) = c {
                prefixes = self.step(&prefixes, c);
            }
            before = c;
        }
        false
    }
}

/// Whether a word may begin or end between two characters.
fn is_boundary(before: Option<char>, after: Option<char>) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    !(is_word(before) && is_word(after))
}

impl Pattern {
    /// A pattern that matches a text as a whole.
    pub(super) fn whole(pattern: &str) -> Self {
        Self::new(pattern, false)
    }

    /// A pattern that matches words inside a text.
    pub(super) fn words(pattern: &str) -> Self {
        Self::new(pattern, true)
    }

    fn new(pattern: &str, words: bool) -> Self {
        let lower = pattern.to_lowercase();
        let kind = if lower.chars().count() > LONGEST || (words && lower.is_empty()) {
            Kind::Never
        } else if lower.contains(['*', '?']) {
            Kind::Wild(Box::new(Wild::new(&lower)))
        } else {
            Kind::Literal(lower)
        };
        Self { kind, words }
    }

    /// Steps that matching takes for each byte of a text (`super::limits`).
    pub(super) fn steps_a_byte(&self) -> u64 {
        match &self.kind {
            Kind::Never => 0,
            // Another length is another text: nothing is read.
            Kind::Literal(_) => u64::from(self.words),
            Kind::Wild(_) => STEPS_OF_WILDCARDS,
        }
    }

    /// How many characters and wildcards it has, if it has wildcards.
    pub(super) fn wild_characters(&self) -> usize {
        match &self.kind {
            Kind::Wild(wild) => wild.length,
            Kind::Literal(_) | Kind::Never => 0,
        }
    }

    /// Whether a text, in lower case, matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Never => false,
            Kind::Literal(literal) if self.words => has_words(text, literal),
            Kind::Literal(literal) => text == literal,
            Kind::Wild(wild) => wild.matches(text, self.words),
        }
    }
}

/// Whether `words` stand in a text, not as part of longer ones.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(start, found)| {
        let (before, after) = (&text[..start], &text[start + found.len()..]);
        let (first, last) = (found.chars().next(), found.chars().next_back());
        is_boundary(before.chars().next_back(), first) && is_boundary(last, after.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        Pattern::whole(pattern).matches(&text.to_lowercase())
    }

    fn words(pattern: &str, text: &str) -> bool {
        Pattern::words(pattern).matches(&text.to_lowercase())
    }

    #[test]
    fn whole_texts() {
        assert!(whole("m.notice", "M.Notice"));
        assert!(!whole("m.notice", "m.notices"));
        assert!(whole("", ""));
        assert!(whole("*", "") && whole("*", "anything"));
        assert!(whole("m.*", "m.room.message") && !whole("m.*", "x.m.room"));
        assert!(whole("a*c?e", "abbbcde") && !whole("a*c?e", "abbbce"));
        assert!(whole("**a**", "bab") && whole("?*?", "ab") && !whole("?*?", "a"));
    }

    #[test]
    fn words_in_a_text() {
        assert!(words("cake", "Lunch plans: cake?"));
        assert!(!words("cake", "cupcakes and pancake"));
        assert!(words("cake", "pancake, then cake"));
        assert!(words("c?ke", "a cOke please") && !words("c?ke", "ccokes"));
        assert!(words("foo*bar", "a foolish rebar b") && !words("foo*bar", "afoo bar"));
        assert!(words("@room", "hello @room"));
        assert!(words("ä", "ä") && !words("", "x"));
    }

    #[test]
    fn long_patterns_match_nothing_and_long_ones_across_a_word_do() {
        assert!(!whole(&"a".repeat(LONGEST + 1), &"a".repeat(LONGEST + 1)));
        let long = format!("{}?{}", "a".repeat(100), "b".repeat(100));
        assert!(whole(&long, &format!("{}x{}", "a".repeat(100), "b".repeat(100))));
        assert!(!whole(
            &long,
            &format!("{}xy{}", "a".repeat(100), "b".repeat(100))
        ));
        let most = format!("{}*", "a".repeat(LONGEST - 1));
        assert!(whole(&most, &"a".repeat(LONGEST + 9)));
    }

    #[test]
    fn a_long_text_does_not_cost_more_than_its_length() {
        // Each start could match for long: matching them one after another would take hours, or all of the stack.
        let text = "xab ".repeat(25_000);
        assert!(!words("ab", &text));
        assert!(!words("a*a*a*a*a*a*a*a*a*c", &text));
    }
}
