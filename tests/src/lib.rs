//! Checks the repository as a whole.
//!
//! `tidy.rs` holds its rules, `vectors/` the golden vectors that several crates and contracts
//! read, and `sdk/` the official OpenAI clients that `cargo xtask test` runs against the binary.
