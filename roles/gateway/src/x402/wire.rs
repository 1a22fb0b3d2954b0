//! x402 version 2 as it stands in headers and bodies, and in what follows of it.
//!
//! Names and shapes are x402's own (`x402-specification-v2`, `transports-v2/http`, the schemes `exact`
//! and `batch-settlement`): amounts are decimal strings of base units, networks are CAIP-2, headers are
//! base64 of JSON. Everything here comes from strangers, so a length is checked before anything is
//! decoded, numbers are read digit by digit, and what does not fit is an error that says which field.
//! Unknown fields are passed over, since extensions add some.

use std::fmt;

use assay_protocol::{Address, Amount, B256, ChainId, Channel, Signature, U256};
use axum::http::{HeaderName, HeaderValue};
use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What we speak.
pub(crate) const VERSION: u64 = 2;

/// Of a 402: what would be accepted.
pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// Of a request: the payment.
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// Of an answer: what became of the payment.
pub(crate) const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");

/// Longest header value that is read, in bytes. A deposit with its voucher takes about 2,100.
pub(crate) const HEADER_BYTES_MAX: usize = 20 << 10;

/// Why bytes are no payment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// More than we read.
    #[error("the header has {found} bytes, at most {max} are read")]
    Long {
        /// How many there are.
        found: usize,
        /// How many are read.
        max: usize,
    },
    /// The header is no base64.
    #[error("the header is not base64: {0}")]
    Base64(#[from] DecodeError),
    /// The bytes are no JSON of the expected shape.
    #[error("{0}")]
    Json(String),
    /// Another version of x402.
    #[error("x402 version {found} is not spoken here, expected {VERSION}")]
    Version {
        /// The version named.
        found: u64,
    },
}

/// A scheme that pays us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scheme {
    /// One transfer per answer, of the amount that is asked.
    #[serde(rename = "exact")]
    Exact,
    /// A channel, with a voucher per answer.
    #[serde(rename = "batch-settlement")]
    Batch,
}

/// A CAIP-2 name of an EVM chain: `eip155:8453`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) ChainId);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}", self.0)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id =
            text.strip_prefix("eip155:").and_then(|id| digits(id)).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| D::Error::custom(format!("{text:?} is no eip155 network")))?;
        Ok(Self(ChainId(id)))
    }
}

/// `text` if it is a whole number as x402 writes one: decimal digits and nothing else.
fn digits(text: &str) -> Option<&str> {
    let plain = !text.is_empty() && text.len() <= 78 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then_some(text)
}

/// Base units as a decimal string of at most 128 bits.
mod decimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(amount: &Amount, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(amount)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Amount, D::Error> {
        let text = String::deserialize(d)?;
        let amount = digits(&text).and_then(|text| text.parse().ok());
        amount.ok_or_else(|| D::Error::custom(format!("{text:?} is no amount of base units")))
    }

    /// The same where the field may be missing.
    pub(super) mod maybe {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            amount: &Option<Amount>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match amount {
                Some(amount) => s.collect_str(amount),
                None => s.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<Amount>, D::Error> {
            #[derive(Deserialize)]
            struct Given(#[serde(with = "super")] Amount);
            Ok(Option::<Given>::deserialize(d)?.map(|given| given.0))
        }
    }
}

/// A 256-bit number as a decimal string.
mod wide {
    use super::*;

    pub(super) fn serialize<S: Serializer>(number: &U256, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<U256, D::Error> {
        let text = String::deserialize(d)?;
        let number = digits(&text).and_then(|text| U256::from_str_radix(text, 10).ok());
        number.ok_or_else(|| D::Error::custom(format!("{text:?} is no number of 256 bits")))
    }
}

/// Seconds that are a number in one client and a string in another.
fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(u64),
        Text(String),
    }
    match Given::deserialize(d)? {
        Given::Number(seconds) => Ok(seconds),
        Given::Text(text) => digits(&text)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no number of seconds"))),
    }
}

/// What a server would be paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requirements {
    pub(crate) scheme: Scheme,
    pub(crate) network: Network,
    /// Base units: the price under `exact`, the most that may be charged under `batch-settlement`.
    #[serde(with = "decimal")]
    pub(crate) amount: Amount,
    pub(crate) asset: Address,
    pub(crate) pay_to: Address,
    pub(crate) max_timeout_seconds: u64,
    /// What a scheme adds.
    #[serde(default)]
    pub(crate) extra: Map<String, Value>,
}

/// The body of [`PAYMENT_REQUIRED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentRequired {
    pub(crate) x402_version: u64,
    /// Why, in a word of x402's where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) resource: Resource,
    pub(crate) accepts: Vec<Requirements>,
    #[serde(default)]
    pub(crate) extensions: Map<String, Value>,
}

/// What is paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resource {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) mime_type: String,
}

/// The body of [`PAYMENT_SIGNATURE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentPayload {
    pub(crate) x402_version: u64,
    /// Which of the offered requirements is met.
    pub(crate) accepted: Requirements,
    /// What the scheme needs; read by [`ExactPayload`] or [`BatchPayload`].
    pub(crate) payload: Box<RawValue>,
    /// By id; `{info, schema}` each. Some clients send null.
    #[serde(default)]
    pub(crate) extensions: Option<Box<RawValue>>,
}

/// The payload of `exact` by ERC-3009.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExactPayload {
    pub(crate) signature: Signature,
    pub(crate) authorization: ExactAuthorization,
}

/// What the payer signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExactAuthorization {
    pub(crate) from: Address,
    pub(crate) to: Address,
    #[serde(with = "wide")]
    pub(crate) value: U256,
    #[serde(with = "wide")]
    pub(crate) valid_after: U256,
    #[serde(with = "wide")]
    pub(crate) valid_before: U256,
    pub(crate) nonce: B256,
}

/// The payload of `batch-settlement`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum BatchPayload {
    /// Pays from a channel.
    Voucher { channel_config: ChannelConfig, voucher: BatchVoucher },
    /// Puts money into a channel, and pays from it.
    Deposit { channel_config: ChannelConfig, voucher: BatchVoucher, deposit: Deposit },
    /// Asks for money back; the voucher is for what was charged and no more.
    Refund {
        channel_config: ChannelConfig,
        voucher: BatchVoucher,
        /// How much; all that is left unless said.
        #[serde(default, with = "decimal::maybe", skip_serializing_if = "Option::is_none")]
        amount: Option<Amount>,
    },
}

/// A channel's terms as x402 writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelConfig {
    pub(crate) payer: Address,
    pub(crate) payer_authorizer: Address,
    pub(crate) receiver: Address,
    pub(crate) receiver_authorizer: Address,
    pub(crate) token: Address,
    #[serde(deserialize_with = "seconds")]
    pub(crate) withdraw_delay: u64,
    pub(crate) salt: B256,
}

impl From<ChannelConfig> for Channel {
    fn from(config: ChannelConfig) -> Self {
        Self {
            payer: config.payer,
            payer_authorizer: config.payer_authorizer,
            receiver: config.receiver,
            receiver_authorizer: config.receiver_authorizer,
            token: config.token,
            withdraw_delay: config.withdraw_delay,
            salt: config.salt,
        }
    }
}

/// A voucher as x402 writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchVoucher {
    pub(crate) channel_id: B256,
    #[serde(with = "decimal")]
    pub(crate) max_claimable_amount: Amount,
    pub(crate) signature: Signature,
}

/// Money on its way into a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Deposit {
    #[serde(with = "decimal")]
    pub(crate) amount: Amount,
    pub(crate) authorization: DepositAuthorization,
}

/// How the payer agreed to a deposit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DepositAuthorization {
    /// The one way that we take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) erc3009_authorization: Option<Erc3009Authorization>,
}

/// `receiveWithAuthorization` to the deposit collector.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Erc3009Authorization {
    #[serde(with = "wide")]
    pub(crate) valid_after: U256,
    #[serde(with = "wide")]
    pub(crate) valid_before: U256,
    pub(crate) salt: B256,
    pub(crate) signature: Signature,
}

/// The body of [`PAYMENT_RESPONSE`], and a facilitator's answer to `settle`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettlementResponse {
    pub(crate) success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payer: Option<Address>,
    /// Hash of the transaction; empty where there is none.
    pub(crate) transaction: String,
    /// CAIP-2.
    pub(crate) network: String,
    /// What the transaction moved, base units; empty where it moved nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) extra: Map<String, Value>,
}

/// A facilitator's answer to `verify`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifyResponse {
    pub(crate) is_valid: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) invalid_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) invalid_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payer: Option<Address>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) extra: Map<String, Value>,
}

/// What a facilitator is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) payment_payload: PaymentPayload,
    pub(crate) payment_requirements: Requirements,
}

/// What a facilitator supports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Supported {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) extensions: Vec<String>,
    /// Who sends its transactions, by network.
    pub(crate) signers: std::collections::BTreeMap<String, Vec<Address>>,
}

/// A scheme on a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kind {
    pub(crate) x402_version: u64,
    pub(crate) scheme: Scheme,
    pub(crate) network: Network,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) extra: Map<String, Value>,
}

/// Writes a header's value.
pub(crate) fn header(word: &impl Serialize) -> Result<HeaderValue, WireError> {
    let json = serde_json::to_vec(word).map_err(|error| WireError::Json(error.to_string()))?;
    HeaderValue::try_from(STANDARD.encode(&json))
        .map_err(|error| WireError::Json(error.to_string()))
}

/// Reads a header's value.
#[cfg(test)]
pub(crate) fn read<T: DeserializeOwned>(value: &HeaderValue) -> Result<T, WireError> {
    json(&decoded(value)?)
}

fn decoded(value: &HeaderValue) -> Result<Vec<u8>, WireError> {
    let bytes = value.as_bytes();
    if bytes.len() > HEADER_BYTES_MAX {
        return Err(WireError::Long { found: bytes.len(), max: HEADER_BYTES_MAX });
    }
    Ok(STANDARD.decode(bytes)?)
}

/// Reads a payment.
pub(crate) fn payment(value: &HeaderValue) -> Result<PaymentPayload, WireError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        x402_version: u64,
    }
    let bytes = decoded(value)?;
    let read = json::<PaymentPayload>(&bytes);
    let found = match &read {
        Ok(payment) => payment.x402_version,
        // Another version may well have another shape, and is what to tell its client.
        Err(_) => json::<Version>(&bytes)?.x402_version,
    };
    if found == VERSION { read } else { Err(WireError::Version { found }) }
}

/// Reads JSON, and names what is wrong with it.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|error| WireError::Json(error.to_string()))
}

/// Reads a part of a payment that its scheme gives the shape of.
pub(crate) fn part<T: DeserializeOwned>(value: &RawValue) -> Result<T, WireError> {
    json(value.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As PyPI's x402 2.25.0 writes one.
    const EXACT: &str = r#"{"x402Version":2,"payload":{"authorization":{"from":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","to":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","value":"10000","validAfter":"0","validBefore":"1900000000","nonce":"0x0707070707070707070707070707070707070707070707070707070707070707"},"signature":"0x000000000000000000000000000000000000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000021b"},"accepted":{"scheme":"exact","network":"eip155:31337","asset":"0x5FbDB2315678afecb367f032d93F642f64180aa3","amount":"10000","payTo":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","maxTimeoutSeconds":60,"extra":{"name":"Assay","version":"1"}},"extensions":null}"#;

    fn value(json: &str) -> HeaderValue {
        HeaderValue::from_str(&STANDARD.encode(json)).unwrap()
    }

    #[test]
    fn a_clients_payment_is_read() {
        let payment = payment(&value(EXACT)).unwrap();
        assert_eq!(payment.accepted.network, Network(ChainId(31337)));
        assert_eq!(payment.accepted.amount, Amount(10_000));
        let exact: ExactPayload = part(&payment.payload).unwrap();
        assert_eq!(exact.authorization.valid_before, U256::from(1_900_000_000u64));
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        let found = |amount: &str| {
            payment(&value(&EXACT.replace(r#""amount":"10000""#, &format!(r#""amount":{amount}"#))))
        };
        assert!(found("\"10000\"").is_ok());
        let bad = ["\"+1\"", "\"1abc\"", "\"-1\"", "\"\"", "\" 1\"", "1", "1.5", "\"1.5\"", "null"];
        for amount in bad.into_iter().chain(["\"340282366920938463463374607431768211456\""]) {
            assert!(matches!(found(amount), Err(WireError::Json(_))), "{amount}");
        }
    }

    #[test]
    fn other_versions_and_networks_are_named() {
        let old = EXACT.replace(r#""x402Version":2"#, r#""x402Version":1"#);
        assert_eq!(payment(&value(&old)).unwrap_err(), WireError::Version { found: 1 });
        let solana = EXACT.replace("eip155:31337", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp");
        let error = payment(&value(&solana)).unwrap_err().to_string();
        assert!(error.contains("is no eip155 network"), "{error}");
    }

    #[test]
    fn a_header_of_twenty_kilobytes_is_the_longest() {
        let long = HeaderValue::from_bytes(&vec![b'A'; HEADER_BYTES_MAX + 4]).unwrap();
        let error = WireError::Long { found: HEADER_BYTES_MAX + 4, max: HEADER_BYTES_MAX };
        assert_eq!(payment(&long).unwrap_err(), error);
        let padded =
            EXACT.replace("\"extensions\":null", &format!("\"x\":\"{}\"", "a".repeat(12_000)));
        assert!(payment(&value(&padded)).is_ok());
    }

    #[test]
    fn a_delay_may_be_a_number_or_text() {
        let read = |delay: &str| {
            let zero = "0x0000000000000000000000000000000000000000";
            let json = format!(
                r#"{{"payer":"{zero}","payerAuthorizer":"{zero}","receiver":"{zero}","receiverAuthorizer":"{zero}","token":"{zero}","withdrawDelay":{delay},"salt":"0x{}"}}"#,
                "00".repeat(32)
            );
            json_of(&json)
        };
        let json_of = |config: Result<ChannelConfig, WireError>| config.map(|c| c.withdraw_delay);
        assert_eq!(json_of(read("900")), Ok(900));
        assert_eq!(json_of(read("\"900\"")), Ok(900));
        assert!(json_of(read("\"9e2\"")).is_err());
        assert!(json_of(read("-1")).is_err());
    }

    fn json_of(text: &str) -> Result<ChannelConfig, WireError> {
        json(text.as_bytes())
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(32u8..127, 0..600)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = payment(&value);
            }
            let _ = payment(&HeaderValue::from_str(&STANDARD.encode(&bytes)).unwrap());
        }

        #[test]
        fn no_change_of_a_byte_breaks_the_reader(at in 0..EXACT.len(), byte in 32u8..127) {
            let mut bytes = EXACT.as_bytes().to_vec();
            bytes[at] = byte;
            let read = payment(&HeaderValue::from_str(&STANDARD.encode(&bytes)).unwrap());
            if let Ok(payment) = read {
                let _ = part::<ExactPayload>(&payment.payload);
                let _ = part::<BatchPayload>(&payment.payload);
            }
        }
    }
}
