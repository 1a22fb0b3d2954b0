//! The scheme `exact`: one signed transfer per answer (ERC-3009), settled before the answer is released.
//!
//! What can be judged from the payment alone is judged here, by value; what only the chain knows
//! (balance, used nonces) is asked after. Who names the payer is the signature, never the sender.

use assay_chain::Authorization;
use assay_protocol::{Address, Amount, B256, Signature, U256, keccak256};

use super::fault::Fault;
use super::terms::Terms;
use super::wire::{self, ExactAuthorization, ExactPayload, PaymentPayload};

/// Seconds that a payment must still be good for: two blocks of a slow chain, and a transaction's way.
const MARGIN_S: u64 = 6;

/// A payment by `exact` whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) authorization: Authorization,
    pub(crate) signature: Signature,
}

impl Transfer {
    /// Reads and judges a payment for a request of `price`; `now` in Unix seconds.
    pub(crate) fn check(
        payment: &PaymentPayload,
        terms: &Terms,
        price: Amount,
        now: u64,
    ) -> Result<Self, Fault> {
        terms.met(&payment.accepted, price)?;
        let Self { authorization, signature } =
            wire::part::<ExactPayload>(&payment.payload)?.into();
        let expected = payment.accepted.amount;
        if authorization.to != terms.pay_to {
            return Err(Fault::Recipient { found: authorization.to, expected: terms.pay_to });
        }
        if authorization.value != U256::from(expected.0) {
            return Err(Fault::Value { found: authorization.value, expected });
        }
        in_time(authorization.valid_after, authorization.valid_before, now)?;
        let signer = signature.signer(authorization.digest(&terms.token));
        if signer != Ok(authorization.from) {
            return Err(Fault::Signature { payer: authorization.from });
        }
        Ok(Self { authorization, signature })
    }

    /// Whose money.
    pub(crate) fn payer(&self) -> Address {
        self.authorization.from
    }

    /// How much, base units. It was compared with an amount, so nothing is cut.
    pub(crate) fn amount(&self) -> Amount {
        Amount(self.authorization.value.saturating_to())
    }

    /// Names the payment: a token takes each (payer, nonce) once.
    pub(crate) fn key(&self, token: Address) -> B256 {
        let from = self.authorization.from;
        keccak256([token.as_slice(), from.as_slice(), self.authorization.nonce.as_slice()].concat())
    }
}

impl From<ExactPayload> for Transfer {
    fn from(payload: ExactPayload) -> Self {
        let ExactPayload { signature, authorization: given } = payload;
        let authorization = Authorization {
            from: given.from,
            to: given.to,
            value: given.value,
            valid_after: given.valid_after,
            valid_before: given.valid_before,
            nonce: given.nonce,
        };
        Self { authorization, signature }
    }
}

impl From<&Transfer> for ExactPayload {
    fn from(transfer: &Transfer) -> Self {
        let given = &transfer.authorization;
        let authorization = ExactAuthorization {
            from: given.from,
            to: given.to,
            value: given.value,
            valid_after: given.valid_after,
            valid_before: given.valid_before,
            nonce: given.nonce,
        };
        Self { signature: transfer.signature, authorization }
    }
}

/// Whether something good strictly between two seconds is good now, and for long enough.
pub(crate) fn in_time(after: U256, before: U256, now: u64) -> Result<(), Fault> {
    if after >= U256::from(now) {
        return Err(Fault::Early { found: after, now });
    }
    if before <= U256::from(now.saturating_add(MARGIN_S)) {
        return Err(Fault::Late { found: before, now });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::paper::{self, NOW};
    use super::*;
    use assay_protocol::Key;

    /// A payment of 100 for a request of 100, changed by `change` before it is signed.
    fn check(change: impl Fn(&mut Authorization), expected: Result<(), Fault>) {
        let terms = paper::terms();
        let payment = paper::exact(&terms, &paper::payer(), 100, 1, change);
        let found = Transfer::check(&payment, &terms, Amount(100), NOW);
        assert_eq!(found.map(|_| ()), expected);
    }

    #[test]
    fn a_signed_payment_is_taken() {
        check(|_| {}, Ok(()));
    }

    #[test]
    fn each_field_is_looked_at() {
        let stranger = Address::repeat_byte(0x66);
        let expected = paper::terms().pay_to;
        check(|a| a.to = stranger, Err(Fault::Recipient { found: stranger, expected }));
        for value in [99u64, 101] {
            let found = U256::from(value);
            check(move |a| a.value = found, Err(Fault::Value { found, expected: Amount(100) }));
        }
        let now = NOW;
        let found = U256::from(now);
        check(move |a| a.valid_after = found, Err(Fault::Early { found, now }));
        check(move |a| a.valid_before = found, Err(Fault::Late { found, now }));
        let found = U256::from(now + MARGIN_S);
        check(move |a| a.valid_before = found, Err(Fault::Late { found, now }));
        check(|a| a.valid_before = U256::MAX, Ok(()));
    }

    #[test]
    fn only_the_payer_signs() {
        let terms = paper::terms();
        let mut payment = paper::exact(&terms, &paper::payer(), 100, 1, |_| {});
        let payer = paper::payer().address();
        let other = Key::from_bytes([9; 32]).unwrap().address();
        let mut payload: ExactPayload = wire::part(&payment.payload).unwrap();
        payload.authorization.from = other;
        payment.payload = serde_json::value::to_raw_value(&payload).unwrap();
        let found = Transfer::check(&payment, &terms, Amount(100), NOW);
        assert_eq!(found, Err(Fault::Signature { payer: other }));
        let mut elsewhere = terms.clone();
        elsewhere.token.name = "Other".to_owned();
        let payment = paper::exact(&terms, &paper::payer(), 100, 1, |_| {});
        let found = Transfer::check(&payment, &elsewhere, Amount(100), NOW);
        assert_eq!(found, Err(Fault::Signature { payer }));
    }

    #[test]
    fn what_was_accepted_must_be_what_is_asked() {
        let terms = paper::terms();
        let payment = paper::exact(&terms, &paper::payer(), 100, 1, |_| {});
        let found = Transfer::check(&payment, &terms, Amount(101), NOW);
        assert_eq!(found, Err(Fault::Short { found: Amount(100), expected: Amount(101) }));
        assert!(Transfer::check(&payment, &terms, Amount(99), NOW).is_ok());
        let mut elsewhere = terms.clone();
        elsewhere.token.chain.0 += 1;
        let found = Transfer::check(&payment, &elsewhere, Amount(100), NOW);
        assert!(matches!(found, Err(Fault::Network { .. })), "{found:?}");
    }
}
