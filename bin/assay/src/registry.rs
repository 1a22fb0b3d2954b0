//! `assay model publish` and `terms`: models in public.
//!
//! Only commitments go to the chain: the manifest, whose hash is the model's id, with the roots of its weights and
//! its program. The bytes stay with those who have them.

use std::path::PathBuf;

use assay_chain::{Chain, Mined, ModelTerms, PublishedModel};
use assay_protocol::{Address, Amount, B256, Manifest, ModelId, TensorKind, keccak256};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{LedgerArgument, failed, parse_units, units};
use crate::library::{self, Library};
use crate::machine::ThreadsArgument;
use crate::terminal::{grouped, note, say, say_json};

/// Put a model's commitments on the chain, so that it is known and its answers can be disputed
///
/// Registers the manifest as the account's, first come, first served, and files it with the judges of disputes. What
/// was done before is not done again.
#[derive(Args, Debug)]
pub(crate) struct Publish {
    /// The model: a file, an id or a name
    model: String,
    /// Least price per million prompt tokens
    #[arg(long, value_name = "ASY", value_parser = parse_units)]
    floor_in: Option<Amount>,
    /// Least price per million output tokens
    #[arg(long, value_name = "ASY", value_parser = parse_units)]
    floor_out: Option<Amount>,
    /// Share of each payment that is yours, in basis points
    #[arg(long, value_name = "BPS")]
    royalty: Option<u16>,
    /// Who is paid it [default: the account]
    #[arg(long, value_name = "ADDRESS")]
    royalty_to: Option<Address>,
    /// The licence's text; the chain keeps its hash
    #[arg(long, value_name = "FILE")]
    licence: Option<PathBuf>,
    /// Where licence, card and weights are described
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// State these terms anew for a model that the account has published
    #[arg(long)]
    revise: bool,
    #[command(flatten)]
    ledger: LedgerArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Show whose a published model is, on what terms, and whether its answers can be disputed
#[derive(Args, Debug)]
pub(crate) struct Terms {
    /// The model: a file, an id or a name; of one that is not here, the whole id
    model: String,
    #[command(flatten)]
    ledger: LedgerArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What publishing did.
#[derive(Debug, Default)]
struct Done {
    published: Option<Mined>,
    revised: Option<Mined>,
    filed: Option<Mined>,
}

impl Publish {
    pub(crate) async fn run(self) -> Outcome {
        let key = self.ledger.key()?;
        let package = Library::of(&self.ledger.data()?).find(&self.model, &self.threads.cpu()?)?;
        // What is published is what the weights hash to.
        library::verify(&package)?;
        let chain = self.ledger.open(Some(&key)).await?;
        let manifest = package.manifest();
        let before = chain.model(package.id()).await.map_err(failed)?;
        let done = self.publish(&chain, manifest, before.as_ref(), key.address()).await?;
        self.say(&chain, manifest, before.as_ref(), &done).await
    }

    async fn publish(
        &self,
        chain: &Chain,
        manifest: &Manifest,
        before: Option<&PublishedModel>,
        account: Address,
    ) -> Outcome<Done> {
        let (id, mut done) = (manifest.id(), Done::default());
        match before {
            None => {
                let terms = self.terms(ModelTerms::default(), account)?;
                done.published = Some(chain.publish(manifest, &terms).await.map_err(failed)?);
            }
            Some(published) if self.revise => {
                owned(published, account)?;
                let present = chain.terms_of(id).await.map_err(failed)?;
                let terms = self.terms(present.clone(), account)?;
                if terms != present {
                    done.revised = Some(chain.revise(id, &terms).await.map_err(failed)?);
                }
            }
            Some(_) => {}
        }
        if has_known_weights(manifest) && !chain.is_filed(id).await.map_err(failed)? {
            done.filed = Some(chain.file_spec(manifest).await.map_err(failed)?);
        }
        Ok(done)
    }

    /// What the flags say, over `terms`.
    fn terms(&self, terms: ModelTerms, account: Address) -> Outcome<ModelTerms> {
        let licence = self.licence.as_ref().map(|path| {
            std::fs::read(path).map(keccak256).map_err(|error| {
                Failure::file(format_args!("{} cannot be read", path.display()), &error)
            })
        });
        let royalty_bps = self.royalty.unwrap_or(terms.royalty_bps);
        let to = if terms.royalty_to.is_zero() { account } else { terms.royalty_to };
        Ok(ModelTerms {
            licence: licence.transpose()?.unwrap_or(terms.licence),
            floor_in: self.floor_in.unwrap_or(terms.floor_in),
            floor_out: self.floor_out.unwrap_or(terms.floor_out),
            royalty_to: if royalty_bps == 0 {
                Address::ZERO
            } else {
                self.royalty_to.unwrap_or(to)
            },
            royalty_bps,
            uri: self.uri.clone().unwrap_or(terms.uri),
        })
    }

    async fn say(
        &self,
        chain: &Chain,
        manifest: &Manifest,
        before: Option<&PublishedModel>,
        done: &Done,
    ) -> Outcome {
        let id = manifest.id();
        let published = chain.model(id).await.map_err(failed)?.ok_or_else(|| unpublished(id))?;
        let parts = &manifest.parts;
        if self.json {
            say_json(&json!({
                "schema": "assay.model-publish/1",
                "id": id,
                "owner": published.owner,
                "weights": parts.weights,
                "program": parts.program,
                "published": sent(done.published),
                "revised": sent(done.revised),
                "filed": sent(done.filed),
            }));
            return Ok(());
        }
        say(id);
        line("weights", parts.weights);
        line("program", parts.program);
        line("owner", published.owner);
        line("published", told(done.published, "already"));
        if let Some(revised) = done.revised {
            line("revised", told(Some(revised), ""));
        }
        let judged = match has_known_weights(manifest) {
            true => told(done.filed, "already"),
            false => told(None, "no: no judge knows weights of four bits, answers are scored"),
        };
        line("judged", judged);
        let stated = self.floor_in.is_some()
            || self.floor_out.is_some()
            || self.royalty.is_some()
            || self.royalty_to.is_some()
            || self.licence.is_some()
            || self.uri.is_some();
        if before.is_some() && stated && !self.revise {
            note("its terms stay as they are; --revise states new ones");
        }
        Ok(())
    }
}

impl Terms {
    pub(crate) async fn run(self) -> Outcome {
        let id = self.id()?;
        let chain = self.ledger.open(None).await?;
        let published = chain.model(id).await.map_err(failed)?.ok_or_else(|| unpublished(id))?;
        let terms = chain.terms_of(id).await.map_err(failed)?;
        let filed = chain.is_filed(id).await.map_err(failed)?;
        if self.json {
            say_json(&json!({
                "schema": "assay.model-terms/1",
                "id": id,
                "owner": published.owner,
                "published": published.published,
                "revisions": published.revisions,
                "licence": terms.licence,
                "floor_in": terms.floor_in,
                "floor_out": terms.floor_out,
                "royalty_bps": terms.royalty_bps,
                "royalty_to": terms.royalty_to,
                "uri": terms.uri,
                "filed": filed,
            }));
            return Ok(());
        }
        say(id);
        line("owner", published.owner);
        line(
            "prices",
            format_args!(
                "at least {} ASY a million prompt tokens, {} output tokens",
                units(terms.floor_in),
                units(terms.floor_out)
            ),
        );
        if terms.royalty_bps != 0 {
            let percent = f64::from(terms.royalty_bps) / 100.0;
            line("royalty", format_args!("{percent} % to {}", terms.royalty_to));
        }
        if terms.licence != B256::ZERO {
            line("licence", terms.licence);
        }
        if !terms.uri.is_empty() {
            // Anyone may have written it, so nothing of it reaches the terminal but its characters.
            line("described", terms.uri.escape_default());
        }
        line(
            "judged",
            if filed { "yes" } else { "no: nobody filed it; `assay model publish` does" },
        );
        Ok(())
    }

    fn id(&self) -> Outcome<ModelId> {
        match self.model.parse() {
            Ok(id) => Ok(id),
            Err(_) => {
                let library = Library::of(&self.ledger.data()?);
                Ok(library.find(&self.model, &self.threads.cpu()?)?.id())
            }
        }
    }
}

fn owned(published: &PublishedModel, account: Address) -> Outcome {
    if published.owner == account {
        return Ok(());
    }
    Err(Failure::new(Exit::Permission, "the model's terms are another's to state")
        .why(format_args!("it is {}'s, and the account is {account}", published.owner))
        .fix("pass its owner's --key"))
}

fn unpublished(id: ModelId) -> Failure {
    Failure::new(Exit::NotFound, format_args!("nobody published {id}"))
        .fix("`assay model publish MODEL` does")
}

fn sent(mined: Option<Mined>) -> Value {
    mined.map_or(
        Value::Null,
        |mined| json!({ "transaction": mined.hash, "block": mined.block, "gas": mined.gas }),
    )
}

/// Whether judges know the form of a model's weights. Their contract refuses to file others; a
/// model with such weights is published, and its answers are scored.
fn has_known_weights(manifest: &Manifest) -> bool {
    manifest.tensors.iter().all(|tensor| tensor.kind != TensorKind::W4 as u8)
}

fn told(mined: Option<Mined>, before: &str) -> String {
    match mined {
        Some(mined) => format!("in block {}, {} gas", mined.block, grouped(mined.gas)),
        None => before.to_owned(),
    }
}

fn line(name: &str, value: impl std::fmt::Display) {
    say(format_args!("  {name:<11} {value}"));
}
