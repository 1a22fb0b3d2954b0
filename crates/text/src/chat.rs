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

use crate::calls::{Call, Tool};
use crate::date::Moment;
use crate::pyjson::tojson;
use crate::tags;
use crate::tools::{Teller, in_words};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`, and what else the template knows.
    pub role: String,
    /// What is said; of a tool, its result.
    pub content: String,
    /// Calls of tools that the assistant asks for, after what it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// The id of the call that a tool's result is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The tool whose result it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// What someone says, and no more.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// What a template renders.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// The turns, oldest first.
    pub messages: &'a [Message],
    /// What the assistant may call. A template that knows no tools is given them, and what was called,
    /// in words.
    pub tools: &'a [Tool],
    /// Whether the text ends where the assistant's next answer begins.
    pub add_generation_prompt: bool,
    /// How the model spells its first token; empty if it has none.
    pub bos: &'a str,
    /// How the model spells the end of an answer.
    pub eos: &'a str,
    /// What a template that tells the date takes for now, in seconds since 1970. With none there is no
    /// date: most such templates tell a fixed one then, and some fail.
    pub unix_seconds: Option<u64>,
}

/// A model's chat template, parsed.
#[derive(Debug)]
pub struct Chat {
    source: String,
    /// Whether the template says what to do with tools.
    knows_tools: bool,
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
        for name in ["length", "count"] {
            environment.add_filter(name, length);
        }
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, tags::translated(template))
            .map_err(|error| parse_error(&error))?;
        let knows_tools = tags::mention(template, "tools");
        Ok(Self { source: template.to_owned(), knows_tools, environment })
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
        let &Conversation { messages, tools, .. } = conversation;
        let calls = messages.iter().any(|message| !message.calls.is_empty());
        if !self.knows_tools && (calls || !tools.is_empty() || messages.iter().any(is_result)) {
            let told = |teller| {
                let messages = &in_words(messages, tools, teller);
                self.write(&Conversation { messages, tools: &[], ..*conversation }, as_object)
            };
            return match told(Teller::System) {
                // Some templates know no system; what else they refuse is refused again.
                Err(refused @ ChatError::Refused { .. }) if !tools.is_empty() => {
                    told(Teller::User).map_err(|_| refused)
                }
                written => written,
            };
        }
        match self.write(conversation, as_object) {
            // Some templates join the arguments to a text, which only a text can be.
            Err(ChatError::Failed { .. }) if calls => self.write(conversation, as_text),
            written => written,
        }
    }

    fn write(
        &self,
        conversation: &Conversation<'_>,
        arguments: fn(&str) -> Value,
    ) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        let turns = conversation.messages.iter().map(|message| turn(message, arguments));
        let mut fields: Vec<(&str, Value)> = vec![
            ("messages", turns.collect()),
            ("add_generation_prompt", conversation.add_generation_prompt.into()),
            ("bos_token", conversation.bos.into()),
            ("eos_token", conversation.eos.into()),
        ];
        // Templates ask whether there are tools at all, so there is no empty list of them.
        if !conversation.tools.is_empty() {
            let tools = conversation.tools.iter().map(|tool| as_object(&tool.json));
            fields.push(("tools", tools.collect()));
        }
        if let Some(now) = conversation.unix_seconds {
            let now = Moment::at(now);
            let tell = move |format: &str| now.tell(format);
            fields.push(("strftime_now", Value::from_function(tell)));
        }
        let context = Value::from_pairs(fields);
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

fn is_result(message: &Message) -> bool {
    message.role == "tool"
}

/// A message as templates see it; what it lacks is not there.
fn turn(message: &Message, arguments: fn(&str) -> Value) -> Value {
    let mut fields: Vec<(&str, Value)> =
        vec![("role", message.role.as_str().into()), ("content", message.content.as_str().into())];
    if !message.calls.is_empty() {
        let calls = message.calls.iter().map(|call| {
            let function = context! {
                name => call.name.as_str(), arguments => arguments(&call.arguments),
            };
            context! { id => call.id.as_str(), type => "function", function }
        });
        fields.push(("tool_calls", calls.collect()));
    }
    for (field, said) in [("tool_call_id", &message.call), ("name", &message.name)] {
        if let Some(said) = said {
            fields.push((field, said.as_str().into()));
        }
    }
    Value::from_pairs(fields)
}

/// What JSON says; what is none is the text that it is.
fn as_object(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| as_text(json))
}

fn as_text(json: &str) -> Value {
    json.into()
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

/// As in Python, what is undefined has no length, and that is 0.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        let reason = format!("{} has no length", value.kind());
        Error::new(ErrorKind::InvalidOperation, reason)
    })
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
    /// Templates that need the date end here where none is given: there is no clock.
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
        let messages = turns.map(|(role, content)| Message::new(role, content));
        let conversation = Conversation {
            messages: &messages,
            tools: &[],
            add_generation_prompt: true,
            bos: "<s>",
            eos: "</s>",
            unix_seconds: None,
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

    /// Renders a call and its result, with its tool.
    fn render_call(template: &str) -> Result<String, ChatError> {
        let call =
            Call { id: "c".into(), name: "f".into(), arguments: r#"{"b":1,"a":"x"}"#.into() };
        let messages = [
            Message::new("user", "go"),
            Message { calls: vec![call], ..Message::new("assistant", "") },
            Message { call: Some("c".into()), name: Some("f".into()), ..Message::new("tool", "7") },
        ];
        let json = r#"{"type":"function","function":{"name":"f"}}"#.into();
        let tools = &[Tool { name: "f".into(), parameters: None, strict: false, json }];
        let conversation = Conversation {
            messages: &messages,
            tools,
            add_generation_prompt: false,
            bos: "",
            eos: "",
            unix_seconds: None,
        };
        Chat::new(template)?.render(&conversation)
    }

    #[test]
    fn templates_see_tools_calls_and_results() {
        let check = |template: &str, expected: &str| {
            assert_eq!(render_call(template).as_deref(), Ok(expected), "{template}");
        };
        check(
            "{% if tools %}{{ tools|tojson }}{% endif %}",
            r#"[{"type": "function", "function": {"name": "f"}}]"#,
        );
        let arguments = "{% set c = messages[1].tool_calls[0] %}{{ c.id }} {{ c.function.name }} ";
        check(
            &(arguments.to_owned() + "{{ c.function.arguments|tojson }}{{ tools[0].type }}"),
            r#"c f {"b": 1, "a": "x"}function"#,
        );
        // What cannot be joined to an object is joined to its text.
        check(
            &(arguments.to_owned() + "{{ 'x' + c.function.arguments }}{{ tools[0].type }}"),
            r#"c f x{"b":1,"a":"x"}function"#,
        );
        check("{{ messages[2].tool_call_id }}{{ messages[2].name }}{{ tools|length }}", "cf1");
        check("{{ 'tool_calls' in messages[0] }}{{ tools|length }}", "False1");
        assert_eq!(render("{{ tools is defined }}").as_deref(), Ok("False"));
    }

    #[test]
    fn a_template_that_knows_no_tools_is_given_words() {
        let said =
            render_call("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}");
        let said = said.unwrap();
        assert!(said.starts_with("[system] You may call these functions:\n{\"type\""), "{said}");
        let rest = "[user] go\n[assistant] <tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\":1,\"a\":\"x\"}}\n\
            </tool_call>\n[user] <tool_response>\n7\n</tool_response>\n";
        assert!(said.ends_with(rest), "{said}");
    }

    #[test]
    fn the_user_tells_of_tools_where_there_is_no_system() {
        let turns = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
        let no_system =
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}";
        let said = render_call(&(no_system.to_owned() + turns)).unwrap();
        assert!(said.starts_with("[user] You may call these functions:\n{\"type\""), "{said}");
        let nobody = "{{ raise_exception(messages[0].role) }}";
        assert_eq!(render_call(nobody), Err(ChatError::Refused { reason: "system".to_owned() }));
    }

    #[test]
    fn what_is_undefined_has_no_length() {
        check("{{ nothing|length }}{{ messages|count }}", "03");
        let error = render("{{ 1|length }}").unwrap_err().to_string();
        assert!(error.contains("number has no length"), "{error}");
    }

    #[test]
    fn queues_in_namespaces_change() {
        check(
            "{% set q = namespace(ids=[]) %}{% for m in messages %}{% set _ = q.ids.append(m.role[0]) %}\
             {% endfor %}{% set first = q.ids.pop(0) %}{{ first }} {{ q.ids|join }}",
            "s ua",
        );
    }

    #[test]
    fn a_date_is_told_where_one_is_given() {
        let conversation = Conversation {
            messages: &[],
            tools: &[],
            add_generation_prompt: false,
            bos: "",
            eos: "",
            unix_seconds: Some(86_400),
        };
        let text = Chat::new("{{ strftime_now('%d %b %Y') }}").unwrap().render(&conversation);
        assert_eq!(text.as_deref(), Ok("02 Jan 1970"));
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
