//! A model that makes vectors: what goes with its one token, and what an engine cannot get away with.

use std::sync::atomic::Ordering;

use assay_protocol::wire::{Frame, Refusal, Submission};
use assay_protocol::{Amount, Finish, Key, vector_hash};

use crate::script::{CHAIN, EOS, Script, Stage, hash, order};

/// An order for a vector.
fn wanted(nonce: u64, max_tokens: u32) -> Submission {
    let mut submission = order(nonce);
    submission.order.max_tokens = max_tokens;
    submission.signature = submission.order.sign(CHAIN, &Key::from_bytes([1; 32]).unwrap());
    submission
}

async fn frames(stage: &Stage, submission: &Submission) -> Vec<Frame> {
    let mut lines = stage.submit(submission).await.unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = lines.next().await {
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn a_vector_comes_before_its_token_and_costs_the_prompt() {
    let vector: Vec<i32> = (-40..60).collect();
    let stage = Stage::new(Script::vectors(vector.clone())).await;
    assert_eq!(stage.offers().await.offers[0].offer.price_out, Amount(0));
    let submission = wanted(1, 1);
    let found = frames(&stage, &submission).await;
    let [Frame::Vector(said), Frame::Tokens(tokens), Frame::Sealed(sealed)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((said, &tokens[..]), (&vector, &[EOS][..]));
    let receipt = &sealed.receipt;
    assert!(receipt.binds(&vector, &sealed.output));
    assert_eq!((receipt.price, receipt.finish), (Amount(3), Finish::Eos));
    assert_eq!(receipt.order, hash(&submission));
    let [state] = sealed.states[..] else { panic!("{sealed:?}") };
    assert_eq!(state, receipt.state);
    assert_ne!(vector_hash(&vector), state);
    // It is not kept: whoever has the model computes it again.
    let again = frames(&stage, &submission).await;
    assert_eq!(again, [Frame::Tokens(vec![EOS]), Frame::Sealed(sealed.clone())]);
}

#[tokio::test]
async fn only_one_vector_can_be_ordered() {
    let stage = Stage::new(Script::vectors(vec![1, 2])).await;
    let rated = Submission { logprobs: Some(0), ..wanted(2, 1) };
    for submission in [wanted(1, 2), rated] {
        let (status, refusal) = stage.submit(&submission).await.err().unwrap();
        assert_eq!(status, 400);
        assert!(refusal.to_string().contains("one vector"), "{refusal}");
    }
}

#[tokio::test]
async fn no_receipt_is_signed_for_a_vector_that_is_not_there() {
    let failed = |reason: &str| Frame::Failed(Refusal::Internal { reason: reason.into() });
    let stage = Stage::new(Script::vectors(vec![1, 2])).await;
    stage.script.other_bits.store(true, Ordering::SeqCst);
    let found = frames(&stage, &wanted(1, 1)).await;
    assert_eq!(found, [failed("the engine hashed another vector")]);
    stage.script.breaks.store(true, Ordering::SeqCst);
    let found = frames(&stage, &wanted(2, 1)).await;
    assert_eq!(found, [failed("the engine gave no vector")]);
    // A model that writes has none to give.
    assert!(stage.try_sealed(&wanted(1, 1)).await.is_none());
}
