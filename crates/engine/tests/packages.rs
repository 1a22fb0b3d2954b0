//! The same source gives the same model id everywhere, and a package gives back what it was.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use assay_engine::import::{ImportError, Options, import, source_hash};
use assay_engine::{Package, PackageError};
use assay_kernels::Isa;
use support::{NANO, asset, cpu, package_of};

/// Pinned: a change of any rule of conversion, calibration or commitment changes it, and with it
/// every receipt in the world.
const NANO_ID: &str = include_str!("../../../tests/vectors/nano.id");

#[test]
fn the_shipped_model_has_one_id_on_every_path() {
    for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
        for threads in [1, 2] {
            if isa.is_supported() {
                let cpu = cpu(isa, threads);
                let options = Options::default();
                let (package, report) =
                    import(&asset("nano-q8_0.gguf"), &options, &cpu, &mut |_| ()).unwrap();
                assert_eq!(package.id().to_string(), NANO_ID.trim(), "{isa}, {threads} threads");
                assert_eq!(report.parameters, 869_504);
            }
        }
    }
}

#[test]
fn a_package_survives_the_disk_and_knows_when_it_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nano.assay");
    package_of("nano-q8_0.gguf").write(&path).unwrap();
    let package = Package::read(&path).unwrap();
    package.verify(&mut |_| ()).unwrap();
    assert_eq!(package.id(), NANO.id);

    let bytes = std::fs::read(&path).unwrap();
    // Every 9,973rd byte, so that all parts are hit: nothing panics, and nothing passes.
    for position in (0..bytes.len()).step_by(9973) {
        let mut bytes = bytes.clone();
        bytes[position] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let verified = Package::read(&path).and_then(|package| {
            let name = package.name().to_owned();
            package.verify(&mut |_| ()).map(|()| (name, package.id()))
        });
        if let Ok((name, id)) = verified {
            assert!(id != NANO.id || name != NANO.name, "byte {position} was changed unseen");
        }
    }
    for length in [0, 7, 8, 15, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(Package::read(&path).is_err(), "{length} bytes were taken for a package");
    }
    let mut longer = bytes;
    longer.push(0);
    std::fs::write(&path, longer).unwrap();
    assert!(matches!(Package::read(&path), Err(PackageError::Length { .. })));
}

#[test]
fn the_loss_against_the_source_is_small_and_measured() {
    let options = Options { accuracy: true, ..Options::default() };
    let cpu = cpu(Isa::detect(), 1);
    let (_, report) = import(&asset("nano-q8_0.gguf"), &options, &cpu, &mut |_| ()).unwrap();
    let accuracy = report.accuracy.unwrap();
    assert!(accuracy.positions >= 200, "{accuracy:?}");
    assert!(accuracy.kl < 2e-3 && accuracy.greedy_agreement > 0.95, "{accuracy:?}");
}

#[test]
fn a_longer_context_than_the_source_has_is_refused() {
    let options = Options { context: Some(1 << 20), ..Options::default() };
    let cpu = cpu(Isa::detect(), 1);
    let refused = import(&asset("nano-q8_0.gguf"), &options, &cpu, &mut |_| ());
    assert!(matches!(refused, Err(ImportError::Context { asked: 1_048_576, found: 2048 })));
}

#[test]
fn lying_sizes_are_refused_before_they_are_multiplied() {
    type Change = fn(&mut assay_protocol::Shape);
    let changes: [Change; 5] = [
        |shape| (shape.heads, shape.headDim) = (65536, 65536),
        |shape| shape.context = u32::MAX,
        |shape| shape.vocab = u32::MAX,
        |shape| shape.layers = u32::MAX,
        |shape| (shape.width, shape.hidden) = (u32::MAX, u32::MAX),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lie.assay");
    for change in changes {
        let mut manifest = NANO.manifest.clone();
        change(&mut manifest.shape);
        let mut bytes = b"ASSAYM1\n".to_vec();
        for part in [&b"lie"[..], b"", &manifest.encode(), &[0; 8], b"", b""] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
        std::fs::write(&path, bytes).unwrap();
        let refused = Package::read(&path).unwrap_err();
        assert!(
            matches!(
                refused,
                PackageError::Model(_) | PackageError::Altered { .. } | PackageError::Length { .. }
            ),
            "{refused}"
        );
    }
}

#[test]
fn what_a_file_manager_leaves_behind_changes_no_id() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, "{}").unwrap();
    let hash = || source_hash(folder.path(), &mut |_| ()).unwrap();
    let alone = hash();
    std::fs::write(folder.path().join(".DS_Store"), "x").unwrap();
    assert_eq!(hash(), alone);
    std::fs::rename(&file, folder.path().join("tokenizer.json")).unwrap();
    assert_ne!(hash(), alone, "names are bound");
}

#[test]
fn an_empty_calibration_is_refused() {
    let options = Options { calibration: Some(String::new()), ..Options::default() };
    let cpu = cpu(Isa::detect(), 1);
    let refused = import(&asset("nano-q8_0.gguf"), &options, &cpu, &mut |_| ());
    assert!(matches!(refused, Err(ImportError::NoCalibration)));
}
