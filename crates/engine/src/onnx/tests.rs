//! A small encoder as an ONNX file: imported, asked, computed again; and what is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use assay_evidence::Fault;
use assay_protocol::{
    Address, Amount, Answer, AnswerError, Assurance, Audit, B256, ChannelId, Finish, Key,
    LOCAL_CHAIN, Order, Receipt, Sampler, Terms, U256, keccak256, token_root, vector_hash,
};

use super::testing::{
    INT64, Parts, WIDTH, floats, int, ints, node, tensor, tiny, write, write_classifier,
};
use super::*;
use crate::job::Delta;

fn imported(graph: &[u8]) -> Result<OnnxPackage, OnnxError> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), graph);
    OnnxPackage::import(folder.path(), &OnnxOptions::default())
}

fn model(parts: &Parts, threads: usize) -> OnnxModel {
    imported(&parts.file()).unwrap().load(threads).unwrap()
}

/// Tokens of a text of so many, between the one that begins it and the one that ends it.
fn tokens(count: u32, seed: u32) -> Vec<u32> {
    let inner = (0..count).map(|index| 4 + (index * 7 + seed * 5) % 8);
    [2].into_iter().chain(inner).chain([3]).collect()
}

fn terms(prompt: Vec<u32>) -> Terms {
    let sampler = Sampler::greedy();
    Terms { prompt, sampler, stops: Vec::new(), bias: Vec::new(), grammar: None }
}

fn order(model: &OnnxModel, terms: &Terms) -> Order {
    Order {
        buyer: Key::from_bytes([11; 32]).unwrap().address(),
        market: Address::ZERO,
        model: model.id,
        request: B256::ZERO,
        prompt: token_root(&terms.prompt),
        prompt_tokens: terms.prompt.len() as u32,
        max_tokens: 1,
        sampler: terms.sampler.hash(),
        assurance: Assurance::Scored,
        audit: Audit::Drawn,
        asset: Address::ZERO,
        max_price: Amount(0),
        deadline: u64::MAX,
        nonce: U256::from(1),
        grant: B256::ZERO,
    }
}

fn job(model: &OnnxModel, prompt: Vec<u32>) -> Job {
    let terms = terms(prompt);
    let order = order(model, &terms);
    Job::new(order.hash(LOCAL_CHAIN), &order, &terms, &model.eos, model.context)
}

/// The answer that a provider signs for this vector.
fn answer(model: &OnnxModel, prompt: Vec<u32>, vector: Vec<i32>) -> Answer {
    let (buyer, provider) =
        (Key::from_bytes([11; 32]).unwrap(), Key::from_bytes([22; 32]).unwrap());
    let terms = terms(prompt);
    let order = order(model, &terms);
    let (hash, output) = (order.hash(LOCAL_CHAIN), vec![3]);
    let states = Answer::states_of(hash, [(3, vector_hash(&vector))]);
    let receipt = Receipt {
        order: hash,
        provider: provider.address(),
        output: token_root(&output),
        output_tokens: 1,
        text: keccak256(""),
        finish: Finish::Eos,
        state: states[0],
        assurance: Assurance::Scored,
        asset: Address::ZERO,
        price: Amount(0),
        channel: ChannelId::default(),
        channel_before: Amount(0),
        channel_after: Amount(0),
        started: 1,
        finished: 2,
    };
    Answer {
        schema: Answer::SCHEMA.to_owned(),
        chain_id: LOCAL_CHAIN,
        order_signature: order.sign(LOCAL_CHAIN, &buyer),
        order,
        terms,
        receipt_signature: receipt.sign(LOCAL_CHAIN, &provider),
        receipt,
        output,
        text: String::new(),
        states,
        request: None,
        vector: Some(vector),
    }
}

/// What a backend says to one job.
fn said(backend: &Onnx, job: Job) -> Vec<Delta> {
    let mut stream = backend.run(job).unwrap();
    std::iter::from_fn(|| stream.next_blocking()).collect()
}

#[test]
fn a_folder_becomes_a_package_that_gives_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("tiny-onnx");
    write(&source, &tiny());
    let package = OnnxPackage::import(&source, &OnnxOptions::default()).unwrap();
    let summary = package.summary();
    assert_eq!((summary.name(), summary.width(), summary.context()), ("tiny-onnx", WIDTH, 64));
    assert_eq!((summary.pooling(), summary.vocabulary()), (Pooling::Mean, 12));
    let kept = folder.path().join("kept.assay");
    package.write(&kept).unwrap();
    assert!(OnnxPackage::is_package(&kept) && OnnxPackage::is_source(&source));
    assert_eq!(OnnxPackage::peek(&kept).unwrap().id(), package.id());
    let loaded = OnnxPackage::read(&kept).unwrap().load(1).unwrap();
    assert_eq!((loaded.id, &loaded.eos[..], loaded.vocabulary()), (package.id(), &[3][..], 12));

    let text = loaded.tokenizer.enclose("the weather is sunny", 63).unwrap();
    assert_eq!(text, [2, 4, 5, 6, 9, 10, 3]);
    let vector = loaded.embed(&text).unwrap();
    let length: f64 = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    assert!((length / f64::from(1 << 30) - 1.0).abs() < 1e-8, "length {length}");
    let backend = Onnx::start(Arc::new(loaded), NativeConfig::default());
    assert_eq!(backend.assurance(), Assurance::Scored);
    let loaded = OnnxPackage::read(&kept).unwrap().load(1).unwrap();
    let hidden = vector_hash(&vector);
    let expected = [
        Delta::Vector(vector),
        Delta::Token { token: 3, hidden, logprobs: None },
        Delta::Done(Finish::Eos),
    ];
    assert_eq!(said(&backend, job(&loaded, text)), expected);
}

#[test]
fn every_byte_that_decides_an_answer_decides_the_id() {
    let folder = tempfile::tempdir().unwrap();
    let id = |change: &dyn Fn(&Path)| {
        let source = folder.path().join("source");
        let _ = fs::remove_dir_all(&source);
        write(&source, &tiny());
        change(&source);
        OnnxPackage::import(&source, &OnnxOptions::default()).unwrap().id()
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |source: &Path| {
            let text = fs::read_to_string(source.join(file)).unwrap();
            assert!(text.contains(from), "{file} has no {from}");
            fs::write(source.join(file), text.replace(from, to)).unwrap();
        }
    };
    let first = id(&|_| ());
    assert_eq!(first, id(&|_| ()));
    assert_ne!(first, id(&edit("config.json", "64", "32")));
    assert_ne!(first, id(&edit("tokenizer.json", "lovely", "lively")));
    let other_graph = |source: &Path| {
        let mut parts = Parts::encoder();
        parts.tensors[3] = floats("bias", &[WIDTH], &[0.25; WIDTH]);
        fs::write(source.join("model.onnx"), parts.file()).unwrap();
    };
    assert_ne!(first, id(&other_graph));
    let other_pooling = |source: &Path| {
        fs::create_dir(source.join("1_Pooling")).unwrap();
        let modes = r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
        fs::write(source.join("1_Pooling/config.json"), modes).unwrap();
    };
    assert_ne!(first, id(&other_pooling));
    // What only names it does not.
    let named = OnnxOptions { name: Some("another".to_owned()), context: None };
    let source = folder.path().join("source");
    write(&source, &tiny());
    fs::remove_dir_all(source.join("1_Pooling")).unwrap();
    assert_eq!(first, OnnxPackage::import(&source, &named).unwrap().id());
    // A file is found with what lies around it, as hubs have it.
    fs::create_dir(source.join("onnx")).unwrap();
    fs::rename(source.join("model.onnx"), source.join("onnx/model.onnx")).unwrap();
    for path in [&source, &source.join("onnx/model.onnx")] {
        assert_eq!(first, OnnxPackage::import(path, &OnnxOptions::default()).unwrap().id());
    }
    fs::write(source.join("model.safetensors"), "").unwrap();
    assert!(!OnnxPackage::is_source(&source));
}

#[test]
fn threads_batches_and_others_change_no_bit() {
    let parts = Parts::encoder();
    let (one, two) = (model(&parts, 1), model(&parts, 2));
    for count in [1, 2, 5, 8, 13, 31, 61] {
        let texts: Vec<Vec<u32>> = (0..8).map(|seed| tokens(count, seed)).collect();
        let alone: Vec<_> = texts.iter().map(|text| one.graph().run(text, 1).unwrap()).collect();
        for rows in [1, 2, 3, 5, 8] {
            let together = two.graph().run(&texts[..rows].concat(), rows).unwrap();
            let alone: Vec<f32> = alone[..rows].iter().flat_map(|it| it.values.clone()).collect();
            let bits = |values: &[f32]| values.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
            assert!(bits(&together.values) == bits(&alone), "{rows} texts of {count} tokens");
        }
    }
    // The same through the backend, with several tenants at once.
    let expected: Vec<_> = (0..40).map(|seed| one.embed(&tokens(seed, seed)).unwrap()).collect();
    let backend = Onnx::start(Arc::new(two), NativeConfig::default());
    let ask = |seed: u32| {
        let mut job = job(&one, tokens(seed, seed));
        job.tenant = Address::repeat_byte(seed as u8 % 3);
        backend.run(job).unwrap()
    };
    let mut streams: Vec<_> = (0..40).map(ask).collect();
    // One of them is no longer wanted.
    drop(streams.remove(7));
    for (stream, seed) in streams.iter_mut().zip((0..40).filter(|&seed| seed != 7)) {
        assert_eq!(stream.next_blocking(), Some(Delta::Vector(expected[seed].clone())), "{seed}");
    }
}

#[test]
fn a_graph_may_have_made_one_vector_already() {
    let keepdims = [int("keepdims", 0)];
    let mut mean = Parts::ending("Identity", &[], &["batch", "width"]);
    // The axes of this operator are an input since its eighteenth version.
    mean.tensors.push(tensor("one", INT64, &[1], &1i64.to_le_bytes()));
    let inputs = ["last_hidden_state", "one"];
    *mean.nodes.last_mut().unwrap() = node("ReduceMean", &inputs, "sentence_embedding", &keepdims);
    let package = imported(&mean.file()).unwrap();
    assert_eq!(package.summary().pooling(), Pooling::None);
    let (whole, pooled) = (package.load(1).unwrap(), model(&Parts::encoder(), 1));
    assert_ne!(whole.id, pooled.id);
    let near = |text: &[u32]| {
        let (one, other) = (whole.embed(text).unwrap(), pooled.embed(text).unwrap());
        let apart = one.iter().zip(&other).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(apart < Some(1 << 12), "{apart:?}");
    };
    (1..30).for_each(|count| near(&tokens(count, count)));
}

#[test]
fn a_classifier_gives_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let import = |parts: &Parts, labels: &[&str], more: &str| {
        write_classifier(folder.path(), &parts.file(), labels, more);
        OnnxPackage::import(folder.path(), &OnnxOptions::default())
    };
    let parts = Parts::classifier();
    let package = import(&parts, &["bad", "fair", "good"], "").unwrap();
    let classes = package.summary().classes().unwrap();
    assert_eq!((classes.scores, classes.labels.len()), (Scores::Softmax, 3));
    let (id, one) = (package.id(), package.load(1).unwrap());
    let shares = one.embed(&tokens(6, 1)).unwrap();
    let sum: i64 = shares.iter().map(|&share| i64::from(share)).sum();
    assert!(shares.iter().all(|&share| share > 0) && (sum - (1 << 30)).abs() < 3, "{shares:?}");
    // Each class by itself; and other names make another model.
    let apart = r#","problem_type":"multi_label_classification""#;
    let apart = import(&parts, &["bad", "fair", "good"], apart).unwrap();
    assert_eq!(apart.summary().classes().unwrap().scores, Scores::Sigmoid);
    assert_ne!(apart.id(), id);
    assert_ne!(import(&parts, &["fair", "bad", "good"], "").unwrap().id(), id);
    // It is written and read with its classes.
    let kept = folder.path().join("kept.assay");
    import(&parts, &["bad", "fair", "good"], "").unwrap().write(&kept).unwrap();
    assert_eq!(OnnxPackage::read(&kept).unwrap().load(1).unwrap().classes, one.classes);
    let refused = |parts: &Parts, labels: &[&str], more: &str, expected: &str| {
        let said = import(parts, labels, more).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    };
    refused(&parts, &["bad", "good"], "", "the vector has 3 numbers, expected 2");
    refused(&parts, &[], "", "id2label is {}");
    refused(&Parts::encoder(), &["bad", "good"], "", "expected a number for each class");
}

#[test]
fn an_answer_is_compared_with_what_is_computed_here() {
    let model = model(&Parts::encoder(), 1);
    let prompt = tokens(6, 1);
    let vector = model.embed(&prompt).unwrap();
    let check = |answer: &Answer, expected: Comparison| {
        assert_eq!(model.compare(answer).unwrap(), expected);
    };
    let honest = answer(&model, prompt.clone(), vector.clone());
    check(&honest, Comparison::Same);
    check(&Answer { vector: None, ..honest.clone() }, Comparison::Same);
    let mut other = vector.clone();
    other[5] ^= 1;
    let rounded = answer(&model, prompt.clone(), other);
    let Comparison::Other { cosine: Some(cosine) } = model.compare(&rounded).unwrap() else {
        panic!("another vector is the same");
    };
    assert!(cosine > 0.999_999, "{cosine}");
    check(&Answer { vector: None, ..rounded }, Comparison::Other { cosine: None });
    // A vector that nobody signed, and another token than there can be.
    let altered = Answer { vector: Some(vec![0; WIDTH]), ..honest.clone() };
    check(&altered, Comparison::False(Fault::Contradiction(AnswerError::Vector)));
    let beyond = answer(&model, vec![2, 12, 3], vector);
    let Comparison::False(Fault::Unanswerable { reason }) = model.compare(&beyond).unwrap() else {
        panic!("a token that the model does not have");
    };
    assert_eq!(reason, "prompt token 12 is not in a vocabulary of 12");
    let mut foreign = honest;
    foreign.order.model = assay_protocol::ModelId(B256::ZERO);
    assert!(matches!(model.compare(&foreign), Err(OnnxError::WrongModel { .. })));
}

/// Whether an import of this graph is refused for this reason.
fn refused(parts: &Parts, expected: &str) {
    let said = imported(&parts.file()).unwrap_err().to_string();
    assert!(said.contains(expected), "{said}: expected {expected}");
}

#[test]
fn graphs_that_are_not_run_are_refused() {
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::encoder();
        change(&mut parts);
        parts
    };
    let last = |parts: &mut Parts, node: Vec<u8>| *parts.nodes.last_mut().unwrap() = node;
    let ends_in = |op: &'static str| {
        changed(&|parts| last(parts, node(op, &["normed"], "last_hidden_state", &[])))
    };
    refused(&ends_in("NoSuchOperator"), "NoSuchOperator");
    refused(&ends_in("RandomNormalLike"), "RandomNormalLike");
    refused(&changed(&|parts| parts.inputs.push("pixel_values")), "pixel_values");
    refused(
        &changed(&|parts| parts.inputs.retain(|name| *name != "input_ids")),
        "expected input_ids",
    );
    let nan = floats("bias", &[WIDTH], &[f32::NAN; WIDTH]);
    refused(&changed(&|parts| parts.tensors[3] = nan.clone()), "not finite");
    // Fewer words than the tokenizer has, other sizes than numbers, other sizes than fit together.
    let few = floats("words", &[3, WIDTH], &[0.5; 3 * WIDTH]);
    refused(&changed(&|parts| parts.tensors[0] = few.clone()), "rten failed");
    let short = floats("bias", &[WIDTH], &[0.5; 3]);
    refused(&changed(&|parts| parts.tensors[3] = short.clone()), "rten does not run this graph");
    let huge = floats("bias", &[1 << 40, 1 << 40], &[0.5; 3]);
    refused(&changed(&|parts| parts.tensors[3] = huge.clone()), "rten");
    let narrow = floats("bias", &[3], &[0.5; 3]);
    refused(&changed(&|parts| parts.tensors[3] = narrow.clone()), "rten");
    // A matrix for each token.
    let deep = Parts::ending("Unsqueeze", &[], &["batch", "one", "tokens", "width"]);
    refused(&deep, "rten");
}

#[test]
fn a_graph_that_gives_another_shape_later_fails_that_job() {
    // The scores between tokens are as wide as the text is long.
    let mut parts = Parts::encoder();
    parts.nodes.push(node("Identity", &["shares"], "sentence_embedding", &[]));
    parts.output = ("sentence_embedding", vec!["batch", "tokens", "tokens"]);
    let wide = model(&parts, 1);
    let said_of = wide.embed(&[2, 5, 3]).unwrap_err().to_string();
    assert_eq!(said_of, "the vector has 3 numbers, expected 2");
    let two = (job(&wide, vec![2, 5, 3]), job(&wide, vec![2, 3]));
    let backend = Onnx::start(Arc::new(wide), NativeConfig::default());
    assert_eq!(said(&backend, two.0), []);
    assert_eq!(said(&backend, two.1).len(), 3);
}

#[test]
fn sources_that_lack_something_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |change: &dyn Fn(&Path), expected: &str| {
        let source = folder.path().join("source");
        let _ = fs::remove_dir_all(&source);
        write(&source, &tiny());
        change(&source);
        let options = OnnxOptions::default();
        let said = OnnxPackage::import(&source, &options).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}: expected {expected}");
    };
    let put = |file: &'static str, text: &'static str| {
        move |source: &Path| {
            let path = source.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    };
    let no = |file: &'static str| move |source: &Path| fs::remove_file(source.join(file)).unwrap();
    check(&no("model.onnx"), "no model.onnx");
    check(&no("tokenizer.json"), "no tokenizer.json");
    check(&no("config.json"), "no max_position_embeddings in a config.json");
    check(&put("config.json", "{}"), "no max_position_embeddings");
    check(&put("config.json", r#"{"max_position_embeddings":-1}"#), "is -1");
    check(&put("config.json", "{"), "config.json: EOF");
    let few = r#"{"max_position_embeddings":3,"model_type":"roberta","pad_token_id":1}"#;
    check(&put("config.json", few), "max_position_embeddings is 3");
    check(&put("model.onnx", ""), "not an ONNX file");
    check(&put("model.onnx", "<html>"), "not an ONNX file");
    check(&put("tokenizer.json", "{}"), "tokenizer");
    let max = r#"{"pooling_mode_max_tokens":true,"pooling_mode_mean_tokens":true}"#;
    check(&put("1_Pooling/config.json", max), "pooling_mode_max_tokens");
    write(&folder.path().join("source"), &tiny());
    let longer = OnnxOptions { name: None, context: Some(65) };
    let said = OnnxPackage::import(&folder.path().join("source"), &longer).unwrap_err();
    assert!(matches!(said, OnnxError::Json { .. } | OnnxError::Context { .. }), "{said}");
}

#[test]
fn every_damage_to_a_package_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, damaged) = (folder.path().join("kept.assay"), folder.path().join("damaged.assay"));
    imported(&tiny()).unwrap().write(&kept).unwrap();
    let bytes = fs::read(&kept).unwrap();
    let id = OnnxPackage::peek(&kept).unwrap().id();
    let read = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        OnnxPackage::read(&damaged)
    };
    for end in (0..bytes.len()).step_by(17) {
        read(&bytes[..end]).unwrap_err();
    }
    read(&[&bytes[..], b"more"].concat()).unwrap_err();
    // A length that is longer than the file, and than any part.
    let mut long = bytes.clone();
    long[15] = 0x7f;
    assert!(matches!(read(&long), Err(OnnxError::TooLong { .. })));
    // A changed byte is found, or is of the name, or makes another model.
    for place in (8..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        if let Ok(package) = read(&changed) {
            assert!(place < 200 || package.id() != id, "byte {place} of {}", bytes.len());
        }
    }
}

#[test]
fn transposed_twice_is_the_same() {
    // An operator with a list as attribute, whose encoding the writer must have right.
    let mut parts = Parts::encoder();
    parts.nodes.push(node("Transpose", &["last_hidden_state"], "t", &[ints("perm", &[0, 2, 1])]));
    parts.nodes.push(node("Transpose", &["t"], "token_embeddings", &[ints("perm", &[0, 2, 1])]));
    parts.output.0 = "token_embeddings";
    let text = tokens(9, 2);
    let expected = model(&Parts::encoder(), 1).embed(&text).unwrap();
    assert_eq!(model(&parts, 1).embed(&text).unwrap(), expected);
}
