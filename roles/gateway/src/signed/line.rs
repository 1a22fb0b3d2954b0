//! The grants that an order is bought under: whose credential they are, whether they allow it, and
//! what is counted under each.

use assay_protocol::{
    Address, Amount, B256, ChainId, Grant, SignedGrant, Use, check_grants, keccak256,
};

use super::fault::Fault;
use super::mint::Purpose;
use crate::begin::random;
use crate::budget::{Limit, Over, Spending};
use crate::catalogue::Model;
use crate::http::{Gateway, now_s};
use crate::keys::{Caller, Denied};
use crate::openai::Problem;

/// Grants from the gateway's on; none where nothing is paid, or the gateway is to give one.
#[derive(Clone, Debug)]
pub(super) struct Line(Vec<SignedGrant>);

impl Line {
    /// The grants that a client shows.
    ///
    /// # Errors
    /// If orders of this gateway cannot be bought under grants, or under none.
    pub(super) fn of(gateway: &Gateway, grants: Vec<SignedGrant>) -> Result<Self, Fault> {
        match (&gateway.purse, gateway.registry()) {
            (None, _) if !grants.is_empty() => Err(Fault::Unpaid),
            (Some(_), None) => Err(Fault::NoRegistry),
            _ => Ok(Self(grants)),
        }
    }

    /// Whether it is the caller itself that is let in, and not the holder of the grants.
    pub(super) fn is_callers(&self, gateway: &Gateway) -> bool {
        self.0.first().is_none_or(|first| gateway.desk.mint.made(&first.grant))
    }

    /// Refuses a caller that may not ask this model, unless the grants let it in.
    pub(super) fn admits(
        &self,
        gateway: &Gateway,
        caller: &Caller,
        model: &Model,
    ) -> Result<(), Denied> {
        if self.is_callers(gateway) { caller.limit(model).map(drop) } else { Ok(()) }
    }

    /// Refuses grants that do not allow `buyer` an answer of at most `max_price`.
    pub(super) fn check(
        &self,
        gateway: &Gateway,
        buyer: Address,
        model: &Model,
        max_price: Amount,
        now: u64,
    ) -> Result<(), Fault> {
        let Some(registry) = gateway.registry().filter(|_| !self.0.is_empty()) else {
            return Ok(());
        };
        let order = Use {
            chain: gateway.chain,
            registry,
            payer: gateway.key.address(),
            buyer,
            model: model.listed.id,
            asset: Address::ZERO,
            max_price,
            now,
        };
        check_grants(&self.0, &order)?;
        Ok(())
    }

    /// The least that one of them allows to be spent.
    pub(super) fn spend(&self) -> Option<Amount> {
        self.grants().map(|grant| grant.spend).min()
    }

    /// The same, or a grant for this order where there is none and one is needed.
    pub(super) fn or_minted(
        self,
        gateway: &Gateway,
        holder: Address,
        model: &Model,
        spend: Amount,
        until: u64,
    ) -> Result<Self, Problem> {
        let Some(registry) = gateway.registry().filter(|_| self.0.is_empty()) else {
            return Ok(self);
        };
        let (chain, model) = (gateway.chain, model.listed.id);
        let purpose = Purpose { chain, registry, holder, model, spend, now: now_s(), until };
        Ok(Self(vec![gateway.desk.mint.make(purpose, random()?)]))
    }

    /// What an order names them by; zero for none.
    pub(super) fn name(&self, chain: ChainId) -> B256 {
        self.0.last().map_or(B256::ZERO, |last| last.grant.digest(chain))
    }

    pub(super) fn shown(&self) -> &[SignedGrant] {
        &self.0
    }

    pub(super) fn into_grants(self) -> Vec<SignedGrant> {
        self.0
    }

    fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter().map(|signed| &signed.grant)
    }

    /// Counts an order that is made: as a request of the caller where that is what lets it in, and under
    /// grants by their rate, apart from the orders that are bought under them.
    pub(super) fn count_offer(&self, gateway: &Gateway, caller: &Caller) -> Result<(), Problem> {
        if self.is_callers(gateway) {
            caller.count()?;
        }
        for grant in self.grants().filter(|grant| grant.rate > 0) {
            let digest = grant.digest(gateway.chain);
            let name = keccak256([digest.as_slice(), b"made"].concat());
            gateway.budgets.learn(name, Amount(0), false);
            gateway.budgets.count(name, grant.rate).map_err(|over| match Fault::from(over) {
                Fault::Rate { per_minute, retry_after_s, .. } => {
                    Fault::Rate { grant: digest, per_minute, retry_after_s }
                }
                fault => fault,
            })?;
        }
        Ok(())
    }

    /// Sets aside what an answer may cost, under every grant, and with the caller's key where that is
    /// what lets it in.
    pub(super) async fn set_aside(
        &self,
        gateway: &Gateway,
        caller: &Caller,
        model: &Model,
        most: Amount,
    ) -> Result<Spending, Problem> {
        let mut limits: Vec<Limit> =
            self.grants().map(|grant| limit(grant, gateway.chain)).collect();
        learn(gateway, &limits).await?;
        let key = if self.is_callers(gateway) { caller.limit(model)? } else { None };
        limits.extend(key);
        if limits.is_empty() {
            return Ok(Spending::free());
        }
        let set_aside = gateway.budgets.set_aside(&limits, most);
        set_aside.map_err(|over| match key.filter(|key| key.name == over.name()) {
            Some(key) => Denied::of(over, key.spend).into(),
            None => Fault::from(over).into(),
        })
    }
}

/// What a grant allows its orders in all.
fn limit(grant: &Grant, chain: ChainId) -> Limit {
    let per_minute = Some(grant.rate).filter(|rate| *rate > 0);
    Limit { name: grant.digest(chain), spend: grant.spend, per_minute }
}

/// Takes in what the store says was spent under grants that are not known yet.
async fn learn(gateway: &Gateway, limits: &[Limit]) -> Result<(), Problem> {
    let names = limits.iter().map(|limit| limit.name);
    let unknown: Vec<B256> = names.filter(|name| !gateway.budgets.knows(*name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let spent = gateway.store.spent(unknown.clone()).await;
    let spent = spent.map_err(|error| Problem::internal(error.to_string()))?;
    for (name, spent) in unknown.into_iter().zip(spent) {
        gateway.budgets.learn(name, spent, false);
    }
    Ok(())
}

impl From<Over> for Fault {
    fn from(over: Over) -> Self {
        match over {
            Over::Rate { name, per_minute, retry_after_s } => {
                Self::Rate { grant: name, per_minute, retry_after_s }
            }
            Over::Spent { name, asked, left } => Self::Spent { grant: name, asked, left },
            Over::SetAside { name, asked } => Self::SetAside { grant: name, asked },
        }
    }
}
