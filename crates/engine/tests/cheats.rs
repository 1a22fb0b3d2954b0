//! A stranger replays answers: honest ones are true on every path, and each way to cheat is
//! caught, at the first token it touches.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use assay_engine::{Loaded, Native, NativeConfig, Package, ReplayError, replay};
use assay_evidence::{Fault, Verdict};
use assay_kernels::{COLUMNS_STEP, GROUP, Isa};
use assay_models::{Role, Shape};
use assay_protocol::{
    Address, Amount, Answer, AnswerError, Assurance, B256, Blame, Finish, LOCAL_CHAIN, Receipt,
    Terms, keccak256, stops_hash,
};
use support::{NANO, cpu, greedy, job, order, package_of, prompt, run, sampled, seal_again, sign};

const QUESTION: &str = "Extract JSON: Maria is a 34 year old teacher from Oslo.";

/// An answer computed by `cheater` and signed as if by the shipped model.
fn answer_by(cheater: &Arc<Loaded>, ordered: &Terms, computed: &Terms, tokens: u32) -> Answer {
    let backend =
        Native::start(cheater.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let (tokens, finish) = run(&backend, job(&NANO, computed, tokens));
    sign(
        &NANO,
        order(&NANO, ordered, tokens_max(&tokens, finish)),
        ordered.clone(),
        &tokens,
        finish,
    )
}

/// A limit that fits how the answer ended.
fn tokens_max(tokens: &[(u32, B256)], finish: Finish) -> u32 {
    if finish == Finish::Length { tokens.len() as u32 } else { 64 }
}

fn honest(terms: &Terms) -> Answer {
    answer_by(&NANO, terms, terms, 64)
}

fn verdict(answer: &Answer) -> Verdict {
    replay(&NANO, &cpu(Isa::detect(), 1), answer, &mut |_, _| ()).unwrap()
}

fn fault(answer: &Answer) -> Fault {
    match verdict(answer) {
        Verdict::False(fault) => fault,
        Verdict::True => panic!("the cheat was not seen"),
    }
}

#[test]
fn an_honest_answer_is_true_on_every_path() {
    for terms in [greedy(prompt(&NANO, QUESTION)), sampled(prompt(&NANO, QUESTION), 5)] {
        let answer = honest(&terms);
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
            for threads in [1, 2, 3] {
                if isa.is_supported() {
                    let cpu = cpu(isa, threads);
                    let verdict = replay(&NANO, &cpu, &answer, &mut |_, _| ()).unwrap();
                    assert_eq!(verdict, Verdict::True, "{isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_cancelled_answer_is_true_as_far_as_it_goes() {
    let terms = greedy(prompt(&NANO, QUESTION));
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let (tokens, _) = run(&backend, job(&NANO, &terms, 64));
    for delivered in [0, 1, 7] {
        let order = order(&NANO, &terms, 64);
        let answer = sign(&NANO, order, terms.clone(), &tokens[..delivered], Finish::Cancelled);
        assert_eq!(verdict(&answer), Verdict::True, "{delivered} tokens");
    }
}

#[test]
fn one_flipped_bit_of_a_hidden_state_fails_at_that_token() {
    let terms = greedy(prompt(&NANO, QUESTION));
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let (mut tokens, finish) = run(&backend, job(&NANO, &terms, 64));

    // The vector that produced token 4, once more, with its lowest bit flipped.
    let fed: Vec<u32> = terms.prompt.iter().copied().chain(tokens.iter().map(|t| t.0)).collect();
    let position = terms.prompt.len() - 1 + 4;
    let (mut quants, scales) = support::hidden(&NANO, &fed[..=position]);
    assert_eq!(assay_protocol::hidden_hash(&quants, &scales), tokens[4].1);
    quants[17] ^= 1;
    tokens[4].1 = assay_protocol::hidden_hash(&quants, &scales);

    let mut answer = sign(&NANO, order(&NANO, &terms, 64), terms, &tokens, finish);
    assert_eq!(fault(&answer), Fault::State { index: 4 });
    // Without the list of states only the last one speaks, and still it convicts.
    answer.states.clear();
    assert_eq!(fault(&answer), Fault::FinalState);
}

#[test]
fn another_seed_is_caught() {
    let ordered = sampled(prompt(&NANO, "Reverse: abcdef"), 5);
    let computed = sampled(prompt(&NANO, "Reverse: abcdef"), 6);
    let mut caught = answer_by(&NANO, &ordered, &computed, 64);
    caught.states.clear();
    assert!(matches!(fault(&caught), Fault::Token { .. }), "{:?}", fault(&caught));
}

#[test]
fn a_cut_context_is_caught_at_the_first_token() {
    let full = prompt(&NANO, QUESTION);
    let ordered = greedy(full.clone());
    // The first half of the prompt is left out, as a server that saves memory would.
    let computed = greedy(full[full.len() / 2..].to_vec());
    let fault = fault(&answer_by(&NANO, &ordered, &computed, 64));
    assert_eq!(fault.token(), Some(0), "{fault}");
}

#[test]
fn edited_text_is_caught() {
    let mut answer = honest(&greedy(prompt(&NANO, "12+45=")));
    answer.text = "58".into();
    answer.receipt.text = keccak256("58");
    seal_again(&mut answer);
    assert_eq!(fault(&answer), Fault::Text { byte: 1 });
    assert_eq!(fault(&answer).blame(), Blame::Provider);
}

#[test]
fn an_answer_cut_short_is_caught_without_a_replay() {
    let terms = greedy(prompt(&NANO, QUESTION));
    let mut answer = honest(&terms);
    answer.receipt.finish = Finish::Length;
    seal_again(&mut answer);
    assert_eq!(fault(&answer).blame(), Blame::Provider);
    answer.receipt.finish = Finish::Eos;
    answer.receipt.price = Amount(1);
    seal_again(&mut answer);
    assert_eq!(fault(&answer).blame(), Blame::Provider);
}

#[test]
fn requantised_weights_are_caught_even_where_the_text_is_right() {
    // Four bits instead of eight: the low half of every weight is rounded away.
    let coarse = with_weights(|quants| {
        for quant in quants {
            let rounded = ((i32::from(*quant) - 128 + 8) >> 4 << 4).clamp(-127, 127);
            *quant = (rounded + 128) as u8;
        }
    });
    let terms = greedy(prompt(&NANO, "What is the capital of France?"));
    let answer = answer_by(&coarse, &terms, &terms, 64);
    assert_eq!(answer.text, honest(&terms).text, "quality does not reveal this cheat");
    assert_eq!(fault(&answer), Fault::State { index: 0 });
}

#[test]
fn converted_from_other_floats_is_another_model() {
    // The f32 weights that the shipped Q8_0 file was rounded from: nearly the same numbers.
    let cheater = Arc::new(package_of("nano-f32.gguf").load().unwrap());
    assert_ne!(cheater.id, NANO.id);
    let terms = greedy(prompt(&NANO, "12+45="));
    let answer = answer_by(&cheater, &terms, &terms, 64);
    assert_eq!(fault(&answer).token(), Some(0));
    let refused = replay(&cheater, &cpu(Isa::detect(), 1), &answer, &mut |_, _| ());
    assert!(matches!(refused, Err(ReplayError::WrongModel { .. })));
}

#[test]
fn swapped_weights_are_caught_however_few() {
    // One weight of the embedding row of a token that is in the prompt, by one.
    let terms = greedy(prompt(&NANO, "12+45="));
    let row = terms.prompt[1] as usize;
    let mut matrices = 0;
    let swapped = with_weights(|quants| {
        if matrices == 0 {
            // (panels, columns / 4, 16 rows, 4 columns)
            let columns = 128;
            let index = row / 16 * 16 * columns + row % 16 * 4;
            quants[index] = if quants[index] == 255 { 254 } else { quants[index] + 1 };
        }
        matrices += 1;
    });
    let answer = answer_by(&swapped, &terms, &terms, 64);
    assert_eq!(fault(&answer).token(), Some(0), "{:?}", fault(&answer));
}

#[test]
fn a_changed_byte_of_the_file_is_caught_or_changes_nothing() {
    let answer = honest(&greedy(prompt(&NANO, "12+45=")));
    let json = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
    let mut judged = 0;
    for position in 0..json.len() {
        let mut bytes = json.clone().into_bytes();
        bytes[position] = if bytes[position] == b'1' { b'2' } else { b'1' };
        let Ok(changed) = serde_json::from_slice::<Answer>(&bytes) else { continue };
        if changed == answer {
            continue; // The case of a hexadecimal digit, say.
        }
        judged += 1;
        // Another model id is refused before anything is judged.
        let verdict = replay(&NANO, &cpu(Isa::detect(), 1), &changed, &mut |_, _| ());
        assert!(!matches!(verdict, Ok(Verdict::True)), "byte {position}");
    }
    assert!(judged > 1000, "only {judged} changes could be read at all");
}

#[test]
fn an_altered_list_of_states_blames_the_file() {
    let mut answer = honest(&greedy(prompt(&NANO, QUESTION)));
    answer.states[3] = B256::ZERO;
    assert_eq!(fault(&answer), Fault::Contradiction(AnswerError::States));
    assert_eq!(fault(&answer).blame(), Blame::File);
}

#[test]
fn a_token_outside_the_vocabulary_is_caught() {
    let terms = greedy(prompt(&NANO, QUESTION));
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let (mut tokens, _) = run(&backend, job(&NANO, &terms, 64));
    tokens[5].0 = u32::MAX;
    let answer = sign(&NANO, order(&NANO, &terms, 64), terms, &tokens, Finish::Eos);
    assert!(matches!(fault(&answer), Fault::Token { index: 5, claimed: u32::MAX, .. }));
}

#[test]
fn a_forged_signature_is_no_answer() {
    let mut answer = honest(&greedy(prompt(&NANO, "12+45=")));
    answer.order_signature = answer.order.sign(LOCAL_CHAIN, &support::provider());
    assert_eq!(fault(&answer).blame(), Blame::File);
}

#[test]
fn signed_fields_that_contradict_the_order_blame_the_provider() {
    let honest = honest(&greedy(prompt(&NANO, "12+45=")));
    type Change = fn(&mut Receipt);
    let changes: [(Change, &str); 6] = [
        (|r| r.assurance = Assurance::Scored, "assurance"),
        (|r| r.asset = Address::repeat_byte(1), "asset"),
        (|r| r.channel_after = Amount(5), "channel position"),
        (|r| r.started = r.finished + 1, "end"),
        (|r| r.output_tokens += 1, "number of output tokens"),
        (|r| r.price = Amount(1), "asks 1"),
    ];
    for (change, word) in changes {
        let mut answer = honest.clone();
        change(&mut answer.receipt);
        seal_again(&mut answer);
        let fault = fault(&answer);
        assert!(fault.to_string().contains(word), "{fault}");
        assert_eq!(fault.blame(), Blame::Provider, "{fault}");
        // Unsigned, the same change blames whoever altered the file.
        answer.receipt_signature = honest.receipt_signature;
        assert_eq!(self::fault(&answer).blame(), Blame::File);
    }
}

#[test]
fn a_start_after_the_deadline_blames_the_provider() {
    let terms = greedy(prompt(&NANO, "12+45="));
    let mut late = order(&NANO, &terms, 64);
    late.deadline = 5;
    let backend =
        Native::start(NANO.clone(), Arc::new(cpu(Isa::detect(), 1)), NativeConfig::default());
    let (tokens, finish) = run(&backend, job(&NANO, &terms, 64));
    let mut answer = sign(&NANO, late, terms, &tokens, finish);
    // The states belong to another order, which the deadline is part of; the start is seen first.
    answer.receipt.started = 6000;
    answer.receipt.finished = 6000;
    seal_again(&mut answer);
    assert!(fault(&answer).to_string().contains("start"), "{}", fault(&answer));
    assert_eq!(fault(&answer).blame(), Blame::Provider);
}

#[test]
fn an_answer_to_what_cannot_be_answered_is_false() {
    let context = NANO.context() as usize;
    for prompt in [vec![5; context], vec![3, 5000, 4]] {
        let terms = greedy(prompt);
        let tokens = [(7, B256::ZERO)];
        let answer = sign(&NANO, order(&NANO, &terms, 1), terms, &tokens, Finish::Length);
        assert!(matches!(fault(&answer), Fault::Unanswerable { .. }), "{}", fault(&answer));
        assert_eq!(fault(&answer).blame(), Blame::Provider);
    }
}

#[test]
fn too_many_stop_sequences_are_no_order() {
    let mut terms = greedy(prompt(&NANO, "12+45="));
    terms.stops = vec![vec![1]; 17];
    terms.sampler.stops = stops_hash(&terms.stops);
    let answer = sign(&NANO, order(&NANO, &terms, 64), terms, &[], Finish::Cancelled);
    assert_eq!(fault(&answer).to_string(), "17 stop sequences, at most 16");
}

/// The shipped model under its own id, with other weights: `change` sees the quants of each
/// matrix, biased by 128, in panel layout.
fn with_weights(mut change: impl FnMut(&mut [u8])) -> Arc<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nano.assay");
    package_of("nano-q8_0.gguf").write(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let shape = NANO.model.shape();
    let mut end = bytes.len();
    let mut places = Vec::new();
    for role in shape.roles().into_iter().rev() {
        let (rows, columns) = padded(shape, role);
        if role.is_vector() {
            end -= 4 * shape.extent(role).1;
            continue;
        }
        let scales = 2 * rows * columns / GROUP;
        places.push(end - scales - rows * columns..end - scales);
        end -= rows + rows * columns + scales;
    }
    places.into_iter().rev().for_each(|place| change(&mut bytes[place]));
    std::fs::write(&path, bytes).unwrap();
    let package = Package::read(&path).unwrap();
    assert!(package.verify(&mut |_| ()).is_err(), "verification sees the change");
    Arc::new(package.load().unwrap())
}

fn padded(shape: &Shape, role: Role) -> (usize, usize) {
    let (rows, columns) = shape.extent(role);
    (rows.next_multiple_of(16), columns.next_multiple_of(COLUMNS_STEP))
}
