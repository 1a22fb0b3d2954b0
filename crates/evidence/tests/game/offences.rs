//! Receipts that are false by what is signed alone, and the contract that reads the same words.

use assay_evidence::dispute::{contradicts, equivocate, misfinish};
use assay_protocol::{
    Amount, Assurance, B256, ChannelId, Finish, Order, Receipt, Sampler, Tail, stops_hash,
    token_root,
};

use crate::court::{ADA, BUYER, OPERATOR};
use crate::filed::FILED_TINY;
use crate::stage::Stage;
use crate::words::{self, Filing, ICourt};
use crate::world::{CHAIN, greedy};

fn stage() -> Stage {
    Stage::honest(&FILED_TINY, &greedy(), 2, 3)
}

/// A filing of another receipt, for another order if that is wanted.
fn filing(stage: &Stage, order: &Order, sampler: &Sampler, receipt: &Receipt) -> Filing {
    let receipt = Receipt { order: order.hash(CHAIN), ..receipt.clone() };
    Filing {
        order: words::order(order),
        orderSignature: order.sign(CHAIN, &BUYER).0.to_vec().into(),
        receipt: words::receipt(&receipt),
        receiptSignature: receipt.sign(CHAIN, &OPERATOR).0.to_vec().into(),
        sampler: words::sampler(sampler),
        posting: stage.filing.posting.clone(),
    }
}

#[test]
fn a_receipt_that_contradicts_itself_is_the_contracts_too() {
    let stage = stage();
    let context = stage.filed.manifest.shape.context;
    let changes: [fn(&mut Receipt); 12] = [
        |_| {},
        |receipt| receipt.assurance = Assurance::Scored,
        |receipt| receipt.asset = assay_protocol::Address::repeat_byte(1),
        |receipt| receipt.price = Amount(1),
        |receipt| receipt.started += 1_000_000,
        |receipt| receipt.finished -= 1,
        |receipt| receipt.output_tokens = 4,
        |receipt| receipt.output_tokens = 2,
        |receipt| (receipt.output_tokens, receipt.finish) = (2, Finish::Eos),
        |receipt| (receipt.output_tokens, receipt.finish) = (0, Finish::Cancelled),
        |receipt| receipt.channel_after = Amount(7),
        |receipt| {
            receipt.channel = ChannelId(B256::repeat_byte(2));
            (receipt.channel_before, receipt.channel_after) = (Amount(9), Amount(9));
        },
    ];
    let mut found = Vec::new();
    for change in changes {
        let mut receipt = stage.receipt.clone();
        change(&mut receipt);
        let said = contradicts(&stage.world.order, &receipt, context);
        let filing = filing(&stage, &stage.world.order, &stage.world.sampler, &receipt);
        let mut court = stage.court.clone();
        let disputes = court.disputes;
        let outcome = court.call(ADA, disputes, &ICourt::contradictCall { filing });
        assert_eq!(outcome.result.is_ok(), said, "{receipt:?}");
        found.push(said);
    }
    assert!(found.contains(&true) && !found[0] && !found[11], "{found:?}");
}

/// Asks the contract about a tail.
fn misfinished(stage: &Stage, filing: Filing, tail: &Tail) -> bool {
    let tail = words::Tail {
        length: tail.length,
        tokens: tail.tokens.iter().flat_map(|token| token.to_be_bytes()).collect::<Vec<_>>().into(),
        proof: tail.proof.clone(),
        eos: tail.eos.clone(),
        stops: tail.stops.clone().into(),
    };
    let mut court = stage.court.clone();
    let disputes = court.disputes;
    court.call(ADA, disputes, &ICourt::misfinishCall { filing, tail }).result.is_ok()
}

#[test]
fn an_end_that_is_none_is_the_contracts_too() {
    let stage = stage();
    let eos = &stage.filed.manifest.eos;
    let context = stage.filed.manifest.shape.context;
    let stops = vec![vec![20, 21], vec![22]];
    // Outputs, whether the order has stop sequences, the finish, and where it is wrong.
    let cases: [(&[u32], bool, Finish, Option<u32>); 8] = [
        (&[5, 6, 7], false, Finish::Length, None),
        (&[5, 6, 7], false, Finish::Eos, Some(3)),
        (&[5, eos[0], 7], false, Finish::Length, Some(2)),
        (&[5, eos[0]], false, Finish::Eos, None),
        (&[5, 6], false, Finish::Cancelled, None),
        (&[20, 21, 7], true, Finish::Length, Some(2)),
        (&[5, 20, 21], true, Finish::Stop, None),
        (&[5, 22], true, Finish::Length, Some(2)),
    ];
    for (output, stopped, finish, wrong) in cases {
        let mut sampler = stage.world.sampler.clone();
        let stops = if stopped { stops.clone() } else { Vec::new() };
        sampler.stops = stops_hash(&stops);
        let order = Order { sampler: sampler.hash(), ..stage.world.order.clone() };
        let receipt = Receipt {
            output: token_root(output),
            output_tokens: output.len() as u32,
            finish,
            ..stage.receipt.clone()
        };
        let tail = misfinish(&order, &receipt, output, eos, &stops, context).unwrap();
        assert_eq!(tail.as_ref().map(|tail| tail.length), wrong, "{output:?} {finish:?}");
        let Some(tail) = tail else { continue };
        let filing = filing(&stage, &order, &sampler, &receipt);
        assert!(misfinished(&stage, filing.clone(), &tail), "{output:?} {finish:?}");
        let mut before = tail;
        before.tokens[0] ^= 1;
        assert!(!misfinished(&stage, filing, &before), "other tokens are not the output's");
    }
}

#[test]
fn two_words_about_one_order_are_the_contracts_too() {
    let stage = stage();
    let output = stage.world.output.clone();
    let mut others = [output.clone(), output.clone(), output[..2].to_vec()];
    others[1][1] ^= 1;
    for (other, state, expected) in [
        (&others[0], stage.receipt.state, false),
        (&others[0], B256::repeat_byte(4), true),
        (&others[1], stage.receipt.state, true),
        (&others[2], stage.receipt.state, false),
    ] {
        let receipt = Receipt {
            output: token_root(other),
            output_tokens: other.len() as u32,
            state,
            finished: stage.receipt.finished + 1,
            ..stage.receipt.clone()
        };
        let found = equivocate([(&stage.receipt, &output), (&receipt, other)]);
        assert_eq!(found.is_some(), expected, "{other:?}");
        let said = found.unwrap_or_default();
        let pair = [&stage.receipt, &receipt];
        let call = ICourt::equivocateCall {
            receipts: pair.map(words::receipt),
            signatures: pair.map(|receipt| receipt.sign(CHAIN, &OPERATOR).0.to_vec().into()),
            index: said.index,
            tokens: said.tokens.each_ref().map(words::opening),
        };
        let mut court = stage.court.clone();
        let disputes = court.disputes;
        assert_eq!(court.call(ADA, disputes, &call).result.is_ok(), expected, "{other:?}");
    }
}
