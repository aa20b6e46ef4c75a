//! The signatures of tokens, checked with the cryptography that TLS uses: one of them is enough.
//!
//! The library of tokens leaves that to a provider. This one knows no keys but secrets and public keys as they
//! are in `PUBLIC KEY` sections of PEM files, and cannot sign.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::hmac;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use webpki::ring as public;

use super::rsa_key;

/// To be installed before tokens are verified.
pub static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    // Only for sets of keys, which are not read here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// The public key in a PEM text, if it is one for this algorithm.
pub fn public_key(algorithm: Algorithm, pem: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|error| format!("no PUBLIC KEY section in PEM: {error}"))?;
    let scheme = Scheme::of(algorithm).ok_or("it does not go with a public key")?;
    let signature = match scheme {
        Scheme::Secret(_) => return Err("it does not go with a public key".to_owned()),
        Scheme::Rsa(algorithm) | Scheme::Curve(algorithm, _) => RawPublicKeyEntity::try_from(&key)
            .and_then(|key| key.verify_signature(algorithm, &[], &[])),
    };
    match signature {
        // The key is one that can say so.
        Ok(()) | Err(webpki::Error::InvalidSignatureForPublicKey) => {}
        Err(error) => return Err(format!("the public key is of another kind: {error}")),
    }
    if let Scheme::Rsa(_) = scheme {
        let (least, most) = (rsa_key::BITS_MIN, rsa_key::BITS_MAX);
        let bits = rsa_key::bits(&key).unwrap_or(0);
        if !(least..=most).contains(&bits) {
            return Err(format!(
                "the RSA key has {bits} bits, {least} to {most} are allowed"
            ));
        }
    }
    Ok(key.as_ref().to_vec())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let scheme =
        Scheme::of(*algorithm).ok_or_else(|| new_error(ErrorKind::UnsupportedAlgorithm))?;
    Ok(Box::new(Signature {
        algorithm: *algorithm,
        scheme,
        key: key.try_get_as_bytes()?.to_vec(),
    }))
}

/// How a signature is made.
enum Scheme {
    Secret(hmac::Algorithm),
    Rsa(&'static dyn SignatureVerificationAlgorithm),
    /// With the length of the two numbers that such a signature is, together.
    Curve(&'static dyn SignatureVerificationAlgorithm, usize),
}

impl Scheme {
    fn of(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::HS256 => Self::Secret(hmac::HMAC_SHA256),
            Algorithm::HS384 => Self::Secret(hmac::HMAC_SHA384),
            Algorithm::HS512 => Self::Secret(hmac::HMAC_SHA512),
            Algorithm::RS256 => Self::Rsa(public::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Self::Rsa(public::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Self::Rsa(public::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::ES256 => Self::Curve(public::ECDSA_P256_SHA256, 64),
            Algorithm::ES384 => Self::Curve(public::ECDSA_P384_SHA384, 96),
            _ => return None,
        })
    }
}

struct Signature {
    algorithm: Algorithm,
    scheme: Scheme,
    key: Vec<u8>,
}

impl JwtVerifier for Signature {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Signature {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), SignatureError> {
        match self.scheme {
            Scheme::Secret(algorithm) => {
                let key = hmac::Key::new(algorithm, &self.key);
                hmac::verify(&key, message, signature).map_err(|_| SignatureError::new())
            }
            Scheme::Rsa(algorithm) => self.verify_public(algorithm, message, signature),
            Scheme::Curve(_, bytes) if signature.len() != bytes => Err(SignatureError::new()),
            Scheme::Curve(algorithm, _) => {
                self.verify_public(algorithm, message, &two_numbers(signature))
            }
        }
    }
}

impl Signature {
    fn verify_public(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), SignatureError> {
        let key = SubjectPublicKeyInfoDer::from(self.key.as_slice());
        RawPublicKeyEntity::try_from(&key)
            .and_then(|key| key.verify_signature(algorithm, message, signature))
            .map_err(|_| SignatureError::new())
    }
}

/// Tokens have the two numbers of a curve's signature side by side; certificates, for which the verifier is
/// made, have them as a DER sequence of integers. Both are short enough for lengths of one byte.
fn two_numbers(signature: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let (first, second) = signature.split_at(signature.len() / 2);
    let numbers = [integer(first), integer(second)].concat();
    let mut der = vec![SEQUENCE, numbers.len() as u8];
    der.extend(numbers);
    der
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    const INTEGER: u8 = 0x02;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros..];
    // A leading zero says that the number is not negative.
    let padding = usize::from(digits.first().is_none_or(|first| *first >= 0x80));
    let mut der = vec![INTEGER, (padding + digits.len()) as u8];
    der.extend(std::iter::repeat_n(0, padding));
    der.extend(digits);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_integers_without_sign_and_without_leading_zeros() {
        assert_eq!(integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(integer(&[0x80, 1]), [2, 3, 0, 0x80, 1]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(two_numbers(&[0, 1, 0, 2]), [0x30, 6, 2, 1, 1, 2, 1, 2]);
    }
}
