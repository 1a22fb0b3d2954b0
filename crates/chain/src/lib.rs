//! Speaks to the contracts in our own words.
//!
//! Words go in ([`Chain::stake`], [`Chain::publish`], …) and become transactions; what the contracts
//! say comes back as words, refusals included. No caller sees a log, a selector or an ABI. [`deploy()`]
//! puts the suite on any EVM chain; [`Plan`] says beforehand what will stand where.

mod artifact;
mod auditors;
mod audits;
mod authorization;
mod bindings;
mod book;
mod canaries;
mod chain;
mod channels;
mod client;
mod deploy;
mod disputes;
mod error;
mod events;
mod governance;
mod grants;
mod models;
mod moves;
mod productions;
mod providers;
mod receipts;
mod refusal;
mod specs;
mod suite;
mod tills;
mod token;

pub use auditors::{
    Attendance, Auditor, Draw, Duty, Opinion, Posted, PostedAt, Said, Verdict, Vow, VowState,
    list_hash, secret_hash,
};
pub use audits::AuditTerms;
pub use authorization::{Authorization, DepositAuthorization, SignedToken};
pub use book::{AddressBook, Deployed, NotInBook};
pub use canaries::{Canary, Plant};
pub use chain::Chain;
pub use channels::{ChannelState, Claim, Pack, Withdrawal};
pub use client::{Client, Mined};
pub use deploy::{Place, Survey, deploy, survey};
pub use disputes::{Case, Dispute, DisputeTerms, Side};
pub use error::ChainError;
pub use events::{Event, Happened};
pub use governance::{Decision, Seating};
pub use models::{ModelTerms, PublishedModel};
pub use moves::{Equivocation, Filing, Move, Proof};
pub use productions::{Production, Published, Run, Stage};
pub use providers::{Provider, Tier};
pub use receipts::{Period, Span};
pub use refusal::Refusal;
pub use specs::FiledWeights;
pub use suite::{Beneficiaries, Contract, DEPLOYER, FirstSeat, Plan, Settings, Step, Value};
pub use tills::Earnings;
pub use token::{FirstCall, Part};
