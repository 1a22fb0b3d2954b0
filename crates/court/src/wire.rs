//! How nodes and leaves of a committed trace are asked for, beside the chain: JSON over HTTP.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/disputes/{id}/nodes?depth=…&turns=…&levels=…` | [`Nodes`] |
//! | `GET /v1/disputes/{id}/leaves/{position}/{op}/{leaf}` | [`Leaf`] |
//!
//! `turns` is decimal. Both are 404 for a dispute that is not open about a receipt of the server's, or
//! to whose trace it did not commit, and where the trace has nothing; 429 while too many ask. Nobody
//! has to answer, and nobody has to believe an answer: what is not served is revealed on chain.

use alloy_primitives::Bytes;
use assay_evidence::dispute::{LEVELS, Way};
use assay_evidence::op::Place;
use assay_protocol::B256;
use serde::{Deserialize, Serialize};

/// Path of the nodes of a dispute.
pub const NODES: &str = "/v1/disputes/{id}/nodes";
/// Path of the leaves of a dispute.
pub const LEAVES: &str = "/v1/disputes/{id}/leaves/{position}/{op}/{leaf}";
/// Longest answer, bytes: the nodes of one reveal, or a leaf, with room to spare.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Nodes of one level below another node, left to right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// 2^levels of them.
    pub nodes: Vec<B256>,
}

/// A leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its data.
    pub data: Bytes,
}

/// Which nodes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// The node that they are below.
    pub way: Way,
    /// How far below.
    pub levels: u32,
}

impl Below {
    /// What a query string asks for; nothing for one that is malformed, asks for more than one reveal
    /// shows, or goes deeper than any trace.
    pub fn read(query: &str) -> Option<Self> {
        let (mut depth, mut turns, mut levels) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            match name {
                "depth" => depth = Some(value.parse::<u32>().ok()?),
                "turns" => turns = Some(value.parse::<u128>().ok()?),
                "levels" => levels = Some(value.parse::<u32>().ok()?),
                _ => return None,
            }
        }
        let (way, levels) = (Way::new(depth?, turns?)?, levels?);
        let deepest = Way::new(way.depth() + levels.min(LEVELS), 0);
        ((1..=LEVELS).contains(&levels) && deepest.is_some()).then_some(Self { way, levels })
    }

    /// The path and query that ask for them.
    pub fn path(self, dispute: u64) -> String {
        let Self { way, levels } = self;
        let (depth, turns) = (way.depth(), way.turns());
        format!("/v1/disputes/{dispute}/nodes?depth={depth}&turns={turns}&levels={levels}")
    }
}

/// The path that asks for a leaf.
pub fn leaf_path(dispute: u64, Place { position, op, leaf }: Place) -> String {
    format!("/v1/disputes/{dispute}/leaves/{position}/{op}/{leaf}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_back() {
        let way = Way::new(126, (1 << 126) - 3).unwrap();
        let below = Below { way, levels: 1 };
        let (path, query) =
            below.path(7).split_once('?').map(|(p, q)| (p.to_owned(), q.to_owned())).unwrap();
        assert_eq!(path, "/v1/disputes/7/nodes");
        assert_eq!(Below::read(&query), Some(below));
    }

    #[test]
    fn a_malformed_question_is_none() {
        for query in [
            "",
            "depth=1&turns=0",
            "depth=1&turns=2&levels=4",
            "depth=0&turns=0&levels=0",
            "depth=0&turns=0&levels=5",
            "depth=0&turns=0&levels=4294967295",
            "depth=124&turns=0&levels=4",
            "depth=4294967295&turns=0&levels=4",
            "depth=-1&turns=0&levels=4",
            "depth=0&turns=340282366920938463463374607431768211456&levels=4",
            "depth=0&turns=0&levels=4&more=1",
        ] {
            assert_eq!(Below::read(query), None, "{query}");
        }
    }
}
