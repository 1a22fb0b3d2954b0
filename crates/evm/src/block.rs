//! A block as Ethereum writes it, with its hash and its transactions' senders at hand.
//!
//! A sender is recovered from a signature once, where bytes come in, since that is the costliest
//! step of a transaction's life (26 µs of one core); everything past this file reads it for free.

use alloy_consensus::transaction::{Recovered, SignerRecoverable};
use alloy_consensus::{BlockBody, Header, ReceiptEnvelope, TxEnvelope};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{Address, B256, Sealable, Sealed};
use alloy_rlp::{Decodable, Encodable};
use rayon::prelude::*;

/// A signed transaction with its sender; its hash is cached.
pub type Transaction = Recovered<TxEnvelope>;

/// What a transaction left behind: status, cumulative gas, logs and their bloom filter.
pub type Receipt = ReceiptEnvelope;

/// A block and the senders of its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header with its hash.
    pub header: Sealed<Header>,
    /// In the order of execution.
    pub transactions: Vec<Transaction>,
    /// Headers of stale siblings; empty since proof of work ended.
    pub ommers: Vec<Header>,
    /// Credits from outside the chain; `None` before Shanghai, empty on chains of our own.
    pub withdrawals: Option<Withdrawals>,
}

/// Why bytes are no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the encoding of a block.
    #[error("not an encoded block: {0}")]
    Rlp(#[from] alloy_rlp::Error),
    /// More than one block's bytes.
    #[error("{excess} bytes follow the block")]
    Excess {
        /// How many bytes are left over.
        excess: usize,
    },
    /// A transaction whose signature belongs to nobody.
    #[error("transaction {index} of the block has a signature of nobody: {hash}")]
    Signature {
        /// Its position in the block.
        index: usize,
        /// Its hash.
        hash: B256,
    },
}

impl Block {
    /// The block's hash: keccak256 of its header.
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// The block's height.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Reads exactly one encoded block and recovers its senders on all cores.
    ///
    /// Fails with a [`DecodeError`] on anything else; memory stays within a few times the input.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_with(bytes, |_| None)
    }

    /// As [`Block::decode`], but asks `known` for a transaction's sender by its hash first, so
    /// that one which came through the mempool is not recovered again.
    pub fn decode_with(
        mut bytes: &[u8],
        known: impl Fn(&B256) -> Option<Address> + Sync,
    ) -> Result<Self, DecodeError> {
        let block = Self::read(&mut bytes, known)?;
        match bytes.len() {
            0 => Ok(block),
            excess => Err(DecodeError::Excess { excess }),
        }
    }

    /// Reads one block off the front of `bytes`, as [`Block::decode_with`].
    pub fn read(
        bytes: &mut &[u8],
        known: impl Fn(&B256) -> Option<Address> + Sync,
    ) -> Result<Self, DecodeError> {
        let plain = alloy_consensus::Block::<TxEnvelope>::decode(bytes)?;
        let header = plain.header.seal_slow();
        Self::from_parts(header, plain.body, known)
    }

    /// Joins a header and a body, recovering senders as [`Block::decode_with`] does. Whether the
    /// two belong together is not checked here but when the block is validated.
    pub fn from_parts(
        header: Sealed<Header>,
        body: BlockBody<TxEnvelope>,
        known: impl Fn(&B256) -> Option<Address> + Sync,
    ) -> Result<Self, DecodeError> {
        let sender = |index: usize, transaction: &TxEnvelope| {
            let hash = transaction.tx_hash();
            known(hash)
                .or_else(|| transaction.recover_signer().ok())
                .ok_or(DecodeError::Signature { index, hash: *hash })
        };
        let transactions = body
            .transactions
            .into_par_iter()
            .enumerate()
            .map(|(index, transaction)| {
                let sender = sender(index, &transaction)?;
                Ok(Recovered::new_unchecked(transaction, sender))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self { header, transactions, ommers: body.ommers, withdrawals: body.withdrawals })
    }

    /// Joins a header, a body and the senders of its transactions, one for each.
    pub(crate) fn with_senders(
        header: Sealed<Header>,
        body: BlockBody<TxEnvelope>,
        senders: impl Iterator<Item = Address>,
    ) -> Self {
        let transactions = body
            .transactions
            .into_iter()
            .zip(senders)
            .map(|(transaction, sender)| Recovered::new_unchecked(transaction, sender))
            .collect();
        Self { header, transactions, ommers: body.ommers, withdrawals: body.withdrawals }
    }

    /// The block as Ethereum encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        alloy_consensus::Block::rlp_encoded_from_parts(self.header.inner(), &body)
    }

    /// How many bytes [`Block::encode`] gives.
    pub fn encoded_len(&self) -> usize {
        let transactions: usize = self.transactions.iter().map(|tx| tx.inner().length()).sum();
        let payload = self.header.inner().length()
            + list_length(transactions)
            + self.ommers.length()
            + self.withdrawals.as_ref().map_or(0, Encodable::length);
        list_length(payload)
    }

    /// The parts that follow the header, without the senders.
    pub fn body(&self) -> BlockBody<TxEnvelope> {
        BlockBody {
            transactions: self.transactions.iter().map(|tx| tx.inner().clone()).collect(),
            ommers: self.ommers.clone(),
            withdrawals: self.withdrawals.clone(),
        }
    }
}

/// The length of an RLP list around a payload of this length.
fn list_length(payload: usize) -> usize {
    payload + alloy_rlp::length_of_length(payload)
}
