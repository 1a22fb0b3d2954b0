//! A key under a password, in the form that wallets exchange (Web3 Secret Storage, version 3).
//!
//! The password's hash is made slow on purpose; its first half encrypts (AES-128-CTR), its second
//! half proves the password right before anything is decrypted.

use aes::cipher::{KeyIvInit, StreamCipher};
use alloy_primitives::{Address, B128, B256, hex, keccak256};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Most memory that a file may make the password's hash take: 128 × n × r bytes.
const SCRYPT_BYTES_MAX: u64 = 512 << 20;

/// Most lanes of that hash, one after the other.
const SCRYPT_LANES_MAX: u32 = 16;

/// Most rounds that a file may ask of PBKDF2.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

/// What new files use: 8 MB and some 30 ms, like other tools' light setting.
const SCRYPT_N: u64 = 1 << 13;

/// A key file.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Document {
    /// Forty hex digits, written without `0x`.
    address: String,
    crypto: Crypto,
    #[serde(default)]
    id: String,
    version: u8,
}

#[derive(Debug, Deserialize, Serialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParameters,
    ciphertext: Hex,
    #[serde(flatten)]
    kdf: Kdf,
    mac: Hex,
}

#[derive(Debug, Deserialize, Serialize)]
struct CipherParameters {
    iv: Hex,
}

/// How a password becomes a key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt { dklen: u32, n: u64, p: u32, r: u32, salt: Hex },
    Pbkdf2 { c: u32, dklen: u32, prf: String, salt: Hex },
}

/// Bytes as hex digits without `0x`.
#[derive(Debug, PartialEq, Eq)]
struct Hex(Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why a document gives no key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is no such document, or one that asks too much; the text says what.
    Malformed(String),
    /// The password is wrong.
    Password,
}

impl Document {
    /// The account that the document says it is for.
    pub(super) fn address(&self) -> Option<Address> {
        self.address.parse().ok()
    }

    /// Puts `secret`, the key of `address`, under `password`.
    pub(super) fn seal(address: Address, secret: [u8; 32], password: &str) -> Self {
        let salt = B256::random().to_vec();
        let kdf = Kdf::Scrypt { dklen: 32, n: SCRYPT_N, p: 1, r: 8, salt: Hex(salt) };
        let derived = kdf.derive(password).expect("our own parameters are in bounds");
        let iv = B128::random();
        let ciphertext = stream(&derived, iv, secret.to_vec());
        let mac = mac(&derived, &ciphertext).to_vec();
        let id = B128::random().0;
        let crypto = Crypto {
            cipher: "aes-128-ctr".into(),
            cipherparams: CipherParameters { iv: Hex(iv.to_vec()) },
            ciphertext: Hex(ciphertext),
            kdf,
            mac: Hex(mac),
        };
        Self { address: format!("{address:x}"), crypto, id: uuid(id), version: 3 }
    }

    /// The key, if `password` is right.
    pub(super) fn open(&self, password: &str) -> Result<Vec<u8>, Closed> {
        let crypto = &self.crypto;
        let refuse = |reason: String| Err(Closed::Malformed(reason));
        if self.version != 3 || crypto.cipher != "aes-128-ctr" {
            let (version, cipher) = (self.version, &crypto.cipher);
            return refuse(format!(
                "version {version} with cipher {cipher}, expected 3 with aes-128-ctr"
            ));
        }
        let Ok(iv) = B128::try_from(crypto.cipherparams.iv.0.as_slice()) else {
            return refuse(format!(
                "an iv of {} bytes, expected 16",
                crypto.cipherparams.iv.0.len()
            ));
        };
        let derived = crypto.kdf.derive(password).map_err(Closed::Malformed)?;
        if mac(&derived, &crypto.ciphertext.0).as_slice() != crypto.mac.0 {
            return Err(Closed::Password);
        }
        Ok(stream(&derived, iv, crypto.ciphertext.0.clone()))
    }
}

impl Kdf {
    /// The password's hash, or why its parameters are not followed.
    fn derive(&self, password: &str) -> Result<[u8; 32], String> {
        let mut derived = [0; 32];
        let length = match self {
            Self::Scrypt { dklen, .. } | Self::Pbkdf2 { dklen, .. } => *dklen,
        };
        if length != 32 {
            return Err(format!("a derived key of {length} bytes, expected 32"));
        }
        match self {
            Self::Scrypt { n, p, r, salt, .. } => {
                let memory = n.saturating_mul(u64::from(*r)).saturating_mul(128);
                let sane = n.is_power_of_two() && *n > 1 && memory <= SCRYPT_BYTES_MAX;
                let parameters = (sane && *p <= SCRYPT_LANES_MAX)
                    .then(|| scrypt::Params::new(n.ilog2() as u8, *r, *p).ok())
                    .flatten()
                    .ok_or_else(|| {
                        format!("scrypt with n = {n}, r = {r}, p = {p} is not done here")
                    })?;
                scrypt::scrypt(password.as_bytes(), &salt.0, &parameters, &mut derived)
                    .map_err(|error| error.to_string())?;
            }
            Self::Pbkdf2 { c, prf, salt, .. } => {
                if prf != "hmac-sha256" || *c > PBKDF2_ROUNDS_MAX {
                    return Err(format!("pbkdf2 with {c} rounds of {prf} is not done here"));
                }
                pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt.0, *c, &mut derived);
            }
        }
        Ok(derived)
    }
}

/// Encrypts and decrypts: the two are the same.
fn stream(derived: &[u8; 32], iv: B128, mut bytes: Vec<u8>) -> Vec<u8> {
    let key: [u8; 16] = std::array::from_fn(|at| derived[at]);
    let mut cipher = ctr::Ctr128BE::<aes::Aes128>::new(&key.into(), &iv.0.into());
    cipher.apply_keystream(&mut bytes);
    bytes
}

fn mac(derived: &[u8; 32], ciphertext: &[u8]) -> B256 {
    keccak256([&derived[16..], ciphertext].concat())
}

/// A random UUID (version 4) of these bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
