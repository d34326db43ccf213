//! Statements that SQLite is given together. Its connection lives on a thread of its own, and the way there and back takes
//! longer than most statements: so those whose results nobody looks at are put off until somebody looks at one, or the
//! transaction ends, and go with that.

use super::Value;

/// Most statements that are put off: a text is prepared for each combination of them that occurs.
const MOST: usize = 16;

/// Statements that are put off, as one text with one list of values.
#[derive(Debug, Default)]
pub(in crate::store) struct Script {
    text: String,
    values: Vec<Value>,
    statements: usize,
}

impl Script {
    /// Adds a statement with its values, after the ones before it.
    pub(in crate::store) fn push(&mut self, sql: &str, values: impl IntoIterator<Item = Value>) {
        if !self.text.is_empty() {
            self.text.push(';');
        }
        self.statements += 1;
        renumber(&mut self.text, sql, self.values.len());
        self.values.extend(values);
    }

    /// What was put off; nothing is afterwards. None when nothing was.
    pub(in crate::store) fn take(&mut self) -> Option<(String, Vec<Value>)> {
        let Self { text, values, .. } = std::mem::take(self);
        (!text.is_empty()).then_some((text, values))
    }

    /// Whether it is time to run what was put off.
    pub(in crate::store) fn is_full(&self) -> bool {
        self.statements >= MOST
    }

    /// Whether a statement was put off and nothing has been run since.
    pub(in crate::store) fn begins_with(&self, sql: &str) -> bool {
        self.text.starts_with(sql)
    }
}

/// Appends a statement whose placeholders, `$1` and so on or bare question marks, count on from those before it.
fn renumber(text: &mut String, sql: &str, before: usize) {
    let (mut rest, mut bare, mut quoted) = (sql, before, false);
    while let Some(at) = rest.find(['\'', '$', '?']) {
        let (head, tail) = rest.split_at(at);
        text.push_str(head);
        let mark = tail.get(..1).unwrap_or_default();
        rest = tail.get(1..).unwrap_or_default();
        match mark {
            "$" if !quoted => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (number, after) = rest.split_at(digits);
                let number = number.parse::<usize>().unwrap_or(0);
                text.push_str(&format!("${}", before + number));
                rest = after;
            }
            "?" if !quoted => {
                bare += 1;
                text.push_str(&format!("${bare}"));
            }
            _ => {
                quoted ^= mark == "'";
                text.push_str(mark);
            }
        }
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use crate::store::engine::statement_batch::*;

    #[test]
    fn placeholders_count_on_and_texts_are_left_alone() {
        let mut script = Script::default();
        script.push("BEGIN IMMEDIATE", []);
        script.push("UPDATE a SET b = $2 WHERE c = $1", [1_i64.into(), 2_i64.into()]);
        script.push("INSERT INTO d (e, f) VALUES (?,?)", [3_i64.into(), 4_i64.into()]);
        script.push("DELETE FROM g WHERE h = '$1?' AND i = $1", [5_i64.into()]);
        assert!(script.begins_with("BEGIN"));
        let (text, values) = script.take().expect("statements were put off");
        assert_eq!(
            text,
            "BEGIN IMMEDIATE;UPDATE a SET b = $2 WHERE c = $1;INSERT INTO d (e, f) VALUES ($3,$4);\
             DELETE FROM g WHERE h = '$1?' AND i = $5"
        );
        assert_eq!(values.len(), 5);
        assert!(script.take().is_none());
    }
}
