//! Renders a conversation into the text its model was trained on.
//!
//! Each model file brings a Jinja template for this. It is a stranger's program: it runs
//! without a loader, clock or files, on a bounded number of steps, and what it writes is
//! bounded too. It behaves as in Python, where these templates are written and tested.
//!
//! The engine does not bound what a template keeps in variables. A list may nest with every step,
//! and is walked by recursion when it is written or dropped, so a rendering has a stack of its own
//! that is large enough for the steps there are. A string may double with every step, until memory
//! ends: that remains, and whoever renders the template of a model that nobody vouches for must
//! expect it.

use std::error::Error as _;
use std::io::{self, Write};
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::pyjson::tojson;
use crate::tags;

/// Longest template that is read, in bytes. The longest in use have about 20 thousand.
const TEMPLATE_BYTES_MAX: usize = 1 << 18;

/// Steps one rendering may take. A message takes some tens.
const STEPS_MAX: u64 = 500_000;

/// Stack of one rendering, in bytes of address space; what is not used takes no memory. A step nests
/// a value by one level at most, so none is as deep as [`STEPS_MAX`]; 340 thousand levels were
/// measured to need less than half of this without optimisation.
const STACK_BYTES: usize = 1 << 30;

/// Longest text one rendering may write, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 24;

/// Macros, loops and inclusions within each other, weighted by what they take on the stack.
const DEPTH_MAX: usize = 200;

/// The template's name, which error messages of the engine mention.
const NAME: &str = "chat";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, and what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// What a template renders.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// The turns, oldest first.
    pub messages: &'a [Message],
    /// Whether the text ends where the assistant's next answer begins.
    pub add_generation_prompt: bool,
    /// How the model spells its first token; empty if it has none.
    pub bos: &'a str,
    /// How the model spells the end of an answer.
    pub eos: &'a str,
}

/// A model's chat template, parsed.
#[derive(Debug)]
pub struct Chat {
    source: String,
    environment: Environment<'static>,
}

impl Chat {
    /// Parses a template.
    ///
    /// # Errors
    /// [`ChatError::Length`], [`ChatError::Complex`] and [`ChatError::Parse`].
    pub fn new(template: &str) -> Result<Self, ChatError> {
        if template.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::Length { found: template.len(), max: TEMPLATE_BYTES_MAX });
        }
        tags::check(template)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| parse_error(&error))?);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_recursion_limit(DEPTH_MAX);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, tags::without_generation(template))
            .map_err(|error| parse_error(&error))?;
        Ok(Self { source: template.to_owned(), environment })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders `conversation`, for [`Tokenizer::encode`](crate::Tokenizer::encode).
    ///
    /// # Errors
    /// [`ChatError::Refused`] is the conversation's fault, [`ChatError::Stack`] the machine's; all
    /// others are the template's.
    #[expect(clippy::disallowed_methods, reason = "for its stack; it ends before this returns")]
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        thread::scope(|scope| {
            let rendering = thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.render_here(conversation))
                .map_err(|error| ChatError::Stack { reason: error.to_string() })?;
            rendering.join().unwrap_or_else(|_| {
                Err(ChatError::Failed { reason: "the engine panicked".into(), line: 0 })
            })
        })
    }

    fn render_here(&self, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let messages: Value = conversation.messages.iter().map(turn).collect();
        let context = context! {
            messages,
            add_generation_prompt => conversation.add_generation_prompt,
            bos_token => conversation.bos,
            eos_token => conversation.eos,
        };
        let mut page = Page { text: Vec::new(), full: false };
        let rendered = template.render_captured_to(context, &mut page).map(drop);
        if page.full {
            return Err(ChatError::TextLength { max: TEXT_BYTES_MAX });
        }
        rendered.map_err(|error| failure(&error))?;
        // What a template writes is text, so nothing is replaced, and nothing copied.
        let text = String::from_utf8(page.text);
        Ok(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

/// A message as templates see it.
fn turn(message: &Message) -> Value {
    context! { role => message.role.as_str(), content => message.content.as_str() }
}

/// Text that is being written, up to [`TEXT_BYTES_MAX`].
struct Page {
    text: Vec<u8>,
    full: bool,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > TEXT_BYTES_MAX - self.text.len() {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template says by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(reason: String) -> Result<Value, Error> {
    let refusal = Refusal(reason);
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(refusal))
}

fn parse_error(error: &Error) -> ChatError {
    ChatError::Parse { reason: reason(error), line: error.line().unwrap_or(0) }
}

/// Sorts a failed rendering by whose fault it is.
fn failure(error: &Error) -> ChatError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(Refusal(reason)) = cause.downcast_ref() {
            return ChatError::Refused { reason: reason.clone() };
        }
        if cause.downcast_ref().map(Error::kind) == Some(ErrorKind::OutOfFuel) {
            return ChatError::Steps { max: STEPS_MAX };
        }
        source = cause.source();
    }
    ChatError::Failed { reason: reason(error), line: error.line().unwrap_or(0) }
}

/// What the engine says, with what caused it.
fn reason(error: &Error) -> String {
    let own = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.source() {
        Some(source) => format!("{own}: {source}"),
        None => own,
    }
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The template is too long to be one.
    #[error("chat template has {found} bytes, at most {max} are read")]
    Length {
        /// Bytes in the template.
        found: usize,
        /// Bytes that are read.
        max: usize,
    },
    /// The template has more within one tag than the engine can bear.
    #[error("chat template is too complex: over {max} {what}, in line {line}")]
    Complex {
        /// What there is too much of.
        what: &'static str,
        /// How much is borne.
        max: usize,
        /// Line of the template, from 1.
        line: usize,
    },
    /// The template is not valid Jinja.
    #[error("chat template does not parse: {reason}, in line {line}")]
    Parse {
        /// What the parser says.
        reason: String,
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
    },
    /// The template does not take this conversation, and says why: roles out of order, or
    /// one that the model does not know. Whoever wrote the conversation can mend it.
    #[error("the model's chat template refuses the conversation: {reason}")]
    Refused {
        /// The template's words.
        reason: String,
    },
    /// The template did not come to an end in time.
    #[error("chat template takes more than {max} steps")]
    Steps {
        /// Steps that are allowed.
        max: u64,
    },
    /// The template wrote too much.
    #[error("chat template writes more than {max} bytes")]
    TextLength {
        /// Bytes that are allowed.
        max: usize,
    },
    /// The machine gives no thread with the address space that a rendering may need.
    #[error("no stack to render the chat template on: {reason}")]
    Stack {
        /// What the system says.
        reason: String,
    },
    /// The template did something it cannot do, such as calling a function there is not.
    /// Templates that need the date end here: a rendering must not depend on the clock.
    #[error("chat template fails: {reason}, in line {line}")]
    Failed {
        /// What the engine says.
        reason: String,
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template of the small model that ships.
    const NANO: &str = concat!(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<eos>' if ",
        "m['role']=='assistant' else '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}",
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    );

    fn render(template: &str) -> Result<String, ChatError> {
        let turns = [("system", " Be brief. "), ("user", "1<2"), ("assistant", "yes")];
        let messages =
            turns.map(|(role, content)| Message { role: role.into(), content: content.into() });
        let conversation = Conversation {
            messages: &messages,
            add_generation_prompt: true,
            bos: "<s>",
            eos: "</s>",
        };
        Chat::new(template)?.render(&conversation)
    }

    /// Renders three turns.
    fn check(template: &str, expected: &str) {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }

    /// Renders three turns, and reads what is said about it.
    fn refused(template: &str, expected: &str) {
        assert_eq!(render(template).unwrap_err().to_string(), expected, "{template}");
    }

    #[test]
    fn the_small_models_template() {
        check(NANO, "<|system|> Be brief. <|user|>1<2<|assistant|>yes<eos><|assistant|>");
        assert_eq!(Chat::new(NANO).unwrap().source(), NANO);
    }

    #[test]
    fn tokens_by_name() {
        check("{{ bos_token }}{{ messages[0].content|trim }}{{ eos_token }}", "<s>Be brief.</s>");
    }

    #[test]
    fn blocks_leave_no_blank_lines() {
        check(
            "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n",
            "1<2\n",
        );
    }

    #[test]
    fn python_methods() {
        check("{{ messages[0].content.strip().split(' ')[1].upper() }}", "BRIEF.");
        check(
            "{{ messages[1]['content'].startswith('1') and 'user' in messages[1].role }}",
            "True",
        );
        check("{{ messages[1].get('tool', 'none') }}", "none");
        check(
            "{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=user;content=1<2;",
        );
    }

    #[test]
    fn namespaces_slices_and_loop_controls() {
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages[1:] %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
            "3",
        );
        check(
            "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }} {% endfor %}",
            "system user ",
        );
        check("{{ messages[::-1][0].role }}", "assistant");
    }

    #[test]
    fn json_is_pythons() {
        check("{{ messages[1]|tojson }}", r#"{"role": "user", "content": "1<2"}"#);
    }

    #[test]
    fn generation_tags_render_as_nothing() {
        check("a {%- generation -%} b {%- endgeneration %} c", "ab c");
        check("{% generation %}\nx{% endgeneration %}", "x");
        check("{{ generation is defined }}{% set generation = 1 %}{{ generation }}", "False1");
    }

    #[test]
    fn a_template_may_refuse() {
        refused(
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
            "the model's chat template refuses the conversation: no system role",
        );
        let nested = "{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}";
        assert_eq!(render(nested), Err(ChatError::Refused { reason: "deep".to_owned() }));
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let error = Chat::new("line one\n{% if %}").unwrap_err();
        assert!(matches!(error, ChatError::Parse { line: 2, .. }), "{error}");
        let long = " ".repeat(TEMPLATE_BYTES_MAX + 1);
        assert!(matches!(Chat::new(&long), Err(ChatError::Length { .. })));
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(matches!(Chat::new(&deep), Err(ChatError::Complex { line: 1, .. })));
        let deep = "{% if x %}".repeat(10_000);
        assert!(matches!(Chat::new(&deep), Err(ChatError::Parse { .. })));
    }

    #[test]
    fn the_clock_is_out_of_reach() {
        check("{{ strftime_now is defined }}", "False");
        let error = render("{{ strftime_now('%Y') }}").unwrap_err();
        assert!(matches!(error, ChatError::Failed { line: 1, .. }), "{error}");
        assert!(error.to_string().contains("strftime_now"), "{error}");
    }

    #[test]
    fn other_files_are_out_of_reach() {
        let error = render("{% include '/etc/hostname' %}").unwrap_err();
        assert!(matches!(error, ChatError::Failed { .. }), "{error}");
    }

    #[test]
    fn endless_templates_are_stopped() {
        let endless =
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        assert_eq!(render(endless), Err(ChatError::Steps { max: STEPS_MAX }));
        let long = "{% set x = 'x' * 100000 %}{% for a in range(10000) %}{{ x }}{% endfor %}";
        assert_eq!(render(long), Err(ChatError::TextLength { max: TEXT_BYTES_MAX }));
    }

    #[test]
    fn values_that_nest_with_every_step_do_not_end_the_process() {
        let nested = "[".repeat(20) + "ns.a" + &"]".repeat(20);
        let deep = format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range(1000) %}}\
             {{% set ns.a = {nested} %}}{{% endfor %}}"
        );
        check(&deep, "");
        for written in ["{{ ns.a }}", "{{ ns.a|tojson }}"] {
            assert_eq!(render(&(deep.clone() + written)).unwrap().len(), 40_002);
        }
        let all = deep.replace("range(1000)", "range(17000)");
        assert_eq!(render(&(all + "{{ ns.a }}")).unwrap().len(), 680_002);
    }

    #[test]
    fn templates_within_themselves_are_stopped() {
        for template in [
            "{% include 'chat' %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% extends 'chat' %}",
            "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        ] {
            let error = render(template).unwrap_err();
            assert!(matches!(error, ChatError::Failed { .. } | ChatError::Steps { .. }), "{error}");
        }
    }
}
