//! The rules by which single numbers of a trace are judged (`docs/protocol/trace.md`).
//!
//! Each rule computes one element of a trace from the leaves that it reads. Its twin of the same
//! name stands in `contracts/src/libraries/judge`: both accept the same openings, give the same
//! number and refuse with the same error. What a rule reads was committed by a stranger, so it is
//! total within the bounds it states and refuses what lies beyond; it never panics.

mod attention;
mod claim;
mod commitment;
mod element;
mod ending;
mod error;
mod judge;
mod layout;
mod leaf;
mod norm;
mod product;
mod program;
mod recompute;
mod reduce;
mod reveal;
mod sample;
mod sampling;

pub use attention::{
    Block, attend, block_shift, block_sum, chunk_of_records, largest_score, score, weight_sum,
};
pub use claim::{Choice, Claim, Model, Place, Source, Tree};
pub use commitment::{Nodes, Spine};
pub use element::{Group, activate, add, embed, quantise, rope};
pub use ending::{draw_key, finish, link, state, uniform};
pub use error::{Quantity, RuleError};
pub(crate) use judge::kind_at;
pub use judge::{Ruling, judge};
pub use layout::{
    Extent, Layout, LeafKind, Sampling, Section, leaves, tree_leaves, tree_levels, tree_word,
};
pub use leaf::{ActivationLeaf, FixedLeaf, WeightLeaf, WideLeaf, partials};
pub use norm::{inverse_root, largest_magnitude, norm, norm_shift, sum_of_squares};
pub use product::{chunk, product};
pub use program::{Kind, Step};
pub use recompute::{Openings, RecomputeError, check, recompute};
pub use reduce::{maximum, maximum_signed, total};
pub use reveal::{Revealed, Round};
pub use sample::{Check, advice};
pub(crate) use sample::{Parts, token_word};
pub use sampling::{
    Hits, Kept, Penalties, adjust, best_key, draw, draw_token, heat, is_kth, is_nucleus, key_token,
    mark, mass, rank,
};
