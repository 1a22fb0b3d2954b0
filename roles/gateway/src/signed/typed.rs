//! An order as wallets sign it: EIP-712 in JSON, as `eth_signTypedData_v4` takes it.
//!
//! `cast wallet sign --data`, viem's `signTypedData` and eth-account's `sign_typed_data` take it as it
//! is. Numbers that do not fit the 53 bits of a JavaScript number are decimal strings.

use assay_protocol::{ChainId, Order};
use serde_json::{Value, json};

/// The fields of an order and their Solidity types, in the order of `contracts/src/types/Order.sol`.
const FIELDS: [(&str, &str); 15] = [
    ("buyer", "address"),
    ("market", "address"),
    ("model", "bytes32"),
    ("request", "bytes32"),
    ("prompt", "bytes32"),
    ("promptTokens", "uint32"),
    ("maxTokens", "uint32"),
    ("sampler", "bytes32"),
    ("assurance", "uint8"),
    ("audit", "uint8"),
    ("asset", "address"),
    ("maxPrice", "uint128"),
    ("deadline", "uint64"),
    ("nonce", "uint256"),
    ("grant", "bytes32"),
];

/// What a wallet has to be given so that it signs `order`.
pub(super) fn data(order: &Order, chain: ChainId) -> Value {
    let field = |(name, kind): (&str, &str)| json!({ "name": name, "type": kind });
    let domain = [("name", "string"), ("version", "string"), ("chainId", "uint256")];
    json!({
        "types": {
            "EIP712Domain": domain.map(field),
            "Order": FIELDS.map(field),
        },
        "primaryType": "Order",
        "domain": { "name": "Assay", "version": "1", "chainId": chain },
        "message": {
            "buyer": order.buyer,
            "market": order.market,
            "model": order.model,
            "request": order.request,
            "prompt": order.prompt,
            "promptTokens": order.prompt_tokens,
            "maxTokens": order.max_tokens,
            "sampler": order.sampler,
            "assurance": order.assurance.code(),
            "audit": order.audit as u8,
            "asset": order.asset,
            "maxPrice": order.max_price.to_string(),
            "deadline": order.deadline.to_string(),
            "nonce": order.nonce.to_string(),
            "grant": order.grant,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{Address, Amount, Assurance, Audit, B256, ModelId, U256, hex, keccak256};

    /// Hashes typed data by nothing but what it says, as a wallet does. Knows the types that are in it.
    fn digest(data: &Value) -> B256 {
        let domain = hashed(data, "EIP712Domain", &data["domain"]);
        let message = hashed(data, data["primaryType"].as_str().unwrap(), &data["message"]);
        keccak256([&[0x19, 0x01], domain.as_slice(), message.as_slice()].concat())
    }

    fn hashed(data: &Value, name: &str, value: &Value) -> B256 {
        let fields = data["types"][name].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let listed: Vec<String> = fields
            .iter()
            .map(|field| format!("{} {}", text(&field["type"]), text(&field["name"])))
            .collect();
        let mut bytes = keccak256(format!("{name}({})", listed.join(","))).to_vec();
        for field in fields {
            let value = &value[field["name"].as_str().unwrap()];
            bytes.extend(word(&text(&field["type"]), value));
        }
        keccak256(bytes)
    }

    fn word(kind: &str, value: &Value) -> [u8; 32] {
        match kind {
            "string" => keccak256(value.as_str().unwrap()).0,
            "address" | "bytes32" => {
                let bytes = hex::decode(value.as_str().unwrap()).unwrap();
                assert_eq!(bytes.len(), if kind == "address" { 20 } else { 32 });
                B256::left_padding_from(&bytes).0
            }
            _ => {
                assert!(kind.starts_with("uint"), "{kind}");
                let number: U256 = match value {
                    Value::String(text) => text.parse().unwrap(),
                    number => U256::from(number.as_u64().unwrap()),
                };
                let bits: usize = kind.trim_start_matches("uint").parse().unwrap();
                assert!(number.bit_len() <= bits);
                number.to_be_bytes()
            }
        }
    }

    #[test]
    fn what_a_wallet_hashes_is_the_orders_hash() {
        for (byte, assurance, audit) in [
            (1, Assurance::Replayable, Audit::None),
            (0xfe, Assurance::Attested, Audit::Drawn),
            (0xff, Assurance::Scored, Audit::Public),
        ] {
            let word = |add: u8| B256::repeat_byte(byte).map_first(add);
            let order = Order {
                buyer: Address::repeat_byte(byte),
                market: Address::repeat_byte(byte ^ 1),
                model: ModelId(word(1)),
                request: word(2),
                prompt: word(3),
                prompt_tokens: u32::from(byte) << 24,
                max_tokens: u32::from(byte),
                sampler: word(4),
                assurance,
                audit,
                asset: Address::repeat_byte(byte ^ 2),
                max_price: Amount(u128::from_be_bytes([byte; 16])),
                deadline: u64::from_be_bytes([byte; 8]),
                nonce: U256::from_be_bytes([byte; 32]),
                grant: word(5),
            };
            for chain in [ChainId(1), ChainId(7777)] {
                assert_eq!(digest(&data(&order, chain)), order.hash(chain).0);
            }
        }
    }

    trait MapFirst {
        fn map_first(self, add: u8) -> Self;
    }

    impl MapFirst for B256 {
        fn map_first(mut self, add: u8) -> Self {
            self.0[0] = self.0[0].wrapping_add(add);
            self
        }
    }
}
