//! Puts the suite on a chain: looks first, sends what is missing, checks what is there.
//!
//! The chain itself remembers how far a deployment came, so one that was interrupted goes on where
//! it stopped, and one on a chain of an older release adds what is new. An address commits to code
//! and arguments (see [`Plan`]), so nobody can be in the way but by doing our work.

use alloy_primitives::{Address, B256, Bytes, TxHash, U256, address, hex, keccak256};
use alloy_provider::Provider;

use crate::artifact::Artifact;
use crate::book::{AddressBook, Deployed};
use crate::client::{Client, Mined};
use crate::error::ChainError;
use crate::suite::{Contract, DEPLOYER, Plan, Step};

/// Whose presigned transaction makes [`DEPLOYER`], and what it costs.
const DEPLOYER_PAYER: Address = address!("3fab184622dc19b6109349b94811493bf45362ef");
const DEPLOYER_COST: u64 = 10_000_000_000_000_000;
/// The transaction: no one has its key, so it can make nothing else. Same source as [`DEPLOYER`].
const DEPLOYER_TRANSACTION: [u8; 167] = hex!(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b80825250505060"
    "14600cf31ba02222222222222222222222222222222222222222222222222222222222222222a0222222222222222222"
    "2222222222222222222222222222222222222222222222"
);

/// What a deployment would find and do.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Every contract of the suite, in order.
    pub contracts: Vec<Place>,
    /// Wei per unit of gas now.
    pub gas_price: u128,
}

/// One contract's place on a chain.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Which contract.
    pub contract: Contract,
    /// Where it is or will be.
    pub address: Address,
    /// Gas it takes to put it there, at most about this much; none if it stands.
    pub missing: Option<u64>,
}

impl Survey {
    /// Gas of all that is missing.
    pub fn gas(&self) -> u64 {
        self.contracts.iter().filter_map(|place| place.missing).sum()
    }

    /// What that costs at the present price, in wei.
    pub fn cost(&self) -> U256 {
        U256::from(self.gas()) * U256::from(self.gas_price)
    }
}

/// Looks at what stands and what is missing. Sends nothing.
pub async fn survey(client: &Client, book: &AddressBook) -> Result<Survey, ChainError> {
    client.expect(book)?;
    let plan = Plan::new(&book.settings, &book.contracts);
    let mut contracts = Vec::new();
    for contract in Contract::ALL {
        let address = plan.at(contract);
        let found = found(client, book, contract, address).await?;
        let gas = plan.steps().iter().find(|step| step.contract == contract).map_or(0, gas_of);
        contracts.push(Place { contract, address, missing: found.is_none().then_some(gas) });
    }
    Ok(Survey { contracts, gas_price: client.gas_price().await? })
}

/// Sends what is missing, one contract after the other, checks all, and enters it in `book`.
/// `saw` hears of each contract, with the transaction that made it.
pub async fn deploy(
    client: &Client,
    book: &mut AddressBook,
    mut saw: impl FnMut(Contract, Address, Option<Mined>),
) -> Result<(), ChainError> {
    client.expect(book)?;
    let plan = Plan::new(&book.settings, &book.contracts);
    if !plan.steps().is_empty() {
        ensure_deployer(client).await?;
    }
    for contract in Contract::ALL {
        let address = plan.at(contract);
        let mut standing = found(client, book, contract, address).await?;
        let mut mined = None;
        let step = plan.steps().iter().find(|step| step.contract == contract);
        if let (None, Some(step)) = (standing, step) {
            mined = Some(client.transact(DEPLOYER, step.data.clone(), U256::ZERO).await?);
            standing = found(client, book, contract, address).await?;
        }
        let code_hash = standing.ok_or(ChainError::ForeignCode { contract, address })?;
        book.contracts.insert(contract, Deployed { address, code_hash });
        saw(contract, address, mined);
    }
    Ok(())
}

/// The hash of the contract's code, if it stands at its address; other code there is an error.
async fn found(
    client: &Client,
    book: &AddressBook,
    contract: Contract,
    address: Address,
) -> Result<Option<B256>, ChainError> {
    let code = client.code(address).await?;
    if code.is_empty() {
        return Ok(None);
    }
    let hash = keccak256(&code);
    let known = book.contracts.get(&contract);
    let is_ours = match known {
        Some(deployed) => deployed.code_hash == hash,
        None => Artifact::of(contract).is(&code),
    };
    match is_ours {
        true => Ok(Some(hash)),
        false => Err(ChainError::ForeignCode { contract, address }),
    }
}

/// An upper bound: calldata at its dearest, 200 gas per byte of code left behind, and what constructors do.
fn gas_of(step: &Step) -> u64 {
    const BASE: u64 = 53_000;
    const CONSTRUCTOR: u64 = 700_000;
    let bytes = step.data.len() as u64;
    BASE + bytes * (16 + 200) + CONSTRUCTOR
}

/// Makes the deterministic deployer where a chain lacks it.
async fn ensure_deployer(client: &Client) -> Result<(), ChainError> {
    if !client.code(DEPLOYER).await?.is_empty() {
        return Ok(());
    }
    if client.balance(DEPLOYER_PAYER).await? < U256::from(DEPLOYER_COST) {
        client.transact(DEPLOYER_PAYER, Bytes::new(), U256::from(DEPLOYER_COST)).await?;
    }
    let sent = client.provider().send_raw_transaction(&DEPLOYER_TRANSACTION).await;
    let hash: TxHash = *sent.map_err(|error| client.failed(error))?.tx_hash();
    client.wait(hash).await?;
    match client.code(DEPLOYER).await?.is_empty() {
        true => Err(ChainError::NoDeployer { payer: DEPLOYER_PAYER }),
        false => Ok(()),
    }
}
