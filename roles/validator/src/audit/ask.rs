//! Asks a provider for a posted receipt, and looks whether what it shows is what it posted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{Chain, ChainError, Posted, PostedAt};
use assay_protocol::wire::{Exhibit, NotShown, Shown, SignedWords};
use assay_protocol::{
    Answer, Audit, B256, ChainId, Inquiry, Key, Order, Receipt, Signature, depth, leaf_hash, root,
};
use reqwest::StatusCode;

/// Longest answer that is read: one of the longest contexts, with its states.
const BYTES_MAX: usize = 64 << 20;
/// Times that a provider is asked.
const TIMES: u32 = 3;
/// Between two of them.
const APART: Duration = Duration::from_secs(1);

/// What a provider showed, all of it as it posted it.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// The answer.
    Answer(Box<Answer>),
    /// An order that lets no stranger see more.
    Private,
}

/// Why a provider did not show what it posted: what it did instead.
pub(crate) type Silence = String;

/// Asks providers.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) chain: Chain,
    pub(crate) key: Key,
    pub(crate) http: reqwest::Client,
}

impl Asker {
    /// What the provider shows of a place, and the proof that it is there.
    pub(crate) async fn ask(
        &self,
        at: &PostedAt,
    ) -> Result<Result<(Seen, Posted), Silence>, ChainError> {
        let Some(provider) = self.chain.provider(at.provider).await? else {
            return Ok(Err(format!("{} is no provider any more", at.provider)));
        };
        let mut silence = String::new();
        for time in 0..TIMES {
            if time > 0 {
                tokio::time::sleep(APART).await;
            }
            match self.request(&provider.endpoint, at).await {
                Ok(shown) => match self.examine(at, shown).await? {
                    Ok(seen) => return Ok(Ok(seen)),
                    Err(reason) => silence = reason,
                },
                Err(reason) => silence = reason,
            }
        }
        Ok(Err(silence))
    }

    /// One request.
    async fn request(&self, endpoint: &str, at: &PostedAt) -> Result<Shown, Silence> {
        let PostedAt { provider, period, index } = *at;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let inquiry = Inquiry { provider, period, index, time: now.as_secs() };
        let signature = inquiry.sign(ChainId(self.chain.book().chain_id), &self.key);
        let endpoint = endpoint.trim_end_matches('/');
        let url = format!("{endpoint}/v1/periods/{period}/{index}?time={}", inquiry.time);
        let reply = self.http.get(url).bearer_auth(signature).send().await;
        let reply = reply.map_err(|error| without_url(error, "it cannot be reached"))?;
        let status = reply.status();
        let bytes = whole(reply).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&bytes)
                .map_err(|error| format!("it showed something else: {error}"));
        }
        match serde_json::from_slice::<NotShown>(&bytes) {
            Ok(refusal) => Err(refusal.to_string()),
            Err(_) => Err(format!("it answered with status {}", status.as_u16())),
        }
    }

    /// Whether this is what was posted there, signed by those who had to.
    async fn examine(
        &self,
        at: &PostedAt,
        Shown { proof, what }: Shown,
    ) -> Result<Result<(Seen, Posted), Silence>, ChainError> {
        let chain_id = ChainId(self.chain.book().chain_id);
        let signed = match &what {
            Exhibit::Answer(answer) if answer.chain_id != chain_id => {
                return Ok(Err(format!("its receipt is for chain {}", answer.chain_id)));
            }
            Exhibit::Answer(answer) => Signed {
                order: &answer.order,
                order_signature: &answer.order_signature,
                receipt: &answer.receipt,
                receipt_signature: &answer.receipt_signature,
            },
            Exhibit::Words(words) => {
                let SignedWords { order, order_signature, receipt, receipt_signature } = &**words;
                Signed { order, order_signature, receipt, receipt_signature }
            }
        };
        let market = self.chain.book().get(assay_chain::Contract::Receipts)?;
        if signed.order.market != market {
            return Ok(Err(format!("its order is for market {}", signed.order.market)));
        }
        if let Err(reason) = signed.check(chain_id) {
            return Ok(Err(reason));
        }
        let owner = self.chain.owner_of(signed.receipt.provider).await?;
        if owner != Some(at.provider) {
            let signer = signed.receipt.provider;
            return Ok(Err(format!("its receipt is signed by {signer}, who does not serve it")));
        }
        let digest = signed.receipt.digest(chain_id);
        let period = self.chain.period(at.provider, at.period).await?;
        if !hangs(digest, at.index, &proof, period.count, period.root) {
            return Ok(Err("it shows another receipt than it posted".to_owned()));
        }
        let private = signed.order.audit == Audit::None;
        let posted = Posted { place: *at, receipt: digest, proof };
        Ok(match what {
            _ if private => Ok((Seen::Private, posted)),
            Exhibit::Answer(answer) => Ok((Seen::Answer(answer), posted)),
            Exhibit::Words(_) => Err("it shows no tokens, and the order lets it".to_owned()),
        })
    }
}

/// Both signed words.
struct Signed<'a> {
    order: &'a Order,
    order_signature: &'a Signature,
    receipt: &'a Receipt,
    receipt_signature: &'a Signature,
}

impl Signed<'_> {
    /// Whether each is its signer's, and the receipt answers the order.
    fn check(&self, chain: ChainId) -> Result<(), Silence> {
        let name = self.order.hash(chain);
        let buyer = self.order_signature.signer(name.0).ok();
        if buyer != Some(self.order.buyer) {
            return Err("its order is not signed by its buyer".to_owned());
        }
        if self.receipt.order != name {
            return Err("its receipt is for another order".to_owned());
        }
        let signer = self.receipt_signature.signer(self.receipt.digest(chain)).ok();
        if signer != Some(self.receipt.provider) {
            return Err("its receipt is not signed by who it names".to_owned());
        }
        Ok(())
    }
}

/// Whether a receipt is leaf `index` of a tree of `count`.
fn hangs(receipt: B256, index: u64, proof: &[B256], count: u64, expected: B256) -> bool {
    // A period counts as many as it says, up to more than any power of two of 64 bits.
    let Some(padded) = count.checked_next_power_of_two() else { return false };
    if index >= count || proof.len() != depth(padded) as usize {
        return false;
    }
    let leaf = leaf_hash(receipt.as_slice());
    let climb = |(node, index): (B256, u64), sibling: &B256| {
        let pair = if index & 1 == 0 { [node, *sibling] } else { [*sibling, node] };
        (root(pair), index >> 1)
    };
    proof.iter().fold((leaf, index), climb).0 == expected
}

/// The body of a reply, within bounds.
async fn whole(mut reply: reqwest::Response) -> Result<Vec<u8>, Silence> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        reply.chunk().await.map_err(|error| without_url(error, "it broke off"))?
    {
        if bytes.len() + chunk.len() > BYTES_MAX {
            return Err(format!("it answered with more than {BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A failure in one line. Its address says nothing that the chain does not.
fn without_url(error: reqwest::Error, what: &str) -> Silence {
    format!("{what}: {}", error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_posted_at_the_place_hangs_there() {
        let receipts: Vec<B256> = (0..5).map(B256::repeat_byte).collect();
        let leaves: Vec<B256> = receipts.iter().map(|one| leaf_hash(one.as_slice())).collect();
        let tree = assay_evidence::op::Nodes::new(leaves);
        for (index, receipt) in receipts.iter().enumerate() {
            let index = index as u64;
            let proof = tree.proof(index);
            assert!(hangs(*receipt, index, &proof, 5, tree.root()));
            assert!(!hangs(*receipt, index ^ 1, &proof, 5, tree.root()));
            assert!(!hangs(B256::repeat_byte(9), index, &proof, 5, tree.root()));
            assert!(!hangs(*receipt, index, &proof[1..], 5, tree.root()));
            assert!(!hangs(*receipt, index, &proof, 9, tree.root()));
            assert!(!hangs(*receipt, index, &proof, u64::MAX, tree.root()));
        }
    }
}
