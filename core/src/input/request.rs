//! The request behind a call, as PostgREST passes it: JSON in settings of the transaction. Read are
//! the claims of a verified token, and three headers. All headers together are never kept, because
//! they hold the token itself. See docs/facts.md#supabase-and-postgrest.

use super::ClaimsSub;
use super::address::usual;
use serde::Deserialize;

/// The one claim that is read. The proxy vouches that the token was verified.
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

/// The subject that a session's claims name, whole, because it is compared. `caller` decides
/// whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedSubject(String);

impl ClaimedSubject {
    /// Reads the subject of claims. Only a JSON object with one `sub` of text names a subject. Text
    /// with a NUL names nobody, because no column could hold it.
    pub fn of_claims(json: &str) -> Option<ClaimedSubject> {
        let sub = object::<Claims>(json)?.sub?;
        (!sub.is_empty() && !sub.contains('\0')).then_some(ClaimedSubject(sub))
    }

    /// Shows the subject, to compare it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The subject as the trail keeps it.
    pub fn shown(&self) -> ClaimsSub {
        ClaimsSub::clean(&self.0)
    }
}

/// The headers that are recorded, as they were sent. They are not cleaned yet.
#[derive(Default)]
pub struct Headers {
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// The first of `X-Forwarded-For`, in its usual spelling.
    pub ip_address: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
}

impl Headers {
    /// Reads the headers of a request. A text that is no JSON object has none.
    pub fn parse(json: &str) -> Headers {
        let sent: Sent = object(json).unwrap_or_default();
        let ip_address = sent.forwarded_for.map(|list| usual(&list));
        Headers { request_id: sent.request_id, ip_address, user_agent: sent.user_agent }
    }
}

/// Parses a JSON object. A list is refused, because serde would read its first element as the first
/// field.
fn object<T: for<'a> Deserialize<'a>>(json: &str) -> Option<T> {
    json.trim_start().starts_with('{').then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subject(claims: &str) -> Option<String> {
        ClaimedSubject::of_claims(claims).map(|subject| subject.as_str().to_owned())
    }

    #[test]
    fn only_an_object_with_one_sub_of_text_names_somebody() {
        assert_eq!(
            subject(r#"{"role":"authenticated","sub":"u-1","exp":1}"#).as_deref(),
            Some("u-1")
        );
        assert_eq!(subject(r#"{"sub":"größe 日本"}"#).as_deref(), Some("größe 日本"));
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
            assert_eq!(subject(claims), None, "{claims}");
        }
    }

    #[test]
    fn a_subject_is_compared_whole_and_shown_cut() {
        let long = "ü".repeat(1000);
        let claimed = ClaimedSubject::of_claims(&format!(r#"{{"sub":"{long}"}}"#)).unwrap();
        assert_eq!(claimed.as_str(), long);
        assert_eq!(claimed.shown().as_str(), "ü".repeat(64));
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

    proptest! {
        #[test]
        fn whoever_is_named_is_the_sub(name in "[^\0]{1,200}") {
            let claims = serde_json::json!({ "aud": "x", "sub": name }).to_string();
            prop_assert_eq!(subject(&claims), Some(name));
        }

        #[test]
        fn any_text_at_all_is_survived(text in any::<String>()) {
            let _ = (subject(&text), Headers::parse(&text));
            let _ = (subject(&format!("{{{text}}}")), Headers::parse(&format!("{{{text}}}")));
        }
    }
}
