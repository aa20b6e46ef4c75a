//! Whatever is sent as a token, and whatever is signed as one.

use proptest::prelude::*;
use serde_json::json;

use super::tests::{now, of_secret, signed, signed_with_header};
use super::*;
use crate::any_json::any_object;

const TEXT: &str = "Error 421: authentication verification failed, ";

fn is_text_of_the_protocol(refused: &TokenError) -> bool {
    refused.to_string().starts_with(TEXT)
}

proptest! {
    #[test]
    fn any_bytes_are_no_token(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        scheme in prop::sample::select(vec!["", "Bearer ", "bearer", "Basic ", "."]),
    ) {
        let header = [scheme.as_bytes(), &bytes].concat();
        let refused = of_secret().verify(Some(&header)).unwrap_err();
        prop_assert!(is_text_of_the_protocol(&refused), "{refused}");
    }

    #[test]
    fn a_token_is_good_as_it_was_signed_and_no_other_way(
        place in any::<prop::sample::Index>(),
        put in prop::collection::vec(any::<u8>(), 0..3),
        taken in 0..3usize,
    ) {
        let token = signed(Algorithm::Hs256, &json!({"sub": "reader"})).into_bytes();
        let place = place.index(token.len() + 1);
        let mut bent = token.clone();
        drop(bent.splice(place..(place + taken).min(token.len()), put));
        let is_the_same = token_of(&bent) == token;
        prop_assert_eq!(of_secret().verify(Some(&bent)).is_ok(), is_the_same);
    }

    #[test]
    fn what_a_token_says_counts_whatever_else_it_says(
        header in any_object(&["typ", "cty", "kid", "crit", "jku", "jwk", "x5c", "b64"]),
        algorithm in prop_oneof![
            4 => Just("HS256".to_owned()),
            1 => prop::sample::select(vec!["none", "None", "HS384", "RS256", "ES256", ""]).prop_map(str::to_owned),
            1 => ".{0,8}",
        ],
        claims in any_object(&["exp", "nbf", "sub", "aud", "iss", "iat", "jti"]),
    ) {
        let mut header = header;
        header["alg"] = algorithm.clone().into();
        let token = signed_with_header(&header, Algorithm::Hs256, &claims);
        match of_secret().verify(Some(token.as_bytes())) {
            Ok(said) => {
                prop_assert_eq!(algorithm, "HS256");
                let is_in = |claim: &str, bound: &dyn Fn(f64) -> bool| {
                    claims.get(claim).is_none_or(|at| at.as_f64().is_some_and(bound))
                };
                prop_assert!(is_in("exp", &|at| at > now() - 60.0));
                prop_assert!(is_in("nbf", &|at| at < now() + 60.0));
                let subject = claims.get("sub").and_then(Value::as_str);
                prop_assert_eq!(said.subject.as_deref(), subject.filter(|text| !text.is_empty()));
                prop_assert_eq!(said.client, None);
            }
            Err(refused) => prop_assert!(is_text_of_the_protocol(&refused), "{refused}"),
        }
    }
}
