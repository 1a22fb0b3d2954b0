//! Rewrites the tags that change a list in place, which values of the template engine cannot do.
//!
//! Python's templates keep a queue in a namespace: `{% set _ = ns.ids.append(id) %}`, and later
//! `{% set id = ns.ids.pop(0) %}`. A new list put in the old one's place does the same, as nothing else
//! holds that list. Of lists that are plain variables this would not be true, so those tags stay.

use crate::tags;

/// What `body`, the inside of a `{% … %}` without its white space marks, is to become.
pub(crate) fn without_mutation(body: &str) -> Option<String> {
    let rest = body.strip_prefix("set")?;
    let (name, value) = rest.strip_prefix(char::is_whitespace)?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if !tags::is_name(name) {
        return None;
    }
    if let Some((list, item)) = call_of(value, "append") {
        return Some(format!("set {list} = {list} + [{item}]"));
    }
    let (list, place) = call_of(value, "pop")?;
    let (item, others) = match place {
        "0" => ("[0]", "[1:]"),
        "" | "-1" => ("[-1]", "[:-1]"),
        _ => return None,
    };
    Some(format!("set {name} = {list}{item} %}}{{% set {list} = {list}{others}"))
}

/// The list and the arguments in `namespace.list.method(arguments)`.
fn call_of<'t>(value: &'t str, method: &str) -> Option<(&'t str, &'t str)> {
    let (list, call) = value.split_once('(')?;
    let list = list.trim_end().strip_suffix(method)?.trim_end().strip_suffix('.')?.trim_end();
    let (namespace, field) = list.split_once('.')?;
    let arguments = call.strip_suffix(')')?.trim();
    let fits = tags::is_name(namespace) && tags::is_name(field) && tags::is_balanced(arguments);
    fits.then_some((list, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        assert_eq!(without_mutation(body).as_deref(), expected, "{body}");
    }

    #[test]
    fn queues_in_namespaces_are_put_anew() {
        check("set _ = q.ids.append(a + f(b))", Some("set q.ids = q.ids + [a + f(b)]"));
        check("set x=q.ids.pop( 0 )", Some("set x = q.ids[0] %}{% set q.ids = q.ids[1:]"));
        check("set x = q.ids.pop()", Some("set x = q.ids[-1] %}{% set q.ids = q.ids[:-1]"));
    }

    #[test]
    fn all_else_stays() {
        for body in [
            "set _ = ids.append(1)",
            "set _ = a.b.c.append(1)",
            "set _ = q.ids.append(a) + (b)",
            "set _ = q.ids.append(')' + a",
            "set x = q.ids.pop(1)",
            "set q.n = q.ids.pop(0)",
            "settle = q.ids.append(1)",
            "set x = y",
            "if q.ids.append(1)",
            "set",
        ] {
            check(body, None);
        }
    }
}
