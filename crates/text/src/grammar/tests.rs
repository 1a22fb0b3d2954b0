#![expect(clippy::disallowed_types, reason = "how long a compilation takes is what is tested")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::{CallFormat, Tool};

/// Follows `text` byte by byte, and says how far it is allowed, and whether it may end there.
fn follow(grammar: &str, text: &str) -> (usize, bool) {
    let mut compiled = Grammars::of_bytes().unwrap().compile(grammar).unwrap();
    let end = u32::from(u8::MAX);
    for (index, byte) in text.bytes().enumerate() {
        let allowed = compiled.allowed().unwrap();
        assert!(allowed.is_sorted());
        if !allowed.contains(&u32::from(byte)) {
            return (index, allowed.contains(&end));
        }
        compiled.push(u32::from(byte)).unwrap();
    }
    (text.len(), compiled.allowed().unwrap().contains(&end))
}

fn takes(grammar: &str, text: &str) {
    assert_eq!(follow(grammar, text), (text.len(), true), "{text:?} in {grammar}");
}

fn refuses(grammar: &str, text: &str, at: usize) {
    let (reached, _) = follow(grammar, text);
    assert_eq!(reached, at, "{text:?} in {grammar}");
}

#[test]
fn schemas_say_what_may_be_written() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"integer"},"a":{"enum":["x","y"]}},
        "required":["z","a"],"additionalProperties":false}"#;
    let grammar = json_schema_grammar(schema).unwrap();
    takes(&grammar, r#"{"z":1,"a":"x"}"#);
    takes(&grammar, r#"{"z": -12, "a": "y"}"#);
    // The order of the properties is the schema's, and white space is not for filling pages.
    refuses(&grammar, r#"{"a":"x","z":1}"#, 2);
    refuses(&grammar, "{ \"z\":1}", 1);
    refuses(&grammar, r#"{"z":  1}"#, 6);
    refuses(&grammar, r#"{"z":1.5"#, 6);
    let (_, ends) = follow(&grammar, r#"{"z":1"#);
    assert!(!ends);
}

#[test]
fn a_complete_sentence_can_only_end() {
    let grammar = choice_grammar(&["yes".into(), "no \"way\" / \u{7f}".into()]);
    takes(&grammar, "yes");
    takes(&grammar, "no \"way\" / \u{7f}");
    let mut compiled = Grammars::of_bytes().unwrap().compile(&grammar).unwrap();
    for byte in "yes".bytes() {
        compiled.push(u32::from(byte)).unwrap();
    }
    assert_eq!(compiled.allowed().unwrap(), [255]);
    assert_eq!(compiled.push(u32::from(b'!')), Err(GrammarError::NotAllowed { token: 33 }));
}

#[test]
fn json_objects_and_expressions() {
    takes(&any_json_object_grammar(), r#"{"a":[1,{"b":null}]}"#);
    refuses(&any_json_object_grammar(), "[1]", 0);
    takes(&regex_grammar(r"\d{3}/[a-f]+"), "123/fade");
    refuses(&regex_grammar(r"\d{3}/[a-f]+"), "123/g", 4);
}

fn tool(name: &str, parameters: Option<&str>) -> Tool {
    Tool {
        name: name.into(),
        parameters: parameters.map(Into::into),
        strict: false,
        json: "{}".into(),
    }
}

#[test]
fn calls_are_written_as_their_readers_want_them() {
    let schema = r#"{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}"#;
    let (f, g) = (tool("f", Some(schema)), tool("g", None));
    let grammar = |format, parallel| {
        tool_calls_grammar(&[&f, &g], format, parallel, Otherwise::Nothing).unwrap()
    };
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 7}}\n</tool_call>";
    takes(&grammar(CallFormat::Tagged, false), one);
    let two = format!("{one}\n<tool_call>\n{{\"name\": \"g\", \"arguments\": {{}}}}\n</tool_call>");
    takes(&grammar(CallFormat::Tagged, true), &two);
    refuses(&grammar(CallFormat::Tagged, false), &two, one.len());
    takes(&grammar(CallFormat::Bare, false), r#"{"name": "f", "parameters": {"x":7}}"#);
    takes(&grammar(CallFormat::Listed, true), r#"[{"name": "g", "arguments": {}}]"#);
    refuses(&grammar(CallFormat::Bare, false), r#"{"name": "h"#, 10);
    assert!(tool_calls_grammar(&[], CallFormat::Bare, false, Otherwise::Nothing).is_err());
}

#[test]
fn words_may_stand_before_calls_or_instead() {
    let f = tool(
        "f",
        Some(
            r#"{"properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}"#,
        ),
    );
    let grammar = |format| tool_calls_grammar(&[&f], format, true, Otherwise::Words).unwrap();
    let tagged = grammar(CallFormat::Tagged);
    for text in ["", "so < it <tool is", "a\nb"] {
        takes(&tagged, text);
    }
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 7}}\n</tool_call>";
    takes(&tagged, one);
    takes(&tagged, &format!("Well,\n{one}\n{one}"));
    refuses(&tagged, "a<tool_call> {}", 12);
    refuses(&tagged, "<tool_call>\n{\"name\": \"g\"", 22);
    let bare = grammar(CallFormat::Bare);
    let call = "{\"name\": \"f\", \"parameters\": {\"x\": 7}}";
    ["", "hm {", call].iter().for_each(|text| takes(&bare, text));
    refuses(&bare, "{\"answer\"", 2);
    let listed = grammar(CallFormat::Listed);
    let call = "[{\"name\": \"f\", \"arguments\": {\"x\": 7}}]";
    ["", "hm [", call].iter().for_each(|text| takes(&listed, text));
}

#[test]
fn a_sentence_of_another_grammar_may_stand_instead() {
    let f = tool("f", None);
    let other = choice_grammar(&["yes".into(), "no".into()]);
    let both =
        |other| tool_calls_grammar(&[&f], CallFormat::Bare, false, Otherwise::Sentence(other));
    let grammar = both(&other).unwrap();
    let call = "{\"name\": \"f\", \"parameters\": {}}";
    ["yes", call].iter().for_each(|text| takes(&grammar, text));
    refuses(&grammar, "maybe", 0);
    assert!(both("start: a\na: \"x\"").is_err());
}

#[test]
fn a_schema_that_cannot_be_followed_is_kept_to_where_it_is_strict() {
    let of = |strict| {
        let tool = Tool {
            strict,
            ..tool("f", Some(r#"{"type":"object","properties":{"a":{"type":"owl"}}}"#))
        };
        tool_calls_grammar(&[&tool], CallFormat::Bare, false, Otherwise::Nothing)
    };
    takes(&of(false).unwrap(), "{\"name\": \"f\", \"parameters\": {\"a\": [1]}}");
    assert!(matches!(of(true), Err(GrammarError::Refused { .. })));
}

/// A grammar that tries to cost too much is refused, or followed, in bounded time.
fn bounded(what: &str, grammar: &str) {
    let begun = Instant::now();
    let said = check_grammar(grammar);
    let took = begun.elapsed();
    println!("{what}: {took:?} {said:?}");
    if let Err(error) = &said {
        assert!(error.to_string().len() < 400);
    }
    assert!(took < Duration::from_secs(5), "{what}: {took:?}");
}

fn nested(depth: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn hostile_expressions_are_bounded() {
    bounded("nested stars", &regex_grammar(&nested(30, "(", "a", "*)*")));
    bounded("huge repetition", &regex_grammar("a{1,1000000000}"));
    bounded("nested repetition", &regex_grammar("((((a{1,100}){1,100}){1,100}){1,100}){1,100}"));
    bounded("exponential", &regex_grammar(&format!("(a|b)*a{}", "(a|b)".repeat(25))));
    bounded("exponential, repeated", &regex_grammar("(.*a.{20}b.{20}c){8}"));
    bounded("unicode classes", &regex_grammar(r"[\p{L}\p{N}\p{S}]{1,5000}x"));
    bounded("alternatives", &regex_grammar(&format!("({})*", "a?".repeat(300))));
    bounded("deep", &regex_grammar(&nested(20_000, "(", "a", ")")));
    bounded("not one", &regex_grammar("(["));
    bounded("empty", &regex_grammar(""));
    bounded("look ahead", &regex_grammar("(?=a)b"));
    bounded("conjunctions", &format!("start: A\nA: {}", "/.*a.{9}/ & ".repeat(12) + "/.*b/"));
}

#[test]
fn hostile_schemas_are_bounded() {
    let schema = |text: &str| json_schema_grammar(text).unwrap();
    let property = r#"{"type":"object","properties":{"a":"#;
    bounded("nested objects", &schema(&nested(28, property, "{}", "}}")));
    let deep = schema(&nested(40, property, "{}", "}}"));
    assert!(matches!(check_grammar(&deep), Err(GrammarError::Depth { .. })));
    assert!(json_schema_grammar(&nested(3000, property, "{}", "}}")).is_err());
    let doubling = |key: &str| {
        nested(14, &format!(r#"{{"{key}":["#), r#"{"type":"string"}"#, r#",{"minLength":1}]}"#)
    };
    bounded("anyOf within anyOf", &schema(&doubling("anyOf")));
    bounded("allOf within allOf", &schema(&doubling("allOf")));
    let product: Vec<String> = (0..12)
        .map(|i| format!(r#"{{"anyOf":[{{"properties":{{"p{i}":{{"type":"integer"}}}}}},{{"required":["q{i}"]}}]}}"#))
        .collect();
    bounded(
        "a product of alternatives",
        &schema(&format!(r#"{{"allOf":[{}]}}"#, product.join(","))),
    );
    let chain: Vec<String> = (0..30)
        .map(|i| format!(r##""d{i}":{{"type":"array","items":{{"anyOf":[{{"$ref":"#/$defs/d{0}"}},{{"$ref":"#/$defs/d{0}"}}]}}}}"##, i + 1))
        .collect();
    bounded(
        "references that double",
        &schema(&format!(
            r##"{{"$defs":{{{},"d30":{{"type":"null"}}}},"$ref":"#/$defs/d0"}}"##,
            chain.join(",")
        )),
    );
    bounded(
        "a circle of references",
        &schema(
            r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##,
        ),
    );
    bounded("a foreign reference", &schema(r#"{"$ref":"http://127.0.0.1:1/schema.json"}"#));
    bounded("itself", &schema(r##"{"type":"array","items":{"$ref":"#"}}"##));
    bounded(
        "many items",
        &schema(r#"{"type":"array","minItems":1000000,"items":{"type":"string"}}"#),
    );
    bounded("long strings", &schema(r#"{"type":"string","minLength":100000000}"#));
    bounded(
        "a hostile pattern",
        &schema(r#"{"type":"string","pattern":"^((a{1,500}){1,500}){1,500}$"}"#),
    );
    let many: Vec<String> =
        (0..250).map(|i| format!(r#""property{i}":{{"type":"number"}}"#)).collect();
    bounded(
        "many properties",
        &schema(&format!(r#"{{"type":"object","properties":{{{}}}}}"#, many.join(","))),
    );
    bounded(
        "exact numbers",
        &schema(r#"{"type":"number","multipleOf":0.000000001,"minimum":-1e300,"maximum":1e300}"#),
    );
    bounded("unsatisfiable", &schema(r#"{"type":"integer","minimum":2,"maximum":1}"#));
    bounded("unknown", &schema(r#"{"type":"owl"}"#));
    let long = schema(&format!(r#"{{"enum":["{}"]}}"#, "x".repeat(70_000)));
    assert!(matches!(check_grammar(&long), Err(GrammarError::Length { .. })));
}

#[test]
fn what_is_hostile_only_later_ends_the_answer_in_bounded_time() {
    // Ambiguous without end: every split of the letters is a sentence.
    let grammar = "start: s\ns: s s | \"a\" | \"aa\"";
    let mut compiled = Grammars::of_bytes().unwrap().compile(grammar).unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        match compiled.allowed() {
            Ok(allowed) => assert!(allowed.contains(&97)),
            Err(error) => {
                println!("{error}");
                break;
            }
        }
        if compiled.push(97).is_err() {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics(text in "[a-z :|/\"\\[\\]{}()*+?%<>@~.,0-9\n]{0,60}") {
        let _ = check_grammar(&text);
        let _ = check_grammar(&format!("start: {text}"));
        let _ = check_grammar(&regex_grammar(&text));
        let _ = json_schema_grammar(&text).map(|grammar| check_grammar(&grammar));
    }
}
