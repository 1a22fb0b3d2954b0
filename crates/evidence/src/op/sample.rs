//! The leaves of the sampler and of the draw; see [`super::recompute`].

use assay_kernels::reference::exp2neg;

use super::claim::{Choice, Claim, Tree};
use super::error::{Quantity, RuleError};
use super::layout::tree_levels;
use super::leaf::{FixedLeaf, WideLeaf};
use super::program::Step;
use super::recompute::{At, Recomputed, maximum_signed, total};
use super::sampling::{self, Kept, heat, key_token};

/// What the sampler's leaves hold, one after another.
pub(crate) struct Parts {
    /// Leaves of adjusted logits; none where nothing adjusts them.
    pub(crate) adjusted: u64,
    /// Keys.
    pub(crate) keys: Tree,
    /// The threshold of top-k and its ranks.
    pub(crate) ranks: Option<(u64, Tree)>,
    /// The threshold of top-p; the masses above it, from it on, and of all.
    pub(crate) masses: Option<(u64, [Tree; 3])>,
    /// What all filters keep, unless the choice is greedy.
    pub(crate) kept: Option<Tree>,
}

impl Parts {
    pub(crate) fn of(claim: &Claim<'_>) -> Parts {
        let vocab = u64::from(claim.model.vocab);
        let sampling = claim.sampling();
        let adjusted = if sampling.adjusted { vocab.div_ceil(32) } else { 0 };
        let mut next = adjusted;
        let tree = |next: &mut u64| {
            let tree = Tree::new(*next, vocab);
            *next = tree.top() + 1;
            tree
        };
        let advice = |next: &mut u64| {
            *next += 1;
            *next - 1
        };
        let keys = tree(&mut next);
        let drawn = !sampling.greedy;
        let ranks = (drawn && sampling.top_k).then(|| (advice(&mut next), tree(&mut next)));
        let masses = (drawn && sampling.top_p).then(|| {
            let threshold = advice(&mut next);
            (threshold, [tree(&mut next), tree(&mut next), tree(&mut next)])
        });
        let kept = drawn.then(|| tree(&mut next));
        Parts { adjusted, keys, ranks, masses, kept }
    }
}

/// Which thresholds a mass looks at.
#[derive(Clone, Copy)]
enum Floor {
    /// What top-k keeps.
    All,
    /// That, above the threshold of top-p.
    Above,
    /// That, from the threshold of top-p on.
    From,
}

/// A sampler that is looked at from one place.
struct Sampling<'a> {
    at: &'a At<'a>,
    parts: Parts,
    /// The op of the sampler, and of the logits.
    op: u32,
    logits: u32,
}

impl Sampling<'_> {
    /// A leaf of the logits that are sampled.
    fn logits(&self, leaf: u64) -> Recomputed<FixedLeaf> {
        let op = if self.parts.adjusted > 0 { self.op } else { self.logits };
        self.at.fixed(op, leaf)
    }

    /// The threshold of top-k, which is some logit.
    fn least_logit(&self, advice: u64) -> Recomputed<i32> {
        let found = self.at.wide(self.op, advice)?.0[0].cast_signed();
        let wrong = RuleError::OutOfBounds { what: Quantity::Logit, found: found.into() };
        Ok(i32::try_from(found).map_err(|_| wrong)?)
    }

    /// What is kept; `min_p` only counts for what is drawn from.
    fn kept(&self, floor: Floor, min_p: bool) -> Recomputed<Kept> {
        let choice = self.at.claim.choice;
        let inv_t_q16 = choice.inv_t_q16;
        let (_, best) = key_token(self.at.top(self.op, &self.parts.keys)?.cast_signed());
        let mut least_heat = i64::MIN;
        if let Some((advice, _)) = &self.parts.ranks {
            least_heat = heat(self.least_logit(*advice)?, inv_t_q16);
        }
        if let Some((advice, _)) = &self.parts.masses {
            let threshold = self.at.wide(self.op, *advice)?.0[0].cast_signed();
            match floor {
                Floor::All => {}
                Floor::Above => least_heat = least_heat.max(threshold.saturating_add(1)),
                Floor::From => least_heat = least_heat.max(threshold),
            }
        }
        let least_weight = if min_p { choice.min_p_q16 << 14 } else { 0 };
        Ok(Kept { inv_t_q16, best, least_heat, least_weight })
    }

    fn adjusted(&self) -> Recomputed<Vec<u8>> {
        let claim = self.at.claim;
        let logits = self.at.fixed(self.logits, self.at.place.leaf)?;
        let range = self.at.elements(0, claim.model.vocab.into());
        self.at.write_fixed(range, |token| {
            let token = token as u32;
            let hits = claim.hits(self.at.place.position, token);
            let bias = claim.choice.bias.iter().find(|(biased, _)| *biased == token);
            let bias = bias.map_or(0, |(_, bias)| *bias);
            let logit = logits.0[token as usize % 32];
            Ok(sampling::adjust(logit, &claim.choice.penalties, hits, bias)?)
        })
    }

    fn keys(&self) -> Recomputed<Vec<u8>> {
        let lowest = |leaf: u64, count| {
            let key = sampling::best_key(&self.logits(leaf)?, count, 32 * leaf as u32)?;
            Ok(key.cast_unsigned())
        };
        self.at.write_tree(&self.parts.keys, lowest, maximum_signed)
    }

    fn ranks(&self, advice: u64, tree: &Tree) -> Recomputed<Vec<u8>> {
        let threshold = self.least_logit(advice)?;
        let lowest = |leaf, count| Ok(sampling::rank(&self.logits(leaf)?, count, threshold)?);
        self.at.write_tree(tree, lowest, total)
    }

    fn mass(&self, tree: &Tree, floor: Floor, min_p: bool) -> Recomputed<Vec<u8>> {
        let kept = self.kept(floor, min_p)?;
        let lowest = |leaf, count| Ok(sampling::mass(&self.logits(leaf)?, count, &kept)?);
        self.at.write_tree(tree, lowest, total)
    }
}

/// A leaf of the sampler; nothing for advice.
pub(super) fn sample(at: &At<'_>, step: &Step) -> Recomputed<Option<Vec<u8>>> {
    let parts = Parts::of(at.claim);
    let sampling = Sampling { at, parts, op: at.place.op, logits: step.inputs[0] };
    let (parts, leaf) = (&sampling.parts, at.place.leaf);
    if leaf < parts.adjusted {
        return sampling.adjusted().map(Some);
    }
    if leaf <= parts.keys.top() {
        return sampling.keys().map(Some);
    }
    if let Some((advice, tree)) = &parts.ranks {
        if leaf == *advice {
            return Ok(None);
        }
        if leaf <= tree.top() {
            return sampling.ranks(*advice, tree).map(Some);
        }
    }
    if let Some((advice, trees)) = &parts.masses {
        if leaf == *advice {
            return Ok(None);
        }
        let floors = [Floor::Above, Floor::From, Floor::All];
        if let Some((tree, floor)) = trees.iter().zip(floors).find(|(tree, _)| leaf <= tree.top()) {
            return sampling.mass(tree, floor, false).map(Some);
        }
    }
    let kept = parts.kept.as_ref().ok_or(at.nowhere())?;
    sampling.mass(kept, Floor::From, true).map(Some)
}

/// Which word of TOKEN's leaf is the token.
pub(crate) fn token_word(claim: &Claim<'_>) -> usize {
    if claim.choice.inv_t_q16 == 0 {
        return 0;
    }
    2 * tree_levels(claim.model.vocab.into()).len() - 1
}

/// The leaf of the draw.
pub(super) fn token(at: &At<'_>, step: &Step) -> Recomputed<Vec<u8>> {
    let [logits, op, ..] = step.inputs;
    let parts = Parts::of(at.claim);
    let sampling = Sampling { at, parts, op, logits };
    let Some(kept) = &sampling.parts.kept else {
        let (token, _) = key_token(at.top(op, &sampling.parts.keys)?.cast_signed());
        return Ok(WideLeaf::write(&[token.into()]).to_vec());
    };
    let index = at.claim.index(at.place.position).ok_or(at.nowhere())?;
    let uniform = super::uniform(at.claim.draw_key, index);
    // Where one element is judged, the words before it are the committed ones.
    let committed = match at.only {
        Some(only) => at.wide(at.place.op, at.place.leaf)?.0[..only].to_vec(),
        None => Vec::new(),
    };
    let mut words = vec![sampling::mark(uniform, at.top(op, kept)?)];
    let mut node = 0;
    for level in (0..kept.levels.len() - 1).rev() {
        follow(&mut words, &mut node, &committed);
        if at.only.is_some_and(|only| only < words.len()) {
            break;
        }
        if committed.len() > words.len() + 1 {
            words.extend([0; 2]);
            continue;
        }
        let rest = words[words.len() - 1];
        // A committed word that names no node is none that is right.
        let count = kept.joined(level + 1, node);
        let below = at.wide(op, kept.level(level).saturating_add(node))?;
        let (child, left) = sampling::draw(&below, count, rest)?;
        node = 32 * node + u64::from(child);
        words.extend([node, left]);
    }
    follow(&mut words, &mut node, &committed);
    if at.only.is_none_or(|only| only >= words.len()) {
        let rest = words[words.len() - 1];
        let count = kept.joined(0, node);
        let filters = sampling.kept(Floor::From, true)?;
        let last = sampling::draw_token(&sampling.logits(node)?, count, &filters, rest)?;
        words.push(32 * node + u64::from(last));
    }
    Ok(WideLeaf::write(&words).to_vec())
}

/// Puts the committed words in the place of those so far, and goes to the node that they name.
fn follow(words: &mut [u64], node: &mut u64, committed: &[u64]) {
    for (word, committed) in words.iter_mut().zip(committed) {
        *word = *committed;
    }
    if let [_, .., named, _] = *words {
        *node = named;
    }
}

/// A check that stands beside an element: nothing of its own, but wrong if it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// TOKEN: the drawn token is the one that was answered.
    Link,
    /// SMPL: the threshold of top-k is the k-th largest logit.
    Kth,
    /// SMPL: the threshold of top-p is the largest that leaves enough mass.
    Nucleus,
}

/// Whether a check holds at the op of `at`; true where the order's sampler has no such check.
pub(super) fn holds(at: &At<'_>, check: Check) -> Recomputed<bool> {
    let (claim, op) = (at.claim, at.place.op);
    let parts = Parts::of(claim);
    match check {
        Check::Link => {
            let drawn = at.wide(op, 0)?.0[token_word(claim)];
            let index = claim.index(at.place.position).ok_or(at.nowhere())?;
            let answered = claim.output.get(index as usize).ok_or(at.nowhere())?;
            Ok(super::link(drawn, *answered))
        }
        Check::Kth => match &parts.ranks {
            Some((advice, ranks)) => {
                let threshold = at.wide(op, *advice)?.0[0].cast_signed();
                let ranks = at.top(op, ranks)?;
                Ok(i32::try_from(threshold).is_ok() && sampling::is_kth(ranks, claim.choice.top_k))
            }
            None => Ok(true),
        },
        Check::Nucleus => match &parts.masses {
            Some((_, trees)) => {
                let [above, from, all] = trees.each_ref().map(|tree| at.top(op, tree));
                Ok(sampling::is_nucleus(above?, from?, all?, claim.choice.top_p_q16))
            }
            None => Ok(true),
        },
    }
}

/// The advice that satisfies the checks: the `top_k`-th largest logit and the least heat that
/// top-p keeps, where the sampler uses them. `logits` are the adjusted ones.
pub fn advice(choice: &Choice, logits: &[i32]) -> Vec<u64> {
    if choice.inv_t_q16 == 0 {
        return Vec::new();
    }
    let mut ordered = logits.to_vec();
    ordered.sort_unstable_by_key(|logit| std::cmp::Reverse(*logit));
    let (mut advice, mut least) = (Vec::new(), None);
    if choice.top_k > 0 && (choice.top_k as usize) < ordered.len() {
        let threshold = ordered[choice.top_k as usize - 1];
        advice.push(i64::from(threshold).cast_unsigned());
        least = Some(heat(threshold, choice.inv_t_q16));
    }
    if choice.top_p_q16 < 1 << 16 {
        let best = ordered.first().map_or(0, |logit| heat(*logit, choice.inv_t_q16));
        let heats = ordered.iter().map(|logit| heat(*logit, choice.inv_t_q16));
        let kept = heats.filter(|z| least.is_none_or(|least| *z >= least));
        let weights: Vec<(i64, u64)> =
            kept.map(|z| (z, u64::from(exp2neg(best.abs_diff(z), 30)))).collect();
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let (mut from, mut threshold) = (0u64, i64::MIN);
        for (z, weight) in weights {
            from += weight;
            threshold = z;
            if u128::from(from) << 16 >= u128::from(choice.top_p_q16) * u128::from(all) {
                break;
            }
        }
        advice.push(threshold.cast_unsigned());
    }
    advice
}
