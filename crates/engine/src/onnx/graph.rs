//! A graph of ONNX as something that takes tokens and gives numbers, by rten.
//!
//! Nothing of rten is seen outside of this file. What it refuses, and where it breaks, is told in our words.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView};

use super::error::OnnxError;
use super::survey::{Survey, survey};

/// A graph that is ready to run.
pub(super) struct Graph {
    model: Model,
    inputs: Vec<(Input, NodeId)>,
    output: NodeId,
    threads: Arc<ThreadPool>,
}

/// What a graph may ask for, of a batch of texts that are equally long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The tokens.
    Ids,
    /// Which of them count: all.
    Mask,
    /// Which of two texts each belongs to: the first.
    Types,
}

impl Input {
    fn named(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Self::Ids),
            "attention_mask" => Some(Self::Mask),
            "token_type_ids" => Some(Self::Types),
            _ => None,
        }
    }

    fn number(self, token: i32) -> i32 {
        match self {
            Self::Ids => token,
            Self::Mask => 1,
            Self::Types => 0,
        }
    }
}

/// An output as it came: its shape, and its numbers in the order of C.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Graph {
    /// Reads a graph of which `output` is wanted. What it computes of constants alone is computed here.
    pub(super) fn load(bytes: Vec<u8>, output: &str, threads: usize) -> Result<Self, OnnxError> {
        let Survey { inputs: names, .. } = survey(&bytes)?;
        let found = names.iter().map(|name| Input::named(name)).collect::<Option<Vec<Input>>>();
        let wanted = found.filter(|found| found.contains(&Input::Ids));
        let Some(wanted) = wanted else { return Err(OnnxError::Inputs { found: names }) };
        let loaded = catch_unwind(|| Model::load(bytes)).map_err(|_| OnnxError::Broke)?;
        let model = loaded.map_err(|error| OnnxError::Graph { reason: error.to_string() })?;
        let node = |name: &str| {
            let node = model.node_id(name);
            node.map_err(|error| OnnxError::Graph { reason: error.to_string() })
        };
        let inputs = wanted.into_iter().zip(&names).map(|(input, name)| Ok((input, node(name)?)));
        let inputs = inputs.collect::<Result<_, OnnxError>>()?;
        let output = node(output)?;
        Ok(Self { model, inputs, output, threads: Arc::new(ThreadPool::with_num_threads(threads)) })
    }

    /// The output for `rows` texts of one length, whose tokens stand one after the other.
    ///
    /// # Panics
    /// If the tokens are not so many texts of one length.
    pub(super) fn run(&self, tokens: &[u32], rows: usize) -> Result<Numbers, OnnxError> {
        assert!(rows > 0 && tokens.len().is_multiple_of(rows), "{rows} texts of one length");
        // A token beyond thirty-one bits is in no vocabulary: the graph says so.
        let ids: Vec<i32> =
            tokens.iter().map(|&id| i32::try_from(id).unwrap_or(i32::MAX)).collect();
        let shape = [rows, tokens.len() / rows];
        let given = |&(input, node): &(Input, NodeId)| {
            let numbers = ids.iter().map(|&id| input.number(id)).collect::<Vec<i32>>();
            let value =
                Value::from_shape(shape, numbers).expect("as many numbers as the shape has");
            (node, ValueOrView::from(value))
        };
        let inputs: Vec<_> = self.inputs.iter().map(given).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let ran = || self.model.run_n(inputs, [self.output], Some(options));
        // A run leaves nothing behind in the model that a broken one could spoil.
        let ran = catch_unwind(AssertUnwindSafe(ran)).map_err(|_| OnnxError::Broke)?;
        let [output] = ran.map_err(|error| OnnxError::Run { reason: error.to_string() })?;
        numbers(output)
    }
}

/// An output of two or three axes.
fn numbers(output: Value) -> Result<Numbers, OnnxError> {
    let flat = output.clone().into_shape_vec::<f32, 2>();
    if let Ok((shape, values)) = flat {
        return Ok(Numbers { shape: shape.to_vec(), values });
    }
    let (shape, values) = output
        .into_shape_vec::<f32, 3>()
        .map_err(|error| OnnxError::Run { reason: format!("its output: {error}") })?;
    Ok(Numbers { shape: shape.to_vec(), values })
}
