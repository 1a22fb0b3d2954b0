//! Holds an answer to a grammar: which tokens may come next, and when it may end.
//!
//! A grammar is a stranger's program as much as a template is. It is compiled, and run, within limits
//! on its bytes, its states and the steps of each mask, so what it costs is bounded; what exceeds
//! them is refused. Its language is that of `llguidance`: Lark's, with regular expressions and JSON
//! schemas in it. What a grammar allows is what that library says, so its version is pinned, and an
//! order with a grammar is not one that a contract could judge.
//!
//! Tokens are looked at as bytes. A token is allowed if its bytes lead on to a sentence; it need not
//! be the one that a tokenizer would choose.

mod write;

use std::sync::{Arc, LazyLock};
use std::thread;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};

use crate::Tokenizer;

pub use write::{
    Otherwise, any_json_object_grammar, choice_grammar, json_schema_grammar, regex_grammar,
    tool_calls_grammar,
};

/// Longest grammar, in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Brackets within each other.
const DEPTH_MAX: usize = 64;

/// Stack of one compilation, in bytes of address space: grammars nest, and are walked by recursion.
const STACK_BYTES: usize = 64 << 20;

/// Longest explanation of what is wrong with a grammar, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// What a grammar may cost. The worst that was found within these, optimised and on one core, takes a
/// second to compile (1500 optional properties), and 0.2 seconds for a mask (3000 optional letters in a
/// row); what people write takes some milliseconds, and some ten microseconds.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1000,
        initial_lexer_fuel: 100_000,
        step_lexer_fuel: 50_000,
        step_max_items: 50_000,
        // One to two kilobytes each.
        max_lexer_states: 5_000,
        max_grammar_size: 50_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// Why there is no grammar, or no next token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It is too long.
    #[error("the grammar has {found} bytes, at most {max} are read")]
    Length {
        /// Its bytes.
        found: usize,
        /// Bytes that are read.
        max: usize,
    },
    /// It is nested too deeply.
    #[error("the grammar nests more than {max} brackets")]
    Depth {
        /// Brackets that may be open.
        max: usize,
    },
    /// It is not one, asks for what is not supported, allows nothing, or costs too much.
    #[error("the grammar cannot be followed: {reason}")]
    Refused {
        /// What is wrong.
        reason: String,
    },
    /// An answer that a grammar ends needs a token to say so.
    #[error("the model has no token that ends an answer, which a grammar needs")]
    NoEnd,
    /// A token that is not allowed.
    #[error("the grammar does not allow token {token} here")]
    NotAllowed {
        /// The token.
        token: u32,
    },
    /// The machine gives no stack to compile it on.
    #[error("no stack to compile the grammar on: {reason}")]
    Stack {
        /// What the system says.
        reason: String,
    },
}

/// Compiles grammars for one vocabulary. To make one takes some hundred milliseconds for a large
/// vocabulary, so it is kept.
pub struct Grammars {
    factory: ParserFactory,
    /// Tokens that end an answer.
    eos: Arc<[u32]>,
    /// What stands for all of them within.
    end: TokenId,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").field("eos", &self.eos).finish_non_exhaustive()
    }
}

/// A vocabulary as tokens' bytes.
struct Words(TokTrie);

impl TokenizerEnv for Words {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }

    /// No, so that nothing depends on how a text would be tokenized.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl Grammars {
    /// For the vocabulary of `tokenizer`, with these tokens that end an answer.
    ///
    /// # Errors
    /// [`GrammarError::NoEnd`], and [`GrammarError::Refused`] for a vocabulary that is not one.
    pub fn new(tokenizer: &Tokenizer, eos: &[u32]) -> Result<Self, GrammarError> {
        if eos.is_empty() {
            return Err(GrammarError::NoEnd);
        }
        let id = |id: usize| u32::try_from(id).unwrap_or(u32::MAX);
        let word = |token: usize| {
            let bytes = tokenizer.bytes(id(token));
            // No text has this byte, and within it marks what is not text.
            let never = bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) || eos.contains(&id(token));
            if never { Vec::new() } else { bytes.to_vec() }
        };
        let words = (0..tokenizer.len()).map(word).collect();
        Self::of_words(words, eos)
    }

    /// One token per byte: enough to tell whether a grammar is one.
    fn of_bytes() -> Result<Self, GrammarError> {
        let words: Vec<Vec<u8>> = (0..u8::MAX).map(|byte| vec![byte]).collect();
        let eos = [u32::from(u8::MAX)];
        Self::of_words(words, &eos)
    }

    /// One more token than there are words stands for the end.
    fn of_words(mut words: Vec<Vec<u8>>, eos: &[u32]) -> Result<Self, GrammarError> {
        let end = TokenId::try_from(words.len()).unwrap_or(TokenId::MAX);
        words.push(b"\xff<|end|>".to_vec());
        let vocabulary = TokRxInfo::new(end.saturating_add(1), end);
        let words: TokEnv = Arc::new(Words(TokTrie::from(&vocabulary, &words)));
        let mut factory = ParserFactory::new_simple(&words).map_err(|error| refused(&error))?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(Self { factory, eos: eos.into(), end })
    }

    /// Compiles a grammar; its answer begins with the first sentence's first token.
    ///
    /// # Errors
    /// All but [`GrammarError::NotAllowed`].
    #[expect(clippy::disallowed_methods, reason = "for its stack; it ends before this returns")]
    pub fn compile(&self, text: &str) -> Result<Grammar, GrammarError> {
        check_shape(text)?;
        let matcher = thread::scope(|scope| {
            let compiling = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.compile_here(text))
                .map_err(|error| GrammarError::Stack { reason: error.to_string() })?;
            compiling.join().unwrap_or_else(|_| {
                Err(GrammarError::Refused { reason: "the compiler panicked".into() })
            })
        })?;
        Ok(Grammar { matcher, eos: Arc::clone(&self.eos), end: self.end })
    }

    fn compile_here(&self, text: &str) -> Result<Matcher, GrammarError> {
        let grammar = TopLevelGrammar::from_lark(text.to_owned());
        let parser = self.factory.create_parser(grammar).map_err(|error| refused(&error))?;
        let mut matcher = Matcher::new(Ok(parser));
        // What allows nothing at all, or costs too much from the start, shows here.
        matcher.compute_mask_or_eos().map_err(|error| refused(&error))?;
        Ok(matcher)
    }
}

/// Whether a text is a grammar within the limits, whatever the vocabulary.
///
/// # Errors
/// As [`Grammars::compile`].
pub fn check_grammar(text: &str) -> Result<(), GrammarError> {
    static BYTES: LazyLock<Result<Grammars, GrammarError>> = LazyLock::new(Grammars::of_bytes);
    match &*BYTES {
        Ok(grammars) => grammars.compile(text).map(drop),
        Err(error) => Err(error.clone()),
    }
}

/// Cheap bounds, before anything is parsed.
fn check_shape(text: &str) -> Result<(), GrammarError> {
    if text.len() > BYTES_MAX {
        return Err(GrammarError::Length { found: text.len(), max: BYTES_MAX });
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(GrammarError::Depth { max: DEPTH_MAX });
        }
    }
    Ok(())
}

/// What the library says, in one line.
fn refused(error: &anyhow::Error) -> GrammarError {
    let said = error.to_string();
    let line = said.lines().next().unwrap_or_default();
    // Where in our own wrapping the schema stands helps nobody.
    let line = line.split_once("failed to compile JSON schema: ").map_or(line, |(_, why)| why);
    let mut end = line.len().min(REASON_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    GrammarError::Refused { reason: line[..end].to_owned() }
}

/// A compiled grammar, and how far one answer has come in it.
pub struct Grammar {
    matcher: Matcher,
    eos: Arc<[u32]>,
    end: TokenId,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("eos", &self.eos).finish_non_exhaustive()
    }
}

impl Clone for Grammar {
    /// A copy shares nothing, so that what one answer costs is no other's affair.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), eos: Arc::clone(&self.eos), end: self.end }
    }
}

impl Grammar {
    /// The tokens that may come next, ascending, each once: those that lead on to a sentence, and
    /// those that end an answer where one is complete. Never empty.
    ///
    /// # Errors
    /// [`GrammarError::Refused`] if to find them takes more than is allowed. The same answer always
    /// ends there.
    pub fn allowed(&mut self) -> Result<Vec<u32>, GrammarError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| refused(&error))?;
        let ends = mask.is_allowed(self.end);
        let mut allowed: Vec<u32> = mask.iter().filter(|&token| token != self.end).collect();
        if ends {
            allowed.extend(self.eos.iter());
            allowed.sort_unstable();
            allowed.dedup();
        }
        if allowed.is_empty() {
            return Err(GrammarError::Refused { reason: "no token leads on".into() });
        }
        Ok(allowed)
    }

    /// Goes on by `token`, which must be one that is allowed. After one that ends the answer there is
    /// nothing more to ask.
    ///
    /// # Errors
    /// [`GrammarError::NotAllowed`].
    pub fn push(&mut self, token: u32) -> Result<(), GrammarError> {
        let token = if self.eos.contains(&token) { self.end } else { token };
        self.matcher.consume_token(token).map_err(|_| GrammarError::NotAllowed { token })
    }
}

#[cfg(test)]
mod tests;
