//! Vocabularies, templates and grammars of strangers end in an answer or an error, and soon.

use assay_text::{
    Charsmap, Chat, Conversation, Message, PreTokenizer, Spaces, TokenKind, Tokenizer, Unigram,
    Vocabulary, check_grammar, json_schema_grammar, regex_grammar,
};

#[test]
fn fuzz_tokenizer() {
    let words =
        ["\"id\":", "\"ab\"", "\"type\":\"BPE\"", "\"Ġ\"", "##", "null", "[]", "{}", "4294967295"];
    assay_fuzz::hold("tokenizer", &words, |bytes| {
        let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return false };
        let text = "ab a<e>é\u{0}🦙 [SEP]";
        assert!(tokenizer.encode(text).iter().all(|&id| (id as usize) < tokenizer.len()));
        let _ = tokenizer.enclose(text, 9);
        let canonical = tokenizer.canonical();
        let again = Tokenizer::from_canonical(&canonical).map(|read| read.canonical());
        assert_eq!(again.as_ref(), Ok(&canonical));
        true
    });
}

/// A Unigram vocabulary of a few pieces, with a map of strangers.
fn with_map(bytes: &[u8], spaces: Spaces) -> Option<Tokenizer> {
    let pieces =
        [("<unk>", 0.0), ("▁", -2.0), ("a", -3.0), ("e", -3.5), ("▁a", -4.0), ("fi", -1.0)];
    let tokens = pieces.map(|(piece, _)| piece.to_owned()).to_vec();
    let scores = pieces.map(|(_, score)| score).to_vec();
    let mut kinds = vec![TokenKind::Normal; pieces.len()];
    kinds[0] = TokenKind::Unknown;
    let (pre, bos, add_bos) = (PreTokenizer::Unigram, None, false);
    let (merges, eos) = (Vec::new(), Vec::new());
    let vocabulary = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
    let unigram = Unigram { scores, charsmap: Charsmap::read(bytes).ok()?, spaces };
    Some(Tokenizer::with_scores(vocabulary, unigram).expect("the vocabulary is sound"))
}

#[test]
fn fuzz_charsmap() {
    let words = ["\u{0}\u{0}\u{0}\u{0}", "e\u{301}", " ", "\u{0}", "\u{0}\u{4}\u{0}\u{0}", "\u{1}"];
    let text = " fiﬁ\t\ta e\u{301}\u{301}\r\n é▁▁🦙\u{200d}🦙 \u{0}";
    assay_fuzz::hold("charsmap", &words, |bytes| {
        for spaces in [Spaces::Joined, Spaces::Kept, Spaces::Words, Spaces::Trimmed, Spaces::Every]
        {
            let Some(tokenizer) = with_map(bytes, spaces) else { return false };
            assert!(tokenizer.encode_plain(text).iter().all(|&id| (id as usize) < tokenizer.len()));
            let _ = tokenizer.enclose(text, 3);
            let canonical = tokenizer.canonical();
            let again = Tokenizer::from_canonical(&canonical).map(|read| read.canonical());
            assert_eq!(again.as_ref(), Ok(&canonical));
        }
        true
    });
}

#[test]
fn fuzz_template() {
    let words = [
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if ",
        "{% endif %}",
        "{% set x = ",
        "{{ ",
        " }}",
        " %}",
        "messages",
        "|tojson",
        "|join",
        ".append(",
        ".pop(0)",
        "namespace(",
        "range(99999)",
        "[",
        "]",
        "(",
        ")",
        " * 9",
        " ~ ",
        "{% macro m(a) %}",
        "{% endmacro %}",
        "m(1)",
        "|replace('a', 'aa')",
        "loop(",
        "raise_exception(",
        "'%s'|format(",
        "{% generation %}",
        "{% raw %}",
        "|indent(9999)",
        "|center(99999)",
        "|batch(0)",
        "[::0]",
        "strftime_now('%Y-%m-%d')",
    ];
    let messages = [Message::new("system", "Be brief."), Message::new("user", "1 < 2")];
    assay_fuzz::hold("template", &words, |bytes| {
        let Ok(chat) = Chat::new(&String::from_utf8_lossy(bytes)) else { return false };
        let text = chat.render(&Conversation {
            messages: &messages,
            tools: &[],
            add_generation_prompt: true,
            bos: "<s>",
            eos: "</s>",
            unix_seconds: Some(1 << 40),
        });
        text.is_ok()
    });
}

#[test]
fn fuzz_schema() {
    let words = [
        "{\"type\":\"object\"}",
        "\"$ref\":\"#\"",
        "\"anyOf\":[",
        "\"pattern\":\"",
        "\"maxItems\":99999999",
        "\"minLength\":4294967295",
        "\"enum\":[",
        "\"format\":\"date\"",
        "\"properties\":{",
        "1e308",
        "-0",
    ];
    assay_fuzz::hold("schema", &words, |bytes| {
        let schema = String::from_utf8_lossy(bytes);
        json_schema_grammar(&schema).and_then(|grammar| check_grammar(&grammar)).is_ok()
    });
}

#[test]
fn fuzz_grammar() {
    let words = [
        "start: ",
        "\n",
        "%json {",
        "%regex {",
        "{1,9999}",
        "(",
        ")*",
        "|",
        "/x/",
        "\"y\"",
        "%ignore ",
        "[^a]",
        "\\p{L}",
        "{0,99999}",
        "start start",
        "%import common.INT",
        "<[1-9]>",
        "[capture]",
        "@grammar",
    ];
    assay_fuzz::hold("grammar", &words, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = check_grammar(&regex_grammar(&text));
        check_grammar(&text).is_ok()
    });
}
