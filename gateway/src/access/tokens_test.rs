//! Which tokens are good, and what is said of the others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::{hmac, signature};
use serde_json::json;

use super::*;

const SECRET: &[u8] = b"the secret of these tests";

/// The public half of a key of which nobody has the other one.
const RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAw/XCintI/Cyt9X/LhmL2
9i69V3b+L6bx00l2t1AOwQ7eKaJ/vfBQhOCE074iv+l5lbiem9DHJeFB69Co50KE
tNZ6nhEKa6Y/rjwb0gJGBSeR6PUUQAuPhVhpITUNEieUmKQg949ZHd3JWPKt3BlG
aKGHgzZH0PFW9VsBKbeRSdQrdGpSKJKv1/g66BSqnvqB8oGwQUNMCqmd2GuvzkRR
5O5Q24MHohcpNEBWzCzny5WGhLDhu43P5pxyWooi0JRLiJcnUXYRW4mEcweyg0D7
YFTdPthZuT/Sg6lJBzEQazgxwC4E6bkMrllea6TA/LG4Gd2UatY6yWiigO6gm+hX
BQIDAQAB
-----END PUBLIC KEY-----
";

/// One that is too short: 1,024 bits.
const SHORT_RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDQmlGH7l+gWQg5ufTCgP0PL4pl
S63SlC/fvpYLx18HB15E9dsPaOxZs9jf+vUGP/qL4u8imEygX4kSzbMUrW7jw4VZ
vSgLuYovuLDA/MJbX/WS+CKndWVGfQehl4lYmk6e1k8WP86f+TzSNq/qOXhaqfer
WMm0kqtymQ4Ai77pWQIDAQAB
-----END PUBLIC KEY-----
";

/// What the longer key has signed: `{"sub":"reader"}`, without an end.
const RSA_TOKENS: [(Algorithm, &str); 3] = [
    (
        Algorithm::Rs256,
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyZWFkZXIifQ.Qfr9fTjqKEPCbpEv_zYnaH0uKT1Uyk\
         FG4r-0LQdE-ZK6JrqAQ4KzfmOFkMCbcMhyY5rlzg0U8OToREEd0QjYxc3WwCDn_60fr9w58OQUvv6fdW4sUc0C4ohs\
         5E0RP3LS6LFXnh_bLnldLdtGC2oToDawBnJgjP73xMGJk9Brgz--fwI6iNrH1ZKPWQPguNXhMTr0bVyT8pPEugfwoE\
         ipCnvWkYK76tyQNZ2yu2EUrXbG69RCk5ZxjbgDf9evBckQxvSYEK5mNWA8z7x_NCGyT_J2CbkHOI3ZUjdJnLrPzza_\
         d4s2tuB1DgO06naGX98FGCFk81VT94CZf3Mppf4vOQ",
    ),
    (
        Algorithm::Rs384,
        "eyJhbGciOiJSUzM4NCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyZWFkZXIifQ.AA4VNpgY4L7tv69srTt-QJOwGD2uJM\
         IRaxzwuoTXv84Dl63JjClDgWsPdgd4778sj0I3GieqPj9JbGX53eClD_0__uP4OaFVcrmcLsjSIa_HVljcVC7fHPKJ\
         s8OducdVHxpHXEJbkqOFK5_9IQ_qJ7G_ySRLz-a-eQtPpIgQSG3WOFW-614ue24x1KV18akQIgHg-QnkHCK-2CzAiz\
         46mVrBZ7tOKVyOhuZ3GujAovM7IZNcz62b5ZZpzse04vo5rIeqklGtiUcxzGu5a856cE_dxm5TWcylTLPbELWRqDQk\
         ziiuM7TK4KL8l2OW-7OUSmUexb4JRw33gFswMpXZdw",
    ),
    (
        Algorithm::Rs512,
        "eyJhbGciOiJSUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJyZWFkZXIifQ.VvNnndmAUe3yjzt3lNQxQU07mspisi\
         6Jxr8TBhO4kWac_fEGILZkz6Ba2yaPipG_bwAJ86mQOsKrGtqDnWOigXibWpMlydpbn6nIJuFWmIy0uhHqbDemG9Ja\
         4steqX81Mt422k1sdufmG90_Trv9K42YscUc5WLp7iq6ncqPkVbr5-SDbkYmWj1SCjhY_eRPeeN2ddKQkN8Sei-qp-\
         I_COvLwLXwdRf8lHMWaql79t_VLsciRxOWKjVj_ioMvjMhl4uvK-gGWO_wdEkLZDY17bCU4cd_12NSuBsFG2za0KzE\
         0clU-1xTf6ddWv_jDFu7m-0x4u96EUq_p9SaAbrkZw",
    ),
];

fn config(algorithm: Algorithm, key: &[u8]) -> AuthenticationConfig {
    AuthenticationConfig {
        algorithm,
        key: key.to_vec(),
        client_claim: None,
    }
}

pub fn of_secret() -> Tokens {
    Tokens::new(&config(Algorithm::Hs256, SECRET)).unwrap()
}

pub fn now() -> f64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap().as_secs_f64()
}

/// Now, and so many seconds more or less.
fn in_seconds(seconds: i64) -> i64 {
    now() as i64 + seconds
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn with_signature(unsigned: String, signature: &[u8]) -> String {
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn signed(algorithm: Algorithm, claims: &Value) -> String {
    signed_with_header(
        &json!({"alg": algorithm.name(), "typ": "JWT"}),
        algorithm,
        claims,
    )
}

pub fn signed_with_header(header: &Value, algorithm: Algorithm, claims: &Value) -> String {
    let unsigned = unsigned(header, claims);
    let of = match algorithm {
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let tag = hmac::sign(&hmac::Key::new(of, SECRET), unsigned.as_bytes());
    with_signature(unsigned, tag.as_ref())
}

fn refusal(tokens: &Tokens, token: &str) -> TokenError {
    tokens.verify(Some(token.as_bytes())).unwrap_err()
}

#[test]
fn tokens_of_a_secret_are_good_with_their_own_algorithm_only() {
    let of_secret = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512];
    for algorithm in of_secret {
        let tokens = Tokens::new(&config(algorithm, SECRET)).unwrap();
        for other in of_secret {
            let token = signed(other, &json!({"sub": "reader"}));
            if other == algorithm {
                let claims = tokens.verify(Some(token.as_bytes())).unwrap();
                assert_eq!(claims.subject.as_deref(), Some("reader"));
                assert_eq!(claims.client, None);
            } else {
                let refused = refusal(&tokens, &token);
                assert_eq!(refused, TokenError::Algorithm { allowed: algorithm });
            }
        }
    }
}

#[test]
fn tokens_of_an_rsa_key_are_good_and_not_with_another_signature() {
    for (algorithm, token) in RSA_TOKENS {
        let tokens = Tokens::new(&config(algorithm, RSA_KEY.as_bytes())).unwrap();
        let claims = tokens.verify(Some(token.as_bytes())).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("reader"), "{algorithm}");
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        let wrong = with_signature(unsigned.to_owned(), &[7; 256]);
        assert_eq!(refusal(&tokens, &wrong), TokenError::Signature);
        // The public key is no secret: a token "signed" with it must not be good.
        let confused = signed(Algorithm::Hs256, &json!({"sub": "reader"}));
        assert_eq!(
            refusal(&tokens, &confused),
            TokenError::Algorithm { allowed: algorithm }
        );
    }
}

#[test]
fn tokens_of_a_curve_are_good_and_not_with_another_signature() {
    for (algorithm, curve, fixed) in [
        (
            Algorithm::Es256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        (
            Algorithm::Es384,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
    ] {
        let random = SystemRandom::new();
        let key = rcgen::KeyPair::generate_for(curve).unwrap();
        let pair = signature::EcdsaKeyPair::from_pkcs8(fixed, &key.serialize_der(), &random);
        let pair = pair.unwrap();
        let tokens = Tokens::new(&config(algorithm, key.public_key_pem().as_bytes())).unwrap();
        // Their numbers begin with zeros now and then.
        for number in 0..300 {
            let header = json!({"alg": algorithm.name()});
            let unsigned = unsigned(&header, &json!({"sub": "reader", "jti": number}));
            let signature = pair.sign(&random, unsigned.as_bytes()).unwrap();
            let token = with_signature(unsigned.clone(), signature.as_ref());
            tokens.verify(Some(token.as_bytes())).unwrap();
            if number < 3 {
                let mut wrong = signature.as_ref().to_vec();
                wrong[number * 10] ^= 1;
                let wrong = with_signature(unsigned.clone(), &wrong);
                assert_eq!(refusal(&tokens, &wrong), TokenError::Signature);
                let short = with_signature(unsigned, &signature.as_ref()[1..]);
                assert_eq!(refusal(&tokens, &short), TokenError::Signature);
            }
        }
    }
}

#[test]
fn a_token_is_good_within_its_time() {
    let tokens = of_secret();
    for (claims, expected) in [
        (json!({"exp": in_seconds(60)}), None),
        (json!({"exp": in_seconds(-1)}), Some(TokenError::Expired)),
        (json!({"nbf": in_seconds(-1)}), None),
        (json!({"nbf": in_seconds(60)}), Some(TokenError::TooEarly)),
        (json!({}), None),
        (json!({"aud": "somebody", "iss": "somebody"}), None),
    ] {
        let token = signed(Algorithm::Hs256, &claims);
        assert_eq!(
            tokens.verify(Some(token.as_bytes())).err(),
            expected,
            "{claims}"
        );
    }
    let text = signed(Algorithm::Hs256, &json!({"exp": "tomorrow"}));
    assert!(matches!(
        refusal(&tokens, &text),
        TokenError::Malformed { .. }
    ));
}

#[test]
fn a_remembered_token_is_good_until_it_expires_and_no_longer() {
    let tokens = of_secret();
    let token = signed(Algorithm::Hs256, &json!({"exp": in_seconds(60)}));
    let at = |later: f64| tokens.verify_at(Some(token.as_bytes()), now() + later);
    assert!(at(0.0).is_ok());
    assert!(at(50.0).is_ok());
    assert_eq!(at(61.0), Err(TokenError::Expired));
}

#[test]
fn no_more_tokens_are_remembered_than_there_is_room_for() {
    let tokens = of_secret();
    for number in 0..REMEMBERED_MAX + 10 {
        let token = signed(Algorithm::Hs256, &json!({"jti": number}));
        tokens.verify(Some(token.as_bytes())).unwrap();
    }
    assert!(tokens.remembered.read().len() <= REMEMBERED_MAX);
}

#[test]
fn a_word_may_stand_before_a_token_and_without_one_nobody_comes_in() {
    let tokens = of_secret();
    let token = signed(Algorithm::Hs256, &json!({}));
    for header in [
        token.clone(),
        format!("Bearer {token}"),
        format!("bearer  {token} "),
    ] {
        assert!(tokens.verify(Some(header.as_bytes())).is_ok(), "{header}");
    }
    for header in [None, Some(&b""[..]), Some(b"Bearer "), Some(b"  ")] {
        assert_eq!(tokens.verify(header), Err(TokenError::Missing));
    }
    assert_eq!(
        TokenError::Missing.to_string(),
        "Error 421: authentication verification failed, the call has no token in its authorization metadata"
    );
}

#[test]
fn what_is_no_token_is_refused() {
    let tokens = of_secret();
    let good = signed(Algorithm::Hs256, &json!({}));
    let other_secret = {
        let unsigned = unsigned(&json!({"alg": "HS256"}), &json!({}));
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, b"x"),
            unsigned.as_bytes(),
        );
        with_signature(unsigned, tag.as_ref())
    };
    assert_eq!(refusal(&tokens, &other_secret), TokenError::Signature);
    let none = with_signature(unsigned(&json!({"alg": "none"}), &json!({})), b"");
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    for wrong in [
        "x".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        none,
        format!("{good}.x"),
        signed_with_header(&critical, Algorithm::Hs256, &json!({})),
        signed(Algorithm::Hs256, &json!([1])),
    ] {
        let refused = refusal(&tokens, &wrong);
        assert!(
            matches!(refused, TokenError::Malformed { .. }),
            "{wrong}: {refused}"
        );
        let beginning = "Error 421: authentication verification failed, the token cannot be read: ";
        assert!(refused.to_string().starts_with(beginning), "{refused}");
    }
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(
        refusal(&tokens, &long),
        TokenError::TooLong { bytes: 16_385 }
    );
}

#[test]
fn a_claim_may_be_what_says_who_the_client_is() {
    let named = AuthenticationConfig {
        client_claim: Some("client_id".to_owned()),
        ..config(Algorithm::Hs256, SECRET)
    };
    let tokens = Tokens::new(&named).unwrap();
    let token = signed(
        Algorithm::Hs256,
        &json!({"client_id": "app", "sub": "someone"}),
    );
    let claims = tokens.verify(Some(token.as_bytes())).unwrap();
    assert_eq!(claims.client.as_deref(), Some("app"));
    for unnamed in [json!({"sub": "someone"}), json!({"client_id": ""})] {
        let token = signed(Algorithm::Hs256, &unnamed);
        assert_eq!(
            refusal(&tokens, &token).to_string(),
            "Error 421: authentication verification failed, the token must name its client as client_id"
        );
    }
}

#[test]
fn a_key_that_does_not_go_with_its_algorithm_is_refused_at_the_start() {
    let curve = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for (algorithm, key, part) in [
        (Algorithm::Hs256, "", "the secret is empty"),
        (Algorithm::Rs256, "not PEM", "no PUBLIC KEY section"),
        (Algorithm::Es256, RSA_KEY, "of another kind"),
        (
            Algorithm::Rs384,
            SHORT_RSA_KEY,
            "the RSA key has 1024 bits, 2048 to 8192 are allowed",
        ),
        (Algorithm::Rs512, &curve.public_key_pem(), "of another kind"),
        (Algorithm::Es384, &curve.public_key_pem(), "of another kind"),
    ] {
        let error = Tokens::new(&config(algorithm, key.as_bytes()))
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(
            text.contains(part) && text.contains(algorithm.name()),
            "{text}"
        );
    }
}
