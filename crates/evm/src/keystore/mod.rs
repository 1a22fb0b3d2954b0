//! Keys that sign for accounts: [`Signer`] signs, [`Keystore`] keeps keys under a password,
//! [`mnemonic`] has the accounts that every development chain shares.

mod file;
pub mod mnemonic;
mod secret;
mod signer;

pub use file::{Keystore, KeystoreError};
pub use signer::Signer;
