//! Which web pages may ask. Pure.
//!
//! A gateway signs orders for whoever reaches it, and a browser reaches it for every page that
//! its user opens. Browsers name the page's origin, and other clients name none; so a request
//! that names an origin is answered only if the operator trusts it.

use std::str::FromStr;

/// A web page's origin, or many: `http://localhost:3000`, `http://localhost:*` for any port, or
/// `*` for all pages there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every page on the web may have orders signed.
    Any,
    /// A scheme and a host, with any port or none.
    AnyPort(String),
    /// Exactly this one.
    One(String),
}

/// Text that names no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no origin; write a scheme and a host, as in http://localhost:3000")]
pub struct OriginError {
    found: String,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let error = || OriginError { found: text.to_owned() };
        let (scheme, host) = text.split_once("://").ok_or_else(error)?;
        let (host, any_port) = match host.strip_suffix(":*") {
            Some(host) => (host, true),
            None => (host, false),
        };
        let plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"/*?#@".contains(&byte))
        };
        if !plain(scheme) || !plain(host) {
            return Err(error());
        }
        // Browsers write both in lower case.
        let text = format!("{scheme}://{host}").to_ascii_lowercase();
        Ok(if any_port { Self::AnyPort(text) } else { Self::One(text) })
    }
}

impl Origin {
    /// Pages of programs on the same machine, on any port.
    pub fn local() -> Vec<Self> {
        let hosts = ["http://localhost", "http://127.0.0.1"];
        hosts.map(|host| Self::AnyPort(host.to_owned())).to_vec()
    }

    /// Whether this is the origin that a browser names `found`, or one of them.
    pub(crate) fn covers(&self, found: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(origin) => origin == found,
            Self::AnyPort(origin) => found.strip_prefix(origin.as_str()).is_some_and(|rest| {
                let port = rest.strip_prefix(':').unwrap_or("0");
                rest.is_empty() || rest.starts_with(':') && port.parse::<u16>().is_ok()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &str, found: &str, expected: bool) {
        let origin: Origin = allowed.parse().unwrap();
        assert_eq!(origin.covers(found), expected, "{allowed} {found}");
    }

    #[test]
    fn an_origin_covers_itself_alone() {
        check("https://app.example", "https://app.example", true);
        check("https://App.example", "https://app.example", true);
        check("https://app.example", "https://app.example:8443", false);
        check("https://app.example", "http://app.example", false);
        check("https://app.example", "https://app.example.evil", false);
        check("https://app.example", "null", false);
    }

    #[test]
    fn any_port_is_no_other_host() {
        check("http://localhost:*", "http://localhost", true);
        check("http://localhost:*", "http://localhost:3000", true);
        check("http://localhost:*", "http://localhost.evil:3000", false);
        check("http://localhost:*", "http://localhost:3000.evil", false);
        check("http://localhost:*", "http://localhost:", false);
        check("http://localhost:*", "https://localhost:3000", false);
        check("*", "null", true);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in
            ["", "localhost", "http://", "http://*:3000", "http://a/b", "://a", "http://a b"]
        {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
