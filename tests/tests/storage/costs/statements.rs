//! The statements of the store, read from its sources: a statement that is added there is held by these tests, too.

use std::collections::HashMap;

use crate::tidy::source::rust;

/// The files that make them; those of the schema and of single-row bulk inserts are made of parts and not read.
const FOLDER: &str = "server/src/store";

/// Words that a statement begins with.
const VERBS: [&str; 5] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];

/// A statement in PostgreSQL's spelling.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// The file that it stands in.
    pub(super) file: String,
    /// Its text.
    pub(super) sql: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Word(String),
    Mark(char),
}

/// All statements.
pub(super) fn all() -> Vec<Statement> {
    let read: Vec<(String, Vec<Token>)> = rust(FOLDER)
        .into_iter()
        .map(|source| {
            let lines: Vec<_> = source.lines().map(|(_, line)| line).collect();
            let tokens = tokens(&lines);
            (source.path, tokens)
        })
        .collect();
    let mut macros = HashMap::new();
    for (_, tokens) in &read {
        for at in 0..tokens.len() {
            if let Some((name, body)) = macro_at(tokens, at) {
                macros.insert(name, body);
            }
        }
    }
    let mut all = Vec::new();
    for (file, tokens) in &read {
        let mut at = 0;
        while at < tokens.len() {
            if let Some(end) = end_of_macro(tokens, at) {
                at = end;
                continue;
            }
            match text_at(tokens, at, &macros) {
                Some((sql, next)) => {
                    // Braces: a text that is put together at run time.
                    if VERBS.iter().any(|verb| sql.starts_with(verb)) && !sql.contains('{') {
                        all.push(Statement {
                            file: file.clone(),
                            sql,
                        });
                    }
                    at = next;
                }
                None => at += 1,
            }
        }
    }
    all
}

/// Splits Rust as finely as needed here. Comments are left out.
fn tokens(lines: &[&str]) -> Vec<Token> {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let code: Vec<&str> = lines.iter().filter(|line| !is_comment(line)).copied().collect();
    let code = code.join("\n");
    let mut rest = code.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = rest.next() {
        if c == '"' {
            let mut literal = String::new();
            while let Some(c) = rest.next().filter(|c| *c != '"') {
                match c {
                    '\\' => match rest.next() {
                        Some('\n') => while rest.next_if(|c| c.is_whitespace()).is_some() {},
                        Some('n') => literal.push('\n'),
                        Some(c) => literal.push(c),
                        None => {}
                    },
                    c => literal.push(c),
                }
            }
            tokens.push(Token::Text(literal));
        } else if c == '\'' && rest.peek() == Some(&'"') {
            // A quote as a character.
            rest.next();
        } else if c.is_alphanumeric() || c == '_' {
            let mut word = String::from(c);
            while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                word.push(c);
            }
            tokens.push(Token::Word(word));
        } else if !c.is_whitespace() {
            tokens.push(Token::Mark(c));
        }
    }
    tokens
}

fn is_word(token: Option<&Token>, wanted: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word == wanted)
}

fn is_mark(token: Option<&Token>, wanted: char) -> bool {
    token == Some(&Token::Mark(wanted))
}

/// Where a definition of a macro ends that begins here.
fn end_of_macro(tokens: &[Token], at: usize) -> Option<usize> {
    if !is_word(tokens.get(at), "macro_rules") {
        return None;
    }
    let mut depth = 0;
    for (end, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') if depth == 1 => return Some(end + 1),
            Token::Mark('}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The name and the body of a macro that is defined here, as far as it is one text.
fn macro_at(tokens: &[Token], at: usize) -> Option<(String, Vec<Token>)> {
    let end = end_of_macro(tokens, at)?;
    let Some(Token::Word(name)) = tokens.get(at + 2) else {
        return None;
    };
    let body = tokens.get(at..end)?;
    let arrow = body.windows(3).position(|three| {
        three[0] == Token::Mark('=') && three[1] == Token::Mark('>') && three[2] == Token::Mark('{')
    })?;
    Some((name.clone(), body[arrow + 3..].to_vec()))
}

/// The text of a literal, or of a macro that makes one, and where it ends.
fn text_at(tokens: &[Token], at: usize, macros: &HashMap<String, Vec<Token>>) -> Option<(String, usize)> {
    match tokens.get(at)? {
        Token::Text(text) => Some((text.clone(), at + 1)),
        Token::Word(name) if is_mark(tokens.get(at + 1), '!') && is_mark(tokens.get(at + 2), '(') => {
            let mut arguments = Vec::new();
            let mut next = at + 3;
            while !is_mark(tokens.get(next), ')') {
                if is_mark(tokens.get(next), ',') {
                    next += 1;
                    continue;
                }
                let (text, end) = text_at(tokens, next, macros)?;
                arguments.push(text);
                next = end;
            }
            if name == "concat" {
                return Some((arguments.concat(), next + 1));
            }
            let body = with_argument(macros.get(name)?, &arguments.concat());
            let (text, _) = text_at(&body, 0, macros)?;
            Some((text, next + 1))
        }
        _ => None,
    }
}

/// The body of a macro with its one argument in it.
fn with_argument(body: &[Token], argument: &str) -> Vec<Token> {
    let mut filled: Vec<Token> = Vec::new();
    for token in body {
        match (filled.last(), token) {
            (Some(Token::Mark('$')), Token::Word(_)) => {
                filled.pop();
                filled.push(Token::Text(argument.to_owned()));
            }
            _ => filled.push(token.clone()),
        }
    }
    filled
}
