//! Reads the tags of a template before the template engine does.
//!
//! The engine parses and runs expressions by recursion, one stack frame per operator in a
//! chain, and does not bound the chain: a long enough `not not not …` would end the process.
//! Templates that people write stay far below the bounds here.

use std::ops::Range;

use crate::ChatError;
use crate::mutation::without_mutation;

/// Words and signs in one tag. The longest tags in use have under two hundred.
const SIGNS_MAX: usize = 600;

/// Brackets within brackets in one tag.
const BRACKETS_MAX: usize = 24;

/// Tags `elif` in one template; each lies one level within the one before.
const ELIFS_MAX: usize = 200;

/// Refuses templates whose tags are longer, or deeper, than the engine can bear.
pub(crate) fn check(template: &str) -> Result<(), ChatError> {
    let mut elifs = 0;
    for tag in tags(template) {
        let line = template[..tag.start].matches('\n').count() + 1;
        let size = measure(&template[tag.clone()]);
        elifs += usize::from(name(&template[tag]) == "elif");
        let bounds = [
            ("signs in one tag", size.signs, SIGNS_MAX),
            ("brackets within brackets", size.brackets, BRACKETS_MAX),
            ("elif tags", elifs, ELIFS_MAX),
        ];
        if let Some((what, _, max)) = bounds.into_iter().find(|(_, found, max)| found > max) {
            return Err(ChatError::Complex { what, max, line });
        }
    }
    Ok(())
}

/// The template with other words where Python's templates say what the engine has no word for.
///
/// `{% generation %}` and `{% endgeneration %}` mark the assistant's words for training and render as
/// nothing. A condition that always holds does the same, and keeps what the tags do to the white space
/// around them. Lists that are changed in place: see [`crate::mutation`].
pub(crate) fn translated(template: &str) -> String {
    let mut changed = String::with_capacity(template.len());
    let mut copied = 0;
    for tag in tags(template) {
        let body = &template[tag.clone()];
        if !template[..tag.start].ends_with("{%") {
            continue;
        }
        let said = body.trim_matches(is_blank_or_mark);
        let other = match said {
            "generation" => Some("if true".to_owned()),
            "endgeneration" => Some("endif".to_owned()),
            _ => without_mutation(said),
        };
        let Some(other) = other else { continue };
        let start = tag.start + body.len() - body.trim_start_matches(is_blank_or_mark).len();
        changed.push_str(&template[copied..start]);
        changed.push_str(&other);
        copied = start + said.len();
    }
    changed.push_str(&template[copied..]);
    changed
}

/// Whether a tag says `wanted` as a name of its own: not within a string, and not as a part of something.
pub(crate) fn mention(template: &str, wanted: &str) -> bool {
    tags(template).any(|tag| says(&template[tag], wanted))
}

fn says(tag: &str, wanted: &str) -> bool {
    let mut rest = tag;
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '\'' | '"' => string_length(rest, letter),
            _ => word_length(rest).max(letter.len_utf8()),
        };
        if before != '.' && &rest[..length] == wanted {
            return true;
        }
        before = letter;
        rest = &rest[length..];
    }
    false
}

/// Where the insides of `{{ … }}` and `{% … %}` lie, leaving out comments and raw text.
fn tags(template: &str) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            let open = next + find_open(&template[next..])?;
            let start = open + 2;
            let rest = &template[start..];
            if template[open..].starts_with("{#") {
                next = start + rest.find("#}")? + 2;
                continue;
            }
            let close = if template[open..].starts_with("{{") { "}}" } else { "%}" };
            let end = start + tag_length(rest, close);
            next = (end + 2).min(template.len());
            if close == "%}" && name(&template[start..end]) == "raw" {
                next += template[next..].find("endraw").unwrap_or(0);
            }
            return Some(start..end);
        }
    })
}

/// Where the first tag or comment begins.
fn find_open(text: &str) -> Option<usize> {
    text.match_indices('{')
        .map(|(place, _)| place)
        .find(|&place| matches!(text.as_bytes().get(place + 1), Some(b'{' | b'%' | b'#')))
}

/// Bytes until `close`, which does not count within a string.
fn tag_length(text: &str, close: &str) -> usize {
    let mut place = 0;
    while let Some(letter) = text[place..].chars().next() {
        if text[place..].starts_with(close) {
            return place;
        }
        place += match letter {
            '\'' | '"' => string_length(&text[place..], letter),
            _ => letter.len_utf8(),
        };
    }
    text.len()
}

/// The word that a tag begins with.
fn name(tag: &str) -> &str {
    let tag = tag.trim_start_matches(is_blank_or_mark);
    &tag[..word_length(tag)]
}

/// White space, and the marks that control white space around a tag.
fn is_blank_or_mark(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '-' | '+')
}

/// Whether `text` is one word.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && word_length(text) == text.len()
}

/// Whether every bracket in `text` is closed in it, and none before it was opened.
pub(crate) fn is_balanced(text: &str) -> bool {
    let mut depth = 0i32;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '\'' | '"' => string_length(rest, letter),
            _ => letter.len_utf8(),
        };
        depth += match letter {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        if depth < 0 {
            return false;
        }
        rest = &rest[length..];
    }
    depth == 0
}

/// How much there is in a tag.
#[derive(Default)]
struct Size {
    /// Words, strings, and characters that are neither.
    signs: usize,
    /// Brackets within brackets, at the deepest.
    brackets: usize,
}

fn measure(tag: &str) -> Size {
    let mut size = Size::default();
    let mut depth = 0usize;
    let mut rest = tag.trim_start();
    while let Some(letter) = rest.chars().next() {
        let length = match letter {
            '\'' | '"' => string_length(rest, letter),
            _ => word_length(rest).max(letter.len_utf8()),
        };
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        size.signs += 1;
        size.brackets = size.brackets.max(depth);
        rest = rest[length..].trim_start();
    }
    size
}

/// Bytes of the string that `text` begins with, with its quotes.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of letters, digits and `_` at the front of `text`.
fn word_length(text: &str) -> usize {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the insides of all tags, with `|` between them.
    fn check_tags(template: &str, expected: &str) {
        let found: Vec<&str> = tags(template).map(|tag| template[tag].trim()).collect();
        assert_eq!(found.join("|"), expected, "{template}");
    }

    #[test]
    fn tags_end_where_the_engine_says() {
        check_tags("a {{ b }} {% c %}{# {{ d }} #}{- e }", "b|c");
        check_tags("{{ '}}' ~ \"%}\\\"}}\" }} {% x %}", "'}}' ~ \"%}\\\"}}\"|x");
        check_tags("{%- raw -%} {{ a }} {%- endraw -%}{{ b }}", "- raw -|b");
        check_tags("{{ a", "a");
        check_tags("{{ 'a", "'a");
        check_tags("{# a", "");
        check_tags("{", "");
    }

    #[test]
    fn generation_tags_go() {
        let change = |template| translated(template);
        assert_eq!(change("{%- generation +%}a{%endgeneration%}"), "{%- if true +%}a{%endif%}");
        assert_eq!(
            change("{% generation x %}{{ generation }}"),
            "{% generation x %}{{ generation }}"
        );
        assert_eq!(change("{# {% generation %} #}é"), "{# {% generation %} #}é");
    }

    #[test]
    fn lists_are_put_anew() {
        assert_eq!(
            translated(
                "{%- set _ = q.ids.append('%}') -%}{{ set _ = q.ids.pop() }}{% set x = q.ids.pop(0) %}"
            ),
            "{%- set q.ids = q.ids + ['%}'] -%}{{ set _ = q.ids.pop() }}\
             {% set x = q.ids[0] %}{% set q.ids = q.ids[1:] %}",
        );
    }

    #[test]
    fn names_are_told_from_words_and_parts() {
        for said in ["{% set tools = tools or [] %}", "{{ f(tools)|length }}", "{%-if tools%}"] {
            assert!(mention(said, "tools"), "{said}");
        }
        for other in [
            "tools",
            "{# {{ tools }} #}",
            "{{ 'tools' }}",
            "{{ message.tools }}",
            "{{ my_tools }}{{ tools2 }}",
            "{% raw %}{{ tools }}{% endraw %}",
        ] {
            assert!(!mention(other, "tools"), "{other}");
        }
    }

    fn refused(template: &str, expected: &str) {
        assert_eq!(check(template).unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_the_engine_cannot_bear_is_refused() {
        refused(
            &format!("\n{{{{ {}x }}}}", "not ".repeat(5000)),
            "chat template is too complex: over 600 signs in one tag, in line 2",
        );
        refused(
            &format!("{{{{ x{} }}}}", "['}}'".repeat(25)),
            "chat template is too complex: over 24 brackets within brackets, in line 1",
        );
        refused(
            &"{% elif x %}\n".repeat(5000),
            "chat template is too complex: over 200 elif tags, in line 201",
        );
        assert_eq!(check(&"{{ a.b('c', [d]) }}".repeat(5000)), Ok(()));
    }
}
