//! The digests of signed words are those of an implementation that shares no code with ours.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its vectors")]

use std::str::FromStr;

use assay_protocol::{
    Address, Amount, Assurance, Audit, B256, ChainId, ChannelId, Finish, Key, ModelId, Offer,
    Order, OrderHash, Receipt, Sampler, Signature,
};
use serde_json::Value;

/// The message of one case.
struct Message<'a>(&'a Value);

impl Message<'_> {
    fn get<T: FromStr<Err: std::fmt::Debug>>(&self, field: &str) -> T {
        self.0[field].as_str().unwrap().parse().unwrap()
    }

    fn assurance(&self) -> Assurance {
        Assurance::from_code(self.get("assurance")).unwrap()
    }

    fn order(&self) -> Order {
        Order {
            buyer: self.get("buyer"),
            market: self.get("market"),
            model: self.get::<ModelId>("model"),
            request: self.get("request"),
            prompt: self.get("prompt"),
            prompt_tokens: self.get("promptTokens"),
            max_tokens: self.get("maxTokens"),
            sampler: self.get("sampler"),
            assurance: self.assurance(),
            audit: [Audit::None, Audit::Drawn, Audit::Public][self.get::<usize>("audit")],
            asset: self.get("asset"),
            max_price: self.get("maxPrice"),
            deadline: self.get("deadline"),
            nonce: self.get("nonce"),
            grant: self.get("grant"),
        }
    }

    fn receipt(&self) -> Receipt {
        let finishes = [Finish::Eos, Finish::Stop, Finish::Length, Finish::Cancelled];
        Receipt {
            order: self.get::<OrderHash>("order"),
            provider: self.get("provider"),
            output: self.get("output"),
            output_tokens: self.get("outputTokens"),
            text: self.get("text"),
            finish: finishes[self.get::<usize>("finish")],
            state: self.get("state"),
            assurance: self.assurance(),
            asset: self.get("asset"),
            price: self.get("price"),
            channel: self.get::<ChannelId>("channel"),
            channel_before: self.get("channelBefore"),
            channel_after: self.get("channelAfter"),
            started: self.get("started"),
            finished: self.get("finished"),
        }
    }

    fn offer(&self) -> Offer {
        Offer {
            provider: self.get::<Address>("provider"),
            model: self.get("model"),
            assurance: self.assurance(),
            asset: self.get("asset"),
            price_in: self.get::<Amount>("priceIn"),
            price_out: self.get("priceOut"),
            context: self.get("context"),
            expires: self.get("expires"),
        }
    }

    fn sampler(&self) -> Sampler {
        Sampler {
            inv_t_q16: self.get("invT_q16"),
            top_k: self.get("topK"),
            top_p_q16: self.get("topP_q16"),
            min_p_q16: self.get("minP_q16"),
            rep_q16: self.get("rep_q16"),
            freq_q16: self.get("freq_q16"),
            pres_q16: self.get("pres_q16"),
            stops: self.get("stops"),
            bias: self.get("bias"),
            grammar: self.get("grammar"),
            seed: self.get("seed"),
            choice: self.get("choice"),
        }
    }
}

#[test]
fn digests_and_signatures_are_those_of_eth_account() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/eip712.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let key = Key::from_bytes(vectors["key"].as_str().unwrap().parse::<B256>().unwrap().0).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let message = Message(&case["message"]);
        let chain = ChainId(case["chainId"].as_u64().unwrap_or(0));
        let (digest, signature): (B256, Option<Signature>) = match case["word"].as_str().unwrap() {
            "Order" => {
                let order = message.order();
                (order.hash(chain).0, Some(order.sign(chain, &key)))
            }
            "Receipt" => {
                let receipt = message.receipt();
                (receipt.digest(chain), Some(receipt.sign(chain, &key)))
            }
            "Offer" => {
                let offer = message.offer();
                let signature = offer.sign(chain, &key);
                assert_eq!(offer.is_signed(chain, &signature), Ok(true));
                (case["digest"].as_str().unwrap().parse().unwrap(), Some(signature))
            }
            "Sampler" => (message.sampler().hash(), None),
            other => panic!("unknown word {other}"),
        };
        assert_eq!(digest.to_string(), case["digest"].as_str().unwrap(), "{}", case["word"]);
        if let Some(signature) = signature {
            assert_eq!(signature.to_string(), case["signature"].as_str().unwrap());
        }
    }
}
