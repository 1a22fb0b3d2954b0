//! Rules that tie a trace to what was signed: token link, chained state, random numbers, finish.

use assay_protocol::{B256, Finish, LEAF_COLUMNS, State, keccak256};

use super::error::{Quantity, RuleError, within};

/// Bytes of one activation leaf.
const LEAF: usize = 8 + LEAF_COLUMNS;

/// TOKEN, check: whether the drawn token is the one that was answered.
pub fn link(drawn: u64, answered: u32) -> bool {
    drawn == u64::from(answered)
}

/// STATE: `keccak256(before ‖ token ‖ keccak256(leaves))`; `hidden` holds the leaves of AQf in
/// order.
///
/// # Errors
/// If `hidden` is not one whole leaf or more.
pub fn state(before: B256, token: u32, hidden: &[u8]) -> Result<B256, RuleError> {
    let leaves = hidden.len().div_ceil(LEAF).max(1);
    if hidden.len() != leaves * LEAF {
        return Err(RuleError::Length { found: hidden.len(), expected: leaves * LEAF });
    }
    Ok(State(before).next(token, keccak256(hidden)).0)
}

/// The key of an order's random numbers: `keccak256("EXACT1/rng" ‖ seed ‖ model ‖ prompt ‖
/// sampler)`, `sampler` being the hash of its sampler with seed 0.
pub fn draw_key(seed: B256, model: B256, prompt: B256, sampler: B256) -> B256 {
    keccak256([b"EXACT1/rng", &seed[..], &model[..], &prompt[..], &sampler[..]].concat())
}

/// The number that the output token at `index` is drawn with: the top 64 bits of
/// `keccak256(key ‖ index ‖ 0)`.
pub fn uniform(key: B256, index: u32) -> u64 {
    let hash = keccak256([&key[..], &index.to_be_bytes(), &[0; 4]].concat());
    let (top, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_be_bytes(*top)
}

/// FINISH: why the output ends with its `length`-th token, if it does: an end token of the model,
/// a stop sequence, or `tokens_max`, in this order.
///
/// `tail`: the last tokens of the output up to that one, u32 each, as many as the longest stop
/// sequence has, or all. `stops`: what the sampler's `stops` is the hash of; empty for none.
///
/// # Errors
/// If `length` is 0, `stops` is not whole sequences, or `tail` has another length.
pub fn finish(
    tail: &[u8],
    length: u32,
    eos: &[u32],
    stops: &[u8],
    tokens_max: u32,
) -> Result<Option<Finish>, RuleError> {
    within(Quantity::Count, length, 1, i128::from(u32::MAX))?;
    let stops = sequences(stops)?;
    let longest = stops.iter().map(|stop| stop.len()).max().unwrap_or(0).max(4);
    let expected = longest.min(4 * length as usize);
    let Some((_, last)) = tail.split_last_chunk::<4>().filter(|_| tail.len() == expected) else {
        return Err(RuleError::Length { found: tail.len(), expected });
    };
    if eos.contains(&u32::from_be_bytes(*last)) {
        return Ok(Some(Finish::Eos));
    }
    // A sequence longer than the output is longer than the tail, which then is all of it.
    if stops.iter().any(|stop| tail.ends_with(stop)) {
        return Ok(Some(Finish::Stop));
    }
    Ok((length >= tokens_max).then_some(Finish::Length))
}

/// The token ids of stop sequences: their number, then each one's length and ids, u32 each.
fn sequences(bytes: &[u8]) -> Result<Vec<&[u8]>, RuleError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut read = 0usize;
    let mut take = |size: u64| {
        let end = read as u64 + size;
        let found = usize::try_from(end).ok().and_then(|end| bytes.get(read..end));
        let expected = usize::try_from(end).unwrap_or(usize::MAX);
        let taken = found.ok_or(RuleError::Length { found: bytes.len(), expected })?;
        read += taken.len();
        Ok(taken)
    };
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let count = word(take(4)?);
    let mut stops = Vec::new();
    for _ in 0..count {
        let length = word(take(4)?);
        stops.push(take(4 * length)?);
    }
    if read == bytes.len() {
        return Ok(stops);
    }
    Err(RuleError::Length { found: bytes.len(), expected: read })
}

#[cfg(test)]
mod tests {
    use assay_protocol::Ending;

    use super::*;

    fn words(tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|token| token.to_be_bytes()).collect()
    }

    /// All outputs of up to five of the tokens 0 to 2, against the rule that providers apply.
    #[test]
    fn finish_is_what_ends_an_answer() {
        let sets: [&[Vec<u32>]; 4] = [
            &[],
            &[vec![1, 1]],
            &[vec![0], vec![1, 2, 1, 0]],
            &[vec![2, 2, 2, 2, 2, 2], vec![0, 1]],
        ];
        for stops in sets {
            let eos = vec![2];
            let ending = Ending { eos: eos.clone(), stops: stops.to_vec(), tokens_max: 4 };
            let mut list = vec![stops.len() as u32];
            for stop in stops {
                list.push(stop.len() as u32);
                list.extend(stop);
            }
            let list = if stops.is_empty() { Vec::new() } else { words(&list) };
            let longest = stops.iter().map(Vec::len).max().unwrap_or(1);
            for (length, code) in (1..=5u32).flat_map(|n| (0..3u32.pow(n)).map(move |c| (n, c))) {
                let output: Vec<u32> = (0..length).map(|at| code / 3u32.pow(at) % 3).collect();
                let tail = &output[output.len().saturating_sub(longest)..];
                let found = finish(&words(tail), length, &eos, &list, 4);
                assert_eq!(found, Ok(ending.at(&output)), "{output:?} with {stops:?}");
            }
        }
    }
}
