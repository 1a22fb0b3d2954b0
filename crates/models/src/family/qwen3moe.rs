//! Qwen 3 with experts: qwen 3, but each position goes through a few of many feed-forwards.
//!
//! ```text
//! n = rms(x);  r = Wrouter · n;  C = the largest few of r;  s = softmax(r over C)
//! x += Σ over e in C of s_e · Wdown_e · (silu(Wgate_e · n) ⊙ Wup_e · n)
//! ```
//! Files hold the matrices of all experts of a layer as one, or each apart.

use super::{Graph, qwen3};

pub(super) const GRAPH: Graph =
    Graph { name: "qwen3moe", code: 7, judged: false, routed: true, ..qwen3::GRAPH };
