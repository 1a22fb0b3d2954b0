//! Grants that the gateway gives by itself, each for one order of a caller that may ask anyway.
//!
//! They must not open the door to whoever shows them without the caller's key, as those of the
//! gateway's owner do. So they are told apart, without being remembered: half of the nonce is a tag
//! that only the gateway can make.

use assay_protocol::{
    Address, Amount, B256, ChainId, Grant, Key, ModelId, SignedGrant, U256, keccak256,
};

/// How long before now a grant begins to hold, in seconds: a provider's clock may be late.
const EARLIER: u64 = 300;

/// What a grant is minted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    pub(super) chain: ChainId,
    pub(super) registry: Address,
    pub(super) holder: Address,
    pub(super) model: ModelId,
    pub(super) spend: Amount,
    pub(super) now: u64,
    /// Unix seconds.
    pub(super) until: u64,
}

/// Makes grants, and knows those that it made.
#[derive(Clone)]
pub(super) struct Mint {
    key: Key,
    secret: B256,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mint").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Mint {
    pub(super) fn new(key: &Key) -> Self {
        let seed = [b"assay: grants of a gateway".as_slice(), &key.to_bytes()].concat();
        Self { key: key.clone(), secret: keccak256(seed) }
    }

    /// A grant for one order; `random` makes it differ from all others.
    pub(super) fn make(&self, purpose: Purpose, random: B256) -> SignedGrant {
        let Purpose { chain, registry, holder, model, spend, now, until } = purpose;
        let mut nonce = [0; 32];
        nonce[..16].copy_from_slice(&random[..16]);
        let tag = self.tag(&nonce[..16], holder, until);
        nonce[16..].copy_from_slice(&tag);
        let grant = Grant {
            registry,
            issuer: self.key.address(),
            holder,
            models: vec![model],
            asset: Address::ZERO,
            spend,
            rate: 0,
            from: now.saturating_sub(EARLIER),
            until,
            parent: B256::ZERO,
            nonce: U256::from_be_bytes(nonce),
        };
        grant.sign(chain, &self.key)
    }

    /// Whether a grant with this content was made here.
    pub(super) fn made(&self, grant: &Grant) -> bool {
        let nonce = grant.nonce.to_be_bytes::<32>();
        grant.issuer == self.key.address()
            && nonce[16..] == self.tag(&nonce[..16], grant.holder, grant.until)
    }

    fn tag(&self, random: &[u8], holder: Address, until: u64) -> [u8; 16] {
        let parts = [self.secret.as_slice(), random, holder.as_slice(), &until.to_be_bytes()];
        let mut tag = [0; 16];
        tag.copy_from_slice(&keccak256(parts.concat())[..16]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_its_own() {
        let key = |byte| Key::from_bytes([byte; 32]).unwrap();
        let mint = Mint::new(&key(1));
        let purpose = Purpose {
            chain: ChainId(7),
            registry: Address::repeat_byte(4),
            holder: key(2).address(),
            model: ModelId(B256::repeat_byte(3)),
            spend: Amount(5),
            now: 1000,
            until: 1060,
        };
        let SignedGrant { grant, signature } = mint.make(purpose, B256::repeat_byte(6));
        assert_eq!(signature.signer(grant.digest(ChainId(7))), Ok(key(1).address()));
        assert_eq!((grant.from, grant.until, grant.spend), (700, 1060, Amount(5)));
        assert!(mint.made(&grant));
        assert!(!Mint::new(&key(3)).made(&grant));
        for change in [
            |grant: &mut Grant| grant.holder = Address::ZERO,
            |grant: &mut Grant| grant.until += 1,
            |grant: &mut Grant| grant.nonce += U256::from(1),
        ] {
            let mut changed = grant.clone();
            change(&mut changed);
            assert!(!mint.made(&changed));
        }
        // The owner's grants, whose nonces are small or random, are not taken for it.
        assert!(!mint.made(&Grant { nonce: U256::from(1), ..grant }));
        assert!(!format!("{mint:?}").contains(&mint.secret.to_string()));
    }
}
