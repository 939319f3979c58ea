//! OAUTHBEARER, the server's part (RFC 7628; GS2 header: RFC 5801, section 4).

use zeroize::Zeroizing;

use crate::error::LoginError;
use crate::wire::frontend::SaslInitialResponse;

/// The mechanism's name.
pub(crate) const MECHANISM: &[u8] = b"OAUTHBEARER";
/// What a client answers to an error challenge.
pub(crate) const DUMMY_RESPONSE: &[u8] = b"\x01";
/// Separator of key and value pairs.
const KVSEP: u8 = 0x01;

/// Reads a SASLInitialResponse and gives the bearer token, or `None` where the client
/// sends an empty `auth`, which asks where to get one (as libpq does first).
///
/// Shape of the data: `n,,` (or `y,,`; an authzid is refused), `^A`, pairs `key=value^A`
/// with exactly one `auth=Bearer TOKEN`, `^A`. Errors: [`LoginError::Oauth`],
/// [`LoginError::Wire`].
pub(crate) fn read_initial_response(body: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, LoginError> {
    let response = SaslInitialResponse::decode(body)?;
    if response.mechanism != MECHANISM {
        return Err(LoginError::Oauth("another mechanism than was offered"));
    }
    let data = response
        .data
        .ok_or(LoginError::Oauth("no initial response"))?;
    let auth = auth_value(data)?;
    if auth.is_empty() {
        return Ok(None);
    }
    bearer_token(auth).map(Some)
}

fn auth_value(data: &[u8]) -> Result<&[u8], LoginError> {
    // Channel binding (`p`) is not defined for this mechanism.
    let pairs = data
        .strip_prefix(b"n,,")
        .or_else(|| data.strip_prefix(b"y,,"))
        .ok_or(LoginError::Oauth("GS2 header"))?;
    let pairs = pairs
        .strip_prefix(&[KVSEP])
        .ok_or(LoginError::Oauth("separator expected"))?;
    let pairs = pairs
        .strip_suffix(&[KVSEP])
        .ok_or(LoginError::Oauth("terminator expected"))?;
    let mut auth = None;
    let mut rest = pairs;
    while !rest.is_empty() {
        let end = memchr::memchr(KVSEP, rest).ok_or(LoginError::Oauth("pair without end"))?;
        let pair = rest.get(..end).unwrap_or_default();
        rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
        let equals = memchr::memchr(b'=', pair).ok_or(LoginError::Oauth("pair without key"))?;
        let key = pair.get(..equals).unwrap_or_default();
        let value = pair.get(equals.saturating_add(1)..).unwrap_or_default();
        if key.is_empty() || !key.iter().all(u8::is_ascii_alphabetic) {
            return Err(LoginError::Oauth("key"));
        }
        if !value
            .iter()
            .all(|b| matches!(b, 0x20..=0x7e | b'\t' | b'\r' | b'\n'))
        {
            return Err(LoginError::Oauth("value"));
        }
        if key == b"auth" && auth.replace(value).is_some() {
            return Err(LoginError::Oauth("auth given twice"));
        }
    }
    auth.ok_or(LoginError::Oauth("no auth"))
}

/// `Bearer` in any case, spaces, then a token of RFC 6750: letters, digits and
/// `-._~+/`, at most closed by `=` signs.
fn bearer_token(auth: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoginError> {
    let (scheme, rest) = auth
        .split_at_checked(6)
        .ok_or(LoginError::Oauth("scheme"))?;
    let token = rest.trim_ascii_start();
    if !scheme.eq_ignore_ascii_case(b"bearer") || token.len() == rest.len() {
        return Err(LoginError::Oauth("scheme"));
    }
    let stem = token
        .iter()
        .rposition(|byte| *byte != b'=')
        .and_then(|last| token.get(..=last))
        .ok_or(LoginError::Oauth("token"))?;
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    if !stem.iter().all(fits) {
        return Err(LoginError::Oauth("token"));
    }
    Ok(Zeroizing::new(token.to_vec()))
}

/// The error that tells a client where to get a token (RFC 7628, section 3.2.2).
pub(crate) fn error_challenge(issuer_url: &str, scope: &str) -> String {
    let document = if issuer_url.contains("/.well-known/") {
        issuer_url.to_owned()
    } else {
        let issuer = issuer_url.trim_end_matches('/');
        format!("{issuer}/.well-known/openid-configuration")
    };
    format!(
        "{{\"status\":\"invalid_token\",\"openid-configuration\":{},\"scope\":{}}}",
        json_string(&document),
        json_string(scope)
    )
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(data: &[u8]) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        let response = SaslInitialResponse {
            mechanism: MECHANISM,
            data: Some(data),
        };
        response.encode(&mut out).unwrap();
        out[5..].to_vec()
    }

    #[test]
    fn takes_the_token_of_the_rfc_example() {
        // RFC 7628, section 4.1; PostgreSQL forbids the authzid of the example.
        let data = b"n,,\x01host=server.example.com\x01port=143\x01\
                     auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let token = read_initial_response(&response(data)).unwrap().unwrap();
        assert_eq!(&token[..], b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
    }

    #[test]
    fn an_empty_auth_asks_for_discovery() {
        assert!(
            read_initial_response(&response(b"n,,\x01auth=\x01\x01"))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn refuses_what_breaks_the_rfc() {
        let cases: &[&[u8]] = &[
            b"",
            b"n",
            b"n,,",
            b"n,,\x01",
            b"n,,\x01\x01",
            b"n,a=other,\x01auth=Bearer abc\x01\x01",
            b"p=tls-server-end-point,,\x01auth=Bearer abc\x01\x01",
            b"n,,auth=Bearer abc\x01\x01",
            b"n,,\x01auth=Bearer abc\x01",
            b"n,,\x01auth=Bearer abc",
            b"n,,\x01auth=Bearer abc\x01\x01x",
            b"n,,\x01auth=Bearer abc\x01auth=Bearer abc\x01\x01",
            b"n,,\x01=x\x01auth=Bearer abc\x01\x01",
            b"n,,\x01x\x01auth=Bearer abc\x01\x01",
            b"n,,\x01host=\0\x01auth=Bearer abc\x01\x01",
            b"n,,\x01auth=Bearer\x01\x01",
            b"n,,\x01auth=Bearer \x01\x01",
            b"n,,\x01auth=Bearer ==\x01\x01",
            b"n,,\x01auth=Bearer a=b\x01\x01",
            b"n,,\x01auth=Bearer a b\x01\x01",
            b"n,,\x01auth=Bearerabc\x01\x01",
            b"n,,\x01auth=Basic abc\x01\x01",
        ];
        for data in cases {
            assert!(
                matches!(
                    read_initial_response(&response(data)),
                    Err(LoginError::Oauth(_))
                ),
                "{}",
                data.escape_ascii()
            );
        }
    }

    #[test]
    fn a_challenge_is_json_whatever_the_configuration_holds() {
        assert_eq!(
            error_challenge("https://idp.example/", "a \"b\"\n"),
            r#"{"status":"invalid_token","openid-configuration":"https://idp.example/.well-known/openid-configuration","scope":"a \"b\"\u000a"}"#
        );
        let given = "https://idp.example/.well-known/oauth-authorization-server/x";
        assert!(error_challenge(given, "").contains(&format!("\"{given}\"")));
    }
}
