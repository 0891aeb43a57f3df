//! What PostgREST hands on of a request, as JSON in settings of the transaction: the claims of a
//! verified token, and the headers, of which three are taken. Whole headers are never kept: they
//! carry the token itself. FACTS §4.

use crate::postgres::session;
use crate::redact;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// Of the claims only who it is; that the token was verified is the proxy's word.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
}

#[derive(Deserialize, Default)]
struct Sent {
    #[serde(rename = "x-request-id")]
    request_id: Option<String>,
    #[serde(rename = "x-forwarded-for")]
    forwarded_for: Option<String>,
    #[serde(rename = "user-agent")]
    user_agent: Option<String>,
}

/// The headers that are recorded.
#[derive(Default)]
pub(super) struct Headers {
    pub request_id: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
}

/// The subject that the session's claims name; whether it counts is the caller's to judge. Anything
/// that is not an object with one `sub` of text names nobody; nor does text with a NUL, which no
/// column of ours could hold.
pub(super) fn claimed_subject() -> Option<String> {
    subject_of(&session::setting(c"request.jwt.claims")?)
}

fn subject_of(claims: &str) -> Option<String> {
    object::<Claims>(claims)?.sub.filter(|sub| !sub.is_empty() && !sub.contains('\0'))
}

impl Headers {
    /// The headers of this session's request, as its settings hold them.
    pub(super) fn of_session() -> Headers {
        session::setting(c"request.headers").map(|json| Headers::parse(&json)).unwrap_or_default()
    }

    fn parse(json: &str) -> Headers {
        let sent: Sent = object(json).unwrap_or_default();
        let ip_address = sent.forwarded_for.map(|addresses| address(first_hop(&addresses)));
        Headers { request_id: sent.request_id, ip_address, user_agent: sent.user_agent }
    }
}

/// What a JSON object says. A list is none: serde would take its first element for the first field.
fn object<T: for<'a> Deserialize<'a>>(json: &str) -> Option<T> {
    json.trim_start().starts_with('{').then(|| serde_json::from_str(json).ok())?
}

/// The first address of a forwarded-for list: the client; the rest are proxies.
pub(super) fn first_hop(addresses: &str) -> &str {
    let nearest = redact::cut(addresses, 16_384);
    nearest.split(',').next().unwrap_or(nearest).trim()
}

/// An address as it is written usually, without a port, so that one client has one spelling; text
/// that is none stays.
fn address(text: &str) -> String {
    let host = text.parse::<SocketAddr>().map(|socket| socket.ip());
    let host =
        host.or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    host.map_or_else(|_| text.to_owned(), |host| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_one_sub_of_text_names_somebody() {
        assert_eq!(
            subject_of(r#"{"role":"authenticated","sub":"u-1","exp":1}"#).as_deref(),
            Some("u-1")
        );
        assert_eq!(subject_of(r#"{"sub":"größe 日本"}"#).as_deref(), Some("größe 日本"));
        let nobody = [
            "",
            "u-1",
            "[]",
            "null",
            r#""u-1""#,
            r#"["u-1"]"#,
            "{}",
            r#"{"sub":null}"#,
            r#"{"sub":""}"#,
            r#"{"sub":1}"#,
            r#"{"sub":"a\u0000b"}"#,
            r#"{"sub":["u-1"]}"#,
            r#"{"sub":"u-1","sub":"u-2"}"#,
            r#"{"Sub":"u-1"}"#,
            r#"{"sub":"u-1""#,
            r#"{"sub":"u-1"} {"sub":"u-2"}"#,
        ];
        for claims in nobody {
            assert_eq!(subject_of(claims), None, "{claims}");
        }
    }

    #[test]
    fn of_the_headers_three_are_taken() {
        let headers = Headers::parse(
            r#"{"authorization":"Bearer t","apikey":"k","x-forwarded-for":"203.0.113.7, 10.0.0.1",
                "user-agent":"curl/8","x-request-id":"r-1","cookie":"c"}"#,
        );
        assert_eq!(headers.request_id.as_deref(), Some("r-1"));
        assert_eq!(headers.ip_address.as_deref(), Some("203.0.113.7"));
        assert_eq!(headers.user_agent.as_deref(), Some("curl/8"));
        for broken in ["", "[]", r#"["r","a","u"]"#, "nonsense", r#"{"user-agent":1}"#] {
            let headers = Headers::parse(broken);
            assert!(
                headers.request_id.or(headers.ip_address).or(headers.user_agent).is_none(),
                "{broken}"
            );
        }
    }

    #[test]
    fn an_address_has_one_spelling_and_other_text_stays() {
        for (given, kept) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("unknown", "unknown"),
            ("_hidden", "_hidden"),
            ("203.0.113.999", "203.0.113.999"),
            ("", ""),
        ] {
            assert_eq!(address(given), kept);
        }
    }
}
