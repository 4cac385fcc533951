//! Rust's tokens, as far as paths and braces need them.

/// A word, `::`, or a single other character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// Takes a source apart; comments, strings and characters are left out.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = end_of(&chars, at);
        let text: String = chars[at..end].iter().collect();
        let first = chars[at];
        let is_word = first == '_' || first.is_alphanumeric();
        // A word with a quote in it is the prefix of a string, with the string.
        let is_kept = match is_word {
            true => !text.contains(['"', '\'']),
            false => !first.is_whitespace() && !matches!(first, '"' | '\'') && !is_comment(&text),
        };
        if is_kept {
            let text = text.strip_prefix("r#").unwrap_or(&text).to_owned();
            tokens.push(Token { text, line });
        }
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

fn is_comment(text: &str) -> bool {
    text.starts_with("//") || text.starts_with("/*")
}

fn end_of(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| {
        text.chars()
            .eq(chars[at..].iter().copied().take(text.len()))
    };
    match chars[at] {
        _ if starts("//") => find(chars, at, |c| c == '\n'),
        _ if starts("/*") => end_of_comment(chars, at),
        _ if starts("::") => at + 2,
        '"' => end_of_string(chars, at + 1),
        '\'' => end_of_quote(chars, at),
        c if c == '_' || c.is_alphanumeric() => end_of_word(chars, at),
        _ => at + 1,
    }
}

fn find(chars: &[char], from: usize, is_end: impl Fn(char) -> bool) -> usize {
    let found = chars[from..].iter().position(|c| is_end(*c));
    found.map_or(chars.len(), |offset| from + offset)
}

/// Comments are nested.
fn end_of_comment(chars: &[char], at: usize) -> usize {
    let (mut end, mut depth) = (at, 0_usize);
    while end < chars.len() {
        match &chars[end..chars.len().min(end + 2)] {
            ['/', '*'] => (end, depth) = (end + 2, depth + 1),
            ['*', '/'] => (end, depth) = (end + 2, depth - 1),
            _ => end += 1,
        }
        if depth == 0 {
            break;
        }
    }
    end
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    chars.len().min(at + 1)
}

/// A character, or a lifetime.
fn end_of_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let closing = find(chars, chars.len().min(at + 3), |c| c == '\'');
            chars.len().min(closing + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// A word or number, or a string or character with the prefix that it has: `r#"…"#`, `b'…'`.
fn end_of_word(chars: &[char], at: usize) -> usize {
    let end = find(chars, at, |c| c != '_' && !c.is_alphanumeric());
    let word: String = chars[at..end].iter().collect();
    let hashes = find(chars, end, |c| c != '#') - end;
    match (word.as_str(), chars.get(end + hashes)) {
        ("b" | "c", Some('"')) if hashes == 0 => end_of_string(chars, end + 1),
        ("b", Some('\'')) if hashes == 0 => end_of_quote(chars, end),
        ("r" | "br" | "cr", Some('"')) => {
            let closing: Vec<char> = "\"".chars().chain("#".repeat(hashes).chars()).collect();
            let from = end + hashes + 1;
            let found = chars[from..]
                .windows(closing.len())
                .position(|w| w == closing);
            found.map_or(chars.len(), |offset| from + offset + closing.len())
        }
        // A raw identifier.
        ("r", Some(_)) if hashes == 1 => find(chars, end + 1, |c| c != '_' && !c.is_alphanumeric()),
        _ => end,
    }
}
