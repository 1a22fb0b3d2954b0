//! Keys that sign for accounts: [`Signer`] signs, [`Keystore`] keeps keys under a password,
//! [`mnemonic`] has the accounts that every development chain shares, [`TypedData`] is what wallets
//! show before they sign.

mod file;
pub mod mnemonic;
mod secret;
mod signer;
mod typed_data;

pub use file::{Keystore, KeystoreError};
pub use signer::Signer;
pub use typed_data::{TypedData, TypedDataError};
