//! Models' answers by external servers, as flags name them.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_engine::{Outline, Remote, RemoteConfig, RemoteError};
use assay_protocol::ModelId;
use clap::Args;

use crate::failure::{Exit, Failure, Outcome};

/// Which servers answer instead of our own engine.
#[derive(Args, Clone, Debug)]
pub(crate) struct BackendArgument {
    /// Have answers computed by the llama.cpp server or vLLM at URL, which must have loaded this very model;
    /// their receipts are `scored`: signed, but bound to no computation. MODEL= may be left out where one is
    /// served; may be given several times
    #[arg(
        long,
        value_name = "MODEL=URL",
        env = "ASSAY_BACKEND",
        value_delimiter = ',',
        conflicts_with_all = ["with_cheater", "canaries"]
    )]
    backend: Vec<String>,
    /// What those servers expect as bearer token; better given by the variable, which `ps` does not show
    #[arg(long, value_name = "TOKEN", env = "ASSAY_BACKEND_TOKEN", hide_env_values = true)]
    backend_token: Option<String>,
}

impl BackendArgument {
    /// The servers that were named, if each fits its model.
    pub(crate) async fn start(
        &self,
        models: &[&Outline],
    ) -> Outcome<BTreeMap<ModelId, Arc<Remote>>> {
        let mut backends = BTreeMap::new();
        for named in &self.backend {
            let (model, url) = place(named, models)?;
            let config = RemoteConfig {
                token: self.backend_token.clone(),
                ..RemoteConfig::new(url.as_str())
            };
            let remote = Remote::start(model, config).await;
            let remote = remote.map_err(|error| unfit(model, &url, &error))?;
            backends.insert(model.id, Arc::new(remote));
        }
        Ok(backends)
    }
}

/// The model that `MODEL=URL`, or a URL alone, is about, and the URL.
fn place<'a>(named: &str, models: &[&'a Outline]) -> Outcome<(&'a Outline, String)> {
    let wrong = |why: String| {
        Failure::new(Exit::Usage, format_args!("{named:?} is no model with its server"))
            .why(why)
            .fix("write --backend MODEL=http://HOST:PORT, with a model that --model names")
    };
    if named.starts_with("http") {
        return match models {
            [model] => Ok((*model, named.to_owned())),
            _ => Err(wrong(format!("{} models are served", models.len()))),
        };
    }
    // Names of models may hold '=', but hardly "=http".
    let (name, url) =
        named.split_once("=http").ok_or_else(|| wrong("there is no =http".to_owned()))?;
    let model = models.iter().find(|model| model.name == name || model.id.to_string() == name);
    let model = model.ok_or_else(|| wrong(format!("no model {name:?} is served")))?;
    Ok((*model, format!("http{url}")))
}

fn unfit(model: &Outline, url: &str, error: &RemoteError) -> Failure {
    let name = &model.name;
    let exit = match error {
        RemoteError::Unreachable { .. } => Exit::Unreachable,
        RemoteError::Silent { .. } => Exit::Timeout,
        RemoteError::Status { status: 401 | 403, .. } => Exit::Permission,
        _ => Exit::Malformed,
    };
    let failure =
        Failure::new(exit, format_args!("{url} cannot answer for model {name}")).why(error);
    match error {
        RemoteError::Unreachable { .. } => failure.fix("start the server first, or check its address"),
        RemoteError::NoIds { .. } | RemoteError::Unknown { .. } => failure.fix(format_args!(
            "pass its answers on without receipts: --relay NAME={url}"
        )),
        RemoteError::Tokenizer { .. } => {
            failure.fix("let the server load the file that the model was imported from")
        }
        RemoteError::Context { found, .. } => failure.fix(format_args!(
            "start the server with a longer context (llama-server: -c, shared by its -np slots), or import the \
             model with --context {found}"
        )),
        RemoteError::Status { .. } => failure.fix("look at what the server says; --backend-token if it wants one"),
        _ => failure,
    }
}
