//! `assay gateway`, in front of servers that need not be there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{assay, refused};

/// A gateway with one model, on a free port.
fn front(data: &std::path::Path, more: &[&str]) -> Command {
    let mut command = assay();
    command.args(["gateway", "--port", "0", "--relay", "m=http://127.0.0.1:9", "--data-dir"]);
    command.arg(data).args(more);
    command
}

#[test]
fn a_gateway_says_that_it_is_up_once_it_answers() {
    let data = tempfile::tempdir().unwrap();
    let mut child = front(data.path(), &["--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let address = ready["gateway"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = child.wait().unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_gateway_that_cannot_open_its_store_never_says_that_it_is_up() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(data.path().join("gateway/answers")).unwrap();
    let ended = front(data.path(), &[]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "");
}

#[test]
fn answers_for_nothing_are_not_sold() {
    let data = tempfile::tempdir().unwrap();
    let (code, words) = refused(&mut front(data.path(), &["--x402"]));
    assert!(code == 2 && words.contains("--relay-price"), "{code}: {words}");
}
