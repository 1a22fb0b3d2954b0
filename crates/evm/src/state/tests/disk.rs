//! A disk in memory that can be full, fail, or lose power.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;

use super::Dice;

/// Bytes that reach a disk together.
const SECTOR: usize = 512;

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Plate>>);

#[derive(Debug, Default)]
struct Plate {
    /// What the process sees.
    bytes: Vec<u8>,
    /// What is there after a power cut, at least.
    synced: Vec<u8>,
    /// Sectors written since, by offset.
    loose: Vec<usize>,
    /// Writes and syncs that still work; `None`: all.
    left: Option<u64>,
}

impl Disk {
    /// Lets `left` more writes and syncs work; `None`: all.
    pub(crate) fn fail_after(&self, left: Option<u64>) {
        self.plate(|plate| plate.left = left);
    }

    /// The disk after a power cut: of what was not synced, some sectors are there.
    pub(super) fn cut(&self, dice: &mut Dice) -> Self {
        self.plate(|plate| {
            let mut bytes = plate.synced.clone();
            if dice.below(2) == 0 || bytes.len() > plate.bytes.len() {
                bytes.resize(plate.bytes.len(), 0);
            }
            for &at in &plate.loose {
                let end = (at + SECTOR).min(plate.bytes.len()).min(bytes.len());
                if at < end && dice.below(2) == 0 {
                    bytes[at..end].copy_from_slice(&plate.bytes[at..end]);
                }
            }
            let synced = bytes.clone();
            Self(Arc::new(Mutex::new(Plate { bytes, synced, ..Plate::default() })))
        })
    }

    fn plate<T>(&self, body: impl FnOnce(&mut Plate) -> T) -> T {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plate {
    fn work(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.plate(|plate| Ok(plate.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        self.plate(|plate| match plate.bytes.get(start..start + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plate(|plate| {
            plate.work()?;
            plate.bytes.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plate(|plate| {
            plate.work()?;
            plate.synced.clone_from(&plate.bytes);
            plate.loose.clear();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset as usize;
        self.plate(|plate| {
            plate.work()?;
            plate.bytes[start..start + data.len()].copy_from_slice(data);
            let first = start - start % SECTOR;
            plate.loose.extend((first..start + data.len()).step_by(SECTOR));
            Ok(())
        })
    }
}
