//! Where a challenger asks for nodes, and what it keeps of the answers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use assay_court::NodeServer;
use assay_evidence::dispute::{NodeSource, Way};
use assay_evidence::op::Place;
use assay_protocol::B256;

/// The provider's server, asked once for each thing; or none, if all nodes are to come from the chain.
///
/// What is kept is no more believed than what is served: whoever asks checks it.
#[derive(Debug, Default)]
pub(crate) struct Source {
    server: Option<NodeServer>,
    nodes: Mutex<HashMap<(Way, u32), Vec<B256>>>,
    leaves: Mutex<HashMap<Place, Vec<u8>>>,
}

impl Source {
    /// A source with this server.
    pub(crate) fn new(server: Option<NodeServer>) -> Self {
        Self { server, ..Self::default() }
    }
}

impl NodeSource for Source {
    fn nodes(&self, below: Way, levels: u32) -> Option<Vec<B256>> {
        // Whoever panicked with the lock held left whole entries behind.
        let mut kept = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = kept.get(&(below, levels)) {
            return Some(nodes.clone());
        }
        let nodes = self.server.as_ref()?.nodes(below, levels)?;
        kept.insert((below, levels), nodes.clone());
        Some(nodes)
    }

    fn leaf(&self, place: Place) -> Option<Vec<u8>> {
        let mut kept = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = kept.get(&place) {
            return Some(data.clone());
        }
        let data = self.server.as_ref()?.leaf(place)?;
        kept.insert(place, data.clone());
        Some(data)
    }
}
