//! One lane: a channel to one provider, and the rules of what may be signed on it. Pure.
//!
//! A lane's `charged` follows the receipts, one unbroken line from zero. Its voucher is a ceiling:
//! it may stand above `charged`, and what stands above is not the provider's until a receipt says
//! so. After an order that ended without a receipt nobody here knows whether it was charged; the
//! lane then has `slack`, which the provider's word on its position, or its next receipt, uses up.

use assay_protocol::wire::{Accepts, Position, TopUp};
use assay_protocol::{
    Address, Amount, B256, Channel, ChannelId, Channels, Key, Offer, SignatureError, Voucher,
    keccak256,
};
use serde::{Deserialize, Serialize};

/// A channel to a provider, as the buyer keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Lane {
    /// Who answers for its money.
    pub(crate) provider: Address,
    /// Its number among the lanes with the same terms; the salt follows from it.
    pub(crate) number: u32,
    pub(crate) channel: Channel,
    /// What the chain has confirmed, cumulative.
    pub(crate) deposited: Amount,
    /// The highest that was signed.
    pub(crate) voucher: Option<TopUp>,
    /// What receipts have cost, in all.
    pub(crate) charged: Amount,
    /// Most that orders without a receipt may have cost beyond that.
    pub(crate) slack: Amount,
    /// Most that the last of them may have cost.
    pub(crate) last: Amount,
    /// Nothing is bought with it any more, and its money is on its way back.
    pub(crate) ended: bool,
}

/// What an answer may cost at one provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bill<'a> {
    pub(crate) offer: &'a Offer,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
}

impl Bill<'_> {
    /// The price once `output` tokens are delivered.
    fn after(&self, output: u32) -> Amount {
        self.offer.price(self.prompt_tokens, output.min(self.max_tokens))
    }

    /// The highest price.
    pub(crate) fn most(&self) -> Amount {
        self.after(self.max_tokens)
    }
}

/// Why no voucher is signed though the provider asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DueError {
    /// It asks for more than the order can cost.
    #[error("it asks for a voucher over {found}, the order can bring the channel to {max} at most")]
    Above { found: Amount, max: Amount },
    /// It has what it asks for.
    #[error("it asks for a voucher over {found}, but has one over {signed}")]
    Paid { found: Amount, signed: Amount },
    /// It has been paid ahead, and delivers nothing for it.
    #[error("it asks for more than {signed} before it delivers what that pays for")]
    Ahead { signed: Amount },
}

/// Why a provider's word on a lane's position is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The voucher it shows is not ours.
    #[error("its voucher is signed by {found}, ours by {expected}")]
    Forged { found: Address, expected: Address },
    /// The voucher it shows is nobody's.
    #[error("its voucher: {0}")]
    Signature(#[from] SignatureError),
    /// It has forgotten receipts.
    #[error("it says {found} was charged, its receipts say {expected}")]
    Behind { found: Amount, expected: Amount },
    /// It wants more than was ever allowed.
    #[error("it says {found} was charged, at most {max} can have been")]
    Beyond { found: Amount, max: Amount },
}

impl Lane {
    /// A lane on which nothing was ever bought. Its channel's salt follows from `number`, so that a
    /// buyer who lost its store finds the channel again.
    pub(crate) fn new(
        provider: Address,
        buyer: Address,
        accepts: &Accepts,
        withdraw_delay: u64,
        number: u32,
    ) -> Self {
        let channel = Channel {
            payer: buyer,
            payer_authorizer: buyer,
            receiver: accepts.receiver,
            receiver_authorizer: accepts.receiver_authorizer,
            token: accepts.token,
            withdraw_delay,
            salt: salt(number),
        };
        Self {
            provider,
            number,
            channel,
            deposited: Amount(0),
            voucher: None,
            charged: Amount(0),
            slack: Amount(0),
            last: Amount(0),
            ended: false,
        }
    }

    /// The channel's name there.
    pub(crate) fn id(&self, at: &Channels) -> ChannelId {
        self.channel.id(at)
    }

    /// How much may be claimed of it.
    pub(crate) fn signed(&self) -> Amount {
        self.voucher.map_or(Amount(0), |voucher| voucher.claimable)
    }

    /// Whether a provider that accepts this takes the channel.
    pub(crate) fn suits(&self, accepts: &Accepts) -> bool {
        self.channel.receiver == accepts.receiver
            && self.channel.receiver_authorizer == accepts.receiver_authorizer
            && self.channel.token == accepts.token
            && self.channel.withdraw_delay >= accepts.withdraw_delay_min
    }

    /// Whether an answer of at most this price can be paid with it.
    pub(crate) fn affords(&self, most: Amount) -> bool {
        !self.ended && plus(self.charged, most) <= self.deposited
    }

    /// The voucher that comes with an order: for the whole price if that is no more than
    /// `prepay_max`, else for that much, and at least for the prompt.
    pub(crate) fn first(
        &mut self,
        at: &Channels,
        key: &Key,
        bill: Bill<'_>,
        prepay: Amount,
    ) -> TopUp {
        let ahead = bill.most().min(prepay.max(bill.after(0)));
        self.raise(at, key, plus(self.charged, ahead))
    }

    /// The voucher for an answer that is paused after `delivered` tokens until `amount` is allowed:
    /// for the next token, and for `prepay` beyond what was delivered.
    pub(crate) fn due(
        &mut self,
        at: &Channels,
        key: &Key,
        bill: Bill<'_>,
        delivered: u32,
        prepay: Amount,
        amount: Amount,
    ) -> Result<TopUp, DueError> {
        let before = plus(self.charged, self.slack);
        let max = plus(before, bill.most());
        let signed = self.signed();
        if amount > max {
            return Err(DueError::Above { found: amount, max });
        }
        if amount <= signed {
            return Err(DueError::Paid { found: amount, signed });
        }
        let ahead =
            plus(bill.after(delivered), prepay).max(bill.after(delivered.saturating_add(1)));
        let next = plus(before, ahead).min(amount).min(self.deposited);
        if next <= signed {
            return Err(DueError::Ahead { signed });
        }
        Ok(self.raise(at, key, next))
    }

    /// The highest voucher, once it allows `claimable`; never above what is deposited.
    fn raise(&mut self, at: &Channels, key: &Key, claimable: Amount) -> TopUp {
        let claimable = claimable.min(self.deposited);
        match self.voucher {
            Some(voucher) if voucher.claimable >= claimable => voucher,
            _ => {
                let voucher = Voucher { channel: self.id(at), claimable };
                let voucher = TopUp { claimable, signature: voucher.sign(at, key) };
                self.voucher = Some(voucher);
                voucher
            }
        }
    }

    /// Whether the provider's word is needed before the next order.
    pub(crate) fn is_unsure(&self) -> bool {
        self.slack > Amount(0)
    }

    /// Remembers an order of at most this price that ended without a receipt.
    pub(crate) fn doubt(&mut self, most: Amount) {
        self.slack = plus(self.slack, most);
        self.last = most;
    }

    /// Goes on from a receipt that was checked.
    pub(crate) fn settle(&mut self, after: Amount) {
        self.charged = after;
        (self.slack, self.last) = (Amount(0), Amount(0));
    }

    /// Goes on from where the provider says the channel is: at most the slack further than known.
    pub(crate) fn adopt(&mut self, at: &Channels, position: &Position) -> Result<(), AdoptError> {
        self.is_ours(at, position)?;
        let Position { charged: found, voucher } = *position;
        if found < self.charged {
            return Err(AdoptError::Behind { found, expected: self.charged });
        }
        let max = plus(self.charged, self.slack);
        if found > max {
            return Err(AdoptError::Beyond { found, max });
        }
        self.slack = Amount(max.0 - found.0).min(self.last);
        self.charged = found;
        if voucher.claimable > self.signed() {
            self.voucher = Some(voucher);
        }
        Ok(())
    }

    /// Goes on from where the provider says the channel is, with nothing known here: at most
    /// `credit` beyond a voucher of ours.
    pub(crate) fn recover(
        &mut self,
        at: &Channels,
        position: &Position,
        credit: Amount,
    ) -> Result<(), AdoptError> {
        self.is_ours(at, position)?;
        let max = plus(position.voucher.claimable, credit);
        if position.charged > max {
            return Err(AdoptError::Beyond { found: position.charged, max });
        }
        self.charged = position.charged;
        self.voucher = Some(position.voucher);
        Ok(())
    }

    fn is_ours(&self, at: &Channels, position: &Position) -> Result<(), AdoptError> {
        let TopUp { claimable, signature } = position.voucher;
        let voucher = Voucher { channel: self.id(at), claimable };
        let (found, expected) = (voucher.signer(at, &signature)?, self.channel.signer());
        if found == expected { Ok(()) } else { Err(AdoptError::Forged { found, expected }) }
    }
}

fn salt(number: u32) -> B256 {
    let mut words = b"assay lane ".to_vec();
    words.extend_from_slice(&number.to_be_bytes());
    keccak256(words)
}

/// Amounts end at the largest, which no deposit reaches.
fn plus(left: Amount, right: Amount) -> Amount {
    Amount(left.0.saturating_add(right.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{Assurance, ChainId, ModelId, Signature};

    const AT: Channels = Channels { chain: ChainId(7), contract: Address::repeat_byte(3) };

    fn key() -> Key {
        Key::from_bytes([42; 32]).unwrap()
    }

    fn accepts() -> Accepts {
        Accepts {
            channels: AT.contract,
            market: Address::repeat_byte(4),
            token: Address::repeat_byte(5),
            receiver: Address::repeat_byte(6),
            receiver_authorizer: Address::repeat_byte(7),
            withdraw_delay_min: 900,
            credit_max: Amount(10),
            grants: Address::ZERO,
        }
    }

    fn lane(deposited: u128, charged: u128) -> Lane {
        let new = Lane::new(Address::repeat_byte(1), key().address(), &accepts(), 900, 0);
        Lane { deposited: Amount(deposited), charged: Amount(charged), ..new }
    }

    /// One unit a token: ten for the prompt, ninety for the answer at most.
    fn with_bill<T>(work: impl FnOnce(Bill<'_>) -> T) -> T {
        let offer = Offer {
            provider: Address::repeat_byte(1),
            model: ModelId::default(),
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price_in: Amount(1_000_000),
            price_out: Amount(1_000_000),
            context: 100,
            expires: u64::MAX,
        };
        work(Bill { offer: &offer, prompt_tokens: 10, max_tokens: 90 })
    }

    fn first(lane: &mut Lane, prepay: u128) -> u128 {
        with_bill(|bill| lane.first(&AT, &key(), bill, Amount(prepay)).claimable.0)
    }

    fn due(lane: &mut Lane, delivered: u32, amount: u128) -> Result<u128, DueError> {
        let top_up =
            with_bill(|bill| lane.due(&AT, &key(), bill, delivered, Amount(20), Amount(amount)));
        top_up.map(|top_up| top_up.claimable.0)
    }

    fn position(lane: &Lane, charged: u128, claimable: u128, key: &Key) -> Position {
        let voucher = Voucher { channel: lane.id(&AT), claimable: Amount(claimable) };
        let voucher = TopUp { claimable: voucher.claimable, signature: voucher.sign(&AT, key) };
        Position { charged: Amount(charged), voucher }
    }

    #[test]
    fn the_first_voucher_pays_all_or_some_and_always_the_prompt() {
        assert_eq!(first(&mut lane(1000, 500), 100), 600);
        assert_eq!(first(&mut lane(1000, 500), u128::MAX), 600);
        assert_eq!(first(&mut lane(1000, 500), 30), 530);
        assert_eq!(first(&mut lane(1000, 500), 0), 510);
        assert_eq!(first(&mut lane(520, 500), 100), 520);
    }

    #[test]
    fn a_voucher_that_allows_enough_is_not_signed_again() {
        let mut lane = lane(1000, 500);
        first(&mut lane, 100);
        lane.settle(Amount(520));
        assert_eq!(first(&mut lane, 30), 600);
        assert_eq!(first(&mut lane, 100), 620);
    }

    #[test]
    fn what_is_due_is_signed_step_by_step() {
        let mut lane = lane(1000, 500);
        assert_eq!(first(&mut lane, 20), 520);
        assert_eq!(due(&mut lane, 10, 600), Ok(540));
        assert_eq!(due(&mut lane, 30, 600), Ok(560));
        assert_eq!(due(&mut lane, 85, 600), Ok(600));
    }

    #[test]
    fn no_more_is_signed_than_the_order_the_answer_or_the_deposit_allow() {
        let mut lane = lane(545, 500);
        first(&mut lane, 20);
        let above = DueError::Above { found: Amount(601), max: Amount(600) };
        assert_eq!(due(&mut lane, 10, 601), Err(above));
        let paid = DueError::Paid { found: Amount(520), signed: Amount(520) };
        assert_eq!(due(&mut lane, 10, 520), Err(paid));
        assert_eq!(due(&mut lane, 10, 600), Ok(540));
        assert_eq!(due(&mut lane, 10, 600), Err(DueError::Ahead { signed: Amount(540) }));
        assert_eq!(due(&mut lane, 30, 600), Ok(545));
        assert_eq!(due(&mut lane, 40, 600), Err(DueError::Ahead { signed: Amount(545) }));
    }

    #[test]
    fn a_position_moves_a_lane_only_as_far_as_its_slack() {
        let mut lane = lane(1000, 500);
        let stranger = Key::from_bytes([9; 32]).unwrap();
        let own = key();
        let forged = position(&lane, 500, 600, &stranger);
        assert!(matches!(lane.adopt(&AT, &forged), Err(AdoptError::Forged { .. })));
        let broken = TopUp { signature: Signature([0; 65]), ..forged.voucher };
        let broken = Position { voucher: broken, ..forged };
        assert!(matches!(lane.adopt(&AT, &broken), Err(AdoptError::Signature(_))));
        let beyond = AdoptError::Beyond { found: Amount(501), max: Amount(500) };
        assert_eq!(lane.adopt(&AT, &position(&lane, 501, 600, &own)), Err(beyond));
        lane.doubt(Amount(50));
        lane.doubt(Amount(20));
        assert_eq!(lane.adopt(&AT, &position(&lane, 530, 600, &own)), Ok(()));
        assert_eq!(
            (lane.charged, lane.slack, lane.signed()),
            (Amount(530), Amount(20), Amount(600))
        );
        let behind = AdoptError::Behind { found: Amount(529), expected: Amount(530) };
        assert_eq!(lane.adopt(&AT, &position(&lane, 529, 600, &own)), Err(behind));
    }

    #[test]
    fn a_lost_lane_is_found_where_our_own_voucher_allows() {
        let mut lost = lane(1000, 0);
        let own = key();
        let beyond = AdoptError::Beyond { found: Amount(611), max: Amount(610) };
        let told = position(&lost, 611, 600, &own);
        assert_eq!(lost.recover(&AT, &told, Amount(10)), Err(beyond));
        let told = position(&lost, 610, 600, &own);
        assert_eq!(lost.recover(&AT, &told, Amount(10)), Ok(()));
        assert_eq!((lost.charged, lost.signed()), (Amount(610), Amount(600)));
    }

    #[test]
    fn lanes_differ_by_their_number_alone() {
        let id =
            |number| Lane::new(Address::ZERO, key().address(), &accepts(), 900, number).id(&AT);
        assert_ne!(id(0), id(1));
        assert_eq!(id(1), id(1));
        assert!(lane(1, 0).suits(&accepts()));
        assert!(!lane(1, 0).suits(&Accepts { withdraw_delay_min: 901, ..accepts() }));
    }
}
