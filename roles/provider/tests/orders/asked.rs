//! What a buyer may ask for beside an answer: logprobs, and less than can be proved.

use assay_protocol::wire::{Frame, Refusal, Submission};
use assay_protocol::{Assurance, Key, Logprobs, grammar_hash};

use crate::script::{CHAIN, EOS, Script, Stage, checked, order};

/// An order changed before it is signed.
fn changed(nonce: u64, change: impl Fn(&mut Submission)) -> Submission {
    let mut submission = order(nonce);
    change(&mut submission);
    submission.order.sampler = submission.terms.sampler.hash();
    submission.signature = submission.order.sign(CHAIN, &Key::from_bytes([1; 32]).unwrap());
    submission
}

#[tokio::test]
async fn logprobs_come_with_the_tokens_and_not_with_the_receipt() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let submission = Submission { logprobs: Some(2), ..order(1) };
    let mut lines = stage.submit(&submission).await.unwrap();
    let mut said: Vec<Logprobs> = Vec::new();
    let last = loop {
        match lines.next().await.unwrap() {
            Frame::Logprobs(more) => said.extend(more),
            last => break last,
        }
    };
    let sealed = checked(&submission, last);
    let tokens: Vec<u32> = said.iter().map(|said| said.token).collect();
    assert_eq!(tokens, [10, 11, 12, EOS]);
    assert!(said.iter().all(|said| said.check(2, 1000).is_ok()));
    // They are not kept: whoever has the model computes them again.
    let (tokens, last) = stage.answer(&submission).await;
    assert_eq!((tokens, checked(&submission, last)), (sealed.output.clone(), sealed));
    let greedy = Submission { logprobs: Some(21), ..order(2) };
    let (status, refusal) = stage.submit(&greedy).await.err().unwrap();
    assert_eq!(status, 400);
    let expected = "21 alternatives are asked for with each token, at most 20";
    assert_eq!(refusal.to_string(), expected);
}

#[tokio::test]
async fn what_can_be_replayed_is_sold_as_scored_too() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let scored = changed(1, |submission| submission.order.assurance = Assurance::Scored);
    let (_, last) = stage.answer(&scored).await;
    assert_eq!(checked(&scored, last).receipt.assurance, Assurance::Scored);
}

#[tokio::test]
async fn a_grammar_needs_a_vocabulary_and_a_lower_assurance() {
    let stage = Stage::new(Script::new(4, 100)).await;
    let with = |nonce, assurance| {
        changed(nonce, move |submission| {
            submission.order.assurance = assurance;
            submission.terms.grammar = Some("start: /a/".into());
            submission.terms.sampler.grammar = grammar_hash(submission.terms.grammar.as_deref());
        })
    };
    let (_, refusal) = stage.submit(&with(1, Assurance::Scored)).await.err().unwrap();
    assert_eq!(refusal, Refusal::NotOffered { what: "grammar".into() });
    let (_, refusal) = stage.submit(&with(2, Assurance::Replayable)).await.err().unwrap();
    let expected = "an order with a grammar is scored, this one is replayable";
    assert_eq!(refusal.to_string(), expected);
    let other = changed(3, |submission| {
        submission.order.assurance = Assurance::Scored;
        submission.terms.grammar = Some("start: /b/".into());
    });
    let (_, refusal) = stage.submit(&other).await.err().unwrap();
    assert_eq!(refusal.to_string(), "the order's grammar does not match its commitment");
}
