//! x402's door under `kill -9`: whoever pays gets what it paid for, and pays once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{DepositAuthorization, SignedToken};
use assay_protocol::{
    Address, Amount, B256, ChainId, Channel, ChannelId, Channels, Key, Signature, U256, Voucher,
    hex,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::support::Up;

/// Where x402's clients know channels and the collector of deposits to be, on every chain.
const CHANNELS: &str = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003";
const COLLECTOR: &str = "0x4020806089470a89826cB9fB1f4059150b550004";

/// Channels that pay at once.
const LANES: u8 = 4;

/// What is put into each, in base units: enough for all answers of this test.
const DEPOSIT: u128 = 1_000_000_000_000_000_000;

/// A client of a network: what it knows of the door.
#[derive(Clone)]
struct Shop {
    http: Client,
    url: String,
    model: String,
    /// What the door accepts from channels.
    accepted: Value,
}

/// What the door said.
struct Said {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<String, reqwest::Error>,
}

impl Said {
    fn word(&self, header: &str) -> Option<Value> {
        let text = self.headers.get(header)?;
        Some(serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap())
    }

    /// What was charged in all, as the header says.
    fn charged(&self) -> Option<u128> {
        self.word("payment-response").map(|word| charged(&word["extra"]["channelState"]))
    }
}

fn charged(state: &Value) -> u128 {
    state["chargedCumulativeAmount"].as_str().unwrap().parse().unwrap()
}

impl Shop {
    async fn of(up: &Up) -> Self {
        let http = Client::builder().no_proxy().build().unwrap();
        let url = up.url().to_owned();
        let models = http.get(format!("{url}/v1/models")).send().await.unwrap();
        let models: Value = serde_json::from_str(&models.text().await.unwrap()).unwrap();
        let model = models["data"][0]["id"].as_str().unwrap().to_owned();
        let mut shop = Self { http, url, model, accepted: Value::Null };
        let said = shop.post(false, None).await.unwrap();
        assert_eq!(said.status, 402);
        shop.accepted = said.word("payment-required").unwrap()["accepts"][1].clone();
        shop
    }

    fn amount(&self) -> u128 {
        self.accepted["amount"].as_str().unwrap().parse().unwrap()
    }

    async fn post(&self, stream: bool, payment: Option<&Value>) -> Result<Said, reqwest::Error> {
        // Always the same question, so that all answers cost the same.
        let body = json!({
            "model": self.model, "temperature": 0, "max_tokens": 16, "stream": stream,
            "messages": [{ "role": "user", "content": "12+45=" }],
        });
        let asked = self.http.post(format!("{}/v1/chat/completions", self.url));
        let mut asked = asked.header("content-type", "application/json").body(body.to_string());
        if let Some(payment) = payment {
            asked = asked.header("payment-signature", STANDARD.encode(payment.to_string()));
        }
        Self::said(asked.send().await?).await
    }

    async fn said(response: reqwest::Response) -> Result<Said, reqwest::Error> {
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Said { status, headers, body: response.text().await })
    }
}

/// A channel, and what its payer believes of it.
struct Lane {
    key: Key,
    channel: Channel,
    id: ChannelId,
    token: SignedToken,
    charged: u128,
    /// What was answered, in whole: the payment's name, whether as a stream, and the body.
    answered: Vec<(String, bool, String)>,
    /// What was asked and not answered.
    open: Option<(String, bool)>,
}

impl Lane {
    fn new(shop: &Shop, key: &Key, salt: u8) -> Self {
        let (accepted, extra) = (&shop.accepted, &shop.accepted["extra"]);
        let address = |value: &Value| value.as_str().unwrap().parse::<Address>().unwrap();
        let chain = accepted["network"].as_str().unwrap().strip_prefix("eip155:").unwrap();
        let chain = ChainId(chain.parse().unwrap());
        let channel = Channel {
            payer: key.address(),
            payer_authorizer: key.address(),
            receiver: address(&accepted["payTo"]),
            receiver_authorizer: address(&extra["receiverAuthorizer"]),
            token: address(&accepted["asset"]),
            withdraw_delay: extra["withdrawDelay"].as_u64().unwrap(),
            salt: B256::repeat_byte(salt),
        };
        let token = SignedToken {
            name: extra["name"].as_str().unwrap().to_owned(),
            version: extra["version"].as_str().unwrap().to_owned(),
            chain,
            address: channel.token,
        };
        let id = channel.id(&Self::channels(chain));
        Self { key: key.clone(), channel, id, token, charged: 0, answered: vec![], open: None }
    }

    fn channels(chain: ChainId) -> Channels {
        Channels { chain, contract: CHANNELS.parse().unwrap() }
    }

    /// A payment of at most `amount` more than was charged.
    fn pays(&self, shop: &Shop, amount: u128, name: Option<&str>, more: &Value) -> Value {
        let claimable = self.charged + amount;
        let word = Voucher { channel: self.id, claimable: Amount(claimable) };
        let signature = word.sign(&Self::channels(self.token.chain), &self.key);
        let config = serde_json::to_value(&self.channel).unwrap();
        let mut payload = json!({
            "type": "voucher",
            "channelConfig": config,
            "voucher": {
                "channelId": self.id.to_string(),
                "maxClaimableAmount": claimable.to_string(),
                "signature": signature,
            },
        });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut payment =
            json!({ "x402Version": 2, "accepted": shop.accepted, "payload": payload });
        if let Some(name) = name {
            payment["extensions"] = json!({ "payment-identifier": { "info": { "id": name } } });
        }
        payment
    }

    fn deposit(&self) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut leave = DepositAuthorization {
            value: Amount(DEPOSIT),
            valid_after: U256::ZERO,
            valid_before: U256::from(now + 300),
            salt: B256::repeat_byte(7),
            signature: Signature([0; 65]),
        };
        let collector = COLLECTOR.parse().unwrap();
        let digest = leave.digest(&self.token, self.key.address(), self.id, collector);
        leave.signature = self.key.sign(digest);
        json!({
            "type": "deposit",
            "deposit": {
                "amount": DEPOSIT.to_string(),
                "authorization": { "erc3009Authorization": {
                    "validAfter": "0",
                    "validBefore": leave.valid_before.to_string(),
                    "salt": leave.salt,
                    "signature": leave.signature,
                } },
            },
        })
    }

    /// Asks under a name, until there is an answer. False if the network is gone.
    async fn ask(&mut self, shop: &Shop, name: &str, stream: bool, more: &Value) -> bool {
        self.open = Some((name.to_owned(), stream));
        loop {
            let payment = self.pays(shop, shop.amount(), Some(name), more);
            let Ok(said) = shop.post(stream, Some(&payment)).await else { return false };
            if let Some(charged) = said.charged() {
                self.charged = charged;
            }
            let Ok(body) = &said.body else { return false };
            match said.status.as_u16() {
                200 if stream && !body.contains("[DONE]") => return false,
                200 => {
                    self.answered.push((name.to_owned(), stream, body.clone()));
                    self.open = None;
                    return true;
                }
                402 => {
                    // The door holds more than its client heard of: one answer, at most.
                    let word = said.word("payment-required").unwrap();
                    let held = charged(&word["accepts"][1]["extra"]["channelState"]);
                    assert!(held > self.charged && held <= self.charged + shop.amount(), "{word}");
                    self.charged = held;
                }
                409 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => panic!("{}: {body}", said.status),
            }
        }
    }

    /// Asks one after the other until the network is gone.
    async fn run(mut self, shop: Shop) -> Self {
        for number in 1u32.. {
            let name = format!("pay_{}_{number:016}", self.channel.salt[0]);
            if !self.ask(&shop, &name, number.is_multiple_of(2), &json!({})).await {
                break;
            }
        }
        self
    }

    /// Takes back what is left; gives what the channel did cost.
    async fn refunded(&self, shop: &Shop) -> u128 {
        let payment = self.pays(shop, 0, None, &json!({ "type": "refund" }));
        loop {
            let asked = shop.http.get(format!("{}/v1/chat/completions", shop.url));
            let asked = asked.header("payment-signature", STANDARD.encode(payment.to_string()));
            let said = Shop::said(asked.send().await.unwrap()).await.unwrap();
            if said.status == 409 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            assert_eq!(said.status, 200, "{:?}", said.word("payment-required"));
            let back = said.word("payment-response").unwrap()["amount"].clone();
            return DEPOSIT - back.as_str().unwrap().parse::<u128>().unwrap();
        }
    }
}

fn admin(data: &Path) -> Key {
    let text = std::fs::read_to_string(data.join("admin/key")).unwrap();
    let text = text.trim().trim_start_matches("0x").to_owned();
    Key::from_bytes(hex::decode(text).unwrap().try_into().unwrap()).unwrap()
}

#[test]
fn nobody_pays_twice_or_for_nothing_though_the_network_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let up = Up::start_with(&data, "ASSAY_X402", "true");
    let key = admin(&data);
    let shop = runtime.block_on(Shop::of(&up));

    let filled = runtime.block_on(async {
        let mut lanes = Vec::new();
        for salt in 1..=LANES {
            let mut lane = Lane::new(&shop, &key, salt);
            let deposit = lane.deposit();
            assert!(lane.ask(&shop, &format!("pay_{salt}_{:016}", 0), false, &deposit).await);
            lanes.push(lane);
        }
        lanes
    });
    let cost = filled[0].charged;
    assert!(cost > 0 && filled.iter().all(|lane| lane.charged == cost));

    let running: Vec<_> =
        filled.into_iter().map(|lane| runtime.spawn(lane.run(shop.clone()))).collect();
    std::thread::sleep(Duration::from_millis(1500));
    up.kill();
    let mut lanes: Vec<Lane> = runtime.block_on(async {
        let mut lanes = Vec::new();
        for lane in running {
            lanes.push(lane.await.unwrap());
        }
        lanes
    });
    assert!(
        lanes.iter().any(|lane| lane.answered.len() > 2),
        "the kill was in the midst of answers"
    );

    let up = Up::start_with(&data, "ASSAY_X402", "true");
    runtime.block_on(async {
        let shop = Arc::new(Shop::of(&up).await);
        for lane in &mut lanes {
            // What was answered is answered again, with the same words and for nothing.
            for (name, stream, body) in lane.answered.iter().rev().take(3) {
                let payment = lane.pays(&shop, shop.amount(), Some(name), &json!({}));
                let said = shop.post(*stream, Some(&payment)).await.unwrap();
                assert_eq!((said.status, said.body.as_ref().unwrap()), (StatusCode::OK, body));
            }
            // What was cut off is answered under the same name.
            if let Some((name, stream)) = lane.open.clone() {
                assert!(lane.ask(&shop, &name, stream, &json!({})).await);
            }
            // From there on, both sides count alike.
            let before = lane.charged;
            let payment = lane.pays(&shop, shop.amount(), None, &json!({}));
            let said = shop.post(false, Some(&payment)).await.unwrap();
            assert_eq!(said.status, 200, "{:?}", said.word("payment-required"));
            lane.charged = said.charged().unwrap();
            assert!(lane.charged <= before + cost);
            let answers = lane.answered.len() as u128 + 1;
            assert_eq!(lane.refunded(&shop).await, cost * answers, "each answer is paid once");
        }
    });
    up.stop();
}
