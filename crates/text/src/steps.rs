//! Cuts text into words in several steps, each by one expression, as some model families did.
//!
//! A step takes every piece that the one before left and cuts out of it what its expression finds;
//! what lies between stays a piece too. An expression sees one piece and nothing around it. Each is
//! written by hand, as in [`crate::pretokenize`]: one pass, no backtracking.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::pretokenize::{PreTokenizer, gpt2_whole};

/// The first place in a text where an expression finds something: from, to. Never empty.
type Expression = fn(&str) -> Option<(usize, usize)>;

/// The steps of a family; `None` where one expression does it all.
pub(crate) fn steps(pre: PreTokenizer) -> Option<&'static [Expression]> {
    Some(match pre {
        PreTokenizer::Falcon => &[falcon_signs, gpt2, three_digits],
        PreTokenizer::Signs => &[signs, gpt2, numbers, three_digits],
        PreTokenizer::DeepseekCoder => {
            &[newline, spaced_letters, spaced_punctuation, east_asian, number]
        }
        PreTokenizer::DeepseekLlm => {
            &[newline, spaced_cased_letters, spaced_printed, last_blanks, east_asian, numbers]
        }
        PreTokenizer::DeepseekV3 => &[three_numbers, han_or_kana, deepseek_v3],
        _ => return None,
    })
}

/// Cuts `text` by all of `steps`.
pub(crate) fn cut<'t>(steps: &[Expression], text: &'t str) -> Vec<&'t str> {
    let mut pieces = vec![text];
    for find in steps {
        let mut finer = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let mut rest = piece;
            while let Some((start, end)) = find(rest) {
                finer.extend((start > 0).then(|| &rest[..start]));
                finer.push(&rest[start..end]);
                rest = &rest[end..];
            }
            finer.extend((!rest.is_empty()).then_some(rest));
        }
        pieces = finer;
    }
    pieces
}

/// GPT-2's expression, which leaves nothing between.
fn gpt2(text: &str) -> Option<(usize, usize)> {
    (!text.is_empty()).then(|| (0, gpt2_whole(text)))
}

/// `[\p{P}$+<=>^~|`]+`
fn falcon_signs(text: &str) -> Option<(usize, usize)> {
    first_run(text, |letter| is_punctuation(letter) || "$+<=>^~|`".contains(letter))
}

/// `[\p{P}$+<=>^~|]+`
fn signs(text: &str) -> Option<(usize, usize)> {
    first_run(text, |letter| is_punctuation(letter) || "$+<=>^~|".contains(letter))
}

/// `[0-9][0-9][0-9]`
fn three_digits(text: &str) -> Option<(usize, usize)> {
    let is_digit = |place: &[u8]| place.iter().all(u8::is_ascii_digit);
    let start = text.as_bytes().windows(3).position(is_digit)?;
    Some((start, start + 3))
}

/// `[\r\n]`
fn newline(text: &str) -> Option<(usize, usize)> {
    let start = text.find(is_newline)?;
    Some((start, start + 1))
}

/// `\p{N}`
fn number(text: &str) -> Option<(usize, usize)> {
    let (start, letter) = text.char_indices().find(|&(_, letter)| is_number(letter))?;
    Some((start, start + letter.len_utf8()))
}

/// `\p{N}+`
fn numbers(text: &str) -> Option<(usize, usize)> {
    first_run(text, is_number)
}

/// `\p{N}{1,3}`
fn three_numbers(text: &str) -> Option<(usize, usize)> {
    let start = text.find(is_number)?;
    Some((start, start + run(&text[start..], 3, is_number)))
}

/// `\s?\p{L}+`
fn spaced_letters(text: &str) -> Option<(usize, usize)> {
    spaced_run(text, is_letter)
}

/// `\s?\p{P}+`
fn spaced_punctuation(text: &str) -> Option<(usize, usize)> {
    spaced_run(text, is_punctuation)
}

/// `\s?[…]+` with the letters that had two cases when the family was made: [`CASED`].
fn spaced_cased_letters(text: &str) -> Option<(usize, usize)> {
    spaced_run(text, |letter| within(&CASED, letter))
}

/// `\s?[!-/:-~！-／：-～‘-‟　-。]+`
fn spaced_printed(text: &str) -> Option<(usize, usize)> {
    const PRINTED: [(char, char); 6] =
        [('!', '/'), (':', '~'), ('！', '／'), ('：', '～'), ('‘', '‟'), ('\u{3000}', '。')];
    spaced_run(text, |letter| within(&PRINTED, letter))
}

/// `\s+$`
fn last_blanks(text: &str) -> Option<(usize, usize)> {
    let start = text.trim_end().len();
    (start < text.len()).then_some((start, text.len()))
}

/// `[一-龥ࠀ-一가-\x{d7ff}]+`
fn east_asian(text: &str) -> Option<(usize, usize)> {
    const RANGES: [(char, char); 2] = [('\u{800}', '\u{9fa5}'), ('\u{ac00}', '\u{d7ff}')];
    first_run(text, |letter| within(&RANGES, letter))
}

/// `[一-龥぀-ゟ゠-ヿ]+`
fn han_or_kana(text: &str) -> Option<(usize, usize)> {
    const RANGES: [(char, char); 2] = [('\u{4e00}', '\u{9fa5}'), ('\u{3040}', '\u{30ff}')];
    first_run(text, |letter| within(&RANGES, letter))
}

/// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|``
/// ` ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn deepseek_v3(text: &str) -> Option<(usize, usize)> {
    let at = |start: usize| deepseek_v3_at(&text[start..]).map(|length| (start, start + length));
    text.char_indices().find_map(|(start, _)| at(start))
}

/// Bytes that the expression of [`deepseek_v3`] takes at the front of `text`, which is not empty.
fn deepseek_v3_at(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let rest = &text[first.len_utf8()..];
    if first.is_ascii_punctuation() && rest.starts_with(|letter: char| letter.is_ascii_alphabetic())
    {
        return Some(1 + run(rest, usize::MAX, |letter| letter.is_ascii_alphabetic()));
    }
    let is_sign = |letter| is_punctuation(letter) || is_symbol(letter);
    let is_word = |letter| is_letter(letter) || is_mark(letter);
    if is_word(first) {
        return Some(run(text, usize::MAX, is_word));
    }
    if !is_newline(first) && !is_sign(first) && rest.starts_with(is_word) {
        return Some(first.len_utf8() + run(rest, usize::MAX, is_word));
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    if body.starts_with(is_sign) {
        let signs = run(body, usize::MAX, is_sign);
        let newlines = run(&body[signs..], usize::MAX, is_newline);
        return Some(text.len() - body.len() + signs + newlines);
    }
    blanks(text)
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`
fn blanks(text: &str) -> Option<usize> {
    let length = run(text, usize::MAX, char::is_whitespace);
    if let Some(newline) = text[..length].rfind(is_newline) {
        return Some(newline + 1);
    }
    let last = text[..length].chars().next_back()?.len_utf8();
    Some(if length < text.len() && length > last { length - last } else { length })
}

/// The first longest run of characters that are `wanted`.
fn first_run(text: &str, wanted: impl Fn(char) -> bool) -> Option<(usize, usize)> {
    let start = text.find(&wanted)?;
    Some((start, start + run(&text[start..], usize::MAX, wanted)))
}

/// The same, with one white space before it if there is one that is not `wanted` itself.
fn spaced_run(text: &str, wanted: impl Fn(char) -> bool) -> Option<(usize, usize)> {
    let (start, end) = first_run(text, wanted)?;
    let before = text[..start].chars().next_back().filter(|letter| letter.is_whitespace());
    Some((start - before.map_or(0, char::len_utf8), end))
}

/// Bytes in the run of `wanted` that `text` begins with, at most `max` characters.
fn run(text: &str, max: usize, wanted: impl Fn(char) -> bool) -> usize {
    text.chars().take(max).take_while(|&letter| wanted(letter)).map(char::len_utf8).sum()
}

fn within(ranges: &[(char, char)], letter: char) -> bool {
    ranges.iter().any(|&(first, last)| (first..=last).contains(&letter))
}

fn is_newline(letter: char) -> bool {
    matches!(letter, '\r' | '\n')
}

fn is_letter(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Letter
}

fn is_mark(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Mark
}

fn is_number(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Number
}

fn is_punctuation(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Punctuation
}

fn is_symbol(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Symbol
}

/// Letters with two cases, as the files of DeepSeek LLM list them.
const CASED: [(char, char); 87] = [
    ('\u{41}', '\u{5a}'),
    ('\u{61}', '\u{7a}'),
    ('\u{b5}', '\u{b5}'),
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{1ba}'),
    ('\u{1bc}', '\u{1bf}'),
    ('\u{1c4}', '\u{293}'),
    ('\u{295}', '\u{2af}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{376}'),
    ('\u{377}', '\u{377}'),
    ('\u{37b}', '\u{37d}'),
    ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38a}'),
    ('\u{38c}', '\u{38c}'),
    ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'),
    ('\u{3f7}', '\u{481}'),
    ('\u{48a}', '\u{52f}'),
    ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'),
    ('\u{13a0}', '\u{13f5}'),
    ('\u{13f8}', '\u{13fd}'),
    ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'),
    ('\u{1d00}', '\u{1d2b}'),
    ('\u{1d6b}', '\u{1d77}'),
    ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'),
    ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f20}', '\u{1f45}'),
    ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'),
    ('\u{1f59}', '\u{1f59}'),
    ('\u{1f5b}', '\u{1f5b}'),
    ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'),
    ('\u{1f80}', '\u{1fb4}'),
    ('\u{1fb6}', '\u{1fbc}'),
    ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'),
    ('\u{1fc6}', '\u{1fcc}'),
    ('\u{1fd0}', '\u{1fd3}'),
    ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'),
    ('\u{1ff2}', '\u{1ff4}'),
    ('\u{1ff6}', '\u{1ffc}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210a}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213c}', '\u{213f}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'),
    ('\u{2183}', '\u{2183}'),
    ('\u{2184}', '\u{2184}'),
    ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'),
    ('\u{2ceb}', '\u{2cee}'),
    ('\u{2cf2}', '\u{2cf2}'),
    ('\u{2cf3}', '\u{2cf3}'),
    ('\u{a640}', '\u{a66d}'),
    ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'),
    ('\u{a771}', '\u{a787}'),
    ('\u{a78b}', '\u{a78e}'),
    ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'),
    ('\u{fb13}', '\u{fb17}'),
    ('\u{ff21}', '\u{ff3a}'),
    ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'),
    ('\u{104b0}', '\u{104d3}'),
    ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'),
    ('\u{10cc0}', '\u{10cf2}'),
    ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
];
