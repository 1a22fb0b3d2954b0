//! Auditors of a local network, so that a newcomer sees posted receipts checked.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use assay_kernels::{Cpu, Isa};
use assay_protocol::{Address, Amount};
use assay_validator::{AuditError, Auditor, Happening, Totals};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::data::{Data, create_private};
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::{WHOLE, failed};
use crate::library::Library;
use crate::validate::{self, Models, auditing};

/// What the admin puts into the pool that verdicts are paid from, where it is empty.
const POOL: Amount = Amount(100 * WHOLE);

/// Running auditors.
pub(crate) struct Auditors {
    running: JoinSet<Result<Totals, AuditError>>,
    stop: CancellationToken,
}

/// Where the key of auditor number `n` lies.
fn key_folder(data: &Data, n: usize) -> PathBuf {
    data.folder().join("auditors").join(n.to_string())
}

/// The accounts of so many auditors.
pub(crate) fn accounts(data: &Data, count: usize) -> Outcome<Vec<Address>> {
    let keys = (0..count).map(|n| keys::load_or_create(&key_folder(data, n)));
    keys.map(|key| Ok(key?.address())).collect()
}

impl Auditors {
    /// Puts their bonds in, and starts them.
    pub(crate) async fn start(data: &Data, chain: &Embedded, count: usize) -> Outcome<Self> {
        let mut auditors = Self { running: JoinSet::new(), stop: CancellationToken::new() };
        if count == 0 {
            return Ok(auditors);
        }
        let admin = chain.open(&keys::load_or_create(&data.admin())?).await?;
        if admin.audit_pool().await.map_err(failed)? == Amount(0) {
            admin.fund_audits(POOL).await.map_err(failed)?;
        }
        let shelf = Arc::new(Models::new(Library::of(data)));
        // One thread: what is checked must not slow down what is sold.
        let cpu = Cpu::new(Isa::detect(), NonZeroUsize::MIN)
            .map_err(|error| Failure::new(Exit::Failed, "no thread to audit with").why(error))?;
        let cpu = Arc::new(cpu);
        for n in 0..count {
            let key = keys::load_or_create(&key_folder(data, n))?;
            let chain = chain.open(&key).await?;
            let terms = chain.audit_terms().await.map_err(failed)?;
            let found = chain.auditor(key.address()).await.map_err(failed)?;
            if found.stake < terms.bond && found.release.is_none() {
                let lacks = Amount(terms.bond.0 - found.stake.0);
                chain.join_auditors(lacks).await.map_err(failed)?;
            }
            let folder = validate::folder(data, &chain, key.address());
            create_private(&folder)?;
            let (shelf, cpu, auditing) =
                (Arc::clone(&shelf) as Arc<_>, Arc::clone(&cpu), auditing(&terms, false));
            let auditor = Auditor { chain, key, folder, shelf, cpu, auditing };
            let stop = auditors.stop.clone();
            auditors.running.spawn(auditor.run(move |happening| log(n, &happening), stop));
        }
        Ok(auditors)
    }

    /// Lets them stop where they are; they go on at the next start.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "an auditor could not work");
            }
        }
    }
}

/// Says what matters; that an epoch went as all do is a detail.
fn log(n: usize, happening: &Happening) {
    match happening {
        Happening::Committed { .. } | Happening::Revealed { .. } => {
            tracing::debug!("auditor {n}: {happening}");
        }
        _ => tracing::info!("auditor {n}: {happening}"),
    }
}
