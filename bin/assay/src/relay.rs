//! Models that servers of one's own answer for, as flags name them.

use assay_gateway::Relayed;
use assay_protocol::Amount;
use clap::Args;

use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::parse_units;

/// Which models servers of one's own answer for.
#[derive(Args, Clone, Debug)]
pub(crate) struct RelayArgument {
    /// Pass requests for MODEL on to the OpenAI server at URL (without /v1), without receipts; may be given
    /// several times, for one model too
    #[arg(long, value_name = "MODEL=URL", env = "ASSAY_RELAY", value_delimiter = ',')]
    relay: Vec<String>,
    /// What each of their answers costs, in ASY; holders of keys and payers by x402 pay it
    #[arg(long, value_name = "ASY", env = "ASSAY_RELAY_PRICE", default_value = "0", value_parser = parse_units)]
    relay_price: Amount,
    /// What their servers expect as bearer token; better given by the variable, which `ps` does not show
    #[arg(long, value_name = "TOKEN", env = "ASSAY_RELAY_TOKEN", hide_env_values = true)]
    relay_token: Option<String>,
}

impl RelayArgument {
    /// The models, in the order in which they are first named; `x402` if their answers are sold by it.
    pub(crate) fn relayed(&self, x402: bool) -> Outcome<Vec<Relayed>> {
        if x402 && !self.relay.is_empty() && self.relay_price == Amount(0) {
            return Err(Failure::new(Exit::Usage, "answers for nothing cannot be paid by x402")
                .why("each request would be asked to pay 0")
                .fix("pass --relay-price ASY, or leave --x402 out"));
        }
        let mut models: Vec<Relayed> = Vec::new();
        let token = self.relay_token.as_ref().map(|token| format!("Bearer {token}").parse());
        let authorization = token.transpose().map_err(|error| {
            Failure::new(Exit::Usage, "the servers' token cannot be sent").why(error)
        })?;
        for named in &self.relay {
            let wrong = |why: &dyn std::fmt::Display| {
                Failure::new(Exit::Usage, format_args!("{named:?} is no model with its server"))
                    .why(why)
                    .fix("write --relay MODEL=http://HOST:PORT")
            };
            // Names of models may hold '=', but hardly "=http".
            let (model, url) =
                named.split_once("=http").ok_or_else(|| wrong(&"there is no =http://"))?;
            let url = format!("http{url}").parse().map_err(|error| wrong(&error))?;
            match models.iter_mut().find(|known| known.model == model) {
                Some(known) => known.servers.push(url),
                None => models.push(Relayed {
                    model: model.to_owned(),
                    servers: vec![url],
                    authorization: authorization.clone(),
                    price: self.relay_price,
                }),
            }
        }
        for model in &models {
            let unfit = |error| Failure::new(Exit::Usage, "a relayed server is unfit").why(error);
            model.check().map_err(unfit)?;
        }
        Ok(models)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relayed(relay: &[&str]) -> Result<Vec<(String, usize)>, String> {
        let relay = relay.iter().map(|text| (*text).to_owned()).collect();
        let argument =
            RelayArgument { relay, relay_price: Amount(0), relay_token: Some("t".into()) };
        let models = argument.relayed(false).map_err(|failure| failure.to_string())?;
        assert!(models.iter().all(|model| model.authorization.is_some()));
        Ok(models.into_iter().map(|model| (model.model, model.servers.len())).collect())
    }

    #[test]
    fn a_model_may_have_several_servers() {
        let named = ["a/b=http://x:1", "c=d=http://y", "a/b=http://z:2/base"];
        assert_eq!(relayed(&named), Ok(vec![("a/b".into(), 2), ("c=d".into(), 1)]));
        assert_eq!(relayed(&[]), Ok(vec![]));
        assert!(relayed(&["model"]).unwrap_err().contains("is no model with its server"));
        assert!(relayed(&["model=http://a b"]).is_err());
        assert!(relayed(&["model=https://a"]).unwrap_err().contains("unfit"));
    }

    #[test]
    fn nothing_is_not_sold() {
        let sold = |relay: &[&str], price| {
            let relay = relay.iter().map(|text| (*text).to_owned()).collect();
            let argument = RelayArgument { relay, relay_price: Amount(price), relay_token: None };
            argument.relayed(true).map(|models| models.len()).map_err(|failure| {
                assert!(failure.is(Exit::Usage));
                failure.to_string()
            })
        };
        assert!(sold(&["m=http://x"], 0).unwrap_err().contains("--relay-price"));
        assert_eq!((sold(&["m=http://x"], 1), sold(&[], 0)), (Ok(1), Ok(0)));
    }
}
