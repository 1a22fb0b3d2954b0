//! The facilitator's endpoints: `POST /x402/verify`, `POST /x402/settle`, `GET /x402/supported`.
//!
//! For clients and tools that verify by themselves. They judge and settle payments to us only: gas is the
//! gateway's, and it is spent for nobody else. What only a channel's owner may ask (claims, refunds) is
//! not done for strangers; refunds are taken at the door, where the voucher speaks for its payer.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_protocol::{Address, Amount, B256, keccak256};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use super::batch::{Signed, SignedKind};
use super::door::later;
use super::exact::Transfer;
use super::facilitator::{Facilitator, Progress};
use super::fault::Fault;
use super::reply::{IDENTIFIER, Names};
use super::wire::{
    self, Asked, Kind, Scheme, SettlementResponse, Supported, VERSION, VerifyResponse,
};
use crate::http::now_s;
use crate::openai::Problem;

/// Longest body, in bytes: a payment and its requirements, with room.
const BODY_BYTES_MAX: usize = 64 << 10;

type Shared = State<Arc<Facilitator>>;

/// The routes.
pub(crate) fn routes<S>(facilitator: Arc<Facilitator>) -> Router<S> {
    Router::new()
        .route("/x402/verify", post(verify))
        .route("/x402/settle", post(settle))
        .route("/x402/supported", get(supported))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(facilitator)
}

async fn supported(State(facilitator): Shared) -> Response {
    let network = facilitator.terms.network();
    let kind = |scheme| Kind { x402_version: VERSION, scheme, network, extra: Map::new() };
    let mut batch = kind(Scheme::Batch);
    let authorizer = facilitator.place.authorizer;
    batch.extra.insert("receiverAuthorizer".to_owned(), json!(authorizer.to_string()));
    let supported = Supported {
        kinds: vec![kind(Scheme::Exact), batch],
        extensions: vec![IDENTIFIER.to_owned()],
        signers: BTreeMap::from([(network.to_string(), vec![authorizer])]),
    };
    axum::Json(supported).into_response()
}

async fn verify(State(facilitator): Shared, body: Bytes) -> Response {
    let asked = match read(&body) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let (payer, judged) = match judge(&facilitator, &asked).await {
        Ok(judged) => (Some(judged.payer()), judged.verify(&facilitator).await),
        Err(fault) => (None, Err(fault)),
    };
    let response = match judged {
        Ok(extra) => VerifyResponse {
            is_valid: true,
            invalid_reason: None,
            invalid_message: None,
            payer,
            extra,
        },
        Err(fault) => VerifyResponse {
            is_valid: false,
            invalid_reason: Some(fault.code().to_owned()),
            invalid_message: Some(fault.to_string()),
            payer,
            extra: Map::new(),
        },
    };
    axum::Json(response).into_response()
}

async fn settle(State(facilitator): Shared, body: Bytes) -> Response {
    let asked = match read(&body) {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let network = facilitator.terms.network().to_string();
    let (payer, settled) = match judge(&facilitator, &asked).await {
        Ok(judged) => (Some(judged.payer()), judged.settle(&facilitator).await),
        Err(fault) => (None, Err(fault)),
    };
    let response = match settled {
        Ok(Settled { transaction, amount, extra }) => SettlementResponse {
            success: true,
            error_reason: None,
            payer,
            transaction: transaction.to_string(),
            network,
            amount: Some(amount.to_string()),
            extra,
        },
        Err(fault) => {
            let failed = SettlementResponse {
                error_reason: Some(fault.code().to_owned()),
                payer,
                network,
                ..SettlementResponse::default()
            };
            let mut response = axum::Json(failed).into_response();
            if let Fault::Crowded { .. } | Fault::Hasty { .. } = fault {
                *response.status_mut() = later(&fault);
                let seconds = fault.retry_after_s().unwrap_or_default();
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            return response;
        }
    };
    axum::Json(response).into_response()
}

fn read(body: &[u8]) -> Result<Asked, Problem> {
    wire::json(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_payload", error.to_string())
    })
}

/// A payment whose signatures hold.
enum Judged {
    Exact(Box<Transfer>),
    Batch(Box<Signed>),
}

/// A payment that was settled.
struct Settled {
    transaction: B256,
    amount: Amount,
    extra: Map<String, Value>,
}

async fn judge(facilitator: &Facilitator, asked: &Asked) -> Result<Judged, Fault> {
    let (terms, payment) = (&facilitator.terms, &asked.payment_payload);
    let requirements = &asked.payment_requirements;
    if payment.x402_version != VERSION {
        return Err(wire::WireError::Version { found: payment.x402_version }.into());
    }
    terms.met(requirements, Amount(0))?;
    terms.met(&payment.accepted, requirements.amount)?;
    if requirements.scheme == Scheme::Exact {
        let transfer = Transfer::check(payment, terms, requirements.amount, now_s())?;
        return Ok(Judged::Exact(Box::new(transfer)));
    }
    let payload = wire::part(&payment.payload)?;
    let signed = Signed::check(payload, terms, &facilitator.place, now_s())?;
    Ok(Judged::Batch(Box::new(signed)))
}

impl Judged {
    fn payer(&self) -> Address {
        match self {
            Self::Exact(transfer) => transfer.payer(),
            Self::Batch(signed) => signed.channel.payer,
        }
    }

    /// Asks the chain; gives what a batch settlement's server wants to know of the channel.
    async fn verify(&self, facilitator: &Facilitator) -> Result<Map<String, Value>, Fault> {
        let signed = match self {
            Self::Exact(transfer) => {
                facilitator.verify(transfer).await?;
                return Ok(Map::new());
            }
            Self::Batch(signed) => signed,
        };
        let account = facilitator.sync(signed.id, &signed.channel, now_s()).await?;
        let found = signed.voucher.max_claimable_amount;
        let coming = match &signed.kind {
            SignedKind::Deposit(deposit) => deposit.value,
            _ => Amount(0),
        };
        let available = Amount(account.available().0.saturating_add(coming.0));
        if available == Amount(0) {
            return Err(Fault::NoChannel);
        }
        if found > available {
            return Err(Fault::Exceeds { found, available });
        }
        if found < account.claimed {
            return Err(Fault::Claimed { found, claimed: account.claimed });
        }
        Ok(account.state(signed.id).as_object().cloned().unwrap_or_default())
    }

    async fn settle(self, facilitator: &Facilitator) -> Result<Settled, Fault> {
        match self {
            Self::Exact(transfer) => {
                let _turn = facilitator.turn(transfer.key(facilitator.terms.token.address))?;
                // Settled for no request of ours, so none is answered for it.
                let key = transfer.key(facilitator.terms.token.address);
                let request = keccak256("settled for somebody else");
                let names = Names { payment: key, chosen: false, kept: key, request };
                let known = match facilitator.progress(&transfer, request).await? {
                    Progress::New => None,
                    Progress::Settled(transaction) => Some(transaction),
                    Progress::Answered(_) => return Err(Fault::Used),
                };
                if known.is_none() {
                    facilitator.verify(&transfer).await?;
                }
                let transaction = facilitator.settle(&transfer, names, known).await?;
                Ok(Settled { transaction, amount: transfer.amount(), extra: Map::new() })
            }
            Self::Batch(signed) => {
                let SignedKind::Deposit(deposit) = &signed.kind else { return Err(Fault::Action) };
                let _turn = facilitator.turn(signed.id.0)?;
                let (transaction, account) = facilitator.deposit(&signed, deposit, now_s()).await?;
                let mut extra = Map::new();
                extra.insert("channelState".to_owned(), account.state(signed.id));
                Ok(Settled { transaction, amount: deposit.value, extra })
            }
        }
    }
}
