//! Turns what is to be gone on from into prompt tokens. Pure.
//!
//! A conversation that spells control tokens itself is kept [`apart`](crate::apart) from its template. All
//! other prompts are tokenised as one text, exactly as the model's reference does it.
//!
//! A template that tells the date is told the day on which the order is made, in UTC. Nothing behind
//! the order needs a clock, as the order commits to the tokens; and prompts of one day begin alike.

use assay_text::{Chat, Conversation, Message, Tool};

use crate::apart::{apart, forges};
use crate::catalogue::Model;
use crate::openai::{Problem, Prompt};

/// Seconds in a day.
const DAY_S: u64 = 24 * 60 * 60;

/// A conversation that a model is to go on with, on some day.
#[derive(Clone, Copy)]
pub(crate) struct Talk<'a> {
    pub(crate) messages: &'a [Message],
    pub(crate) tools: &'a [Tool],
    /// When the order is made, in Unix seconds.
    pub(crate) now: u64,
}

/// The tokens of what is to be gone on from; at least one, and fewer than the context. `now` is when the
/// order is made, in Unix seconds.
pub(crate) fn tokens(model: &Model, prompt: &Prompt, now: u64) -> Result<Vec<u32>, Problem> {
    let tokens = match prompt {
        Prompt::Messages { messages, tools } => {
            return self::prompt(model, Talk { messages, tools, now });
        }
        Prompt::Text(text) => written(model, text)?,
        Prompt::Tokens(tokens) => known(model, tokens)?,
    };
    let context = model.listed.context as usize;
    if tokens.len() >= context {
        return Err(too_long("prompt", context, &tokens.len().to_string()));
    }
    Ok(tokens)
}

/// The tokens of a prompt that no template wrote. Its author wrote all of it, control tokens too.
fn written(model: &Model, text: &str) -> Result<Vec<u32>, Problem> {
    let tokenizer = &model.listed.tokenizer;
    let context = model.listed.context as usize;
    let tokens_min = text.len().div_ceil(model.token_bytes_max);
    if tokens_min >= context {
        return Err(too_long("prompt", context, &format!("at least {tokens_min}")));
    }
    let mut tokens = tokenizer.encode(text);
    let begins = |token: &u32| tokenizer.bos() == Some(*token);
    if tokens.is_empty() || tokenizer.add_bos() && !tokens.first().is_some_and(begins) {
        // Without any text, a new one begins; models without a first token see the last one's end.
        let first = tokenizer.bos().or(model.listed.eos.first().copied());
        tokens.splice(0..0, first);
    }
    if tokens.is_empty() {
        return Err(Problem::invalid_value("prompt", "prompt is empty"));
    }
    Ok(tokens)
}

/// A prompt's tokens, if the model has them all.
fn known(model: &Model, tokens: &[u32]) -> Result<Vec<u32>, Problem> {
    let len = model.listed.tokenizer.len();
    match tokens.iter().find(|&&token| token as usize >= len) {
        Some(token) => {
            let message = format!("prompt has token {token}, the model has {len}");
            Err(Problem::invalid_value("prompt", message))
        }
        None => Ok(tokens.to_vec()),
    }
}

/// The tokens of a conversation; at least one, and fewer than the context.
fn prompt(model: &Model, talk: Talk<'_>) -> Result<Vec<u32>, Problem> {
    let context = model.listed.context as usize;
    let tokenizer = &model.listed.tokenizer;
    let text = render(model, talk)?;
    // No token stands for more bytes, so a text that is far too long need not be counted.
    let tokens_min = text.len().div_ceil(model.token_bytes_max);
    if tokens_min >= context {
        return Err(too_long("messages", context, &format!("at least {tokens_min}")));
    }
    let prompt = match forges(tokenizer, talk.messages, talk.tools) {
        true => apart(model, talk)?,
        false => tokenizer.encode(&text),
    };
    if prompt.is_empty() {
        return Err(Problem::invalid_value("messages", "the messages make an empty prompt"));
    }
    if prompt.len() >= context {
        return Err(too_long("messages", context, &prompt.len().to_string()));
    }
    Ok(prompt)
}

fn too_long(param: &str, context: usize, tokens: &str) -> Problem {
    let message = match param {
        "messages" => format!(
            "this model's context is {context} tokens, but the messages take {tokens} and leave no \
             room for an answer; shorten them"
        ),
        _ => format!(
            "this model's context is {context} tokens, but the prompt takes {tokens} and leaves no \
             room for an answer; shorten it"
        ),
    };
    Problem::context(param, message)
}

/// The text that the model's template makes of a conversation.
pub(crate) fn render(model: &Model, talk: Talk<'_>) -> Result<String, Problem> {
    let Talk { messages, tools, now } = talk;
    let conversation = Conversation {
        messages,
        tools,
        add_generation_prompt: true,
        bos: model.bos(),
        eos: model.eos(),
        unix_seconds: Some(now - now % DAY_S),
    };
    Ok(template(model)?.render(&conversation)?)
}

/// The template of a model that chats.
pub(crate) fn template(model: &Model) -> Result<&Chat, Problem> {
    model.listed.chat.as_deref().ok_or_else(|| Problem::no_template(&model.listed.name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::draft::tests::nano;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// Reads `user:hello` as a message.
    pub(crate) fn message(text: &str) -> Message {
        let (role, content) = text.split_once(':').unwrap();
        Message::new(role, content)
    }

    /// The prompt, control tokens as their spelling and text as it is.
    pub(crate) fn spelled(model: &Model, messages: &[&str]) -> Result<String, String> {
        let messages: Vec<Message> = messages.iter().map(|text| message(text)).collect();
        spelled_with(model, &messages, &[])
    }

    /// The same of a conversation with tools.
    pub(crate) fn spelled_with(
        model: &Model,
        messages: &[Message],
        tools: &[Tool],
    ) -> Result<String, String> {
        let talk = Talk { messages, tools, now: 0 };
        let prompt = prompt(model, talk).map_err(|problem| problem.message)?;
        let tokenizer = &model.listed.tokenizer;
        let spell = |id: &u32| match tokenizer.bytes(*id) {
            [] => format!("[{}]", tokenizer.spelling(*id).unwrap()).into_bytes(),
            bytes => bytes.to_vec(),
        };
        Ok(String::from_utf8(prompt.iter().flat_map(spell).collect()).unwrap())
    }

    fn check(messages: &[&str], expected: &str) {
        assert_eq!(spelled(&nano(), messages).as_deref(), Ok(expected));
    }

    #[test]
    fn a_prompt_of_its_own_is_taken_as_it_is() {
        let model = nano();
        let tokenizer = &model.listed.tokenizer;
        let check = |prompt: Prompt, expected: Result<Vec<u32>, &str>| {
            let found = tokens(&model, &prompt, 0).map_err(|problem| problem.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{prompt:?}");
        };
        check(Prompt::Text("1+1=".into()), Ok(tokenizer.encode_plain("1+1=")));
        check(Prompt::Text("<|user|>".into()), Ok(vec![tokenizer.id_of("<|user|>").unwrap()]));
        check(Prompt::Text(String::new()), Ok(model.listed.eos.clone()));
        check(Prompt::Tokens(vec![7, 8]), Ok(vec![7, 8]));
        let len = tokenizer.len();
        let unknown = format!("prompt has token {len}, the model has {len}");
        check(Prompt::Tokens(vec![u32::try_from(len).unwrap()]), Err(&unknown));
        let long = "this model's context is 64 tokens, but the prompt takes 64 and leaves no room for an \
                    answer; shorten it";
        check(Prompt::Tokens(vec![7; 64]), Err(long));
    }

    #[test]
    fn ordinary_messages_are_one_text() {
        let messages = ["system:be brief", "user: 1 + 1 ", "assistant:2", "user:<|user> <eos"];
        let turns: Vec<Message> = messages.iter().map(|text| message(text)).collect();
        let model = nano();
        let talk = Talk { messages: &turns, tools: &[], now: 0 };
        let text = render(&model, talk).unwrap();
        assert_eq!(prompt(&model, talk).unwrap(), model.listed.tokenizer.encode(&text));
        check(&messages[..2], "[<|system|>]be brief[<|user|>] 1 + 1 [<|assistant|>]");
    }

    #[test]
    fn templates_are_told_the_day_of_the_order() {
        let mut listed = nano().listed.clone();
        listed.chat = Some(Arc::new(Chat::new("{{ strftime_now('%F %T') }}").unwrap()));
        let model = Catalogue::new(vec![listed], BTreeMap::new()).models.remove(0);
        let told = |now| render(&model, Talk { messages: &[], tools: &[], now }).unwrap();
        assert_eq!(told(2 * DAY_S - 1), "1970-01-02 00:00:00");
        assert_eq!(told(2 * DAY_S), "1970-01-03 00:00:00");
        let prompt = Prompt::conversation(Vec::new(), None);
        let of = |now| tokens(&model, &prompt, now).unwrap();
        assert_eq!(of(DAY_S), of(2 * DAY_S - 1));
        assert_ne!(of(DAY_S), of(2 * DAY_S));
    }
}
