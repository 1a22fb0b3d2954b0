//! The binary as its users meet it: started as a process, judged by what it prints and returns.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

#[path = "../../../../crates/models/tests/support/gguf_writer.rs"]
mod gguf_writer;
#[path = "../../../../crates/models/tests/support/random_family.rs"]
mod random_family;

#[path = "../../../../crates/engine/tests/support/onnx_writer.rs"]
mod onnx_writer;

#[path = "../hub/fake.rs"]
mod fake_hub;

mod backend;
mod chain;
mod commands;
mod dispute;
mod experts;
mod front;
mod library;
mod money;
mod network;
mod onnx;
mod pull;
mod registry;
mod vectors;
mod x402;
