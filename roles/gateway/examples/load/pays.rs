//! The same, each request paid by a voucher: one channel a connection, opened by its first request.

use std::time::{Duration, Instant};

use assay_chain::{DepositAuthorization, SignedToken};
use assay_protocol::{Address, Amount, B256, ChainId, Channel, Channels, Key, U256, Voucher};
use axum::http::HeaderValue;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::Outcome;
use crate::asks::figures;
use crate::connection::{Connection, question};
use crate::process::used;

/// Where x402's clients expect channels and the collector of deposits, on every chain.
const CHANNELS: &str = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003";
const COLLECTOR: &str = "0x4020806089470a89826cB9fB1f4059150b550004";

/// Requests that a channel can pay for.
const REQUESTS_MAX: u128 = 1_000_000;

pub(crate) async fn measure(
    url: &str,
    pid: u32,
    connections: usize,
    time: Duration,
) -> Outcome<Value> {
    let file = std::env::var("PAYER").map_err(|_| "PAYER names no file with a key")?;
    let key = Key::from_bytes(std::fs::read_to_string(file)?.trim().parse::<B256>()?.0)?;
    let mut payers = Vec::new();
    // One after the other: each deposit is a transaction of the same account at the door.
    for _ in 0..connections {
        let mut payer = Payer::new(url, &key).await?;
        payer.buy(Some(REQUESTS_MAX)).await?;
        payers.push(payer);
    }
    let (before, begun) = (used(pid), Instant::now());
    let buying = payers.into_iter().map(|mut payer| {
        tokio::spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let asked = Instant::now();
                payer.buy(None).await?;
                took.push(asked.elapsed());
            }
            Outcome::Ok(took)
        })
    });
    let buying: Vec<_> = buying.collect();
    let mut took = Vec::new();
    for task in buying {
        took.extend(task.await??);
    }
    Ok(figures(took, begun.elapsed(), pid, before.cpu))
}

/// Whoever pays from one channel.
struct Payer {
    connection: Connection,
    key: Key,
    place: Channels,
    channel: Channel,
    token: SignedToken,
    /// The door's terms, as it said them.
    terms: Value,
    price: u128,
    charged: u128,
}

impl Payer {
    async fn new(url: &str, key: &Key) -> Outcome<Self> {
        let mut connection = Connection::open(url).await?;
        let reply = connection.ask(question(false), None).await?;
        let required = reply.headers().get("payment-required").ok_or("nothing is required")?;
        let required: Value = serde_json::from_slice(&BASE64_STANDARD.decode(required)?)?;
        drop(reply);
        let mut offered = required["accepts"].as_array().into_iter().flatten();
        let terms = offered.find(|terms| terms["scheme"] == "batch-settlement").cloned();
        let terms = terms.ok_or("the door takes no channels")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let chain = ChainId(text(&terms["network"]).replace("eip155:", "").parse()?);
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)?;
        let channel = Channel {
            payer: key.address(),
            payer_authorizer: key.address(),
            receiver: text(&terms["payTo"]).parse()?,
            receiver_authorizer: text(&terms["extra"]["receiverAuthorizer"]).parse()?,
            token: text(&terms["asset"]).parse()?,
            withdraw_delay: terms["extra"]["withdrawDelay"].as_u64().ok_or("no withdrawDelay")?,
            salt: B256::from(salt),
        };
        let token = SignedToken {
            name: text(&terms["extra"]["name"]),
            version: text(&terms["extra"]["version"]),
            chain,
            address: channel.token,
        };
        let price = text(&terms["amount"]).parse()?;
        let place = Channels { chain, contract: CHANNELS.parse()? };
        // The first reply's body is not read, and its connection not used again.
        let connection = Connection::open(url).await?;
        Ok(Self { connection, key: key.clone(), place, channel, token, terms, price, charged: 0 })
    }

    /// Buys one answer, bringing money for `requests` if the channel has none yet.
    async fn buy(&mut self, requests: Option<u128>) -> Outcome {
        let claimable = Amount(self.charged + self.price);
        let id = self.channel.id(&self.place);
        let signature = Voucher { channel: id, claimable }.sign(&self.place, &self.key);
        let Channel { payer, payer_authorizer, receiver, receiver_authorizer, .. } = self.channel;
        let mut payload = json!({
            "type": "voucher",
            "channelConfig": {
                "payer": payer,
                "payerAuthorizer": payer_authorizer,
                "receiver": receiver,
                "receiverAuthorizer": receiver_authorizer,
                "token": self.channel.token,
                "withdrawDelay": self.channel.withdraw_delay,
                "salt": self.channel.salt,
            },
            "voucher": { "channelId": id, "maxClaimableAmount": claimable, "signature": signature },
        });
        if let Some(requests) = requests {
            payload["type"] = "deposit".into();
            payload["deposit"] = self.deposit(Amount(self.price * requests))?;
        }
        let payment = json!({ "x402Version": 2, "accepted": self.terms, "payload": payload });
        let payment = HeaderValue::from_str(&BASE64_STANDARD.encode(payment.to_string()))?;
        let (status, _) = self.connection.whole(question(false), Some(payment)).await?;
        if status != 200 {
            return Err(format!("status {status}").into());
        }
        self.charged += self.price;
        Ok(())
    }

    fn deposit(&self, value: Amount) -> Outcome<Value> {
        let collector: Address = COLLECTOR.parse()?;
        let mut authorization = DepositAuthorization {
            value,
            valid_after: U256::ZERO,
            valid_before: U256::from(u64::MAX),
            salt: self.channel.salt,
            signature: self.key.sign(B256::ZERO),
        };
        let id = self.channel.id(&self.place);
        let digest = authorization.digest(&self.token, self.key.address(), id, collector);
        authorization.signature = self.key.sign(digest);
        Ok(json!({
            "amount": value,
            "authorization": { "erc3009Authorization": {
                "validAfter": "0",
                "validBefore": authorization.valid_before.to_string(),
                "salt": authorization.salt,
                "signature": authorization.signature,
            } },
        }))
    }
}
