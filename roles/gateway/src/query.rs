//! What stands after the question mark of a request's address.

use axum::http::Uri;

use crate::openai::Problem;
use crate::shelf::Page;

/// Things of a page where a request names no number.
const LIMIT_DEFAULT: usize = 20;

/// Most things of one page.
const LIMIT_MAX: usize = 10_000;

/// The parameters of a request, in their order.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (plain(name), plain(value))
        };
        Self(pairs.map(read).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The parameters `name[…]`, by what stands in the brackets.
    pub(crate) fn within<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let open = format!("{name}[");
        self.0.iter().filter_map(move |(found, value)| {
            Some((found.strip_prefix(&open)?.strip_suffix(']')?, value.as_str()))
        })
    }

    /// The part of a list that is wanted.
    ///
    /// # Errors
    /// A limit that is no number, and an order that is none.
    pub(crate) fn page(&self, newest_first: bool) -> Result<Page, Problem> {
        let limit = match self.get("limit") {
            None => LIMIT_DEFAULT,
            Some(limit) => {
                limit.parse().ok().filter(|limit| *limit <= LIMIT_MAX).ok_or_else(|| {
                    let message = format!("limit is {limit:?}, expected 0 to {LIMIT_MAX}");
                    Problem::invalid_value("limit", message)
                })?
            }
        };
        let newest_first = match self.get("order") {
            None => newest_first,
            Some("asc") => false,
            Some("desc") => true,
            Some(order) => {
                let message = format!("order is {order:?}, expected asc or desc");
                return Err(Problem::invalid_value("order", message));
            }
        };
        Ok(Page { after: self.get("after").map(str::to_owned), limit, newest_first })
    }
}

/// Text whose bytes may be spelled as `%XX`, and spaces as `+`.
fn plain(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let spelled = (first == b'%').then(|| after.get(..2)).flatten();
        let spelled = spelled.and_then(|two| std::str::from_utf8(two).ok());
        match spelled.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("http://h/p?{text}").parse().unwrap())
    }

    #[test]
    fn parameters_are_read_as_they_were_meant() {
        let query = query("a=b%20c+d&metadata%5Bfoo%5D=%C3%BC&empty&bad=%zz%");
        assert_eq!((query.get("a"), query.get("bad")), (Some("b c d"), Some("%zz%")));
        assert_eq!((query.get("empty"), query.get("none")), (Some(""), None));
        assert_eq!(query.within("metadata").collect::<Vec<_>>(), [("foo", "ü")]);
    }

    #[test]
    fn a_page_has_bounds() {
        let page = query("limit=0&order=asc&after=x").page(true).unwrap();
        assert_eq!((page.limit, page.newest_first, page.after.as_deref()), (0, false, Some("x")));
        assert_eq!(query("").page(true).unwrap().limit, LIMIT_DEFAULT);
        assert_eq!(query("limit=10001").page(true).unwrap_err().code, "invalid_value");
        assert_eq!(query("order=up").page(true).unwrap_err().code, "invalid_value");
    }

    proptest::proptest! {
        #[test]
        fn no_query_panics(text in "[a-z%0-9+&=\\[\\]]{0,40}") {
            let _ = query(&text).page(false);
        }
    }
}
