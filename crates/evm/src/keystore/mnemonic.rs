//! Accounts from a sentence (BIP-39, BIP-32, BIP-44), for development alone: everybody knows the
//! sentence, so everybody has these keys.

use secp256k1::{PublicKey, Scalar, SecretKey};
use sha2::{Digest, Sha512};

use super::Signer;

/// The sentence that Ethereum's development tools share.
pub const DEVELOPMENT: &str = "test test test test test test test test test test test junk";

/// The first `count` accounts of `sentence`, at `m/44'/60'/0'/0/i`.
///
/// The sentence is taken as it is: its checksum is not looked at.
pub fn accounts(sentence: &str, count: u32) -> Vec<Signer> {
    const HARD: u32 = 1 << 31;
    let path = [HARD + 44, HARD + 60, HARD, 0];
    let Some(root) = Node::root(&seed(sentence)) else { return Vec::new() };
    let Some(parent) = path.iter().try_fold(root, |node, index| node.child(*index)) else {
        return Vec::new();
    };
    let children = (0..count).filter_map(|index| parent.child(index));
    children.map(|node| Signer::new(node.secret)).collect()
}

/// BIP-39: 2048 rounds over the sentence, without a password of one's own.
fn seed(sentence: &str) -> [u8; 64] {
    let mut seed = [0; 64];
    pbkdf2::pbkdf2_hmac::<Sha512>(sentence.as_bytes(), b"mnemonic", 2048, &mut seed);
    seed
}

/// A place in BIP-32's tree of keys.
struct Node {
    secret: SecretKey,
    chain: [u8; 32],
}

impl Node {
    fn root(seed: &[u8]) -> Option<Self> {
        let (left, chain) = halves(hmac(b"Bitcoin seed", seed));
        Some(Self { secret: SecretKey::from_secret_bytes(left).ok()?, chain })
    }

    /// The child at `index`; `None` for the one in 2^127 indices that has none.
    fn child(&self, index: u32) -> Option<Self> {
        let mut data = Vec::with_capacity(37);
        if index >> 31 == 1 {
            data.push(0);
            data.extend(self.secret.to_secret_bytes());
        } else {
            data.extend(PublicKey::from_secret_key(&self.secret).serialize());
        }
        data.extend(index.to_be_bytes());
        let (left, chain) = halves(hmac(&self.chain, &data));
        let secret = self.secret.add_tweak(&Scalar::from_be_bytes(left).ok()?).ok()?;
        Some(Self { secret, chain })
    }
}

fn halves(bytes: [u8; 64]) -> ([u8; 32], [u8; 32]) {
    (std::array::from_fn(|at| bytes[at]), std::array::from_fn(|at| bytes[32 + at]))
}

/// HMAC-SHA512 (RFC 2104).
fn hmac(key: &[u8], data: &[u8]) -> [u8; 64] {
    let mut block = [0; 128];
    if key.len() > block.len() {
        block[..64].copy_from_slice(&Sha512::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha512::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(data);
    let outer = Sha512::new().chain_update(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, hex};

    use super::*;

    #[test]
    fn hmac_is_that_of_the_rfc() {
        // RFC 4231, case 2.
        let found = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex::encode(&found[..16]), "164b7a7bfcf819e2e395fbe73b56e0a3");
        // A key longer than a block, case 6.
        let found = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex::encode(&found[..16]), "80b24263c7c1a3ebb71493c1dd7be8b4");
    }

    #[test]
    fn development_accounts_are_those_of_other_tools() {
        let found: Vec<_> = accounts(DEVELOPMENT, 3).iter().map(Signer::address).collect();
        let expected = [
            address!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        ];
        assert_eq!(found, expected);
    }
}
