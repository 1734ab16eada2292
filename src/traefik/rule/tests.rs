use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Traefik's matcher for the rules that we write: a small reading of its documentation, apart from the writing side.
pub(crate) fn matches(rule: &str, host: &str, path: &str) -> bool {
    if let Some((host_part, rest)) = rule.split_once(")&&(") {
        let rest = rest.strip_suffix(')').expect("a closing parenthesis");
        return matches(&format!("{host_part})"), host, path) && matches(rest, host, path);
    }
    split_alternatives(rule).into_iter().any(|term| {
        let (name, argument) = term.split_once("(`").expect("a matcher");
        let argument = argument.strip_suffix("`)").expect("a literal");
        assert!(!argument.contains('`'), "a literal was broken open: {rule}");
        match name {
            "Path" => path == argument,
            "PathPrefix" => path.starts_with(argument),
            "Host" => host == argument,
            "HostRegexp" => host.starts_with(&argument[1..].replace("\\.", ".")),
            "PathRegexp" => expression_matches(argument, path),
            other => panic!("an unknown matcher {other} in {rule}"),
        }
    })
}

fn split_alternatives(rule: &str) -> Vec<&str> {
    // `||` inside a literal belongs to the literal.
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    let bytes = rule.as_bytes();
    for i in 0..bytes.len() {
        match bytes[i] {
            b'`' => quoted = !quoted,
            b'|' if !quoted && bytes.get(i + 1) == Some(&b'|') => {
                parts.push(&rule[start..i]);
                start = i + 2;
            }
            _ => {}
        }
    }
    parts.push(&rule[start..]);
    parts
}

/// Whether an expression takes a path.
fn expression_matches(expression: &str, path: &str) -> bool {
    expression_rest(expression, path).is_some()
}

/// What an expression leaves of a path that it takes. Our expressions are a row of characters and pairs, closed by
/// `(?:/|$)`.
pub(crate) fn expression_rest<'a>(expression: &str, path: &'a str) -> Option<&'a str> {
    let mut body = expression.strip_prefix('^').and_then(|e| e.strip_suffix("(?:/|$)")).expect("our shape");
    let mut rest = path;
    let code = |hex: &str| char::from_u32(u32::from_str_radix(hex, 16).expect("hex")).expect("a character");
    while !body.is_empty() {
        let (wanted, after): (Vec<String>, &str) = if let Some(pair) = body.strip_prefix("(?:\\x{") {
            let (hex, tail) = pair.split_once("}|").expect("a pair");
            let (escaped, after) = tail.split_once(')').expect("a pair");
            (vec![code(hex).to_string(), escaped.to_owned()], after)
        } else if let Some(character) = body.strip_prefix("\\x{") {
            let (hex, after) = character.split_once('}').expect("a code");
            (vec![code(hex).to_string()], after)
        } else {
            let c = body.chars().next().expect("not empty");
            assert!(c.is_ascii_alphanumeric() || "/-_~%".contains(c), "syntax from a user's text: {expression}");
            (vec![c.to_string()], &body[c.len_utf8()..])
        };
        rest = wanted.iter().find_map(|w| rest.strip_prefix(w.as_str()))?;
        body = after;
    }
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// What Traefik sends on of a path of which each character was sent plain or escaped: one text for each character.
pub(crate) fn as_traefik_sends(decoded: &str, escape: impl Fn(usize) -> bool) -> Vec<String> {
    let sent = |(i, c): (usize, char)| {
        let needs_none = c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if ALWAYS_ESCAPED.contains(c) || (!needs_none && escape(i)) {
            c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
        } else {
            c.to_string()
        }
    };
    decoded.chars().enumerate().map(sent).collect()
}

/// What Traefik's matcher sees of a path of which each character was sent plain or escaped.
pub(crate) fn as_traefik_sees(decoded: &str, escape: impl Fn(usize) -> bool) -> String {
    decoded
        .chars()
        .enumerate()
        .map(|(i, c)| {
            let reserved = PLAIN_OR_ESCAPED.contains(c);
            if ALWAYS_ESCAPED.contains(c) || (reserved && escape(i)) {
                format!("%{:02X}", c as u32)
            } else {
                c.to_string()
            }
        })
        .collect()
}

fn spec(path: &str) -> RouteSpec {
    RouteSpec::from_decoded(path).expect("valid")
}

#[rstest]
#[case("/user/jane", "PathPrefix(`/user/jane/`)||Path(`/user/jane`)", None)]
#[case(
    "/user/a@b",
    "PathPrefix(`/user/a@b/`)||Path(`/user/a@b`)||PathPrefix(`/user/a%40b/`)||Path(`/user/a%40b`)",
    Some(100_009)
)]
#[case("/user/100%", "PathPrefix(`/user/100%25/`)||Path(`/user/100%25`)", None)]
#[case("/user/a(b)+", "PathRegexp(`^/user/a(?:\\x{28}|%28)b(?:\\x{29}|%29)(?:\\x{2b}|%2B)(?:/|$)`)", Some(100_011))]
#[case("/user/`", "PathRegexp(`^/user/\\x{60}(?:/|$)`)", Some(100_007))]
fn rules_of_routes(#[case] place: &str, #[case] text: &str, #[case] priority: Option<usize>) {
    assert_eq!(route(Space::Paths, place), Rule { text: text.to_owned(), priority });
}

#[test]
fn the_path_of_a_route_in_what_is_sent_on() {
    assert_eq!(own_path(Space::Paths, "/u/a.b-c").as_deref(), Some("^/u/a\\x{2e}b-c(?:/|$)"));
    assert_eq!(own_path(Space::Paths, "/é@%").as_deref(), Some("^/(?:\\x{e9}|%C3%A9)(?:\\x{40}|%40)%25(?:/|$)"));
    assert_eq!(own_path(Space::Hosts, "x.org/hub").as_deref(), Some("^/hub(?:/|$)"));
    assert_eq!((own_path(Space::Paths, ""), own_path(Space::Hosts, "x.org")), (None, None));
}

#[test]
fn rules_with_hosts() {
    assert_eq!(route(Space::Hosts, "jane.x.org").text, "Host(`jane.x.org`)");
    assert_eq!(route(Space::Hosts, "x.org/hub").text, "Host(`x.org`)&&(PathPrefix(`/hub/`)||Path(`/hub`))");
    assert_eq!(bucket(Space::Hosts, "jane.x", false).as_deref(), Some("HostRegexp(`^jane\\.x`)"));
    assert_eq!(bucket(Space::Hosts, "x.org/hu", false).as_deref(), Some("Host(`x.org`)&&(PathPrefix(`/hu`))"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// For any text: the rule takes every spelling of the route and of what is below it, and nothing beside it.
    #[test]
    fn a_rule_takes_exactly_its_route(name in "(?s).{1,12}", tail in "(?s).{0,6}", mask in any::<u32>()) {
        prop_assume!(RouteSpec::from_decoded(&format!("/user/{name}")).is_ok());
        let spec = spec(&format!("/user/{name}"));
        prop_assume!(!spec.is_root());
        let rule = route(Space::Paths, Space::Paths.place(&spec)).text;
        let escape = |i: usize| mask >> (i % 32) & 1 == 1;
        for below in [String::new(), "/".to_owned(), format!("/{tail}")] {
            let path = as_traefik_sees(&format!("{}{below}", spec.as_str()), escape);
            prop_assert!(matches(&rule, "", &path), "{rule} misses {path:?}");
        }
        let beside = format!("{}{tail}", spec.as_str());
        prop_assert_eq!(matches(&rule, "", &as_traefik_sees(&beside, escape)), spec.covers(&beside));
    }

    /// For any text: the path of a route is cut off in every spelling, and the rest stays as it was sent.
    #[test]
    fn a_route_is_cut_off_in_every_spelling(name in "(?s).{1,12}", tail in "(?s)(/.{0,6})?", mask in any::<u32>()) {
        prop_assume!(RouteSpec::from_decoded(&format!("/user/{name}")).is_ok());
        let spec = spec(&format!("/user/{name}"));
        let own = own_path(Space::Paths, Space::Paths.place(&spec)).expect("a path");
        let sent = as_traefik_sends(&format!("{}{tail}", spec.as_str()), |i| mask >> (i % 32) & 1 == 1);
        let rest = sent[spec.as_str().chars().count()..].concat();
        let sent = sent.concat();
        prop_assert_eq!(expression_rest(&own, &sent), Some(rest.as_str()));
    }

    /// A bucket admits every spelling of each of its members.
    #[test]
    fn a_bucket_takes_all_its_members(name in "(?s).{1,10}", cut in 1usize..12, mask in any::<u32>()) {
        prop_assume!(RouteSpec::from_decoded(&format!("/user/{name}")).is_ok());
        let spec = spec(&format!("/user/{name}"));
        let place = Space::Paths.place(&spec);
        prop_assume!(place.len() > 5);
        let cut = (1..=place.len()).rev().find(|c| *c <= 5 + cut && place.is_char_boundary(*c)).expect("a boundary");
        if let Some(rule) = bucket(Space::Paths, &place[..cut], false) {
            let path = as_traefik_sees(place, |i| mask >> (i % 32) & 1 == 1);
            prop_assert!(matches(&rule, "", &path), "{rule} misses {path:?}");
            prop_assert_eq!(bucket_prefix(Space::Paths, &rule), Some((place[..cut].to_owned(), false)));
        }
        if let Some(rule) = bucket(Space::Paths, place, true) {
            prop_assert_eq!(bucket_prefix(Space::Paths, &rule), Some((place.to_owned(), true)));
        }
    }

    #[test]
    fn bucket_prefixes_with_hosts_read_back(host in "[a-z0-9][a-z0-9._-]{0,12}", path in "(/[a-z@% ]{1,4}){0,2}", whole in any::<bool>()) {
        let prefix = format!("{host}{path}");
        if let Some(rule) = bucket(Space::Hosts, &prefix, whole) {
            prop_assert_eq!(bucket_prefix(Space::Hosts, &rule), Some((prefix, whole)));
        }
    }

    /// A route is ranked above every route that covers it, and above every bucket that could take its requests.
    #[test]
    fn longer_places_rank_higher(name in "(?s)[^/]{1,8}", below in "(?s)[^/]{1,8}", hosts in any::<bool>()) {
        let space = if hosts { Space::Hosts } else { Space::Paths };
        let (upper, lower) = (format!("/h.x/user/{name}"), format!("/h.x/user/{name}/{below}"));
        prop_assume!(RouteSpec::from_decoded(&lower).is_ok());
        let rank = |spec: &RouteSpec| {
            let rule = route(space, space.place(spec));
            rule.priority.unwrap_or(rule.text.len())
        };
        let (upper, lower) = (spec(&upper), spec(&lower));
        prop_assume!(upper.as_str() != lower.as_str());
        prop_assert!(rank(&upper) < rank(&lower));
        prop_assert!(rank(&upper) > crate::traefik::bucket::Bucket::new(space.place(&upper), true).priority());
    }
}
