//! Several models share one bound of memory, and answer as each does alone.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use assay_engine::import::{Options, import};
use assay_engine::{
    Backend, Busy, Deltas, Job, Loaded, Native, NativeConfig, Package, Residents, ResidentsConfig,
    ResidentsError,
};
use assay_kernels::Isa;
use assay_protocol::{B256, Finish};
use support::{asset, cpu, finish, job, prompt, run, sampled};

/// Packages of the shipped model with different contexts, so that their ids differ.
struct World {
    models: Vec<Arc<Loaded>>,
    paths: Vec<PathBuf>,
    /// Bytes of the largest package.
    bytes: u64,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(contexts: &[usize]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut models, mut paths) = (Vec::new(), Vec::new());
        for &context in contexts {
            let options = Options { context: Some(context), ..Options::default() };
            let file = asset("nano-q8_0.gguf");
            let import = || import(&file, &options, &cpu(Isa::detect(), 1), &mut |_| ()).unwrap().0;
            let path = folder.path().join(format!("{context}.assay"));
            import().write(&path).unwrap();
            models.push(Arc::new(Package::read(&path).unwrap().load().unwrap()));
            paths.push(path);
        }
        let bytes = paths.iter().map(|path| std::fs::metadata(path).unwrap().len()).max().unwrap();
        Self { models, paths, bytes, _folder: folder }
    }

    fn start(&self, bytes_max: u64, queue_max: usize) -> Result<Residents, ResidentsError> {
        let config = ResidentsConfig {
            bytes_max,
            queue_max: NonZeroUsize::new(queue_max).unwrap(),
            native: NativeConfig::default(),
        };
        Residents::start(&self.paths, Arc::new(cpu(Isa::detect(), 1)), config)
    }

    fn job(&self, model: usize, n: usize) -> Job {
        let loaded = &self.models[model];
        let mut job = job(loaded, &sampled(prompt(loaded, &format!("Sort: {n} 3 1")), 7), 24);
        job.ending.eos.clear();
        job
    }

    fn alone(&self, model: usize, n: usize) -> (Vec<(u32, B256)>, Finish) {
        let cpu = Arc::new(cpu(Isa::detect(), 1));
        let native = Native::start(self.models[model].clone(), cpu, NativeConfig::default());
        run(&native, self.job(model, n))
    }
}

/// The backends of all models, in order.
fn backends(residents: &Residents) -> Vec<Arc<dyn Backend>> {
    residents.backends().map(|(_, backend)| backend).collect()
}

#[test]
fn models_in_turns_answer_as_each_does_alone() {
    let world = World::new(&[256, 512, 1024]);
    let alone: Vec<_> = (0..3).map(|model| world.alone(model, 5)).collect();
    for room in 1..=3 {
        let residents = world.start(room * world.bytes, 100).unwrap();
        assert_eq!(residents.loads(), 0, "nothing is loaded before it is asked");
        let backends = backends(&residents);
        let streams: Vec<(usize, Deltas)> = (0..30)
            .map(|n| n * 7 % 3)
            .map(|model| (model, backends[model].run(world.job(model, 5)).unwrap()))
            .collect();
        for (model, stream) in streams {
            assert_eq!(finish(stream), alone[model]);
        }
        let loads = residents.loads();
        assert!(loads >= 3 && (room < 3 || loads == 3), "{loads} loads with room for {room}");
        // One after the other, each model but the last asked has to come back where only one fits.
        for model in [0, 0, 1, 1] {
            assert_eq!(finish(backends[model].run(world.job(model, 5)).unwrap()), alone[model]);
        }
        let again = residents.loads() - loads;
        let possible = if room == 1 { 1..=2 } else { 0..=2 };
        assert!(room < 3 && possible.contains(&again) || again == 0, "{again} with room {room}");
    }
}

#[test]
fn a_model_that_answers_is_not_dropped() {
    let world = World::new(&[256, 512]);
    let residents = world.start(world.bytes, 100).unwrap();
    let backends = backends(&residents);
    let mut long = world.job(0, 1);
    long.ending.tokens_max = 150;
    let long = backends[0].run(long).unwrap();
    let others: Vec<Deltas> = (0..4).map(|n| backends[1].run(world.job(1, n)).unwrap()).collect();
    // Those that come after must not keep the first model in for ever.
    let more: Vec<Deltas> = (0..4).map(|n| backends[0].run(world.job(0, n)).unwrap()).collect();
    assert_eq!(finish(long).0.len(), 150);
    for (n, stream) in others.into_iter().enumerate() {
        assert_eq!(finish(stream), world.alone(1, n));
    }
    for (n, stream) in more.into_iter().enumerate() {
        assert_eq!(finish(stream), world.alone(0, n));
    }
}

#[test]
fn a_model_that_cannot_be_read_closes_its_streams_and_the_others_answer() {
    let world = World::new(&[256, 512]);
    let residents = world.start(2 * world.bytes, 100).unwrap();
    std::fs::remove_file(&world.paths[0]).unwrap();
    let backends = backends(&residents);
    let mut gone = backends[0].run(world.job(0, 1)).unwrap();
    assert_eq!(gone.next_blocking(), None);
    assert_eq!(finish(backends[1].run(world.job(1, 1)).unwrap()), world.alone(1, 1));
}

#[test]
fn what_does_not_fit_is_said_before() {
    let world = World::new(&[256]);
    let refused = world.start(world.bytes - 1, 1).err().unwrap();
    assert!(matches!(refused, ResidentsError::TooLarge { .. }), "{refused}");
    let residents = world.start(world.bytes, 1).unwrap();
    let backend = backends(&residents).remove(0);
    let outcomes: Vec<_> = (0..50).map(|n| backend.run(world.job(0, n))).collect();
    let refused = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).next().unwrap();
    assert_eq!(*refused, Busy { queue_max: 1 });
    drop((residents, backend));
    for mut stream in outcomes.into_iter().flatten() {
        while stream.next_blocking().is_some() {}
    }
}
