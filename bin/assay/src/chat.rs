//! `assay chat`: questions and answers in turn, at the terminal.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Exit, Outcome};
use crate::gateway::{Completion, Gateway};
use crate::run::{Asked, save_receipt, warn_if_cut};
use crate::terminal::{note, say, write};

const HELP: &str = "  /reset         forget what was said
  /receipt FILE  save the last answer with its receipt
  /quit          leave (as does Ctrl-D)";

/// Talk with a model at the terminal
#[derive(Args, Debug)]
pub(crate) struct Chat {
    #[command(flatten)]
    asked: Asked,
    /// Print one JSON document per answer instead of the text
    #[arg(long)]
    json: bool,
}

/// A line as it was typed.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Reset,
    Receipt(&'a str),
    Quit,
    Help,
    Question(&'a str),
}

fn read(line: &str) -> Line<'_> {
    let line = line.trim();
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match command {
        "" => Line::Empty,
        "/reset" => Line::Reset,
        "/receipt" => Line::Receipt(rest.trim()),
        "/quit" | "/exit" => Line::Quit,
        _ if command.starts_with('/') => Line::Help,
        _ => Line::Question(line),
    }
}

/// What was said so far.
struct Talk {
    gateway: Gateway,
    model: String,
    messages: Vec<Value>,
    last: Option<Completion>,
}

impl Chat {
    pub(crate) async fn run(self) -> Outcome {
        let gateway = self.asked.gateway.open()?;
        let model = self.asked.model(&gateway).await?;
        note(format_args!("{model} at {}; /help lists the commands", gateway.url()));
        let mut talk = Talk { gateway, model, messages: Vec::new(), last: None };
        let prompts = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        loop {
            if prompts {
                write("> ");
            }
            // Nothing else runs meanwhile, so waiting for a line may hold up the thread.
            let Some(Ok(line)) = std::io::stdin().lock().lines().next() else { return Ok(()) };
            match read(&line) {
                Line::Empty => {}
                Line::Help => note(HELP),
                Line::Quit => return Ok(()),
                Line::Reset => {
                    talk.messages.clear();
                    note("(forgotten)");
                }
                Line::Receipt(file) => talk.save(file).await,
                Line::Question(question) => talk.ask(&self, question).await?,
            }
        }
    }
}

impl Talk {
    async fn ask(&mut self, chat: &Chat, question: &str) -> Outcome {
        self.messages.push(json!({ "role": "user", "content": question }));
        let request = chat.asked.request(&self.model, &json!(self.messages));
        let show = |text: &str| {
            if !chat.json {
                write(text);
            }
        };
        let answer = match self.gateway.answer(request, show).await {
            Ok(answer) => answer,
            // What does not fit, or is refused, is not said; the talk goes on without it.
            Err(failure) if failure.is(Exit::Usage) => {
                self.messages.pop();
                note(failure);
                note("  the question was not asked; /reset starts over with an empty context");
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        if chat.json {
            say(json!({
                "schema": "assay.chat/1",
                "id": answer.id,
                "text": answer.text,
                "finish": answer.finish,
                "usage": answer.usage,
            }));
        } else {
            say("");
            warn_if_cut(&answer);
        }
        self.messages.push(json!({ "role": "assistant", "content": answer.text }));
        self.last = Some(answer);
        Ok(())
    }

    async fn save(&self, file: &str) {
        let saved = match &self.last {
            _ if file.is_empty() => return note("  /receipt needs the name of a file"),
            None => return note("  there is no answer yet"),
            Some(answer) => save_receipt(&self.gateway, answer, Path::new(file)).await,
        };
        if let Err(failure) = saved {
            note(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        assert_eq!(read("  12+45= \n"), Line::Question("12+45="));
        assert_eq!(read("/receipt  my receipt.json"), Line::Receipt("my receipt.json"));
        assert_eq!(read("/reset"), Line::Reset);
        assert_eq!(read("/what"), Line::Help);
        assert_eq!(read(" "), Line::Empty);
    }
}
