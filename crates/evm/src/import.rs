//! Takes in blocks that lie one after the other in a file, as other clients export them.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use crate::block::{Block, DecodeError};
use crate::chain::{Chain, ChainError};
use crate::rules::BlockError;

/// The longest block that is read. An RLP block says its length up front, so this bounds what a
/// hostile file can make us hold.
const IMPORTED_BYTES_MAX: usize = 64 << 20;

/// Why a file of blocks could not be taken in; those before it were.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("reading the blocks fails: {0}")]
    Read(#[from] io::Error),
    /// The file ends within a block, or what stands there is none.
    #[error("block {position} of the file: {error}")]
    Decode {
        /// Its place in the file, from 0.
        position: u64,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A block longer than 64 MiB.
    #[error(
        "block {position} of the file says it has {found} bytes, {IMPORTED_BYTES_MAX} are read"
    )]
    Size {
        /// Its place in the file, from 0.
        position: u64,
        /// The length it gives.
        found: usize,
    },
    /// A block that breaks the rules.
    #[error("block {position} of the file: {error}")]
    Block {
        /// Its place in the file, from 0.
        position: u64,
        /// The rule it breaks.
        error: Box<BlockError>,
    },
    /// The chain refused it.
    #[error("block {position} of the file: {error}")]
    Chain {
        /// Its place in the file, from 0.
        position: u64,
        /// Why.
        error: ChainError,
    },
}

impl Chain {
    /// Judges and finalises the blocks in `file`, in order; those that are final already are passed
    /// over. Who sealed them is not asked. `progress` hears the height after each, and may stop.
    ///
    /// Returns how many were added.
    ///
    /// # Errors
    /// The first thing wrong; the blocks before it stay.
    pub fn import(
        &self,
        mut file: impl BufRead,
        mut progress: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, ImportError> {
        let mut added = 0;
        let mut position = 0;
        while let Some(bytes) = next_block(&mut file, position)? {
            let block =
                Block::decode(&bytes).map_err(|error| ImportError::Decode { position, error })?;
            let number = block.number();
            if self.take(block, position)? {
                added += 1;
            }
            if progress(number).is_break() {
                break;
            }
            position += 1;
        }
        Ok(added)
    }

    /// Whether the block is new.
    fn take(&self, block: Block, position: u64) -> Result<bool, ImportError> {
        let failed = |error| ImportError::Chain { position, error };
        let final_already = self.header(block.number()).map_err(failed)?;
        if final_already.is_some_and(|header| header.hash() == block.hash()) {
            return Ok(false);
        }
        let parent = self.parent(block.header.parent_hash).map_err(failed)?;
        let executed = self
            .executor()
            .validate(&parent, block)
            .map_err(|error| ImportError::Block { position, error: Box::new(error) })?;
        self.append(executed).map_err(failed)?;
        Ok(true)
    }
}

/// The bytes of the next block; `None` at the end of the file.
fn next_block(file: &mut impl BufRead, position: u64) -> Result<Option<Vec<u8>>, ImportError> {
    let rlp = |error: alloy_rlp::Error| ImportError::Decode { position, error: error.into() };
    let Some(first) = file.fill_buf()?.first().copied() else { return Ok(None) };
    // A list of more than 55 bytes: its length's length in the first byte, then its length.
    let length_bytes = match first {
        0xf8..=0xff => usize::from(first - 0xf7),
        _ => return Err(rlp(alloy_rlp::Error::UnexpectedString)),
    };
    let mut bytes = vec![0; 1 + length_bytes];
    file.read_exact(&mut bytes)?;
    let payload = bytes[1..]
        .iter()
        .try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add(usize::from(*byte)));
    let found = payload.unwrap_or(usize::MAX);
    if found > IMPORTED_BYTES_MAX {
        return Err(ImportError::Size { position, found });
    }
    let prefix = bytes.len();
    bytes.resize(prefix + found, 0);
    file.read_exact(&mut bytes[prefix..])?;
    Ok(Some(bytes))
}
