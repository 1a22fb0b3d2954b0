//! Takes canaries from their draft to their end. Every step looks at the chain and the store first and does what is
//! missing there, so one that was interrupted is done once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use assay_chain::{Duty, Plant, Posted, Verdict};
use assay_protocol::wire::{Frame, Payment as Offered, Submission, TopUp};
use assay_protocol::{Amount, Channel, Voucher, keccak256};
use axum::body::Body;
use tokio_util::sync::CancellationToken;

use super::draft::{Chance, Placing};
use super::sown::{self, Sown, Stage};
use super::{Canaries, CanaryError, chance, lock, word};
use crate::audits::place;
use crate::http::Seller;
use crate::intake::accept;
use crate::now_ms;
use crate::store::{self, Kept};

/// Seconds between the beginning of an epoch and the first canary in it: blocks come late.
const MARGIN: u64 = 2;

/// What the chain said at the beginning of a round.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Of the latest block, Unix seconds.
    time: u64,
    /// Length of an epoch, seconds.
    epoch: u64,
    dispute_window: u64,
}

impl Now {
    fn epoch_of(&self, time: u64) -> u64 {
        time / self.epoch.max(1)
    }
}

/// What a step leaves.
enum Next {
    /// Nothing changed.
    Wait,
    /// The canary is at another stage.
    At(Stage),
    /// Nothing is left to do.
    Forget,
}

/// Plants canaries and sees to them until `stop`.
pub(crate) async fn tend(seller: &Arc<Seller>, canaries: &Canaries, stop: CancellationToken) {
    loop {
        let round = async {
            if let Err(error) = canaries.round(seller).await {
                tracing::warn!(%error, "canaries cannot be looked after");
            }
        };
        tokio::select! {
            biased;
            // What was begun is found on disk and on the chain at the next start.
            () = stop.cancelled() => return,
            () = round => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(canaries.planting.look_every) => {}
        }
    }
}

impl Canaries {
    /// Does all that is due now; what fails is tried again in the next round, and holds up no other.
    async fn round(&self, seller: &Arc<Seller>) -> Result<(), CanaryError> {
        let sown = seller.store.read(sown::all).await?;
        let wanted = self.wanted.load(Ordering::Relaxed);
        if sown.is_empty() && wanted == 0 {
            return Ok(());
        }
        let chain = &self.planting.planter;
        let terms = chain.audit_terms().await?;
        let window = chain.value(assay_chain::Value::DisputeWindow).await?;
        let now = Now {
            time: chain.client().time().await?,
            epoch: terms.epoch,
            dispute_window: window.saturating_to(),
        };
        let mut live = sown.len();
        for one in sown {
            let order = one.canary.order;
            match self.step(seller, &one, now).await {
                Ok(Next::Wait) => {}
                Ok(Next::At(stage)) => {
                    tracing::info!(%order, ?stage, "a canary");
                    let next = Sown { stage, ..one };
                    seller.store.write(move |write| sown::keep(write, &next)).await?;
                }
                Ok(Next::Forget) => {
                    live -= 1;
                    lock(&self.marks).remove(&order);
                    seller.store.write(move |write| sown::forget(write, &one)).await?;
                }
                Err(error) => tracing::warn!(%order, %error, "a canary's step is tried again"),
            }
        }
        if wanted > 0 && live < self.planting.sown_max {
            self.draft(seller, now).await?;
        }
        Ok(())
    }

    /// Keeps a canary that looks like what was ordered last.
    async fn draft(&self, seller: &Seller, now: Now) -> Result<(), CanaryError> {
        let Some(fashion) = lock(&self.fashion).clone() else { return Ok(()) };
        let (Some(served), Some(lanes)) = (seller.models.get(&fashion.model), &seller.lanes) else {
            return Ok(());
        };
        let wall = now_ms() / 1000;
        let next = (now.epoch_of(now.time.max(wall)) + 1).saturating_mul(now.epoch);
        let spread = chance() % self.planting.spread.as_secs().max(1);
        let serve_at = next.saturating_add(MARGIN).saturating_add(spread);
        let offer = seller.offer(served, serve_at.saturating_add(fashion.ttl()));
        let drawn = Chance { prompt: chance(), request: word(), nonce: word(), seed: word() };
        let (buyer, market) = (&self.planting.buyer, lanes.payment().accepts.market);
        let placing = Placing { buyer, market, offer: &offer, serve_at };
        let Some(ordered) = fashion.draft(&self.planting.prompts, &drawn, &placing) else {
            return Ok(());
        };
        let canary = self.planting.planter.canary(&ordered.order, word(), buyer)?;
        let signature = ordered.order.sign(self.chain_id, buyer);
        let sown = Sown { canary, ordered, signature, serve_at, stage: Stage::Drafted };
        seller.store.write(move |write| sown::keep(write, &sown)).await?;
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn step(&self, seller: &Arc<Seller>, sown: &Sown, now: Now) -> Result<Next, CanaryError> {
        let plant = self.planting.planter.plant_of(sown.canary.commitment).await?;
        match (sown.stage, plant) {
            (Stage::Drafted, Some(_)) => Ok(Next::At(Stage::Planted)),
            (Stage::Drafted, None) if now.epoch_of(now.time) < now.epoch_of(sown.serve_at) => {
                self.planting.planter.plant(&sown.canary, self.planting.prize).await?;
                Ok(Next::At(Stage::Planted))
            }
            // A reorganisation took the plant out, and may bring it back: what it excuses is posted already.
            (Stage::Served { .. }, None) => Ok(Next::Wait),
            (_, None) => Ok(Next::Forget),
            (Stage::Planted, Some(plant)) => self.serve(seller, sown, &plant, now).await,
            (Stage::Served { from }, Some(plant)) => {
                self.settle(seller, sown, (plant, from), now).await
            }
            (Stage::Lapsed, Some(plant)) => self.take_out(sown, &plant, now).await,
        }
    }

    /// Orders a canary when its time has come.
    async fn serve(
        &self,
        seller: &Arc<Seller>,
        sown: &Sown,
        plant: &Plant,
        now: Now,
    ) -> Result<Next, CanaryError> {
        let order = sown.canary.order;
        let from = seller.store.read(store::last_period).await?.map_or(0, |(number, _)| number);
        if seller.store.find(order).await?.is_some() {
            // It was answered, and that was not noted; no earlier period than the first has it.
            return Ok(Next::At(Stage::Served { from: 0 }));
        }
        let wall = now_ms() / 1000;
        if wall >= sown.ordered.order.deadline {
            return Ok(Next::At(Stage::Lapsed));
        }
        // The channel is filled beforehand: a deposit counts some blocks later.
        let payment = self.payment(seller, sown).await?;
        // What is posted in the epoch of its planting catches nobody.
        let later = now.epoch_of(plant.planted) < now.epoch_of(now.time.max(wall));
        if wall < sown.serve_at || wall <= plant.planted || !later {
            return Ok(Next::Wait);
        }
        lock(&self.marks).insert(order, sown.canary.mark);
        let submission = Submission {
            chain_id: self.chain_id,
            order: sown.ordered.order.clone(),
            signature: sown.signature,
            terms: sown.ordered.terms.clone(),
            logprobs: None,
            flex: false,
            grants: Vec::new(),
            payment: Some(payment),
        };
        let bytes = serde_json::to_vec(&submission).map_err(|_| CanaryError::Broken)?;
        let mut frames = accept(seller, Body::from(bytes)).await?;
        while let Some(frame) = frames.recv().await {
            match frame {
                Frame::Sealed(_) => return Ok(Next::At(Stage::Served { from })),
                Frame::Failed(refusal) => return Err(refusal.into()),
                _ => {}
            }
        }
        Err(CanaryError::Broken)
    }

    /// The channel that pays for canaries, filled where it has to be, and a voucher for this one.
    async fn payment(&self, seller: &Seller, sown: &Sown) -> Result<Offered, CanaryError> {
        let lanes = seller.lanes.as_ref().ok_or(CanaryError::Broken)?;
        let (accepts, buyer) = (&lanes.payment().accepts, &self.planting.buyer);
        let channel = Channel {
            payer: buyer.address(),
            payer_authorizer: buyer.address(),
            receiver: accepts.receiver,
            receiver_authorizer: accepts.receiver_authorizer,
            token: accepts.token,
            withdraw_delay: accepts.withdraw_delay_min,
            // A gateway's first channel has the same.
            salt: keccak256([b"assay lane ".as_slice(), &[0; 4]].concat()),
        };
        let channels = lanes.channels();
        let id = channel.id(channels);
        let account = seller.store.read(move |read| store::account(read, id)).await?;
        let (charged, signed) = account
            .map_or((Amount(0), Amount(0)), |account| (account.charged, account.voucher.claimable));
        let due = Amount(charged.0.saturating_add(sown.ordered.order.max_price.0));
        if self.planting.purse.channel(id).await?.balance < due {
            let amount = Amount(self.planting.deposit.0.max(sown.ordered.order.max_price.0));
            self.planting.purse.deposit(&channel, amount).await?;
        }
        let claimable = due.max(signed);
        let signature = Voucher { channel: id, claimable }.sign(channels, buyer);
        Ok(Offered { channel, voucher: TopUp { claimable, signature } })
    }

    /// Unveils a canary that cannot be disputed any more, has those fined who called it true, and takes the prize
    /// back that nobody won.
    async fn settle(
        &self,
        seller: &Seller,
        sown: &Sown,
        (plant, from): (Plant, u64),
        now: Now,
    ) -> Result<Next, CanaryError> {
        let Some(kept) = seller.store.find(sown.canary.order).await? else {
            return Ok(Next::At(Stage::Lapsed));
        };
        if kept.sealed.receipt.state != sown.canary.mark {
            // Broken off before its first token, it is true, and nobody's fault.
            return Ok(Next::At(Stage::Lapsed));
        }
        let planter = &self.planting.planter;
        let receipt = kept.sealed.receipt.digest(self.chain_id);
        let Some(about) = self.posted(seller, &kept, from).await? else { return Ok(Next::Wait) };
        let provider = about.place.provider;
        let posted = planter.period(provider, about.place.period).await?.posted;
        let Some(unveiled) = plant.unveiled else {
            let ended = kept.sealed.receipt.finished.div_ceil(1000);
            let last = posted.max(sown.ordered.order.deadline).max(ended);
            if now.time <= last.saturating_add(now.dispute_window) {
                return Ok(Next::Wait);
            }
            let filing = sown.filing(&kept, self.chain_id);
            self.unveil(planter, &(sown.canary.clone(), filing)).await?;
            tracing::info!(%receipt, "a canary was unveiled");
            return Ok(Next::Wait);
        };
        if now.epoch_of(now.time) < now.epoch_of(posted) + 4 {
            return Ok(Next::Wait);
        }
        self.fine(&about).await?;
        if plant.prize == Amount(0) {
            return Ok(Next::Forget);
        }
        if now.time <= unveiled.saturating_add(now.dispute_window) {
            return Ok(Next::Wait);
        }
        planter.recover_prize(&sown.canary).await?;
        Ok(Next::Forget)
    }

    /// Where a canary's receipt was posted; nothing before it was.
    async fn posted(
        &self,
        seller: &Seller,
        kept: &Kept,
        from: u64,
    ) -> Result<Option<Posted>, CanaryError> {
        let Some(lanes) = &seller.lanes else { return Ok(None) };
        let (owner, receipt) = (lanes.payment().owner, kept.sealed.receipt.clone());
        let digest = receipt.digest(self.chain_id);
        let span = (receipt.channel, receipt.channel_after);
        Ok(seller.store.read(move |read| place(read, owner, (digest, span), from)).await?)
    }

    /// Has the auditors fined that called a canary true.
    async fn fine(&self, about: &Posted) -> Result<(), CanaryError> {
        let planter = &self.planting.planter;
        let draw = planter.draw(&about.place).await?;
        for auditor in [draw.first, draw.second].into_iter().flatten() {
            let opinion = planter.opinion(auditor, &about.place).await?;
            if opinion.verdict != Some(Verdict::True) || opinion.fined {
                continue;
            }
            let duty = Duty::Careless { auditor, about: about.clone() };
            if planter.may_attend(&duty).await? {
                planter.attend(&[duty]).await?;
                tracing::warn!(%auditor, receipt = %about.receipt, "an auditor called a canary true, and was fined");
            }
        }
        Ok(())
    }

    /// Takes the prize of a canary back that was never answered.
    async fn take_out(&self, sown: &Sown, plant: &Plant, now: Now) -> Result<Next, CanaryError> {
        if plant.prize == Amount(0) {
            return Ok(Next::Forget);
        }
        if now.time <= plant.planted.saturating_add(Plant::LIFE) {
            return Ok(Next::Wait);
        }
        self.planting.planter.recover_prize(&sown.canary).await?;
        Ok(Next::Forget)
    }
}
