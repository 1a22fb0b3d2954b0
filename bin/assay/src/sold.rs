//! The models that a local network sells: who computes each of them, and which are in memory.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use assay_court::{Desk, Fetched, Retracer, Tracer};
use assay_engine::{
    Backend, Holder, Loaded, Native, NativeConfig, Onnx, OnnxModel, Outline, Package, Remote,
    Residents, ResidentsConfig, ResidentsError,
};
use assay_kernels::Cpu;
use assay_protocol::{Assurance, ModelId};
use clap::Args;

use crate::cheat::{Cheat, Liar};
use crate::failure::{Exit, Failure, Outcome};
use crate::library::Library;
use crate::onnx;
use crate::terminal::{bytes, parse_bytes};

/// Jobs that wait for the engine.
const QUEUE_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Jobs that the engine works on in turns. More wait, and a short answer must not wait for many
/// long ones.
const RUNNING_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How much memory models have.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct MemoryArgument {
    /// Memory for the weights of all models, such as 8GiB: one is then read when it is first asked for, and
    /// those that were asked longest ago make room. A dispute or an auditor's question holds one more. ONNX
    /// models are not counted, and stay [default: all stay in memory]
    #[arg(
        long,
        env = "ASSAY_MEMORY_MAX",
        value_name = "SIZE",
        value_parser = parse_bytes,
        conflicts_with = "with_cheater"
    )]
    memory_max: Option<u64>,
}

/// Models that were found and checked, none of them at work yet.
pub(crate) struct Stock {
    models: Vec<(Outline, Weights)>,
    /// ONNX models, which stay in memory.
    graphs: Vec<Arc<OnnxModel>>,
    memory: MemoryArgument,
}

/// Where the weights of a model are.
enum Weights {
    Memory(Arc<Loaded>),
    Disk(PathBuf),
}

/// A model at work. Providers of one process share it.
pub(crate) struct Sold {
    /// All of it but the weights.
    pub(crate) model: Outline,
    engine: Arc<dyn Backend>,
    /// What answers for its numbers, if it is computed here.
    shown: Option<Shown>,
}

/// An ONNX model at work. Providers of one process share it.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) model: Arc<OnnxModel>,
    engine: Arc<Onnx>,
}

impl Graph {
    fn start(model: &Arc<OnnxModel>) -> Self {
        let engine = Arc::new(Onnx::start(Arc::clone(model), native()));
        Self { model: Arc::clone(model), engine }
    }

    /// As a provider offers it; nobody can dispute its answers, so nobody defends them.
    pub(crate) fn served(&self) -> assay_provider::Served {
        let Self { model, engine } = self;
        assay_provider::Served {
            id: model.id,
            holder: None,
            context: model.context,
            vocabulary: model.vocabulary(),
            eos: model.eos.clone(),
            tokenizer: Some(Arc::clone(&model.tokenizer)),
            makes_vectors: true,
            backend: Arc::clone(engine) as _,
            tracer: None,
        }
    }
}

/// What answers for the numbers of a model that is computed here.
struct Shown {
    /// The model itself, if it stays in memory.
    loaded: Option<Arc<Loaded>>,
    holder: Arc<dyn Holder>,
    tracer: Arc<dyn Tracer>,
}

impl Stock {
    /// Finds the models of these names, or the one that ships if there are none.
    pub(crate) fn find(
        library: &Library,
        names: &[String],
        memory: MemoryArgument,
        cpu: &Cpu,
    ) -> Outcome<Self> {
        let mut stock = Self { models: Vec::new(), graphs: Vec::new(), memory };
        if names.is_empty() {
            stock.add(library, library.checked(None, cpu)?)?;
        }
        for name in names {
            match onnx::find(library, name)? {
                Some(package) => {
                    onnx::keep(library, &package)?;
                    stock.add_graph(onnx::load(package, cpu.threads().get())?);
                }
                None => stock.add(library, library.checked(Some(name), cpu)?)?,
            }
        }
        Ok(stock)
    }

    fn add(&mut self, library: &Library, package: Package) -> Outcome {
        // The same file under two names is one model.
        if self.outlines().any(|model| model.id == package.id()) {
            return Ok(());
        }
        let (name, path) = (package.name().to_owned(), library.path(package.id()));
        let added = match self.memory.memory_max {
            Some(_) => package.outline().map(|outline| (outline, Weights::Disk(path))),
            None => {
                package.load().map(|loaded| (loaded.outline(), Weights::Memory(Arc::new(loaded))))
            }
        };
        self.models.push(added.map_err(|error| {
            Failure::new(Exit::Malformed, format_args!("model {name} cannot be used")).why(error)
        })?);
        Ok(())
    }

    fn add_graph(&mut self, model: OnnxModel) {
        if self.graphs.iter().all(|other| other.id != model.id) {
            self.graphs.push(Arc::new(model));
        }
    }

    /// The ONNX models, at work.
    pub(crate) fn graphs(&self) -> Vec<Graph> {
        self.graphs.iter().map(Graph::start).collect()
    }

    /// The models without their weights.
    pub(crate) fn outlines(&self) -> impl Iterator<Item = &Outline> {
        self.models.iter().map(|(outline, _)| outline)
    }

    /// Puts the models to work: by these servers, and else on this machine.
    pub(crate) fn open(
        self,
        backends: &BTreeMap<ModelId, Arc<Remote>>,
        cpu: &Arc<Cpu>,
    ) -> Outcome<Vec<Sold>> {
        let mut residents = self.residents(backends, cpu)?;
        let desk = Arc::new(Desk::new(Arc::clone(cpu)));
        let sold = |(model, weights): (Outline, Weights)| {
            let id = model.id;
            match (backends.get(&id), weights) {
                (Some(remote), _) => Sold { model, engine: Arc::clone(remote) as _, shown: None },
                (None, Weights::Memory(loaded)) => {
                    let engine = Native::start(Arc::clone(&loaded), Arc::clone(cpu), native());
                    Sold::here(loaded, Arc::new(engine), cpu)
                }
                (None, Weights::Disk(path)) => {
                    let engine = residents.remove(&id).expect("each model on disk is resident");
                    let root = model.manifest.parts.weights;
                    let fetched = Arc::new(Fetched::new(id, root, path, Arc::clone(&desk)));
                    let (holder, tracer) = (Arc::clone(&fetched) as _, fetched as _);
                    Sold { model, engine, shown: Some(Shown { loaded: None, holder, tracer }) }
                }
            }
        };
        Ok(self.models.into_iter().map(sold).collect())
    }

    /// What answers for the models on disk that no server does.
    fn residents(
        &self,
        backends: &BTreeMap<ModelId, Arc<Remote>>,
        cpu: &Arc<Cpu>,
    ) -> Outcome<BTreeMap<ModelId, Arc<dyn Backend>>> {
        let Some(bytes_max) = self.memory.memory_max else { return Ok(BTreeMap::new()) };
        let here = self.models.iter().filter(|(model, _)| !backends.contains_key(&model.id));
        let paths = here.filter_map(|(_, weights)| match weights {
            Weights::Disk(path) => Some(path.clone()),
            Weights::Memory(_) => None,
        });
        let paths: Vec<PathBuf> = paths.collect();
        let config = ResidentsConfig { bytes_max, queue_max: QUEUE_MAX, native: native() };
        let residents = Residents::start(&paths, Arc::clone(cpu), config).map_err(|error| {
            let given = format!("the models do not fit into {}", bytes(bytes_max));
            match error {
                ResidentsError::TooLarge { found, .. } => Failure::new(Exit::Memory, given)
                    .why(&error)
                    .fix(format_args!("pass --memory-max {found} or more")),
                ResidentsError::Package(_) => Failure::new(Exit::Malformed, given).why(error),
            }
        })?;
        Ok(residents.backends().map(|(summary, backend)| (summary.id(), backend)).collect())
    }
}

/// How a model works on this machine.
fn native() -> NativeConfig {
    NativeConfig { running_max: RUNNING_MAX, queue_max: QUEUE_MAX, ..NativeConfig::default() }
}

impl Sold {
    /// A model that stays in memory.
    fn here(loaded: Arc<Loaded>, engine: Arc<dyn Backend>, cpu: &Arc<Cpu>) -> Self {
        let tracer = Arc::new(Retracer::new(Arc::clone(&loaded), Arc::clone(cpu)));
        let (model, holder) = (loaded.outline(), Arc::clone(tracer.trees()) as _);
        Self { model, engine, shown: Some(Shown { loaded: Some(loaded), holder, tracer }) }
    }

    /// The same model as a cheater sells it.
    ///
    /// # Errors
    /// If nobody can cheat with it.
    pub(crate) fn as_told_by(&self, how: Cheat, cpu: Arc<Cpu>) -> Outcome<Self> {
        let loaded = self.shown.as_ref().and_then(|shown| shown.loaded.as_ref());
        let loaded = loaded.ok_or_else(|| {
            Failure::new(Exit::Usage, "only models in memory can be cheated with")
                .fix("leave --memory-max and --backend out")
        })?;
        let liar = Liar::start(how, loaded, Arc::clone(&cpu), native())?;
        // What it really computes: it can show the trace of nothing else.
        let computes = Arc::clone(&liar.computes);
        Ok(Self::here(computes, Arc::new(liar), &cpu))
    }

    /// What can be checked about its answers.
    pub(crate) fn assurance(&self) -> Assurance {
        self.engine.assurance()
    }

    /// As a provider offers it; one that does not defend its answers computes none of them again.
    pub(crate) fn served(&self, defends: bool) -> assay_provider::Served {
        let Self { model, engine, shown } = self;
        let shown = shown.as_ref();
        assay_provider::Served {
            id: model.id,
            holder: shown.map(|shown| Arc::clone(&shown.holder)),
            context: model.context(),
            vocabulary: model.manifest.shape.vocab,
            eos: model.manifest.eos.clone(),
            tokenizer: model.tokenizer.clone(),
            makes_vectors: model.vector_width().is_some(),
            backend: Arc::clone(engine),
            tracer: shown.filter(|_| defends).map(|shown| Arc::clone(&shown.tracer)),
        }
    }
}
